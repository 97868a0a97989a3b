/**
 * Watching long work: what a stage of the pipeline tells about itself, and where it may be stopped.
 *
 * @module
 */

/** A stage that is under way; disposing of it ends it. */
export interface Stage extends Disposable {
  /**
   * Says how many steps are done.
   *
   * @param done Steps, those of an earlier run included. Fractions are fine.
   * @param share Part of this run's work that is done, 0 to 1, where steps cost differently.
   */
  update(done: number, share?: number): void;
}

/** The observer of a run: the command line shows what it is told, a notebook may ignore it. */
export interface Watch {
  /** Seconds by stage and by loading, filled by the stages. */
  readonly seconds: Record<string, number>;
  /** Warnings so far, filled by {@linkcode Watch.warn}. */
  readonly warnings: readonly string[];
  /** Whether the user wants to stop, so that the next {@linkcode Watch.pause} throws. */
  readonly interrupted: boolean;
  /** One line for a person. */
  say(line: string): void;
  /** One line on something that is allowed and probably not meant. */
  warn(line: string): void;
  /** One event for programs. */
  event(kind: string, values: Readonly<Record<string, unknown>>): void;
  /**
   * A stage begins.
   *
   * @param what What is being done, e.g. `encode`.
   * @param total Number of steps; 0 when it is not known.
   * @param unit What one step is, e.g. `frame`.
   * @param from Steps that an earlier run has done.
   */
  stage(what: string, total: number, unit: string, from?: number): Stage;
  /** Called between batches and frames: lets timers, signals and progress run, and throws when the user wants to stop. */
  pause(): Promise<void>;
}

/** An observer that keeps times and warnings and shows nothing; work lets timers run between its batches. */
export function unwatched(): Watch {
  const warnings: string[] = [];
  return {
    seconds: {},
    warnings,
    interrupted: false,
    say() {},
    warn: (line) => void warnings.push(line),
    event() {},
    stage: () => ({ update() {}, [Symbol.dispose]() {} }),
    pause: () => new Promise((resolve) => setTimeout(resolve)),
  };
}

/** Runs `body` and adds its time to {@linkcode Watch.seconds}. */
export async function timed<T>(watch: Watch, what: string, body: () => T | Promise<T>): Promise<T> {
  const start = performance.now();
  try {
    return await body();
  } finally {
    watch.seconds[what] = (watch.seconds[what] ?? 0) + (performance.now() - start) / 1000;
  }
}
