/**
 * The built-in world as a data set: clips come straight from the generator, nothing is stored.
 *
 * @module
 */
import { makeFrames } from "../io/frames.ts";
import type { Clip, ClipRange, DataSet } from "./clip.ts";
import { type Split, worldClip, type WorldOptions } from "./world/world.ts";

/** Which walks make up the set. */
export interface WorldSetOptions extends Pick<WorldOptions, "size" | "cells"> {
  /** Family of walks; 0 unless given. */
  readonly seed?: number;
  /** Part of the data set. */
  readonly split: Split;
  /** Number of clips; for training 40,000 (as many as DMLab has) unless given, else 256. */
  readonly clips?: number;
  /** Frames of a clip; 300 unless given. */
  readonly frames?: number;
}

/**
 * Walks through the built-in world, in the order of their indices.
 *
 * @param options Which.
 * @throws {RangeError} If a number is out of range.
 *
 * @example
 * ```ts
 * import { worldSet } from "./world_set.ts";
 * const set = worldSet({ split: "train", frames: 20 });
 * const clip = await set.read(5);
 * console.assert(clip.frames?.frames === 20 && clip.actions?.length === 20);
 * ```
 */
export function worldSet(options: WorldSetOptions): DataSet {
  const { seed = 0, split, size = 64, cells, frames = 300 } = options;
  const length = options.clips ?? (split === "train" ? 40_000 : 256);
  if (!Number.isSafeInteger(length) || length < 1) {
    throw new RangeError(`world: clips must be a whole number of at least 1, found ${length}`);
  }
  const source = (index: number) => `world ${split} seed ${seed} walk ${index}`;
  const read = (index: number, range: ClipRange = { start: 0, interval: 1, count: frames }): Clip => {
    if (!Number.isSafeInteger(index) || index < 0 || index >= length) {
      throw new RangeError(`world: expected a clip from 0 to ${length - 1}, found ${index}`);
    }
    const last = range.start + (range.count - 1) * range.interval;
    if (last >= frames) {
      throw new RangeError(`${source(index)}: has ${frames} frames, expected at least ${last + 1}`);
    }
    const { start, interval, count } = range;
    const walk = worldClip({ seed, split, index, size, cells, frames: count, start, interval });
    return {
      frames: makeFrames(count, size, size, walk.frames),
      actions: walk.actions,
      poses: walk.poses,
      source: source(index),
    };
  };
  return {
    name: `world ${split} seed ${seed} ${size}x${size}`,
    length,
    holds: "frames",
    actions: true,
    rule: { short: "refuse" },
    fit: { resolution: size, crop: false },
    source,
    files: () => [],
    frames: () => Promise.resolve(frames),
    read: (index, range) => Promise.try(read, index, range),
  };
}
