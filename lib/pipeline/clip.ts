/**
 * The user's clip: frames and actions out of an npz, an npy, a video or a folder of images.
 *
 * @module
 */
import { ACTION_FILE, namedActions, readActionFile } from "../data/actions.ts";
import { framesBundle, framesText } from "../display/frames.ts";
import { showing } from "../display/showing.ts";
import { frameArray } from "../io/frame_array.ts";
import { drawnFrames, type Fit, fitFrames, type Frames, makeFrames, sliceFrames } from "../io/frames.ts";
import { openTensorFile } from "../io/open.ts";
import { collectFrames, probeVideo, readFrames } from "../io/video.ts";
import { isThere } from "../io/paths.ts";
import { stepsOf } from "../data/world_set.ts";
import { type WorldOptions, worldWalk } from "../data/world/world.ts";
import { ChoiceError } from "./choice.ts";

/** Frames of a clip with what was recorded beside them. A notebook shows those of {@linkcode readClip} at their own rate. */
export interface Clip {
  /** The file, the folder, `world:N` or `grid:N`. */
  readonly path: string;
  /** All frames that are there, at most as many as were asked for. */
  readonly frames: Frames;
  /** One action per frame where the file carries them, as many as the file has from the first frame used. */
  readonly actions?: Int32Array;
  /** Frames per second, where the file says. */
  readonly fps?: number;
}

/** Endings of files with tensors. */
export const TENSOR_ENDING = /\.(npz|npy|safetensors)$/i;

/** Selection and size of the frames to read. */
export interface ClipOptions {
  /** At most so many frames; all unless given. A walk through the built-in world has no end, so 300 of it. */
  readonly frames?: number;
  /** The last ones of the clip instead of the first. */
  readonly last?: boolean;
  /** First frame that is used; 0 unless given. */
  readonly start?: number;
  /** Takes every N-th frame; 1 unless given. */
  readonly every?: number;
  /** Resamples a video to so many frames per second first. */
  readonly fromFps?: number;
  /** Rows and columns that every frame is brought to. */
  readonly size?: number;
  /** Rows and columns of frames from videos, images and the built-in world where `size` is not given; 64 unless given. */
  readonly side?: number;
  /** Fit of frames into that square; `crop` unless given. */
  readonly fit?: Fit;
}

const PATTERN = /^(world|grid):(\d{1,15})$/;

/** Frames of a walk, which has no end, where nothing says how many are wanted. */
const WHOLE_WALK = 300;

/**
 * Whether a clip is a walk through the built-in world, `world:N` or `grid:N`, and not a file.
 *
 * @throws {ChoiceError} For `world` or `grid` alone where there is no such file: those are data sets.
 */
export function isWorld(path: string): boolean {
  if (stepsOf(path) !== undefined && !isThere(path)) {
    throw new ChoiceError(
      `${path}: is a data set, expected a clip; did you mean ${path}:0, its first test walk?`,
    );
  }
  return PATTERN.test(path);
}

/** The walk that a clip `world:N` or `grid:N` is, see {@linkcode isWorld}. */
export function namedWalk(path: string): WorldOptions {
  const [, kind, number] = PATTERN.exec(path)!;
  return { seed: 0, split: "test", index: Number(number), steps: stepsOf(kind) };
}

function readWorldClip(path: string, options: ClipOptions): Clip {
  if (options.last) {
    throw new ChoiceError(`${path}: a walk through the built-in world has no end to take frames from`);
  }
  const { frames = WHOLE_WALK, start = 0, every: interval = 1, side = SIDE, size = side } = options;
  const walk = worldWalk({ ...namedWalk(path), frames, start, interval, size });
  return { path, frames: drawnFrames(frames, size, size, walk.draw), actions: walk.actions };
}

/** Rows and columns of frames where nothing says another. */
export const SIDE = 64;

/**
 * Reads a clip.
 *
 * @param path `world:N` or `grid:N` (the N-th test walk through the built-in world, with smooth or grid steps), an npz, npy or safetensors, a video, or a folder of images.
 * @throws {ChoiceError} If options exclude each other.
 * @throws {FileFormatError} If the file holds no frames: what was found.
 * @throws {FileAccessError} If it cannot be opened.
 *
 * @example
 * ```ts
 * import { readClip } from "./clip.ts";
 * const { frames, actions } = await readClip("world:3", { frames: 20 });
 * console.assert(frames.frames === 20 && frames.height === 64 && actions?.length === 20);
 * ```
 */
