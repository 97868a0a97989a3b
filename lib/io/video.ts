/**
 * Frames out of videos, animated images and folders of images, one by one in bounded memory: by an ffmpeg that may be run,
 * else in-process.
 *
 * @module
 */
import { join } from "node:path";
import { Complaint, damaged, openContainer, outputOf, stampOf } from "./decode.ts";
import { accessError, FileFormatError } from "./errors.ts";
import { type Fit, fitFrames, type Frames, makeFrames, sliceFrames } from "./frames.ts";
import { gifFrames } from "./gif.ts";
import { PpmReader } from "./ppm.ts";
import { isStill, readStill } from "./still.ts";

/** Selection and size of the frames to read. */
export interface ReadOptions {
  /** First frame of the file, from 0. */
  readonly start?: number;
  /** Every n-th frame from there; 1 when absent. */
  readonly every?: number;
  /** Frames per second to resample to, instead of `every`; frames are then repeated or dropped by time. Videos only. */
  readonly fps?: number;
  /** At most so many frames. */
  readonly count?: number;
  /** Only the last so many frames of what the other options select. */
  readonly last?: number;
  /** Size to bring frames to; the file's own when absent. */
  readonly size?: { readonly height: number; readonly width: number };
  /** Fit into that size; `crop` when absent. */
  readonly fit?: Fit;
  /** Give up when ffmpeg brings nothing for so long; 120 seconds when absent. */
  readonly stallSeconds?: number;
}

/** Properties of a video, by its frames. */
export interface VideoInfo {
  /** Rows as shown, after rotation. */
  readonly height: number;
  /** Columns as shown, after rotation. */
  readonly width: number;
  /** Frames that were found. */
  readonly frames: number;
  /** When each of them is shown, in seconds from the first one. */
  readonly times: Float64Array;
  /** Frames per second, averaged over these times; 25 for a single frame. */
  readonly fps: number;
}

function checkOptions({ start = 0, every = 1, count = 1, last = 1, fps, ...options }: ReadOptions): void {
  const whole = { start: [start, 0], every: [every, 1], count: [count, 1], last: [last, 1] };
  for (const [name, [value, least]] of Object.entries(whole)) {
    if (!Number.isSafeInteger(value) || value < least) {
      throw new RangeError(`readFrames: ${name} must be a whole number of at least ${least}, found ${value}`);
    }
  }
  if (fps !== undefined && !(fps > 0)) throw new RangeError(`readFrames: fps must be above 0, found ${fps}`);
  if (fps !== undefined && every !== 1) throw new RangeError("readFrames: every and fps exclude each other");
  const sides = Object.values(options.size ?? {});
  if (!sides.every((side) => Number.isSafeInteger(side) && side > 0)) {
    throw new RangeError(`readFrames: size must be positive whole numbers, found ${sides.join("x")}`);
  }
}

/** `-vsync 0` became `-fps_mode passthrough` in 5.1; builds between releases carry the number of their revision. */
function everyFrameOnce(version: string): string[] {
  const release = /^n?(\d+)\.(\d+)/.exec(version);
  const revision = /^N-(\d+)/.exec(version);
  const old = release
    ? Number(release[1]) * 100 + Number(release[2]) < 501
    : revision && Number(revision[1]) < 107_000;
  return old || /^20\d{6}/.test(version) ? ["-vsync", "0"] : ["-fps_mode", "passthrough"];
}

/** Every frame of the file once, and bytes that are its pixels. */
function frameArgs(demuxer: string, version: string, options: ReadOptions): string[] {
  const { start = 0, every = 1, fps, count } = options;
  const filters: string[] = [];
  if (start > 0 || every > 1) filters.push(`select=gte(n\\,${start})*not(mod(n-${start}\\,${every}))`);
  if (fps !== undefined) filters.push(`fps=${fps}`);
  if (demuxer === "apng") filters.push("format=gbrap", "premultiply=inplace=1"); // transparency over black
  return [
    ...["-map", "0:V:0"],
    ...filters.length > 0 ? ["-vf", filters.join(",")] : [],
    ...fps === undefined ? everyFrameOnce(version) : [],
    ...count !== undefined ? ["-frames:v", String(count)] : [],
    // PPM is rgb24 with its size in front of every frame: no second program has to tell the size, which rotation and
    // pixel shape change.
    ...[
      "-sws_flags",
      "accurate_rnd+full_chroma_int+bicubic",
      "-pix_fmt",
      "rgb24",
      "-c:v",
      "ppm",
      "-f",
      "image2pipe",
    ],
  ];
}

