/** What we use of `cli-progress`. */

/** A bar on one line of a terminal. */
export class SingleBar {
  constructor(options: {
    format:
      | string
      | ((
        options: unknown,
        params: { readonly progress: number; readonly value: number; readonly total: number },
        payload: Record<string, string>,
      ) => string);
    hideCursor?: boolean;
    clearOnComplete?: boolean;
    etaBuffer?: number;
    gracefulExit?: boolean;
    // deno-lint-ignore no-explicit-any -- a Node stream
    stream?: any;
    barCompleteChar?: string;
    barIncompleteChar?: string;
    barsize?: number;
    fps?: number;
  });
  start(total: number, start: number, payload?: Record<string, string>): void;
  setTotal(total: number): void;
  update(value: number, payload?: Record<string, string>): void;
  stop(): void;
}

declare const progress: { SingleBar: typeof SingleBar };
export default progress;
