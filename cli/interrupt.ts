/**
 * Ctrl-C: the first one asks the work to stop at a good place, the second one ends the process. The system's request to
 * stop and the end of the terminal count as Ctrl-C.
 *
 * @module
 */

/** A signal that asks the program to stop, with the exit code that follows: 128 plus its number. */
export const STOP_SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** One of {@linkcode STOP_SIGNALS}. */
export type StopSignal = keyof typeof STOP_SIGNALS;

const KNOWN: readonly StopSignal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];

/** Listens for signals that ask to stop while long work runs. */
export class InterruptListener implements Disposable {
  #signal: StopSignal | null = null;
  readonly #heard = Promise.withResolvers<StopSignal>();
  readonly #listeners = KNOWN.map((signal) => [signal, () => this.#hear(signal)] as const);
  readonly #say: (line: string) => void;

  /** @param say Tells the user what happens next. @param next What that is. */
  constructor(say: (line: string) => void, readonly next: string) {
    this.#say = say;
    for (const [signal, listener] of this.#listeners) Deno.addSignalListener(signal, listener);
  }

  /** The signal that came, or null. */
  get signal(): StopSignal | null {
    return this.#signal;
  }

  /** The signal, once it comes. */
  get heard(): Promise<StopSignal> {
    return this.#heard.promise;
  }

  #hear(signal: StopSignal): void {
    if (this.#signal !== null) Deno.exit(STOP_SIGNALS[this.#signal]);
    this.#signal = signal;
    this.#heard.resolve(signal);
    this.#say(`${this.next}; once more ends at once`);
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    for (const [signal, listener] of this.#listeners) Deno.removeSignalListener(signal, listener);
  }
}