export async function readClip(path: string, options: ClipOptions = {}): Promise<Clip> {
  return showing(await readAny(path, options), ({ path, frames, actions, fps }) => {
    const beside = [
      actions && `${actions.length} actions`,
      fps && `${Number(fps.toFixed(2))} frames per second`,
    ];
    return framesBundle(
      frames,
      fps,
      [`${path}: ${framesText(frames)}`, ...beside.filter(Boolean)].join(", "),
    );
  });
}

async function readAny(path: string, options: ClipOptions): Promise<Clip> {
  if (isWorld(path)) return readWorldClip(path, options);
  if (TENSOR_ENDING.test(path)) return readTensorClip(path, options);
  const { side = SIDE, start = 0, every = 1, fromFps: fps, fit = "crop", frames: most = Infinity } = options;
  const square = options.size ?? side, size = { height: square, width: square };
  if (fps !== undefined && every !== 1) {
    throw new ChoiceError("{fromFps} and {every} both choose frames: give one of them");
  }
  const select = most === Infinity ? {} : options.last ? { last: most } : { count: most },
    rate = fps !== undefined ? { fps } : { every };
  const frames = await collectFrames(readFrames(path, { start, size, fit, ...rate, ...select }));
  const folder = (await Deno.stat(path)).isDirectory;
  // The rate of the frames that are used: what the file declares may be anything, and the rest may be hours long.
  const seen = options.last || most === Infinity ? undefined : start + most * every;
  const found = folder || fps !== undefined ? undefined : (await probeVideo(path, seen)).fps;
  return { path, frames, fps: fps ?? (found === undefined ? undefined : found / every) };
}

function readTensorClip(path: string, options: ClipOptions): Clip {
  using open = openTensorFile(path);
  const { start = 0, every = 1, size: side, fit = "crop", frames: most = Infinity } = options;
  const whole = frameArray(open).read();
  const there = Math.max(0, Math.ceil((whole.frames - start) / every));
  const first = start + every * (options.last ? Math.max(0, there - most) : 0);
  const count = Math.min(most, there);
  const size = whole.height * whole.width * 3;
  let frames = sliceFrames(whole, first, first + count);
  if (every !== 1) {
    frames = makeFrames(count, whole.height, whole.width);
    for (let i = 0; i < count; i++) {
      const at = (first + i * every) * size;
      frames.data.set(whole.data.subarray(at, at + size), i * size);
    }
  }
  return {
    path,
    frames: side === undefined ? frames : fitFrames(frames, { height: side, width: side }, fit),
    actions: namedActions(open)?.subarray(first).filter((_, i) => i % every === 0),
  };
}

/**
 * Actions of frames: a file, or a pattern like `0*36,2*12,1`, which repeats from its start until there
 * are enough.
 *
 * @param given The file or the pattern.
 * @param count Actions needed.
 * @throws {ChoiceError} If the pattern makes no sense.
 * @throws {FileFormatError} If the file holds anything but one integer per frame.
 */
export function readActions(given: string, count: number): Int32Array {
  if (/^\d+(\*\d+)?(,\d+(\*\d+)?)*$/.test(given)) {
    const once = given.split(",").flatMap((part) => {
      const [action, times] = part.split("*").map(Number);
      if (times === 0 || times > 1e6) {
        throw new ChoiceError(`{actions}: expected 1 to 1000000 repeats, found ${part}`);
      }
      return Array<number>(times ?? 1).fill(action);
    });
    return Int32Array.from({ length: count }, (_, i) => once[i % once.length]);
  }
  if (!ACTION_FILE.test(given)) {
    throw new ChoiceError(
      "{actions}: expected a file (csv, json, npy, npz, safetensors, txt) or a pattern such as 0*36,2, " +
        `found ${given}`,
    );
  }
  return readActionFile(given);
}

/**
 * Checks that there are enough actions and that the model knows them.
 *
 * @param actions What there is.
 * @param needed Frames of context and prediction together.
 * @param classes Actions that the model knows.
 * @param from Where they come from, for the message.
 * @throws {RangeError} If they are too few, or one is out of range.
 */
export function checkActions(actions: Int32Array, needed: number, classes: number, from: string): Int32Array {
  if (actions.length < needed) {
    throw new RangeError(
      `${from}: expected ${needed} actions, one for each frame of context and prediction, found ${actions.length}`,
    );
  }
  const used = actions.subarray(0, needed);
  const bad = used.findIndex((a) => a < 0 || a >= classes);
  if (bad >= 0) {
    throw new RangeError(`${from}: action of frame ${bad} is ${used[bad]}, expected 0 to ${classes - 1}`);
  }
  return used;
}
