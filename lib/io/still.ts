/**
 * Single images of every kind: PNG here, JPEG, WebP, BMP and TIFF through ffmpeg, in-process where there is none. An image is told
 * by its content and comes to ffmpeg as bytes, so that no part of its name is taken as a pattern (`shot%d.bmp`), a protocol or an option.
 *
 * Transparency has one rule, whatever the format: the picture is laid over black.
 *
 * @module
 */
import { FileFormatError } from "./errors.ts";
import { startFfmpeg } from "./decode.ts";
import { type Frames, makeFrames } from "./frames.ts";
import { MOST_PIXELS, overBlack, readPng } from "./image.ts";
import { openSource } from "./source.ts";

/** A larger file holds no picture of at most {@linkcode MOST_PIXELS} pixels. */
const LONGEST_FILE = 2 ** 29;

/** Bytes that tell the format; what stands in front of an animated PNG's own mark is short. */
const HEAD = 4096;

/** Image format by a file's first bytes, under the names of ffmpeg's demuxers. */
type ImageFormat = "png_pipe" | "apng" | "gif" | "jpeg_pipe" | "webp_pipe" | "bmp_pipe" | "tiff_pipe";

function formatOf(head: Uint8Array): ImageFormat | undefined {
  const text = String.fromCharCode(...head.subarray(0, 16));
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return isAnimated(head.subarray(0, HEAD)) ? "apng" : "png_pipe";
  if (/^GIF8[79]a/.test(text)) return "gif";
  if (text.startsWith("\xff\xd8\xff")) return "jpeg_pipe";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "webp_pipe";
  if (/^(II\*\0|MM\0\*)/.test(text)) return "tiff_pipe";
  // BM alone is too little: the header that follows has one of a few lengths.
  const isBmp = text.startsWith("BM") && [12, 40, 52, 56, 64, 108, 124].includes(head[14]) && head[15] === 0;
  return isBmp ? "bmp_pipe" : undefined;
}

/** Whether a PNG says, somewhere in front of its pixels, that it is an animation. */
function isAnimated(png: Uint8Array): boolean {
  const data = new DataView(png.buffer, png.byteOffset, png.byteLength);
  for (let at = 8; at + 8 <= png.byteLength; at += 12 + data.getUint32(at)) {
    const type = String.fromCharCode(...png.subarray(at + 4, at + 8));
    if (type === "acTL" || type === "IDAT") return type === "acTL";
  }
  return false;
}

function imageFormat(path: string): ImageFormat | undefined {
  using source = openSource(path);
  return formatOf(source.read(0, Math.min(HEAD, source.size)));
}

/**
 * Whether a file is a single image by its content. A stream of JPEGs begins like one, so that its name decides.
 *
 * @param path The file.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function isStill(path: string): boolean {
  const format = imageFormat(path);
  return format !== undefined && format !== "gif" && format !== "apng" && !/\.mjpe?g$/i.test(path);
}

/**
 * Reads one image: PNG, JPEG, WebP, BMP or TIFF, whatever its name. Transparent pixels are composited over black.
 *
 * @param path The file.
 * @param stallSeconds Give up when ffmpeg has not brought the picture after so long.
 * @returns A single RGB frame.
 * @throws {FileFormatError} If it is none of these, or damaged.
 * @throws {FileAccessError} If the file cannot be opened, or `FAR_FFMPEG` names no ffmpeg.
 */
export async function readStill(path: string, stallSeconds = 120): Promise<Frames> {
  using source = openSource(path);
  const { size } = source;
  if (size > LONGEST_FILE) {
    throw new FileFormatError(path, `expected an image of at most ${LONGEST_FILE} bytes, found ${size}`);
  }
  const bytes = source.read(0, size), format = formatOf(bytes);
  if (format === undefined || format === "gif") {
    throw new FileFormatError(
      path,
      `expected a png, jpg, webp, bmp or tiff image, found ${format ?? "none of them"}`,
    );
  }
  // Depth and interlacing of a PNG stand in its header; readPng reads what video tools write.
  if ((format === "png_pipe" || format === "apng") && bytes[24] === 8 && bytes[28] === 0) {
    return readPng(bytes, path);
  }
  if (format === "jpeg_pipe" && !hasEnd(bytes)) {
    throw new FileFormatError(path, `ends at byte ${size} within the JPEG (truncated)`);
  }
  return await decodeStill(path, bytes, format === "apng" ? "png_pipe" : format, stallSeconds);
}

