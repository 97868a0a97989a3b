/**
 * Prefetching for training loops, and room for other work.
 *
 * @module
 */

/** Lets timers, signals and other work run: the cpu device computes on this thread. */
export const tick = (): Promise<void> => new Promise((done) => setTimeout(done, 0));

/** Prepares one batch ahead. Positions may be asked for in any order; in ascending order the next one is ready early. */
export class Prefetch<T> {
  readonly #prepare: (position: number) => Promise<T>;
  #next: { readonly position: number; readonly batch: Promise<T> } | null = null;

  /** @param prepare Returns the batch at a position. */
  constructor(prepare: (position: number) => Promise<T>) {
    this.#prepare = prepare;
  }

  /** Starts preparing the batch at a position. */
  start(position: number): void {
    const batch = this.#prepare(position);
    batch.catch(() => {}); // `take` reports the error
    this.#next = { position, batch };
  }

  /**
   * Returns the batch at a position.
   *
   * @param more Whether to start preparing the batch after it too.
   */
  take(position: number, more = false): Promise<T> {
    const batch = this.#next?.position === position ? this.#next.batch : this.#prepare(position);
    this.#next = null;
    if (more) this.start(position + 1);
    return batch;
  }
}
