/**
 * The container of a video file, by its first bytes, and whether the file is as long as the container says.
 *
 * ffmpeg is told the container and guesses nothing: a playlist named .mp4 would otherwise open the files it lists. And a file
 * that was cut off between two frames decodes without a complaint: only the container's own arithmetic tells.
 *
 * @module
 */
import { checkAvi } from "./container_avi.ts";
import { checkOgg } from "./container_ogg.ts";
import { FileFormatError } from "./errors.ts";
import type { ByteSource } from "./source.ts";

/** A container. */
export interface Container {
  /** Its name, for people. */
  readonly name: string;
  /** ffmpeg's name of the program part that takes it apart. */
  readonly demuxer: string;
  /** Finds out whether the file ends early or is damaged, as far as the container can tell. */
  readonly check?: (source: ByteSource) => void;
}

const ascii = (bytes: Uint8Array): string => String.fromCharCode(...bytes);
const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** One line for a file that is shorter than it should be. */
function cutOff(source: ByteSource, expected: number, by: string): FileFormatError {
  return new FileFormatError(
    source.path,
    `truncated or damaged: expected ${expected} bytes (${by}), found ${source.size}`,
  );
}

/** One line for a file whose parts contradict each other. */
const broken = (source: ByteSource, expected: string, found: string | number): FileFormatError =>
  new FileFormatError(source.path, `truncated or damaged: expected ${expected}, found ${found}`);

const BOXES = new Set(
  "ftyp styp moov mdat moof mfra free skip wide uuid pnot sidx ssix prft emsg meta pdin junk udta".split(" "),
);

/** Walks over the boxes of an mp4 or mov file. */
function checkMp4(source: ByteSource): void {
  const seen = new Set<string>();
  for (let at = 0; at < source.size;) {
    const head = source.read(at, Math.min(16, source.size - at)), type = ascii(head.subarray(4, 8));
    if (!BOXES.has(type)) {
      // Some cameras append data of their own behind a complete file; a file of fragments ends where its boxes do.
      if (seen.has("moov") && seen.has("mdat") && !seen.has("moof")) break;
      throw broken(source, `a box at byte ${at}`, JSON.stringify(type));
    }
    seen.add(type);
    const view = viewOf(head), short = view.getUint32(0);
    const long = short === 1 && head.length === 16 ? Number(view.getBigUint64(8)) : short;
    const size = short === 0 ? source.size - at : long; // 0: up to the end of the file
    if (size < 8) throw broken(source, `at least 8 bytes in box "${type}" at byte ${at}`, size);
    if (at + size > source.size) throw cutOff(source, at + size, `box "${type}" at byte ${at}`);
    if (type === "moov") checkTables(source, at + 8, at + size);
    at += size;
  }
  if (!seen.has("moov")) {
    throw broken(source, 'a table of frames (box "moov")', "none: the recording did not finish");
  }
}

/** The tables of every track must agree on the number of its frames: ffmpeg silently believes the shortest. */
function checkTables(source: ByteSource, from: number, to: number): void {
  const counts = new Map<string, number>();
  for (let at = from; at + 8 <= to;) {
    const bytes = source.read(at, Math.min(20, to - at)), head = viewOf(bytes);
    const size = head.getUint32(0), type = ascii(bytes.subarray(4, 8));
    if (size < 8 || at + size > to) {
      if (/^\0*$/.test(type)) return; // some writers end a list of boxes with zeros
      throw broken(source, `8 to ${to - at} bytes in box ${JSON.stringify(type)} at byte ${at}`, size);
    }
    if (["trak", "mdia", "minf", "stbl"].includes(type)) checkTables(source, at + 8, at + size);
    if (type === "stsz" && size >= 20) counts.set(type, head.getUint32(16));
    if (type === "stts" && size >= 16) {
      const entries = head.getUint32(12), room = Math.floor((size - 16) / 8);
      if (entries > room) throw broken(source, `at most ${room} entries in box "stts"`, entries);
      const rows = viewOf(source.read(at + 16, 8 * entries));
      let sum = 0;
      for (let i = 0; i < entries; i++) sum += rows.getUint32(8 * i);
      counts.set(type, sum);
    }
    at += size;
  }
  const sizes = counts.get("stsz"), times = counts.get("stts");
  if (sizes !== undefined && times !== undefined && sizes !== times) {
    throw broken(source, `times of ${sizes} frames, as there are sizes`, times);
  }
}

/** A number of Matroska's: its length, and its value or undefined for "not known". */
function ebmlNumber(bytes: Uint8Array): { length: number; value: number | undefined } {
  const length = Math.clz32(bytes[0]) - 23;
  let value = bytes[0] & (0xff >> length), unknown = value === 0xff >> length;
  for (let i = 1; i < length; i++) {
    value = value * 256 + bytes[i];
    unknown &&= bytes[i] === 0xff;
  }
  return { length, value: unknown ? undefined : value };
}