/** One picture through ffmpeg, with its transparency. */
async function decodeStill(
  path: string,
  bytes: Uint8Array<ArrayBuffer>,
  format: ImageFormat,
  stallSeconds: number,
): Promise<Frames> {
  const { running } = await startFfmpeg({
    input: [
      ...["-max_pixels", String(MOST_PIXELS)],
      ...format === "jpeg_pipe" ? ["-err_detect", "explode"] : [], // damage inside is an error, not a gray area
      // All bytes are one picture: ffmpeg cannot ask a pipe for its length.
      ...["-f", format, "-frame_size", String(bytes.byteLength)],
    ],
    output: () => [
      ...["-map", "0:v:0", "-frames:v", "1"],
      ...["-sws_flags", "accurate_rnd+full_chroma_int+bicubic", "-pix_fmt", "rgba", "-c:v", "pam"],
      ...["-f", "image2pipe"],
    ],
  });
  let late = false;
  const alarm = setTimeout(() => {
    late = true;
    running.stop();
  }, stallSeconds * 1000);
  try {
    const feeding = running.write(bytes).then(() => running.close()).catch(() => {}); // it may have read enough
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for (let part; (part = await running.read());) parts.push(part);
    await feeding;
    const pam = new Uint8Array(await new Blob(parts).arrayBuffer());
    const { success, said } = await running.end();
    const picture = success ? fromPam(pam, format === "tiff_pipe" && isPremultiplied(bytes)) : undefined;
    if (picture !== undefined) return picture;
    if (late) throw new FileFormatError(path, `ffmpeg brought nothing for ${stallSeconds} seconds`);
    throw new FileFormatError(
      path,
      `expected an image, found damage${said === "" ? "" : `: ffmpeg says "${said}"`}`,
    );
  } finally {
    clearTimeout(alarm);
    await running.stop();
  }
}

/** Whether a JPEG has its end: ffmpeg fills up one that breaks off with gray, and says nothing. */
function hasEnd(jpeg: Uint8Array): boolean {
  const isMarker = (at: number) => jpeg[at] === 0xff && jpeg[at + 1] !== 0 && jpeg[at + 1] !== 0xff;
  for (let at = 2; at + 1 < jpeg.byteLength;) {
    const marker = jpeg[at + 1];
    // Fill bytes, coded pixels with their restart marks, and what stands between two segments.
    if (!isMarker(at) || marker >= 0xd0 && marker <= 0xd7) at++;
    else if (marker === 0xd9) return true;
    else at += 2 + (jpeg[at + 2] << 8 | jpeg[at + 3]);
  }
  return false;
}

/** A PAM picture over black; undefined if it is none or has not all its pixels. */
function fromPam(pam: Uint8Array, premultiplied: boolean): Frames | undefined {
  const head = new TextDecoder("latin1").decode(pam.subarray(0, 256));
  const found = /^P7\nWIDTH (\d+)\nHEIGHT (\d+)\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n/.exec(
    head,
  );
  if (found === null) return undefined;
  const [width, height] = [Number(found[1]), Number(found[2])], rgba = pam.subarray(found[0].length);
  if (width * height > MOST_PIXELS || rgba.byteLength !== width * height * 4) return undefined;
  const out = makeFrames(1, height, width), { data } = out;
  for (let from = 0, to = 0; from < rgba.byteLength; from += 4, to += 3) {
    const alpha = premultiplied ? 255 : rgba[from + 3];
    for (let c = 0; c < 3; c++) data[to + c] = overBlack(rgba[from + c], alpha);
  }
  return out;
}

/** Whether a TIFF says that its colours are multiplied with their opacity already (ExtraSamples 1), which ffmpeg ignores. */
function isPremultiplied(tiff: Uint8Array): boolean {
  const data = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength), little = tiff[0] === 0x49;
  const at = data.getUint32(4, little);
  if (at + 2 > tiff.byteLength) return false;
  const entries = data.getUint16(at, little);
  for (let i = 0, entry = at + 2; i < entries && entry + 12 <= tiff.byteLength; i++, entry += 12) {
    const [tag, type, count] = [data.getUint16(entry, little), data.getUint16(entry + 2, little), entry + 4];
    if (tag === 338 && type === 3 && data.getUint32(count, little) === 1) {
      return data.getUint16(entry + 8, little) === 1;
    }
  }
  return false;
}