/** Frames of a file that ffmpeg reads; refuses one that is not intact, when it has come to the end of what is asked. */
async function* decode(path: string, demuxer: string, options: ReadOptions): AsyncGenerator<Frames> {
  const task = { input: ["-f", demuxer], output: (version: string) => frameArgs(demuxer, version, options) };
  const frames = new PpmReader(path);
  let count = 0;
  try {
    for await (const bytes of outputOf(path, task, options.stallSeconds)) {
      for (const frame of frames.push(bytes)) {
        count++;
        yield frame;
      }
    }
  } catch (error) {
    if (error instanceof Complaint) throw await damaged(path, demuxer, count, error.said);
    throw error;
  }
  if (frames.pending > 0) throw await damaged(path, demuxer, count, "");
  if (count === 0) {
    throw new FileFormatError(path, `expected a video, found no frame from ${options.start ?? 0} on`);
  }
}

/** Frames of a GIF, chosen as ffmpeg's filters would. */
async function* readGif(path: string, options: ReadOptions): AsyncGenerator<Frames> {
  const { start = 0, every = 1, fps, count = Infinity } = options;
  let index = 0, found = 0;
  for (const { image, time, duration } of gifFrames(path)) {
    const chosen = index >= start && (index - start) % every === 0;
    const repeats = fps === undefined ? 1 : Math.round((time + duration) * fps) - Math.round(time * fps);
    for (let i = 0; chosen && i < repeats && found < count; i++, found++) yield await Promise.resolve(image);
    if (found === count) return;
    index++;
  }
  if (found === 0) throw new FileFormatError(path, `expected a video, found no frame from ${start} on`);
}

async function* readVideo(path: string, options: ReadOptions): AsyncGenerator<Frames> {
  stampOf(path); // refuses what is no file
  if (isStill(path)) {
    const { start = 0 } = options;
    if (start > 0) throw new FileFormatError(path, `is a single image, expected a frame number ${start}`);
    return yield await readStill(path, options.stallSeconds);
  }
  const { demuxer } = openContainer(path);
  yield* demuxer === "gif" ? readGif(path, options) : decode(path, demuxer, options);
}

/** Results of decoding, valid as long as the file stays the same. */
const probed = new Map<string, { readonly stamp: string; readonly info: Promise<VideoInfo> }>();

/**
 * Size, number and times of a video's frames, found by decoding it: what a header says is not believed, because variable frame
 * rates, edit lists and damage make it wrong. The result is kept in memory while the process runs.
 *
 * @param path The file.
 * @param most Looks at so many frames only, where their rate is all that is wanted; all when absent.
 * @throws {FileFormatError} If it is no video, ends early or does not decode.
 * @throws {FileAccessError} If the file is missing or not permitted.
 */
export function probeVideo(path: string, most?: number): Promise<VideoInfo> {
  return Promise.try(() => {
    const stamp = stampOf(path), key = `${most ?? "all"} ${path}`, before = probed.get(key);
    if (before?.stamp === stamp) return before.info;
    const info = probe(path, most);
    probed.set(key, { stamp, info });
    info.catch(() => probed.delete(key));
    return info;
  });
}

async function probe(path: string, most?: number): Promise<VideoInfo> {
  if (isStill(path)) {
    const { height, width } = await readStill(path);
    return { height, width, frames: 1, times: new Float64Array(1), fps: 25 };
  }
  const { demuxer } = openContainer(path), times: number[] = [];
  let size = [0, 0];
  if (demuxer === "gif") {
    for (const { image, time } of gifFrames(path)) {
      size = [image.width, image.height];
      if (times.push(time) === most) break;
    }
  } else {
    const output = (version: string) => [
      ...[
        "-map",
        "0:V:0",
        ...everyFrameOnce(version),
        ...most === undefined ? [] : ["-frames:v", String(most)],
      ],
      // Frames go nowhere, their times come out in the container's own clock.
      ...["-c:v", "wrapped_avframe", "-enc_time_base", "-1", "-f", "framecrc"],
    ];
    const decoder = new TextDecoder();
    let text = "", clock = NaN;
    try {
      for await (const bytes of outputOf(path, { input: ["-f", demuxer], output })) {
        const lines = (text + decoder.decode(bytes, { stream: true })).split("\n");
        text = lines.pop()!;
        for (const line of lines) {
          const head = /^#(tb|dimensions) 0: (\d+)[/x](\d+)/.exec(line);
          if (head?.[1] === "tb") clock = Number(head[2]) / Number(head[3]);
          else if (head) size = [Number(head[2]), Number(head[3])];
          else if (!line.startsWith("#")) times.push(Number(line.split(",")[2]) * clock);
        }
      }
    } catch (error) {
      if (error instanceof Complaint) throw await damaged(path, demuxer, times.length, error.said);
      throw error;
    }
  }
  if (times.length === 0) throw new FileFormatError(path, "expected a video, found no frame");
  const first = times[0], last = times[times.length - 1], frames = times.length;
  const fps = frames > 1 && last > first ? (frames - 1) / (last - first) : 25;
  return {
    height: size[1],
    width: size[0],
    frames,
    times: Float64Array.from(times, (time) => time - first),
    fps,
  };
}

