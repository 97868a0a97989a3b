/**
 * The built-in world as a data set: clips come straight from the generator, nothing is stored.
 *
 * @module
 */
import { makeFrames } from "../io/frames.ts";
import type { Clip, ClipRange, DataSet } from "./clip.ts";
import type { Steps } from "./world/pose.ts";
import { type Split, worldClip, type WorldOptions } from "./world/world.ts";

/** Names of the kinds of walks: clips are `world:3` and `grid:3`, data sets `world` and `grid`. */
export const WORLDS: Readonly<Record<Steps, string>> = { smooth: "world", grid: "grid" };

/** The steps of a kind of walks, or undefined if there is no such kind. */
export const stepsOf = (kind: string): Steps | undefined =>
  (Object.keys(WORLDS) as Steps[]).find((steps) => WORLDS[steps] === kind);

/** Choice of the walks in the set. */
export interface WorldSetOptions extends Pick<WorldOptions, "size" | "cells" | "steps"> {
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
  const { seed = 0, split, size = 64, cells, steps = "smooth", frames = 300 } = options;
  const kind = WORLDS[steps];
  const length = options.clips ?? (split === "train" ? 40_000 : 256);
  if (!Number.isSafeInteger(length) || length < 1) {
    throw new RangeError(`world: clips must be a whole number of at least 1, found ${length}`);
  }
  const source = (index: number) => `${kind} ${split} seed ${seed} walk ${index}`;
  const read = (index: number, range: ClipRange = { start: 0, interval: 1, count: frames }): Clip => {
    if (!Number.isSafeInteger(index) || index < 0 || index >= length) {
      throw new RangeError(`world: expected a clip from 0 to ${length - 1}, found ${index}`);
    }
    const last = range.start + (range.count - 1) * range.interval;
    if (last >= frames) {
      throw new RangeError(`${source(index)}: has ${frames} frames, expected at least ${last + 1}`);
    }
    const { start, interval, count } = range;
    const walk = worldClip({ seed, split, index, size, cells, steps, frames: count, start, interval });
    return {
      frames: makeFrames(count, size, size, walk.frames),
      actions: walk.actions,
      poses: walk.poses,
      source: source(index),
    };
  };
  return {
    name: `${kind} ${split} seed ${seed} ${size}x${size}`,
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
