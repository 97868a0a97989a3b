/**
 * Blocks of the cpu device's memory: best fit, neighbours joined on free. A model keeps a few hundred blocks, so sorted
 * arrays and linear search cost less than a microsecond.
 *
 * @module
 */

/** Blocks start at multiples of this many bytes: a cache line. */
export const ALIGNMENT = 64;

/** The memory interface that the allocator needs. */
export interface Growable {
  /** Makes the memory at least `bytes` long; false if it cannot. */
  grow(bytes: number): boolean;
  /** Present length in bytes. */
  readonly length: number;
}

/** Hands out address ranges of a growing memory. */
export class Allocator {
  readonly #memory: Growable;
  /** Free ranges, ascending by address, never touching one another. */
  readonly #at: number[] = [];
  readonly #size: number[] = [];
  /** End of the memory that was ever handed out. */
  #top: number;

  /** @param first First address to hand out, a multiple of {@linkcode ALIGNMENT}. */
  constructor(memory: Growable, first: number) {
    this.#memory = memory;
    this.#top = first;
  }

  /** Bytes that a request really takes. */
  static rounded(bytes: number): number {
    return Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
  }

  /** Address of a block of at least `bytes` bytes, or -1 when the memory cannot hold it. */
  alloc(bytes: number): number {
    const size = Allocator.rounded(bytes);
    let best = -1;
    for (let i = 0; i < this.#at.length; i++) {
      if (this.#size[i] >= size && (best < 0 || this.#size[i] < this.#size[best])) {
        best = i;
        if (this.#size[i] === size) break;
      }
    }
    if (best >= 0) {
      const at = this.#at[best];
      if (this.#size[best] === size) {
        this.#at.splice(best, 1);
        this.#size.splice(best, 1);
      } else {
        this.#at[best] += size;
        this.#size[best] -= size;
      }
      return at;
    }
    // A free range at the top is taken along.
    const last = this.#at.length - 1;
    const open = last >= 0 && this.#at[last] + this.#size[last] === this.#top;
    const at = open ? this.#at[last] : this.#top;
    if (at + size > this.#memory.length && !this.#memory.grow(at + size)) return -1;
    if (open) {
      this.#at.pop();
      this.#size.pop();
    }
    this.#top = at + size;
    return at;
  }

  /** Takes a block back. `bytes` is what was asked for. */
  free(at: number, bytes: number): void {
    let size = Allocator.rounded(bytes);
    let low = 0, high = this.#at.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#at[middle] < at) low = middle + 1;
      else high = middle;
    }
    let first = at;
    let replaced = 0;
    if (low < this.#at.length && this.#at[low] === at + size) {
      size += this.#size[low];
      replaced++;
    }
    if (low > 0 && this.#at[low - 1] + this.#size[low - 1] === at) {
      low--;
      first = this.#at[low];
      size += this.#size[low];
      replaced++;
    }
    this.#at.splice(low, replaced, first);
    this.#size.splice(low, replaced, size);
  }

  /** Largest block that could still be handed out without growing beyond `limit` bytes. */
  largest(limit: number): number {
    const last = this.#at.length - 1;
    const open = last >= 0 && this.#at[last] + this.#size[last] === this.#top;
    return Math.max(0, limit - (open ? this.#at[last] : this.#top), ...this.#size);
  }
}
