/**
 * Checks and statistics of a data set: broken files found before a run finds them, and its size in numbers.
 *
 * @module
 */
import { FileFormatError } from "../io/errors.ts";
import type { Clip, DataSet } from "./clip.ts";
import { ReturnCount, type ReturnOptions, type Returns } from "./world/returns.ts";

/** A clip that cannot be used. */
export interface Problem {
  /** Number of the clip. */
  readonly index: number;
  /** File and reason, in one line. */
  readonly message: string;
}

/** Statistics of the clips of a data set. */
export interface SetStats {
  /** Clips looked at. */
  readonly clips: number;
  /** Clips that the set has. */
  readonly of: number;
  /** Frames of the shortest clip, of all together, and of the longest. */
  readonly frames: { readonly least: number; readonly all: number; readonly most: number };
  /** Sizes and how many clips have them: `240x320`, or `32x8x8` for latents. */
  readonly sizes: Readonly<Record<string, number>>;
  /** Frames of each action. */
  readonly actions?: Readonly<Record<string, number>>;
  /** Clips of each class. */
  readonly labels?: Readonly<Record<string, number>>;
  /** Mean of each channel, of frames from 0 to 1. */
  readonly mean: readonly number[];
  /** Standard deviation of each channel. */
  readonly deviation: readonly number[];
  /** How much walks through the built-in world return, where some are longer than the context. */
  readonly returns?: Returns;
}

/** Faults of a clip that decodes. */
function checkClip(set: DataSet, clip: Clip, frames: number): void {
  const fail = (detail: string): never => {
    throw new FileFormatError(clip.source, detail);
  };
  const found = clip.frames?.frames ?? clip.latents?.shape[0] ?? 0;
  if (found !== frames) fail(`expected ${frames} frames, found ${found}`);
  if (found === 0) fail("expected frames, found none");
  if (set.actions && clip.actions?.length !== frames) {
    fail(`expected ${frames} actions, one a frame, found ${clip.actions?.length ?? "none"}`);
  }
  const negative = clip.actions?.find((action) => action < 0);
  if (negative !== undefined) fail(`expected actions from 0 on, found ${negative}`);
  if (set.classes !== undefined && !(clip.label! >= 0 && clip.label! < set.classes)) {
    fail(`expected a class from 0 to ${set.classes - 1}, found ${clip.label}`);
  }
  const bad = clip.latents?.data.findIndex((value) => !Number.isFinite(value)) ?? -1;
  if (bad >= 0) fail(`latent ${bad} is ${clip.latents!.data[bad]}, expected a finite number`);
  const { resolution, crop } = set.fit,
    { height, width } = clip.frames ?? { height: resolution, width: resolution };
  if (resolution !== undefined && !crop && (height !== resolution || width !== resolution)) {
    fail(`expected frames of ${resolution}x${resolution}, found ${height}x${width}`);
  }
}

/** Reads one clip in full. */
async function readWhole(set: DataSet, index: number): Promise<Clip> {
  // In this order a video is decoded once: reading all of it counts its frames as well.
  const clip = await set.read(index), frames = await set.frames(index);
  checkClip(set, clip, frames);
  return clip;
}

/**
 * Reads every clip in full, as training would, and collects what is wrong.
 *
 * @param set The data set.
 * @param onClip Told how many clips are done.
 * @param parallel Clips read at a time; 2 unless given.
 * @returns The clips that cannot be used, in order; empty if all can.
 */
export async function checkSet(
  set: DataSet,
  onClip: (done: number) => void = () => {},
  parallel = 2,
): Promise<Problem[]> {
  const problems: Problem[] = [];
  let next = 0, done = 0;
  const work = async () => {
    while (next < set.length) {
      const index = next++;
      try {
        await readWhole(set, index);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        problems.push({
          index,
          message: message.includes(set.source(index)) ? message : `${set.source(index)}: ${message}`,
        });
      }
      onClip(++done);
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  return problems.sort((a, b) => a.index - b.index);
}

const plusOne = (counts: Record<string, number>, key: string | number) =>
  counts[key] = (counts[key] ?? 0) + 1;

/**
 * Counts what clips hold.
 *
 * @param set The data set.
 * @param clips At most so many clips, evenly spread over the set; all when absent.
 * @param onClip Told how many clips are done.
 * @param returns Context of the walks whose returns are counted; none are unless given.
 * @throws {FileFormatError} If a clip is broken.
 */
export async function statsOf(
  set: DataSet,
  clips: number = set.length,
  onClip: (done: number) => void = () => {},
  returns?: ReturnOptions,
): Promise<SetStats> {
  const count = Math.min(clips, set.length), frames = { least: Infinity, all: 0, most: 0 };
  const sizes: Record<string, number> = {},
    actions: Record<string, number> = {},
    labels: Record<string, number> = {};
  const sums: number[] = [], squares: number[] = [];
  const returning = returns && new ReturnCount(returns);
  let values = 0;
  const add = (channel: number, sum: number, square: number) => {
    sums[channel] = (sums[channel] ?? 0) + sum;
    squares[channel] = (squares[channel] ?? 0) + square;
  };
  for (let i = 0; i < count; i++) {
    const clip = await readWhole(set, Math.floor(i * set.length / count));
    const total = clip.frames?.frames ?? clip.latents!.shape[0];
    frames.least = Math.min(frames.least, total);
    frames.most = Math.max(frames.most, total);
    frames.all += total;
    if (clip.frames) {
      const { height, width, data } = clip.frames;
      plusOne(sizes, `${height}x${width}`);
      const histogram = [0, 1, 2].map(() => new Float64Array(256));
      for (let at = 0; at < data.length; at++) histogram[at % 3][data[at]]++;
      histogram.forEach((counts, c) => {
        const mean = (power: (v: number) => number) =>
          counts.reduce((sum, n, v) => sum + n * power(v / 255), 0);
        add(c, mean((v) => v), mean((v) => v * v));
      });
      values += total * height * width;
    } else {
      const { shape: [F, C, H, W], data } = clip.latents!, plane = H * W;
      plusOne(sizes, `${C}x${H}x${W}`);
      for (let at = 0; at < F * C; at++) {
        const part = data.subarray(at * plane, (at + 1) * plane);
        add(at % C, part.reduce((a, b) => a + b, 0), part.reduce((a, b) => a + b * b, 0));
      }
      values += F * plane;
    }
    if (clip.frames && clip.poses && set.actions) {
      returning?.add({ frames: clip.frames.data, poses: clip.poses });
    }
    clip.actions?.forEach((action) => plusOne(actions, action));
    if (clip.label !== undefined) plusOne(labels, clip.label);
    onClip(i + 1);
  }
  const mean = sums.map((sum) => sum / values), returned = returning?.result;
  return {
    clips: count,
    of: set.length,
    frames,
    sizes,
    ...(set.actions ? { actions } : {}),
    ...(set.classes === undefined ? {} : { labels }),
    mean,
    deviation: squares.map((sum, c) => Math.sqrt(Math.max(0, sum / values - mean[c] * mean[c]))),
    ...(returned ? { returns: returned } : {}),
  };
}
