/**
 * Endless walks with grid steps, whose latents cost nothing: a world has few poses, so each is encoded once, and fresh walks
 * are drawn through the table.
 *
 * @module
 */
import { streamOf } from "../random.ts";
import { makeFrames } from "../io/frames.ts";
import type { Clip, ClipRange, DataSet } from "./clip.ts";
import { latentsAbout, latentSet } from "./latents.ts";
import { RandomStream } from "./random_stream.ts";
import { gridNumber, gridPoses } from "./world/pose.ts";
import { MAZE_CELLS } from "./world/scene.ts";
import { type Split, walk, worldMaze, worldNumber, type WorldOptions, worldPlaces } from "./world/world.ts";

/** Choice of worlds. */
export interface PlacesOptions extends Pick<WorldOptions, "size" | "cells"> {
  /** Family of worlds; 0 unless given. */
  readonly seed?: number;
  /** Part of the data set. */
  readonly split: Split;
}

const worldsName = ({ seed = 0, split, size = 64, cells = [MAZE_CELLS, MAZE_CELLS] }: PlacesOptions) =>
  `places of ${split} worlds of ${cells.join("x")} cells, seed ${seed}, ${size}x${size}`;

/**
 * All poses of the worlds that grid steps walk through: clip i has each pose of world i once, cell by cell, east, south, west
 * and north. Encoded, this is what {@linkcode walkSet} draws from.
 *
 * @param options Which worlds, and how many.
 * @throws {RangeError} If a number is out of range.
 *
 * @example
 * ```ts
 * import { placesSet } from "./walk_set.ts";
 * const { frames } = await placesSet({ split: "train", worlds: 5, cells: [3, 3] }).read(4);
 * console.assert(frames?.frames === 3 * 3 * 4);
 * ```
 */
export function placesSet(options: PlacesOptions & { readonly worlds: number }): DataSet {
  const { seed = 0, split, size = 64, cells, worlds } = options;
  const source = (index: number) => `grid ${split} seed ${seed} world ${index}`;
  const count = gridPoses(worldMaze({ seed, split, index: 0, cells }));
  const read = (index: number, range: ClipRange = { start: 0, interval: 1, count }): Clip => {
    checkIndex("places", index, worlds);
    const { frames, poses } = worldPlaces({ seed, split, index, size, cells }), bytes = size * size * 3;
    const { start, interval, count } = range, taken = makeFrames(count, size, size);
    const takenPoses = new Int32Array(3 * count);
    for (let i = 0; i < count; i++) {
      const at = start + i * interval;
      taken.data.set(frames.subarray(at * bytes, (at + 1) * bytes), i * bytes);
      takenPoses.set(poses.subarray(3 * at, 3 * at + 3), 3 * i);
    }
    return { frames: taken, poses: takenPoses, source: source(index) };
  };
  return {
    name: worldsName(options),
    length: worlds,
    holds: "frames",
    actions: false,
    rule: { short: "refuse" },
    fit: { resolution: size, crop: false },
    source,
    files: () => [],
    frames: () => Promise.resolve(count),
    read: (index, range) => Promise.try(read, index, range),
  };
}

function checkIndex(who: string, index: number, length: number): void {
  if (!Number.isSafeInteger(index) || index < 0 || index >= length) {
    throw new RangeError(`${who}: expected a clip from 0 to ${length - 1}, found ${index}`);
  }
}

/** Choice of walks through the worlds of a folder. */
export interface WalkSetOptions extends PlacesOptions {
  /** Latents of a {@linkcode placesSet} with the same seed, split and cells. */
  readonly folder: string;
  /** Number of walks; {@linkcode WALKS} unless given. */
  readonly walks?: number;
  /** Number of the first walk; 0 unless given. */
  readonly first?: number;
  /** Frames of a walk; 300 unless given. */
  readonly frames?: number;
  /** Roll-outs of such walks (`far.ts rollout`): every second clip is one of them, over and over. */
  readonly rollouts?: string;
}

/** Walks of a set unless told otherwise: more than any training here sees, few enough to shuffle. */
export const WALKS = 2 ** 17;

/**
 * Walks with grid steps as latents. Walk number i goes through world i modulo the number of worlds, on a way of its own.
 *
 * @param options Which.
 * @throws {RangeError} If the folder holds something else than all poses of these worlds: what was found.
 * @throws {FileFormatError} If a file is damaged.
 */
export function walkSet(options: WalkSetOptions): DataSet {
  const { seed = 0, split, cells, folder, walks = WALKS, first = 0, frames = 300 } = options;
  const places = latentSet(folder), { data } = latentsAbout(folder), expected = worldsName(options);
  if (data !== expected) {
    throw new RangeError(`${folder}: expected latents of ${expected}, found ${data ?? "others"}`);
  }
  const made = options.rollouts === undefined ? null : latentSet(options.rollouts);
  /** The roll-out that a clip is, or -1 for a fresh walk. */
  const rolledOut = (index: number) => made && index % 2 === 1 ? (index - 1) / 2 % made.length : -1;
  const source = (index: number) =>
    rolledOut(index) < 0
      ? `grid ${split} seed ${seed} walk ${first + index} through ${folder}`
      : made!.source(rolledOut(index));
  const read = async (
    index: number,
    range: ClipRange = { start: 0, interval: 1, count: frames },
  ): Promise<Clip> => {
    checkIndex("walks", index, walks);
    if (rolledOut(index) >= 0) return await made!.read(rolledOut(index), range);
    const number = first + index, world = number % places.length, { start, interval, count } = range;
    if (start + (count - 1) * interval >= frames) {
      throw new RangeError(
        `${source(index)}: has ${frames} frames, expected at least ${start + (count - 1) * interval + 1}`,
      );
    }
    const maze = worldMaze({ seed, split, index: world, cells });
    const { latents: table } = await places.read(world), [, C, H, W] = table!.shape, per = C * H * W;
    const draws = new RandomStream(
      streamOf(worldNumber(split, world), `world ${seed} walk ${Math.floor(number / places.length)}`),
    );
    const data = new Float32Array(count * per), actions = new Int32Array(count);
    const poses = new Int32Array(3 * count);
    for (const { index: frame, action, pose } of walk(maze, draws, "grid")) {
      if (frame < start || (frame - start) % interval !== 0) continue;
      const at = (frame - start) / interval, place = gridNumber(maze, pose);
      data.set(table!.data.subarray(place * per, (place + 1) * per), at * per);
      actions[at] = action;
      poses.set([pose.x, pose.y, pose.heading], 3 * at);
      if (at === count - 1) break;
    }
    return { latents: { shape: [count, C, H, W], data }, actions, poses, source: source(index) };
  };
  return {
    name: `walks through ${folder}${made ? ` and roll-outs ${options.rollouts}` : ""}`,
    length: walks,
    holds: "latents",
    actions: true,
    ...(made ? { rollouts: made.rollouts } : {}),
    rule: { short: "refuse" },
    fit: { crop: false },
    source,
    files: (index) =>
      rolledOut(index) < 0 ? places.files((first + index) % places.length) : made!.files(rolledOut(index)),
    frames: (index) => rolledOut(index) < 0 ? Promise.resolve(frames) : made!.frames(rolledOut(index)),
    read,
  };
}
