/**
 * The multi-level KV cache (paper, section 3.4): distant frames in L2, the short-term window in L1.
 *
 * Keys are cached after rotation; positions are absolute, so this equals the authors' caching before it. FAR (short)
 * only has an L1, which grows by a frame at a time. FAR-Long does so too until the window is full. Then every frame
 * hands the oldest window frame over to L2 (its tokens are recomputed with the large patch), and the window is encoded
 * anew, because its frames now see other tokens. The authors also leave the newest distant frame out of L2 and compute
 * it again with the next frame; distant frames are causal among themselves, so keeping it is the same.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { FarConfig } from "./config.ts";
import { type CallPlan, storeRows, tokensPerFrame } from "./layout.ts";
import { freeKeyStore, type KeyStore, makeKeyStore } from "./transformer.ts";

/**
 * The cpu device sums over keys in blocks that start at multiples of 96 rows. With clips and levels starting there too,
 * a frame's bits do not depend on how many clips or frames the cache was made for.
 */
const aligned = (rows: number): number => Math.ceil(rows / 96) * 96;

/** Sizes of a {@linkcode KvCache}. */
export interface CacheSize {
  /** Clips B (doubled under guidance). */
  readonly clips: number;
  /** Latent height H. */
  readonly height: number;
  /** Latent width W. */
  readonly width: number;
  /** All frames that will ever be in it, context and predicted. */
  readonly frames: number;
}

/** Keys and values of a roll-out, allocated once for all its frames. */
export class KvCache {
  /** The memory; rows as in {@linkcode layoutOf}. */
  readonly store: KeyStore;
  readonly #config: FarConfig;
  readonly #size: CacheSize;
  /** Distant frames in L2, and window slots in L1 that need not be computed again. */
  #l2Frames = 0;
  #l1Frames = 0;

  /** Allocates the cache for every frame of a roll-out. */
  constructor(device: Device, config: FarConfig, size: CacheSize) {
    this.#config = config;
    this.#size = size;
    this.store = makeKeyStore(device, config, storeRows(this.#plan(1, [0, 0], [0, 1])));
  }

  #windowStart(frames: number): number {
    return this.#config.long ? Math.max(0, frames - this.#config.window) : 0;
  }

  #plan(frames: number, context: readonly [number, number], window: readonly [number, number]): CallPlan {
    const { clips, height, width, frames: total } = this.#size;
    const { near, distant } = tokensPerFrame(this.#config, height, width);
    return {
      clips,
      height,
      width,
      context,
      window,
      windowStart: this.#windowStart(frames),
      l2Rows: aligned(this.#windowStart(total) * distant),
      l1Rows: aligned((this.#config.long ? this.#config.window : total) * near),
    };
  }

  /**
   * The first denoising step of a frame: what is not cached yet, and the noisy frame. `frames` counts the noisy one.
   * Afterwards every frame but the noisy one counts as cached.
   */
  cacheStep(frames: number): CallPlan {
    const start = this.#windowStart(frames);
    const plan = start === 0
      ? this.#plan(frames, [0, 0], [this.#l1Frames, frames])
      : this.#plan(frames, [this.#l2Frames, start], [start, frames]);
    this.#l1Frames = start === 0 ? frames - 1 : 0;
    this.#l2Frames = start;
    return plan;
  }

  /** Every further step of that frame: the noisy frame alone, its keys overwriting those of the step before. */
  noisyStep(frames: number): CallPlan {
    return this.#plan(frames, [0, 0], [frames - 1, frames]);
  }

  /** Gives the memory back. */
  dispose(): void {
    freeKeyStore(this.store);
  }
}
