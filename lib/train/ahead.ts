/**
 * What training loops share: batches prepared while the device works, and room for other work.
 *
 * @module
 */

/** Lets timers, signals and other work in: the cpu device computes in this thread. */
export const tick = (): Promise<void> => new Promise((done) => setTimeout(done, 0));

/** Prepares one batch ahead. Positions may be asked for in any order; in order they are ready early. */
export class Ahead<T> {
  readonly #prepare: (position: number) => Promise<T>;
  #next: { readonly position: number; readonly batch: Promise<T> } | null = null;

  /** @param prepare Gives the batch at a position. */
  constructor(prepare: (position: number) => Promise<T>) {
    this.#prepare = prepare;
  }

  /** Starts preparing the batch at a position. */
  start(position: number): void {
    const batch = this.#prepare(position);
    batch.catch(() => {}); // whoever takes it gets the error
    this.#next = { position, batch };
  }

  /**
   * The batch at a position.
   *
   * @param more Start the one behind it too.
   */
  take(position: number, more = false): Promise<T> {
    const batch = this.#next?.position === position ? this.#next.batch : this.#prepare(position);
    this.#next = null;
    if (more) this.start(position + 1);
    return batch;
  }
}
