/**
 * One kind of clip for every data set, and what a data set must offer.
 *
 * @module
 */
import type { Frames } from "../io/frames.ts";
import type { RandomStream } from "./random_stream.ts";

/** Latents of a clip, as the autoencoder gives them: not multiplied by its scaling factor. */
export interface Latents {
  /** Frames, channels, rows, columns: `[F, C, H, W]`. */
  readonly shape: readonly [frames: number, channels: number, height: number, width: number];
  /** Row-major elements. */
  readonly data: Float32Array;
  /** A roll-out: what a model made of the clip after some true frames, in the same shape. */
  readonly history?: Float32Array;
}

/** Frames or latents of a video, with what is known about them. */
export interface Clip {
  /** 8-bit frames; absent where there are latents. */
  readonly frames?: Frames;
  /** Latents; absent where there are frames. */
  readonly latents?: Latents;
  /** One action per frame, `[F]`. */
  readonly actions?: Int32Array;
  /** Class of the clip. */
  readonly label?: number;
  /** The file, or the name of the generated walk. */
  readonly source: string;
  /** Camera poses of a walk through the built-in world, `[F, 3]`. */
  readonly poses?: Int32Array;
}

/** Frames of a clip to read: `start`, `start + interval`, and so on. */
export interface ClipRange {
  /** First frame. */
  readonly start: number;
  /** Frames from one to the next. */
  readonly interval: number;
  /** Number of frames. */
  readonly count: number;
}

/** How a data set treats clips that are too short, and where validation starts. The rules are those of the authors' readers. */
export interface FrameRule {
  /** `pad`: take consecutive frames, and black ones behind the end. `refuse`: an error in training. */
  readonly short: "pad" | "refuse";
  /** Validation ignores the interval and takes consecutive frames (BAIR). */
  readonly consecutiveValidation?: boolean;
}

/** Transformation of frames to the wanted size. */
export interface FrameFit {
  /** Rows and columns of the result; frames keep their own size when absent. */
  readonly resolution?: number;
  /** Training cuts the longer side at random, validation in the middle. Without it frames must have the size already. */
  readonly crop: boolean;
}

/** A set of clips. Clip i is the same at every call. */
export interface DataSet {
  /** Name for messages, e.g. `DMLab datasets/dmlab/dmlab_train.json`. */
  readonly name: string;
  /** Number of clips. */
  readonly length: number;
  /** Contents of clips. */
  readonly holds: "frames" | "latents";
  /** Whether every clip has actions. */
  readonly actions: boolean;
  /** Number of classes, where clips have labels. */
  readonly classes?: number;
  /** Number of clips whose latents come with a roll-out. */
  readonly rollouts?: number;
  /** Treatment of short clips. */
  readonly rule: FrameRule;
  /** Transformation of frames to the wanted size. */
  readonly fit: FrameFit;
  /** The file of a clip, or the name of a generated one. */
  source(index: number): string;
  /** Files that a clip is read from, actions beside it included; a folder stands for the files in it. None for a generated clip. */
  files(index: number): readonly string[];
  /**
   * Number of frames of a clip.
   *
   * @throws {FileFormatError} If the file is broken.
   * @throws {FileAccessError} If it cannot be opened.
   */
  frames(index: number): Promise<number>;
  /**
   * Reads a clip or a part of it.
   *
   * @param index Which clip.
   * @param range Which frames; all when absent.
   * @throws {FileFormatError} If the file is broken or has no such frames.
   * @throws {FileAccessError} If it cannot be opened.
   */
  read(index: number, range?: ClipRange): Promise<Clip>;
}

/**
 * Chooses the frames of a clip as the authors do: in training a random start such that all frames fit, else from frame 0;
 * consecutive frames where the interval does not fit.
 *
 * @param set The data set, for its rule and for messages.
 * @param index Which clip.
 * @param total Frames that the clip has.
 * @param count Frames wanted.
 * @param interval Frames from one to the next.
 * @param draws Random numbers for training; the first frames are taken when absent. Exactly one number is drawn.
 * @returns The range. It goes beyond the end only where the data set pads short clips.
 * @throws {RangeError} If the clip is too short for a data set that refuses this: which clip, how many frames.
 */
export function chooseFrames(
  set: DataSet,
  index: number,
  total: number,
  count: number,
  interval: number,
  draws?: RandomStream,
): ClipRange {
  const starts = total - (count - 1) * interval, chance = draws?.next() ?? 0;
  const { short, consecutiveValidation } = set.rule;
  if (starts >= 1 && !(draws === undefined && consecutiveValidation)) {
    return { start: Math.floor(chance * starts), interval, count };
  }
  if (short === "refuse" && (draws !== undefined || total < count)) {
    throw new RangeError(
      `${set.source(index)}: has ${total} frames, expected at least ${(count - 1) * interval + 1} ` +
        `(${count} frames, interval ${interval})`,
    );
  }
  return { start: 0, interval: 1, count };
}

/** The frames of a range that a clip of `total` frames really has. */
export function framesThere(range: ClipRange, total: number): number {
  return Math.max(0, Math.min(range.count, Math.ceil((total - range.start) / range.interval)));
}

/** Every `interval`-th item from `start` on, `size` elements each; items beyond the end are zero. */
export function takeRange<T extends Uint8Array | Float32Array | Int32Array>(
  from: T,
  size: number,
  range: ClipRange,
): T {
  const total = from.length / size, there = framesThere(range, total);
  if (range.interval === 1 && there === range.count) {
    return from.subarray(range.start * size, (range.start + there) * size) as T;
  }
  const out = new (from.constructor as new (length: number) => T)(range.count * size);
  for (let i = 0; i < there; i++) {
    const at = (range.start + i * range.interval) * size;
    out.set(from.subarray(at, at + size), i * size);
  }
  return out;
}
