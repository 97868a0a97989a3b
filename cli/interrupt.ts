/**
 * Ctrl-C: the first one asks the work to stop at a good place, the second one ends the process.
 *
 * @module
 */

/** Listens for SIGINT and SIGTERM while long work runs. */
export class InterruptListener implements Disposable {
  #signal: "SIGINT" | "SIGTERM" | null = null;
  readonly #onInterrupt = () => this.#hear("SIGINT");
  readonly #onTerminate = () => this.#hear("SIGTERM");
  readonly #say: (line: string) => void;

  /** @param say Tells the user what happens next. @param next What that is. */
  constructor(say: (line: string) => void, readonly next: string) {
    this.#say = say;
    Deno.addSignalListener("SIGINT", this.#onInterrupt);
    if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", this.#onTerminate);
  }

  /** The signal that came, or null. */
  get signal(): "SIGINT" | "SIGTERM" | null {
    return this.#signal;
  }

  #hear(signal: "SIGINT" | "SIGTERM"): void {
    if (this.#signal !== null) Deno.exit(this.#signal === "SIGINT" ? 130 : 143);
    this.#signal = signal;
    this.#say(`${this.next}; once more ends at once`);
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    Deno.removeSignalListener("SIGINT", this.#onInterrupt);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGTERM", this.#onTerminate);
  }
}
