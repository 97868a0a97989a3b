/**
 * Images: PNG, read and written, and animated GIF, written.
 *
 * @module
 */
import { crc32, inflateSync } from "node:zlib";
import { writeAtomic } from "./atomic.ts";
import { FileFormatError } from "./errors.ts";
import { type Frames, makeFrames, sliceFrames } from "./frames.ts";
import { encodePng, GifEncoder, paeth, PNG_SIGNATURE } from "./image_encode.ts";
import { openSource } from "./source.ts";

export { encodePng };

/** Larger pictures are no frames of a video; the bound keeps a small hostile file from claiming gigabytes. */
export const MOST_PIXELS: number = 2 ** 27;

/** Samples per pixel by PNG's colour type. */
const CHANNELS: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const COLOUR_TYPES: Readonly<Record<number, string>> = {
  0: "gray",
  2: "RGB",
  3: "palette",
  4: "gray with alpha",
  6: "RGBA",
};

/**
 * The rule for transparency in every image format: a colour is laid over black. Writers leave any colour behind what cannot be
 * seen, so that only a fixed ground gives the same picture in all formats.
 */
export const overBlack = (value: number, alpha: number): number => Math.round(value * alpha / 255);

interface PngParts {
  readonly height: number;
  readonly width: number;
  readonly colourType: number;
  readonly palette: Uint8Array | undefined;
  /** Opacity of each palette entry, or the one gray or RGB colour that stands for nothing. */
  readonly transparency: DataView | undefined;
  readonly packed: Uint8Array;
}

function readChunks(path: string, bytes: Uint8Array): PngParts {
  const fail = (detail: string): never => {
    throw new FileFormatError(path, detail);
  };
  if (!PNG_SIGNATURE.every((byte, i) => bytes[i] === byte)) {
    fail("expected a PNG image, found something else");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const packed: Uint8Array[] = [];
  let head: DataView | undefined;
  let palette: Uint8Array | undefined;
  let transparency: DataView | undefined;
  for (let at = 8, type = ""; type !== "IEND";) {
    if (at + 12 > bytes.byteLength) fail(`ends at byte ${bytes.byteLength} within the PNG (truncated)`);
    const length = view.getUint32(at);
    type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (at + 12 + length > bytes.byteLength) {
      fail(`ends at byte ${bytes.byteLength} within the PNG (truncated)`);
    }
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (crc32(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) {
      fail(`PNG chunk at byte ${at}: its CRC-32 differs, the file is damaged`);
    }
    if (type === "IHDR" && length === 13) head = new DataView(data.buffer, data.byteOffset, 13);
    else if (type === "PLTE") palette = data;
    else if (type === "tRNS") transparency = new DataView(data.buffer, data.byteOffset, length);
    else if (type === "IDAT") packed.push(data);
    at += 12 + length;
  }
  if (head === undefined) return fail("expected a PNG header, found none");
  const [width, height, depth, colourType, interlace] = [
    head.getUint32(0),
    head.getUint32(4),
    head.getUint8(8),
    head.getUint8(9),
    head.getUint8(12),
  ];
  if (width === 0 || height === 0 || width * height > MOST_PIXELS) {
    fail(`expected a picture of 1 to ${MOST_PIXELS} pixels, found ${width}x${height}`);
  }
  if (!(colourType in CHANNELS)) fail(`expected a PNG colour type 0, 2, 3, 4 or 6, found ${colourType}`);
  if (depth !== 8) {
    fail(`expected 8 bits a sample, found ${depth} (${COLOUR_TYPES[colourType]}): save it as 8-bit RGB`);
  }
  if (interlace !== 0) fail("is interlaced (Adam7), expected rows in order: save it without interlacing");
  if (colourType === 3 && palette === undefined) fail("expected a palette, found none");
  const lengths: Readonly<Record<number, number>> = { 0: 2, 2: 6 };
  if (transparency && colourType !== 3 && transparency.byteLength !== lengths[colourType]) {
    fail(
      `expected no transparent colour of ${transparency.byteLength} bytes in a PNG of ${
        COLOUR_TYPES[colourType]
      }`,
    );
  }
  const joined = new Uint8Array(packed.reduce((sum, part) => sum + part.byteLength, 0));
  packed.reduce((at, part) => (joined.set(part, at), at + part.byteLength), 0);
  return { height, width, colourType, palette, transparency, packed: joined };
}

/** Undoes the row filters in place; each row begins with its filter's number. */
function unfilter(path: string, rows: Uint8Array, stride: number, step: number): void {
  for (let start = 0, before = -1; start < rows.byteLength; before = start, start += stride + 1) {
    const filter = rows[start];
    if (filter > 4) throw new FileFormatError(path, `expected PNG row filters 0 to 4, found ${filter}`);
    for (let i = 1; i <= stride && filter !== 0; i++) {
      const left = i > step ? rows[start + i - step] : 0;
      const up = before >= 0 ? rows[before + i] : 0;
      const corner = before >= 0 && i > step ? rows[before + i - step] : 0;
      const guess = filter === 1
        ? left
        : filter === 2
        ? up
        : filter === 3
        ? (left + up) >> 1
        : paeth(left, up, corner);
      rows[start + i] += guess;
    }
  }
}

/** Opacity of the pixel at a place in its row's bytes, 0 to 255. */
function opacity({ colourType, transparency }: PngParts, rows: Uint8Array, at: number): number {
  if (colourType === 4) return rows[at + 1];
  if (colourType === 6) return rows[at + 3];
  if (transparency === undefined) return 255;
  if (colourType === 3) return rows[at] < transparency.byteLength ? transparency.getUint8(rows[at]) : 255;
  const channels = CHANNELS[colourType];
  for (let c = 0; c < channels; c++) if (rows[at + c] !== transparency.getUint16(2 * c)) return 255;
  return 0;
}

/**
 * Reads a PNG image: 8 bits a sample; gray, RGB, palette, with or without transparency, which is laid over black.
 *
 * @param from A path, or the whole content.
 * @param name What to call bytes in messages.
 * @returns A single RGB frame.
 * @throws {FileFormatError} If it is damaged, interlaced or of another depth: expected, found.
 * @throws {FileAccessError} If the file cannot be opened.
 *
 * @example
 * ```ts
 * import { makeFrames } from "./frames.ts";
 * import { encodePng, readPng } from "./image.ts";
 * const red = makeFrames(1, 1, 1, new Uint8Array([255, 0, 0]));
 * console.assert(readPng(encodePng(red)).data[0] === 255);
 * ```
 */
export function readPng(from: string | Uint8Array, name?: string): Frames {
  using source = openSource(from, name);
  const { path } = source;
  const parts = readChunks(path, source.read(0, source.size));
  const { height, width, colourType, palette, packed } = parts;
  const channels = CHANNELS[colourType];
  const expected = height * (width * channels + 1);
  let rows: Uint8Array;
  try {
    rows = new Uint8Array(inflateSync(packed, { maxOutputLength: expected }));
  } catch (error) {
    throw new FileFormatError(
      path,
      `expected ${expected} bytes of pixels, found damage: ${(error as Error).message}`,
    );
  }
  if (rows.byteLength !== expected) {
    throw new FileFormatError(path, `expected ${expected} bytes of pixels, found ${rows.byteLength}`);
  }
  unfilter(path, rows, width * channels, channels);
  const out = makeFrames(1, height, width);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += 3) {
      const at = y * (width * channels + 1) + 1 + x * channels;
      if (colourType === 3 && rows[at] * 3 + 3 > palette!.byteLength) {
        throw new FileFormatError(
          path,
          `expected colours below ${palette!.byteLength / 3}, found ${rows[at]}`,
        );
      }
      const alpha = opacity(parts, rows, at);
      for (let c = 0; c < 3; c++) {
        const value = colourType === 3 ? palette![rows[at] * 3 + c] : rows[at + (channels >= 3 ? c : 0)];
        out.data[to + c] = overBlack(value, alpha);
      }
    }
  }
  return out;
}

