/**
 * Runs ffmpeg on one file, by a binary that may be run or else in-process, and says whether the file was intact.
 *
 * @module
 */
import { type Container, containerOf } from "./container.ts";
import { accessError, FileAccessError, FileFormatError } from "./errors.ts";
import { FfmpegProcess, findFfmpeg, type Running } from "./ffmpeg.ts";
import { FfmpegCore } from "./ffmpeg_core.ts";
import { LOG_FLAGS } from "./ffmpeg_log.ts";
import { openSource } from "./source.ts";

/** A task for ffmpeg. */
export interface FfmpegTask {
  /** Arguments of the input, before its name. */
  readonly input: readonly string[];
  /** The input file; what is written to the running ffmpeg when absent. */
  readonly path?: string;
  /** Arguments of the output, before its name, by the version of ffmpeg and whether it is in-process. */
  readonly output: (version: string, inProcess: boolean) => readonly string[];
  /** A file for the output that ffmpeg may seek in; what is read from the running ffmpeg when absent. */
  readonly to?: string;
}

/** The version of npm:@ffmpeg/core's ffmpeg. */
const CORE_VERSION = "5.1";

/**
 * Starts ffmpeg: the binary of {@linkcode findFfmpeg}, else in-process. Where it is in-process, the output of a task with
 * `to` comes through `read` all the same, in one piece.
 *
 * @param task What it is to do.
 * @returns The running ffmpeg, and whether it is in-process.
 * @throws {FileAccessError} If it cannot be started.
 */
export async function startFfmpeg(task: FfmpegTask): Promise<{ running: Running; inProcess: boolean }> {
  const binary = await findFfmpeg();
  // A file is a file: no option, pattern, playlist or other protocol.
  const whitelist = ["-protocol_whitelist", "file,pipe"];
  if (binary === undefined) {
    const args = [
      ...LOG_FLAGS,
      ...whitelist,
      ...task.input,
      "-i",
      "file:/input",
      ...task.output(CORE_VERSION, true),
    ];
    const running = await FfmpegCore.start([...args, "file:/output"], task.path, task.to !== undefined);
    return { running, inProcess: true };
  }
  const from = task.path === undefined ? "pipe:0" : `file:${task.path}`;
  const to = task.to === undefined ? "pipe:1" : `file:${task.to}`;
  const args = ["-nostdin", "-y", ...LOG_FLAGS, ...whitelist, ...task.input, "-i", from];
  const all = [...args, ...task.output(binary.version, false), to];
  return { running: new FfmpegProcess(binary.path, all, task.path === undefined), inProcess: false };
}

/** Cached facts about a file, valid as long as the process runs and the file stays the same. */
interface Known {
  readonly stamp: string;
  readonly container: Container;
}

const known = new Map<string, Known>();

/** Size and time of a file: it has changed if they have. */
export function stampOf(path: string): string {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
  if (!info.isFile) throw new FileAccessError(path, "expected a regular file");
  if (info.size === 0) throw new FileFormatError(path, "expected a video, found an empty file");
  return `${info.size} ${info.mtime?.getTime()}`;
}

/**
 * The container of a video, which is as long as it says.
 *
 * @param path The file.
 * @throws {FileFormatError} If it is no video, or ends early.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function openContainer(path: string): Container {
  const stamp = stampOf(path), before = known.get(path);
  if (before?.stamp === stamp) return before.container;
  using source = openSource(path);
  const container = containerOf(source);
  container.check?.(source);
  known.set(path, { stamp, container });
  return container;
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

/**
 * Runs ffmpeg over a file and hands on what it writes.
 *
 * @param path The file.
 * @param task What to do with it.
 * @param stall Give up when nothing comes for so many seconds.
 * @returns Pieces of the output. Ending the loop early ends ffmpeg.
 * @throws {FileFormatError} If ffmpeg failed or complained about the file, with its words.
 */
export async function* outputOf(
  path: string,
  task: Omit<FfmpegTask, "path" | "to">,
  stall = 120,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { running } = await startFfmpeg({ ...task, path });
  try {
    const late = () => new FileFormatError(path, `ffmpeg brought nothing for ${stall} seconds`);
    for (;;) {
      const bytes = await within(running.read(), stall, late);
      if (bytes === undefined) break;
      yield bytes;
    }
    const { success, said } = await running.end();
    if (!success || said !== "") throw new Complaint(path, said);
  } finally {
    await running.stop();
  }
}

/** ffmpeg failed, or complained about a file. */
export class Complaint extends FileFormatError {
  /** Its words; empty if it failed without any. */
  readonly said: string;

  /**
   * Makes the one-line message.
   *
   * @param path The file.
   * @param said ffmpeg's words.
   */
  constructor(path: string, said: string) {
    super(path, `cannot be decoded: ffmpeg says "${said}"`);
    this.said = said;
  }
}

/** Frames as the container stores them, whether they decode or not; undefined if even that is damaged. */
async function storedFrames(path: string, demuxer: string): Promise<number | undefined> {
  const output = () => ["-map", "0:V:0", "-c", "copy", "-f", "framecrc"];
  let lines = 0, text = "";
  const decoder = new TextDecoder();
  try {
    for await (const bytes of outputOf(path, { input: ["-f", demuxer], output })) {
      const all = (text + decoder.decode(bytes)).split("\n");
      text = all.pop()!;
      lines += all.filter((line) => !line.startsWith("#")).length;
    }
  } catch {
    return undefined;
  }
  return lines;
}

/**
 * The error for a video that did not decode in full.
 *
 * @param path The file.
 * @param demuxer ffmpeg's name of its container.
 * @param decoded Frames that came.
 * @param said What ffmpeg complained about.
 */
export async function damaged(
  path: string,
  demuxer: string,
  decoded: number,
  said: string,
): Promise<FileFormatError> {
  const stored = await storedFrames(path, demuxer);
  const expected = stored !== undefined && stored > decoded ? `${stored} frames` : "every packet to decode";
  return new FileFormatError(
    path,
    `truncated or damaged: expected ${expected}, decoded ${decoded} frames` +
      (said === "" ? "" : `: ffmpeg says "${said}"`),
  );
}
