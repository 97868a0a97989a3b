/**
 * Frames out of videos, animated images and folders of images: streamed from ffmpeg with bounded memory.
 *
 * @module
 */
import { join } from "node:path";
import { accessError, FileAccessError, FileFormatError } from "./errors.ts";
import { ffmpegPath, ffprobePath, RunningFfmpeg } from "./ffmpeg.ts";
import { type Fit, fitFrames, type Frames, makeFrames, sliceFrames } from "./frames.ts";
import { PpmReader } from "./ppm.ts";
import { isStill, literalInput, readStill } from "./still.ts";

/** Which frames to read, and at which size. */
export interface ReadOptions {
  /** First frame of the file, from 0. */
  readonly start?: number;
  /** Every n-th frame from there; 1 when absent. */
  readonly every?: number;
  /** Frames a second to resample to, instead of `every`; frames are then repeated or dropped by time. Videos only. */
  readonly fps?: number;
  /** At most so many frames. */
  readonly count?: number;
  /** Only the last so many frames of what the other options select. */
  readonly last?: number;
  /** Size to bring frames to; the file's own when absent. */
  readonly size?: { readonly height: number; readonly width: number };
  /** How to fill that size; `crop` when absent. */
  readonly fit?: Fit;
  /** Give up when ffmpeg brings nothing for so long; 120 seconds when absent. */
  readonly stallSeconds?: number;
  /** Told what ffmpeg said about a file that it could read in full all the same. */
  readonly onWarning?: (line: string) => void;
}

/** What a video says about itself. */
export interface VideoInfo {
  /** Rows as shown, after rotation. */
  readonly height: number;
  /** Columns as shown, after rotation. */
  readonly width: number;
  /** Frames a second, averaged. */
  readonly fps: number;
  /** Frames as the container counts them, or else duration times rate; undefined if neither is known. */
  readonly frames: number | undefined;
  /** Seconds. */
  readonly duration: number | undefined;
  /** Codec, in ffmpeg's words. */
  readonly codec: string;
}

/** A path as ffmpeg takes it: a file, never an option, a pattern or another protocol. */
function inputArgs(path: string): string[] {
  return ["-protocol_whitelist", "file,pipe", ...literalInput(path).args, "-i", `file:${path}`];
}

function checkFile(path: string): void {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
  if (!info.isFile) throw new FileAccessError(path, "expected a regular file");
  if (info.size === 0) throw new FileFormatError(path, "expected a video, found an empty file");
}

async function output(
  binary: string,
  args: string[],
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(binary, { args, stdin: "null" }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

function ratio(text: unknown): number {
  const [over, under = 1] = String(text).split("/").map(Number);
  return over / under;
}

function positive(value: number): number | undefined {
  return Number.isFinite(value) && value > 0 ? value : undefined;
}

/** What ffprobe knows; undefined if there is no ffprobe or it may not run. */
async function probeWithFfprobe(path: string, ffmpeg: string): Promise<VideoInfo | undefined> {
  const fields =
    "stream=width,height,avg_frame_rate,r_frame_rate,nb_frames,duration,codec_name:stream_tags=rotate:" +
    "stream_side_data=rotation:format=duration";
  const args = [
    "-v",
    "error",
    "-select_streams",
    "v:0",
    "-show_entries",
    fields,
    "-of",
    "json",
    ...inputArgs(path),
  ];
  let text: string;
  try {
    text = (await output(ffprobePath(ffmpeg), args)).stdout;
  } catch {
    return undefined;
  }
  const { streams: [stream] = [], format = {} } = JSON.parse(text || "{}");
  if (stream === undefined || !positive(stream.width) || !positive(stream.height)) return undefined;
  const rotation = Number(stream.side_data_list?.[0]?.rotation ?? stream.tags?.rotate ?? 0);
  const sides = [stream.height, stream.width];
  const [height, width] = Math.abs(rotation) % 180 === 90 ? sides.reverse() : sides;
  const fps = positive(ratio(stream.avg_frame_rate)) ?? positive(ratio(stream.r_frame_rate)) ?? 25;
  const duration = positive(Number(stream.duration)) ?? positive(Number(format.duration));
  const frames = positive(Number(stream.nb_frames)) ?? (duration && Math.round(duration * fps));
  return { height, width, fps, frames, duration, codec: String(stream.codec_name) };
}

/** What ffmpeg prints about its input. */
async function probeWithFfmpeg(path: string, ffmpeg: string): Promise<VideoInfo> {
  const { stderr } = await output(ffmpeg, ["-nostdin", "-hide_banner", ...inputArgs(path)]);
  const stream = /Stream #.*?: Video: (\w+).*?, (\d+)x(\d+)/.exec(stderr);
  if (stream === null) {
    const line = stderr.trim().split("\n").findLast((text) => !text.startsWith("At least one output")) ?? "";
    throw new FileFormatError(path, `expected a video, found none: ffmpeg says "${line.trim()}"`);
  }
  const sides = [Number(stream[3]), Number(stream[2])];
  const turned = /rotat(?:e|ion)\D*?(-?\d+)/.exec(stderr);
  const [height, width] = Math.abs(Number(turned?.[1] ?? 0)) % 180 === 90 ? sides.reverse() : sides;
  const fps = positive(Number(/([\d.]+) fps/.exec(stderr)?.[1])) ?? 25;
  const clock = /Duration: (\d+):(\d+):([\d.]+)/.exec(stderr);
  const duration = clock
    ? positive(Number(clock[1]) * 3600 + Number(clock[2]) * 60 + Number(clock[3]))
    : undefined;
  return { height, width, fps, frames: duration && Math.round(duration * fps), duration, codec: stream[1] };
}

/**
 * Size, rate and length of a video, as its header says.
 *
 * @param path The file.
 * @throws {FileFormatError} If ffmpeg finds no video in it.
 * @throws {FileAccessError} If the file or ffmpeg is missing or not permitted.
 */
export async function probeVideo(path: string): Promise<VideoInfo> {
  checkFile(path);
  if (isStill(path)) {
    const { height, width } = await readStill(path);
    return { height, width, fps: 25, frames: 1, duration: undefined, codec: "image" };
  }
  const { path: ffmpeg } = await ffmpegPath();
  return await probeWithFfprobe(path, ffmpeg) ?? await probeWithFfmpeg(path, ffmpeg);
}

function checkOptions({ start = 0, every = 1, count = 1, last = 1, fps = 1, ...options }: ReadOptions): void {
  const whole = { start: [start, 0], every: [every, 1], count: [count, 1], last: [last, 1] };
  for (const [name, [value, least]] of Object.entries(whole)) {
    if (!Number.isSafeInteger(value) || value < least) {
      throw new RangeError(`readFrames: ${name} must be a whole number of at least ${least}, found ${value}`);
    }
  }
  if (!(fps > 0)) throw new RangeError(`readFrames: fps must be above 0, found ${fps}`);
  if (fps !== 1 && every !== 1) throw new RangeError("readFrames: every and fps exclude each other");
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

function decodeArgs(path: string, version: string, options: ReadOptions): string[] {
  const { start = 0, every = 1, fps, count } = options;
  const filters: string[] = [];
  if (start > 0 || every > 1) filters.push(`select=gte(n\\,${start})*not(mod(n-${start}\\,${every}))`);
  if (fps !== undefined) filters.push(`fps=${fps}`);
  filters.push(...literalInput(path).filters);
  return [
    ...["-nostdin", "-hide_banner", "-v", "error", ...inputArgs(path), "-map", "0:v:0"],
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
    "pipe:1",
  ];
}

/** Waits for a promise, but not for ever. */
async function within<T>(promise: Promise<T>, seconds: number, late: () => Error): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const alarm = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), seconds * 1000);
  });
  try {
    return await Promise.race([promise, alarm]);
  } finally {
    clearTimeout(timer);
  }
}

