/**
 * Videos out of frames: mp4 and GIF in-process, mov and webm by ffmpeg, which is in-process too where there is none. Streamed,
 * and all of the file or nothing.
 *
 * @module
 */
import { extname } from "node:path";
import { didYouMean } from "../nearest.ts";
import { writeAtomic, writeAtomicAt } from "./atomic.ts";
import { startFfmpeg } from "./decode.ts";
import { FileAccessError } from "./errors.ts";
import type { Running } from "./ffmpeg.ts";
import { type Frames, makeFrames } from "./frames.ts";
import { writeGif } from "./image.ts";
import { Mp4Encoder } from "./mp4.ts";
import { writeNpz } from "./npz.ts";

/** Options of {@linkcode writeVideo}. */
export interface WriteOptions {
  /** Frames per second. */
  readonly fps: number;
  /**
   * Loss: 10 (hardly any, large) to 51 is the quantiser of an mp4; 0 (none) to 51 and 63 the constant rate factor of mov and
   * webm; 18, 18 and 24 when absent, which eyes hardly tell from the original. GIF has none.
   */
  readonly crf?: number;
  /**
   * Enlarges frames whose shorter side is shorter than this, by the smallest whole factor that reaches it, each pixel becoming a
   * square: H.264 and VP9 keep one colour for two by two pixels, which blurs a small picture. No factor when absent.
   */
  readonly least?: number;
}

interface Format {
  readonly name: string;
  readonly crf: number;
  readonly best: number;
  readonly worst: number;
  /** ffmpeg's arguments; absent for mp4, which needs no ffmpeg. */
  readonly args?: (crf: number, inProcess: boolean) => string[];
}

/**
 * mp4 has one writer everywhere, also where there is an ffmpeg: the same bytes on every machine. Beside libx264 (medium, crf 18) on
 * 100 frames of the built-in world at 256 pixels it takes 2.2 times the bytes and about the same time, with a mean error of 1.57
 * colour levels against 1.55 (2026-11-21, 2 cores, Deno 2.9.6).
 */
const FORMATS: Readonly<Record<string, Format>> = {
  ".mp4": { name: "mp4", crf: 18, best: 10, worst: 51 },
  ".mov": {
    name: "mov",
    crf: 18,
    best: 0,
    worst: 51,
    args: (crf) => ["-c:v", "libx264", "-preset", "medium", "-crf", String(crf), "-movflags", "+faststart"],
  },
  ".webm": {
    name: "webm",
    crf: 24,
    best: 0,
    worst: 63,
    // libvpx's VP9 encoder leaves its memory in npm:@ffmpeg/core 0.12.10 and ends; its VP8 encoder does not. VP8 takes a bit rate
    // as a ceiling, and about half the factor for the same loss.
    args: (crf, inProcess) =>
      inProcess
        ? ["-c:v", "libvpx", "-crf", String(Math.max(4, crf >> 1)), "-qmin", "0", "-b:v", "50M"]
        : ["-c:v", "libvpx-vp9", "-crf", String(crf), "-b:v", "0", "-row-mt", "1"],
  },
};

/** Endings that {@linkcode writeVideo} knows. */
export const VIDEO_ENDINGS: readonly string[] = [...Object.keys(FORMATS), ".gif"];

/**
 * yuv420p has one colour for two by two pixels, so both sides must be even: an odd one gets its last row or column twice,
 * which, unlike a black line, does not bleed into the picture.
 */
function evenSides(frame: Frames): Frames {
  const [height, width] = [frame.height + frame.height % 2, frame.width + frame.width % 2];
  if (height === frame.height && width === frame.width) return frame;
  const out = makeFrames(frame.frames, height, width);
  for (let f = 0; f < frame.frames; f++) {
    for (let y = 0; y < height; y++) {
      const from = (f * frame.height + Math.min(y, frame.height - 1)) * frame.width * 3;
      const to = (f * height + y) * width * 3;
      out.data.set(frame.data.subarray(from, from + frame.width * 3), to);
      if (width > frame.width) {
        out.data.set(out.data.subarray(to + (width - 2) * 3, to + (width - 1) * 3), to + (width - 1) * 3);
      }
    }
  }
  return out;
}

/** Every pixel as a square of `factor` by `factor`. */
function enlarged(from: Frames, factor: number): Frames {
  if (factor === 1) return from;
  const height = from.height * factor, width = from.width * factor, row = width * 3;
  const out = makeFrames(from.frames, height, width);
  for (let y = 0; y < from.frames * from.height; y++) {
    const first = y * factor * row;
    for (let x = 0, at = y * from.width * 3, to = first; x < from.width; x++, at += 3) {
      for (let i = 0; i < factor; i++, to += 3) {
        out.data[to] = from.data[at];
        out.data[to + 1] = from.data[at + 1];
        out.data[to + 2] = from.data[at + 2];
      }
    }
    for (let i = 1; i < factor; i++) out.data.copyWithin(first + i * row, first, first + row);
  }
  return out; // [frames, height * factor, width * factor, 3]
}