/** Whether the one segment of a Matroska file, webm included, ends within the file. */
function checkMatroska(source: ByteSource): void {
  const head = source.read(0, Math.min(source.size, 4096)), first = ebmlNumber(head.subarray(4));
  const at = 4 + first.length + (first.value ?? 0);
  if (at + 16 > head.length) return; // ffmpeg will say what is wrong with it
  if (viewOf(head).getUint32(at) !== 0x18538067) return;
  const segment = ebmlNumber(head.subarray(at + 4));
  if (segment.value === undefined) return; // a live recording: its length was not known when it began
  const end = at + 4 + segment.length + segment.value;
  if (end > source.size) throw cutOff(source, end, "as its segment says");
}

/** Walks over the objects of a WMV file: a header, the data, an index. */
function checkAsf(source: ByteSource): void {
  for (let at = 0; at + 24 <= source.size;) {
    const size = Number(viewOf(source.read(at + 16, 8)).getBigUint64(0, true));
    if (size < 24) return; // a live recording: its length was not known
    if (at + size > source.size) throw cutOff(source, at + size, "as its objects say");
    at += size;
  }
}

/** Walks over the tags of a Flash video; each is followed by its length. */
function checkFlv(source: ByteSource): void {
  const start = viewOf(source.read(0, Math.min(source.size, 9)));
  if (source.size < 13) throw cutOff(source, 13, "its header");
  for (let at = start.getUint32(5) + 4; at < source.size;) {
    if (at + 15 > source.size) throw cutOff(source, at + 15, `tag at byte ${at}`);
    const size = viewOf(source.read(at, 4)).getUint32(0) & 0xffffff, end = at + 11 + size;
    if (end + 4 > source.size) throw cutOff(source, end + 4, `tag at byte ${at}`);
    const length = viewOf(source.read(end, 4)).getUint32(0);
    if (length !== 0 && length !== size + 11) {
      throw broken(source, `${size + 11} behind the tag at byte ${at}`, length);
    }
    at = end + 4;
  }
}

/** Transport streams consist of packets of equal length. */
const checkPackets = (size: number, offset: number) => (source: ByteSource): void => {
  const rest = source.size % size;
  if (rest !== 0 && source.read(source.size - rest + offset, 1)[0] === 0x47) {
    throw cutOff(source, source.size - rest + size, `packets of ${size}`);
  }
};

const starts = (head: Uint8Array, at: number, ...bytes: number[]) =>
  bytes.every((byte, i) => head[at + i] === byte);

/**
 * The container of a video.
 *
 * @param source The file.
 * @throws {FileFormatError} If it is none that we know: what the file begins with.
 */
export function containerOf(source: ByteSource): Container {
  const head = source.read(0, Math.min(source.size, 1024)), text = ascii(head.subarray(0, 12));
  if (BOXES.has(text.slice(4, 8))) return { name: "mp4", demuxer: "mov", check: checkMp4 };
  if (starts(head, 0, 0x1a, 0x45, 0xdf, 0xa3)) {
    return { name: "Matroska", demuxer: "matroska", check: checkMatroska };
  }
  if (/^RIFF....AVI /s.test(text)) return { name: "AVI", demuxer: "avi", check: checkAvi };
  if (text.startsWith("OggS")) return { name: "Ogg", demuxer: "ogg", check: checkOgg };
  if (/^GIF8[79]a/.test(text)) return { name: "GIF", demuxer: "gif" };
  if (starts(head, 0, 0x89, 0x50, 0x4e, 0x47)) return { name: "animated PNG", demuxer: "apng" };
  if (starts(head, 0, 0xff, 0xd8, 0xff)) return { name: "Motion JPEG", demuxer: "mjpeg" };
  if (starts(head, 0, 0, 0, 1, 0xba)) return { name: "MPEG program stream", demuxer: "mpeg" };
  if (starts(head, 0, 0, 0, 1, 0xb3)) return { name: "MPEG video", demuxer: "mpegvideo" };
  if (head[0] === 0x47 && head[188] === 0x47 && head[376] === 0x47) {
    return { name: "MPEG transport stream", demuxer: "mpegts", check: checkPackets(188, 0) };
  }
  if (head[4] === 0x47 && head[196] === 0x47 && head[388] === 0x47) {
    return { name: "MPEG transport stream", demuxer: "mpegts", check: checkPackets(192, 4) };
  }
  if (text.startsWith("FLV")) return { name: "Flash video", demuxer: "flv", check: checkFlv };
  if (starts(head, 0, 0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11)) {
    return { name: "WMV", demuxer: "asf", check: checkAsf };
  }
  if (text.startsWith("YUV4MPEG2 ")) return { name: "YUV4MPEG", demuxer: "yuv4mpegpipe" };
  throw new FileFormatError(
    source.path,
    "expected a video (mp4, mov, mkv, webm, avi, ogv, mpg, vob, ts, flv, wmv, y4m, gif), " +
      `found a file that begins with ${JSON.stringify(ascii(head.subarray(0, 16)))}`,
  );
}