/**
 * Writes a PNG file: all of it or nothing.
 *
 * @param path The file; replaced if it exists.
 * @param image A single frame.
 * @throws {RangeError} If there is not exactly one frame.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writePng(path: string, image: Frames): Promise<void> {
  await writeAtomic(path, encodePng(image));
}

/**
 * Writes an animated GIF that repeats for ever, each frame with its own 256 colours: all of it or nothing. Frames may come
 * one by one, so that a long video needs little memory.
 *
 * @param path The file; replaced if it exists.
 * @param clip Frames, at once or in parts, all of one size.
 * @param fps Frames per second; GIF counts in hundredths of a second, so the true rate may differ a little, and it is at
 * most 50.
 * @throws {RangeError} If there is no frame, the size changes, or `fps` is not positive.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writeGif(
  path: string,
  clip: Frames | AsyncIterable<Frames>,
  fps: number,
): Promise<void> {
  if (!(fps > 0)) throw new RangeError(`gif: expected frames per second above 0, found ${fps}`);
  await writeAtomic(path, async (file) => {
    const encoder = new GifEncoder(fps);
    let [height, width, count] = [0, 0, 0];
    for await (const part of "data" in clip ? [clip] : clip) {
      if (count === 0) [height, width] = [part.height, part.width];
      if (part.height !== height || part.width !== width) {
        throw new RangeError(
          `gif: expected ${height}x${width} throughout, found ${part.height}x${part.width}`,
        );
      }
      for (let f = 0; f < part.frames; f++, count++) file.write(encoder.add(sliceFrames(part, f, f + 1)));
    }
    if (count === 0) throw new RangeError("gif: expected at least one frame, found none");
    file.write(encoder.finish());
  });
}
