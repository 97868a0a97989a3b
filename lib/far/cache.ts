/**
 * The multi-level KV cache (paper, section 3.4): short-term frames in level L1, long-term frames in L2.
 *
 * Keys are cached after rotation; positions are absolute, so this equals the authors' caching before it. FAR (short)
 * only has an L1, which grows by one frame at a time. FAR-Long does so too until the short-term window is full. Then
 * every frame moves the oldest short-term frame to L2 (its tokens are recomputed with the large patch), and the window is
 * encoded anew, because its frames now see other tokens. The authors also leave the newest long-term frame out of L2 and
 * compute it again with the next frame; long-term frames are causal among themselves, so keeping it is the same.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { showing } from "../display/showing.ts";
import { type CacheLevels, levelsBundle } from "../display/tables.ts";
import { disposeAll, Tensor, unscoped } from "../tensor.ts";
import { type FarConfig, widthOf } from "./config.ts";
import { type CallPlan, longTermFrames, storeRows, tokensPerFrame } from "./layout.ts";
import type { FrameRange } from "./patchify.ts";

/**
 * The cpu device sums over keys in blocks that start at multiples of 96 rows. With clips and levels starting there too,
 * a frame's bits do not depend on how many clips or frames the cache was made for.
 */
const aligned = (rows: number): number => Math.ceil(rows / 96) * 96;

/** Keys (rotated) and values of every block, `[S, D]` each. */
export interface KeyStore {
  /** Keys of each block. */
  readonly k: readonly Tensor[];
  /** Values of each block. */
  readonly v: readonly Tensor[];
}

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

/** Keys and values of a roll-out, allocated once for all its frames; they live until it is disposed. */
export class KvCache {
  /** The memory; rows as in {@linkcode layoutOf}. */
  readonly store: KeyStore;
  readonly #config: FarConfig;
  readonly #size: CacheSize;
  /** Short-term frames in L1 that need not be computed again, and long-term frames in L2. */
  #l1Frames = 0;
  #l2Frames = 0;
  /** Frames whose keys and values are there, in both levels. */
  #frames = 0;

  /** Allocates the cache for every frame of a roll-out. */
  constructor(device: Device, config: FarConfig, size: CacheSize) {
    this.#config = config;
    this.#size = size;
    const shape = [storeRows(this.#plan(1, [0, 0], [0, 1])), widthOf(config)];
    const make = () => Array.from({ length: config.layers }, () => Tensor.empty(device, shape));
    this.store = unscoped(() => ({ k: make(), v: make() }));
  }

  #plan(frames: number, longTerm: FrameRange, shortTerm: FrameRange): CallPlan {
    const { clips, height, width, frames: total } = this.#size, config = this.#config;
    const tokens = tokensPerFrame(config, height, width);
    return {
      clips,
      height,
      width,
      longTerm,
      shortTerm,
      shortTermStart: longTermFrames(config, frames),
      longTermRows: aligned(longTermFrames(config, total) * tokens.longTerm),
      shortTermRows: aligned((config.long ? config.window : total) * tokens.shortTerm),
    };
  }

  /**
   * The first Euler step of a frame: what is not cached yet, and the noisy frame. `frames` counts the noisy one.
   * Afterwards every frame but the noisy one counts as cached.
   */
  cacheStep(frames: number): CallPlan {
    const start = longTermFrames(this.#config, frames);
    const plan = start === 0
      ? this.#plan(frames, [0, 0], [this.#l1Frames, frames])
      : this.#plan(frames, [this.#l2Frames, start], [start, frames]);
    this.#l1Frames = start === 0 ? frames - 1 : 0;
    this.#l2Frames = start;
    this.#frames = frames;
    return plan;
  }

  /** Every further step of that frame: the noisy frame alone, its keys overwriting those of the step before. */
  noisyStep(frames: number): CallPlan {
    return this.#plan(frames, [0, 0], [frames - 1, frames]);
  }

  /** Contents of the levels for each clip. A notebook shows it as a bar per frame. */
  get levels(): CacheLevels {
    const { height, width } = this.#size, tokens = tokensPerFrame(this.#config, height, width);
    return showing({
      longTerm: { frames: this.#l2Frames, tokens: tokens.longTerm },
      shortTerm: { frames: this.#frames - this.#l2Frames, tokens: tokens.shortTerm },
      bytes: [...this.store.k, ...this.store.v].reduce((sum, t) => sum + 4 * t.size, 0),
    }, levelsBundle);
  }

  /** Forgets every frame; {@linkcode cacheStep} then encodes all again. */
  clear(): void {
    this.#l1Frames = this.#l2Frames = this.#frames = 0;
  }

  /** Gives the memory back. */
  dispose(): void {
    disposeAll(this.store);
  }
}