/** The frames as they go into the file, part by part; all must have one size. */
async function* prepared(
  clip: Frames | AsyncIterable<Frames>,
  least: number,
  even: boolean,
): AsyncGenerator<Frames> {
  let size: { height: number; width: number } | undefined;
  for await (const part of "data" in clip ? [clip] : clip) {
    if (part.frames === 0) continue;
    if (size !== undefined && (part.height !== size.height || part.width !== size.width)) {
      throw new RangeError(
        `writeVideo: expected ${size.height}x${size.width} throughout, found ${part.height}x${part.width}`,
      );
    }
    size ??= { height: part.height, width: part.width };
    const large = enlarged(part, Math.max(1, Math.ceil(least / Math.min(part.height, part.width))));
    yield even ? evenSides(large) : large;
  }
  if (size === undefined) throw new RangeError("writeVideo: expected at least one frame, found none");
}

/**
 * Writes a video; the ending of its name says which kind: `.mp4` (H.264, yuv420p, which every player plays; in-process), `.mov`
 * (H.264), `.webm` (VP9; VP8 where there is no ffmpeg), `.gif`. Frames may come one by one. A side of odd length is one pixel longer in the file, except in a
 * GIF. Compression loses colours: {@linkcode writeFrames} keeps them.
 *
 * @param path The file; replaced if it exists. Nothing is left behind when the frames or the encoder fail.
 * @param clip Frames, at once or in parts, all of one size.
 * @param options Rate, quality, size.
 * @throws {RangeError} If the ending is unknown, there is no frame, sizes change, or rate or quality is out of range.
 * @throws {FileAccessError} If ffmpeg fails, with the last it said, or the system refuses.
 */
export async function writeVideo(
  path: string,
  clip: Frames | AsyncIterable<Frames>,
  options: WriteOptions,
): Promise<void> {
  const ending = extname(path).toLowerCase(), { fps, least = 1 } = options;
  if (ending === ".gif") return await writeGif(path, prepared(clip, least, false), fps);
  const format = FORMATS[ending];
  if (format === undefined) {
    const hint = didYouMean(ending, VIDEO_ENDINGS) || `, expected one of ${VIDEO_ENDINGS.join(" ")}`;
    throw new RangeError(`writeVideo: ${path} ends in ${JSON.stringify(ending)}${hint}`);
  }
  const crf = options.crf ?? format.crf;
  if (!(fps > 0)) throw new RangeError(`writeVideo: fps must be above 0, found ${fps}`);
  if (!(crf >= format.best && crf <= format.worst)) {
    throw new RangeError(
      `writeVideo: crf must be ${format.best} to ${format.worst} for ${ending}, found ${crf}`,
    );
  }
  const frames = prepared(clip, least, true);
  if (format.args === undefined) await writeMp4(path, frames, fps, crf);
  else {await writeAtomicAt(path, (temp) =>
      encode(path, temp, frames, fps, format.name, (inProcess) =>
        format.args!(crf, inProcess)));}
}

async function writeMp4(
  path: string,
  frames: AsyncIterable<Frames>,
  fps: number,
  quantiser: number,
): Promise<void> {
  await writeAtomic(path, async (file) => {
    await using stack = new AsyncDisposableStack();
    let encoder: Mp4Encoder | undefined;
    for await (const { height, width, data } of frames) {
      encoder ??= stack.use(await Mp4Encoder.start({ height, width }, fps, quantiser));
      await encoder.add(data);
    }
    file.write(await encoder!.finish());
  });
}

async function encode(
  path: string,
  temp: string,
  frames: AsyncIterable<Frames>,
  fps: number,
  format: string,
  codec: (inProcess: boolean) => readonly string[],
): Promise<void> {
  let ffmpeg: { running: Running; inProcess: boolean } | undefined;
  const failed = async (cause?: unknown) =>
    new FileAccessError(path, `ffmpeg failed: "${(await ffmpeg!.running.end()).said}"`, { cause });
  try {
    for await (const { height, width, data } of frames) {
      ffmpeg ??= await startFfmpeg({
        input: [
          "-f",
          "rawvideo",
          "-pix_fmt",
          "rgb24",
          "-video_size",
          `${width}x${height}`,
          "-framerate",
          `${fps}`,
        ],
        output: (_, inProcess) => [
          ...["-an", "-sws_flags", "accurate_rnd+full_chroma_int+bicubic", "-pix_fmt", "yuv420p"],
          ...[...codec(inProcess), "-f", format],
        ],
        to: temp,
      });
      await ffmpeg.running.write(data);
    }
    const { running, inProcess } = ffmpeg!;
    await running.close();
    if (inProcess) {
      using file = Deno.openSync(temp, { write: true, create: true, truncate: true });
      for (let bytes; (bytes = await running.read());) {
        for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
      }
    }
    if (!(await running.end()).success) throw await failed();
  } catch (error) {
    // A pipe that breaks means that ffmpeg has ended: what it said is the reason.
    if (ffmpeg !== undefined && error instanceof Deno.errors.BrokenPipe) throw await failed(error);
    throw error;
  } finally {
    await ffmpeg?.running.stop();
  }
}

/**
 * Writes exact frames: an npz with `video`, 8-bit `[frames, height, width, 3]`, which every reader of clips here takes, and
 * `np.load(path)["video"]`.
 *
 * @param path The file; replaced if it exists.
 * @param clip The frames.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writeFrames(path: string, { frames, height, width, data }: Frames): Promise<void> {
  await writeNpz(path, { video: { shape: [frames, height, width, 3], dtype: "U8", data } });
}