async function* decode(path: string, options: ReadOptions): AsyncGenerator<Frames> {
  checkFile(path);
  if (isStill(path)) {
    const { start = 0 } = options;
    if (start > 0) throw new FileFormatError(path, `is a single image, expected a frame number ${start}`);
    return yield await readStill(path, options.stallSeconds);
  }
  const { path: binary, version } = await ffmpegPath();
  const process = new RunningFfmpeg(binary, decodeArgs(path, version, options));
  const stall = options.stallSeconds ?? 120;
  const reader = process.stdout.getReader();
  const frames = new PpmReader(path);
  let count = 0;
  try {
    for (;;) {
      const { done, value } = await within(
        reader.read(),
        stall,
        () => new FileFormatError(path, `ffmpeg brought nothing for ${stall} seconds after frame ${count}`),
      );
      if (done) break;
      for (const frame of frames.push(value)) {
        count++;
        yield frame;
      }
    }
    const { success, said } = await process.end();
    await checkEnd(path, options, count, frames.pending, success, said);
  } finally {
    await process.stop();
    await reader.cancel().catch(() => {});
  }
}

/** Whether ffmpeg read all that there is to read. */
async function checkEnd(
  path: string,
  options: ReadOptions,
  count: number,
  pending: number,
  success: boolean,
  said: string,
): Promise<void> {
  const quoted = said === "" ? "" : `: ffmpeg says "${said}"`;
  if (!success || pending > 0) {
    throw new FileFormatError(path, `cannot be decoded beyond frame ${count}${quoted}`);
  }
  const { start = 0, every = 1 } = options;
  const whole = options.fps === undefined && options.count === undefined;
  if (said !== "" && whole && count > 0) {
    // Some damage costs frames, some does not: only the container's own count can tell.
    const declared = (await probeVideo(path).catch(() => undefined))?.frames ?? 0;
    const expected = Math.max(0, Math.ceil((declared - start) / every));
    if (count < expected) {
      throw new FileFormatError(
        path,
        `expected ${expected} frames, found ${count} (truncated or damaged)${quoted}`,
      );
    }
  }
  if (count === 0) {
    throw new FileFormatError(path, `expected a video, found no frame from ${start} on${quoted}`);
  }
  if (said !== "") options.onWarning?.(`${path}: ffmpeg says "${said}"`);
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
 * Reads frames one by one, as many as there are, in memory for a few of them: of a video (whatever ffmpeg reads), an
 * animated GIF, or a folder of images in the natural order of their names.
 *
 * A file that breaks off is an error, at its end at the latest: when ffmpeg fails, and when it complains and brings fewer
 * frames than the file's own header counts.
 *
 * @param path The file or folder.
 * @param options Which frames, and at which size.
 * @returns Single frames. Ending the loop early ends ffmpeg.
 * @throws {FileFormatError} If the file is damaged or holds no such frame; sizes that change without `size` being given.
 * @throws {FileAccessError} If the file or ffmpeg is missing or not permitted.
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
  const all = folder ? readFolder(path, options) : decode(path, options);
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