/**
 * The images in a folder in natural order: frame2 before frame10.
 *
 * @param folder The folder.
 * @throws {FileAccessError} If it cannot be listed.
 */
export function imageNames(folder: string): string[] {
  const known = /\.(png|jpe?g|webp|bmp|tiff?)$/i;
  try {
    return [...Deno.readDirSync(folder)]
      .filter(({ name, isDirectory }) => !isDirectory && !name.startsWith(".") && known.test(name))
      .map(({ name }) => name)
      .sort(new Intl.Collator("en", { numeric: true }).compare);
  } catch (error) {
    throw accessError(folder, "cannot list", error);
  }
}

async function* readFolder(folder: string, options: ReadOptions): AsyncGenerator<Frames> {
  const { start = 0, every = 1, count = Infinity, last = Infinity } = options;
  if (options.fps !== undefined) {
    throw new RangeError("readFrames: a folder of images has no frame rate, use every");
  }
  const names = imageNames(folder);
  if (names.length === 0) {
    throw new FileFormatError(folder, "expected images (png, jpg, webp, bmp, tiff), found none");
  }
  const chosen = names.filter((_, i) => i >= start && (i - start) % every === 0).slice(0, count);
  if (chosen.length === 0) {
    throw new FileFormatError(folder, `expected an image number ${start}, found ${names.length}`);
  }
  for (const name of chosen.slice(-Math.min(last, chosen.length))) {
    yield await readStill(join(folder, name), options.stallSeconds);
  }
}

/** The last so many of a stream, in a ring. */
async function* lastOf(frames: AsyncIterable<Frames>, last: number): AsyncGenerator<Frames> {
  const ring: Frames[] = [];
  let next = 0;
  for await (const frame of frames) {
    ring[next] = frame;
    next = (next + 1) % last;
  }
  for (let i = 0; i < ring.length; i++) yield ring[(next + i) % ring.length];
}

/**
 * Reads frames one by one, in memory for a few of them: of a video, an animated GIF, or a folder of images in the natural
 * order of their names.
 *
 * Each stored frame that a player would show comes once, in the order in which it is shown, turned as the file says; with a
 * variable frame rate, neighbours may be any time apart (`fps` resamples). A file that is cut off or damaged is an error:
 * before the first frame where the container tells, at the end of what is read where only decoding tells.
 *
 * @param path The file or folder.
 * @param options Which frames, and at which size.
 * @returns Single frames. Ending the loop early ends the decoder.
 * @throws {FileFormatError} If the file is damaged or holds no such frame; sizes that change without `size` being given.
 * @throws {FileAccessError} If the file is missing or not permitted, or `FAR_FFMPEG` names no ffmpeg.
 * @throws {RangeError} If the options contradict each other.
 */
export async function* readFrames(path: string, options: ReadOptions = {}): AsyncGenerator<Frames> {
  checkOptions(options);
  let folder = false;
  try {
    folder = Deno.statSync(path).isDirectory;
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
  const all = folder ? readFolder(path, options) : readVideo(path, options);
  let first: Frames | undefined;
  for await (const frame of options.last !== undefined && !folder ? lastOf(all, options.last) : all) {
    if (options.size !== undefined) {
      yield fitFrames(frame, options.size, options.fit ?? "crop");
      continue;
    }
    first ??= frame;
    if (frame.height !== first.height || frame.width !== first.width) {
      throw new FileFormatError(
        path,
        `expected frames of ${first.height}x${first.width} throughout, found ${frame.height}x${frame.width}: give a size`,
      );
    }
    yield frame;
  }
}

/**
 * All frames of a stream in one piece.
 *
 * @param frames Frames of one size.
 * @param most Refuses a longer stream, which would not fit memory.
 * @throws {RangeError} If there are none, their sizes differ, or there are more.
 */
export async function collectFrames(frames: AsyncIterable<Frames>, most = Infinity): Promise<Frames> {
  let buffer: Frames | undefined;
  let count = 0;
  for await (const part of frames) {
    if (count + part.frames > most) {
      throw new RangeError(`collectFrames: expected at most ${most} frames, found more`);
    }
    buffer ??= makeFrames(Math.max(16, part.frames), part.height, part.width);
    if (part.height !== buffer.height || part.width !== buffer.width) {
      throw new RangeError(
        `collectFrames: expected ${buffer.height}x${buffer.width} throughout, found ${part.height}x${part.width}`,
      );
    }
    if (count + part.frames > buffer.frames) {
      const larger = makeFrames(2 * (count + part.frames), part.height, part.width);
      larger.data.set(buffer.data);
      buffer = larger;
    }
    buffer.data.set(part.data, count * part.height * part.width * 3);
    count += part.frames;
  }
  if (buffer === undefined) throw new RangeError("collectFrames: expected at least one frame, found none");
  const { data, ...size } = sliceFrames(buffer, 0, count);
  return { ...size, data: 2 * data.byteLength < buffer.data.byteLength ? data.slice() : data };
}
