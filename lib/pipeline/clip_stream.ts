/**
 * Frames of a clip of any length as they are read, in memory for one batch.
 *
 * @module
 */
import { concatFrames, type Frames } from "../io/frames.ts";
import { probeVideo, readFrames } from "../io/video.ts";
import { type ClipOptions, isWorld, readClip, SIDE, TENSOR_ENDING } from "./clip.ts";
import { batchesOf, framesPerBatch } from "./codec.ts";

/** Frames to come. */
export interface FrameStream {
  /** Batches that the autoencoder takes at once. */
  readonly batches: Iterable<Frames> | AsyncIterable<Frames>;
  /** Number of all frames, where it is known before they are read. */
  readonly frames?: number;
  /** Rows of each. */
  readonly height: number;
  /** Columns of each. */
  readonly width: number;
  /** Frames per second, where the file says. */
  readonly fps?: number;
}

/** Frames of a stream gathered into batches. */
async function* gather(frames: AsyncIterable<Frames>): AsyncGenerator<Frames> {
  let batch: Frames[] = [];
  for await (const frame of frames) {
    batch.push(frame);
    if (batch.length < framesPerBatch(frame.height, frame.width)) continue;
    yield concatFrames(batch);
    batch = [];
  }
  if (batch.length > 0) yield concatFrames(batch);
}

/** Frames that a video will give, as far as its head tells. */
function expectedFrames(
  info: { readonly frames?: number; readonly fps: number },
  { start = 0, every = 1, fromFps, frames: most }: ClipOptions,
): number | undefined {
  if (info.frames === undefined) return most;
  const rest = Math.max(0, info.frames - start);
  const there = fromFps === undefined ? Math.ceil(rest / every) : Math.round(rest * fromFps / info.fps);
  return Math.min(there, most ?? Infinity);
}

/**
 * Opens a clip for reading from its first frame to its last.
 *
 * @param path What `readClip` reads.
 * @param options Which frames, and their size; `last` is not taken.
 * @throws {FileFormatError} If the file holds no frames: what was found.
 * @throws {FileAccessError} If it cannot be opened.
 */
export async function streamClip(
  path: string,
  options: Omit<ClipOptions, "last"> = {},
): Promise<FrameStream> {
  if (isWorld(path) || TENSOR_ENDING.test(path)) {
    const { frames } = await readClip(path, options), { height, width } = frames;
    return { batches: batchesOf(frames), frames: frames.frames, height, width };
  }
  const { start = 0, every = 1, fromFps, frames: count, side = SIDE, size = side, fit = "crop" } = options;
  const rate = fromFps === undefined ? { every } : { fps: fromFps };
  const square = { height: size, width: size };
  const batches = gather(readFrames(path, { start, count, size: square, fit, ...rate }));
  if (!(await Deno.stat(path)).isFile) return { batches, ...square };
  const info = await probeVideo(path);
  return { batches, ...square, frames: expectedFrames(info, options), fps: fromFps ?? info.fps / every };
}
