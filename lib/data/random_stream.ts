/**
 * Random numbers drawn one after the other from a counter-based stream. The state of a stream is one number, its position,
 * so it can be saved and resumed.
 *
 * @module
 */
import { type Key, uniform } from "../random.ts";

const BLOCK = 256;

/** A random stream with a position. */
export class RandomStream {
  /** The stream. */
  readonly key: Key;
  /** Numbers drawn so far. */
  position: number;
  #block: Float64Array = new Float64Array(0);
  #first = 0;

  /**
   * A stream from a position on.
   *
   * @param key The stream, from `streamOf`.
   * @param position Numbers that were drawn before.
   */
  constructor(key: Key, position = 0) {
    this.key = key;
    this.position = position;
  }

  /** The next number, uniform in [0, 1) with 32 random bits. */
  next(): number {
    const at = this.position - this.#first;
    if (at < 0 || at >= this.#block.length) {
      this.#first = this.position - this.position % BLOCK;
      this.#block = uniform(this.key, BLOCK, this.#first);
    }
    return this.#block[this.position++ - this.#first];
  }

  /** An integer from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** The items in random order (Fisher-Yates). */
  shuffled<T>(items: readonly T[]): T[] {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
}

/**
 * A permutation of 0 to `count` - 1.
 *
 * @param key The stream that decides it.
 * @param count Number of items.
 */
export function permutation(key: Key, count: number): Uint32Array {
  const numbers = uniform(key, count);
  const out = new Uint32Array(count).map((_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(numbers[i] * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}
