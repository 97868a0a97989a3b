/**
 * Videos out of frames: H.264 and VP9 through ffmpeg, GIF without it. Streamed, and all of the file or nothing.
 *
 * @module
 */
import { extname } from "node:path";
import { didYouMean } from "../nearest.ts";
import { writeAtomicAt } from "./atomic.ts";
import { FileAccessError } from "./errors.ts";
import { ffmpegPath, RunningFfmpeg } from "./ffmpeg.ts";
import { type Frames, makeFrames } from "./frames.ts";
import { writeGif } from "./image.ts";

/** Options of {@linkcode writeVideo}. */
export interface WriteOptions {
  /** Frames a second. */
  readonly fps: number;
  /**
   * Constant rate factor: 0 (no loss, large) to 51 for mp4 and mov, to 63 for webm; 18 and 24 when absent, which eyes hardly
   * tell from the original. GIF has none.
   */
  readonly crf?: number;
}

interface Format {
  readonly name: string;
  readonly args: (crf: number) => string[];
  readonly crf: number;
  readonly worst: number;
}

const h264 = (
  crf: number,
) => ["-c:v", "libx264", "-preset", "medium", "-crf", String(crf), "-movflags", "+faststart"];
const FORMATS: Readonly<Record<string, Format>> = {
  ".mp4": { name: "mp4", args: h264, crf: 18, worst: 51 },
  ".mov": { name: "mov", args: h264, crf: 18, worst: 51 },
  ".webm": {
    name: "webm",
    args: (crf) => ["-c:v", "libvpx-vp9", "-crf", String(crf), "-b:v", "0", "-row-mt", "1"],
    crf: 24,
    worst: 63,
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

/**
 * Writes a video; the ending of its name says which kind: `.mp4` and `.mov` (H.264, yuv420p, which every player plays),
 * `.webm` (VP9), `.gif`. Frames may come one by one. A side of odd length is one pixel longer in the file, except in a GIF.
 *
 * @param path The file; replaced if it exists. Nothing is left behind when the frames or ffmpeg fail.
 * @param clip Frames, at once or in parts, all of one size.
 * @param options Rate and quality.
 * @throws {RangeError} If the ending is unknown, there is no frame, sizes change, or rate or quality is out of range.
 * @throws {FileAccessError} If ffmpeg is missing or fails, with the last it said, or the system refuses.
 */
export async function writeVideo(
  path: string,
  clip: Frames | AsyncIterable<Frames>,
  options: WriteOptions,
): Promise<void> {
  const ending = extname(path).toLowerCase();
  if (ending === ".gif") return await writeGif(path, clip, options.fps);
  const format = FORMATS[ending];
  if (format === undefined) {
    const hint = didYouMean(ending, VIDEO_ENDINGS) || `, expected one of ${VIDEO_ENDINGS.join(" ")}`;
    throw new RangeError(`writeVideo: ${path} ends in ${JSON.stringify(ending)}${hint}`);
  }
  const crf = options.crf ?? format.crf;
  if (!(options.fps > 0)) throw new RangeError(`writeVideo: fps must be above 0, found ${options.fps}`);
  if (!(crf >= 0 && crf <= format.worst)) {
    throw new RangeError(`writeVideo: crf must be 0 to ${format.worst} for ${ending}, found ${crf}`);
  }
  const { path: binary } = await ffmpegPath();
  await writeAtomicAt(path, (temp) => encode(path, binary, temp, clip, options.fps, format, crf));
}

async function encode(
  path: string,
  binary: string,
  temp: string,
  clip: Frames | AsyncIterable<Frames>,
  fps: number,
  format: Format,
  crf: number,
): Promise<void> {
  let process: RunningFfmpeg | undefined;
  let writer: WritableStreamDefaultWriter<Uint8Array<ArrayBufferLike>> | undefined;
  let size: { height: number; width: number } | undefined;
  try {
    for await (const part of "data" in clip ? [clip] : clip) {
      if (part.frames === 0) continue;
      if (size !== undefined && (part.height !== size.height || part.width !== size.width)) {
        throw new RangeError(
          `writeVideo: expected ${size.height}x${size.width} throughout, found ${part.height}x${part.width}`,
        );
      }
      size ??= { height: part.height, width: part.width };
      const even = evenSides(part);
      process ??= new RunningFfmpeg(binary, [
        ...["-hide_banner", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"],
        ...["-video_size", `${even.width}x${even.height}`, "-framerate", String(fps), "-i", "pipe:0", "-an"],
        ...["-sws_flags", "accurate_rnd+full_chroma_int+bicubic", "-pix_fmt", "yuv420p"],
        ...[...format.args(crf), "-f", format.name, `file:${temp}`],
      ], true);
      writer ??= process.stdin.getWriter();
      await writer.write(even.data);
    }
    if (process === undefined || writer === undefined) {
      throw new RangeError("writeVideo: expected a frame, found none");
    }
    await writer.close();
    const { success, said } = await process.end();
    if (!success) throw new FileAccessError(path, `ffmpeg failed: "${said}"`);
  } catch (error) {
    // A pipe that breaks means that ffmpeg has ended: what it said is the reason.
    if (process !== undefined && error instanceof Deno.errors.BrokenPipe) {
      const { said } = await process.end();
      throw new FileAccessError(path, `ffmpeg failed: "${said}"`, { cause: error });
    }
    throw error;
  } finally {
    await writer?.abort().catch(() => {});
    await process?.stop();
    await process?.stdout.cancel().catch(() => {});
  }
}
