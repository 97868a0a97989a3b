/**
 * The user's clip: frames and actions out of an npz, an npy, a video or a folder of images.
 *
 * @module
 */
import { ACTION_FILE, namedActions, readActionFile } from "../lib/data/actions.ts";
import { frameArray } from "../lib/io/frame_array.ts";
import { type Fit, fitFrames, type Frames, makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { collectFrames, probeVideo, readFrames } from "../lib/io/video.ts";
import { choice, integer, real, text, UsageError } from "./args.ts";
import { isWorld, readWorldClip } from "./world_clip.ts";

/** Which part of a clip to take, and how to bring it to the model's size. */
export const clipFlags = {
  start: integer("first frame of the clip that is used", { default: 0, min: 0 }),
  every: integer("take every N-th frame", { default: 1, min: 1 }),
  "from-fps": real("resample a video to so many frames a second first", { min: 0.01, max: 1000 }),
  size: integer("side of the square that frames are brought to, in pixels", { min: 8, max: 4096 }),
  fit: choice(["crop", "pad", "stretch"], "how frames fill that square", { default: "crop" }),
  actions: text(
    "FILE (npz, npy, csv, txt or json with one whole number a frame), or a pattern such as 0*36,2*12,1",
    {
      value: "FILE|PATTERN",
    },
  ),
};

/** Values of {@linkcode clipFlags}. */
export interface ClipFlags {
  readonly start: number;
  readonly every: number;
  readonly "from-fps"?: number;
  readonly size?: number;
  readonly fit: Fit;
  readonly actions?: string;
}

/** Frames of a clip with what was recorded beside them. */
export interface Clip {
  readonly path: string;
  /** All frames that are there, at most as many as were asked for. */
  readonly frames: Frames;
  /** One action a frame where the file carries them, as many as the file has from the first frame used. */
  readonly actions?: Int32Array;
  /** Frames a second, where the file says. */
  readonly fps?: number;
}

const TENSOR_ENDING = /\.(npz|npy|safetensors)$/i;

/** What to read. */
export interface ClipRequest {
  /** At most so many frames. */
  readonly count: number;
  /** The last ones of the clip instead of the first. */
  readonly last?: boolean;
  /** Side in pixels that frames get when --size is not given and they come from a video or images. */
  readonly side: number;
}

/**
 * Reads a clip: `world:N`, or a file.
 *
 * @throws {FileFormatError} If the file holds no frames: what was found.
 * @throws {FileAccessError} If it cannot be opened.
 */
export async function readClip(file: string, flags: ClipFlags, request: ClipRequest): Promise<Clip> {
  if (isWorld(file)) return readWorldClip(file, flags, request);
  if (TENSOR_ENDING.test(file)) return readTensorClip(file, flags, request);
  const side = flags.size ?? request.side, size = { height: side, width: side };
  const every = flags.every, fps = flags["from-fps"];
  if (fps !== undefined && every !== 1) {
    throw new UsageError("--from-fps and --every both choose frames: give one of them");
  }
  const select = request.last ? { last: request.count } : { count: request.count };
  const rate = fps !== undefined ? { fps } : { every };
  const frames = await collectFrames(
    readFrames(file, { start: flags.start, size, fit: flags.fit, ...rate, ...select }),
  );
  const folder = (await Deno.stat(file)).isDirectory;
  // The rate of the frames that are used: what the file declares may be anything, and the rest may be hours long.
  const seen = request.last || request.count === Infinity ? undefined : flags.start + request.count * every;
  const found = folder || fps !== undefined ? undefined : (await probeVideo(file, seen)).fps;
  return { path: file, frames, fps: fps ?? (found === undefined ? undefined : found / every) };
}

function readTensorClip(file: string, flags: ClipFlags, request: ClipRequest): Clip {
  using open = openTensorFile(file);
  const { start, every } = flags;
  const whole = frameArray(open).read();
  const there = Math.max(0, Math.ceil((whole.frames - start) / every));
  const first = start + every * (request.last ? Math.max(0, there - request.count) : 0);
  const count = Math.min(request.count, there);
  const size = whole.height * whole.width * 3;
  let frames = sliceFrames(whole, first, first + count);
  if (every !== 1) {
    frames = makeFrames(count, whole.height, whole.width);
    for (let i = 0; i < count; i++) {
      const at = (first + i * every) * size;
      frames.data.set(whole.data.subarray(at, at + size), i * size);
    }
  }
  const side = flags.size;
  return {
    path: file,
    frames: side === undefined ? frames : fitFrames(frames, { height: side, width: side }, flags.fit),
    actions: namedActions(open)?.subarray(first).filter((_, i) => i % every === 0),
  };
}

/**
 * Actions as `--actions` gives them: a file, or a pattern like `0*36,2*12,1`, which repeats from its start until there
 * are enough.
 *
 * @param given The flag's value.
 * @param count Actions needed.
 * @throws {UsageError} If the pattern makes no sense.
 * @throws {FileFormatError} If the file holds anything but one whole number a frame.
 */
export function readActions(given: string, count: number): Int32Array {
  if (/^\d+(\*\d+)?(,\d+(\*\d+)?)*$/.test(given)) {
    const once = given.split(",").flatMap((part) => {
      const [action, times] = part.split("*").map(Number);
      if (times === 0 || times > 1e6) {
        throw new UsageError(`--actions: expected 1 to 1000000 repeats, found ${part}`);
      }
      return Array<number>(times ?? 1).fill(action);
    });
    return Int32Array.from({ length: count }, (_, i) => once[i % once.length]);
  }
  if (!ACTION_FILE.test(given)) {
    throw new UsageError(
      "--actions: expected a file (csv, json, npy, npz, safetensors, txt) or a pattern such as 0*36,2, " +
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
      `${from}: expected ${needed} actions, one for each frame of --ctx and --pred, found ${actions.length}`,
    );
  }
  const used = actions.subarray(0, needed);
  const bad = used.findIndex((a) => a < 0 || a >= classes);
  if (bad >= 0) {
    throw new RangeError(`${from}: action of frame ${bad} is ${used[bad]}, expected 0 to ${classes - 1}`);
  }
  return used;
}
