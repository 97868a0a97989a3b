/**
 * Encoders of images in memory: PNG on `node:zlib`, animated GIF through npm:gifenc.
 *
 * @module
 */
import { crc32, deflateSync } from "node:zlib";
// @ts-types="./gifenc.d.ts"
// deno-lint-ignore no-import-prefix -- lib/ is also imported where no import map is
import gifenc from "npm:gifenc@1.0.3";
import type { Frames } from "./frames.ts";

/** The first eight bytes of every PNG. */
export const PNG_SIGNATURE: readonly number[] = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + data.byteLength);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.byteLength);
  out.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  out.set(data, 8);
  view.setUint32(8 + data.byteLength, crc32(out.subarray(4, 8 + data.byteLength)));
  return out;
}

/** The Paeth predictor of the PNG specification: the neighbour that is nearest to left + up - corner. */
export function paeth(left: number, up: number, corner: number): number {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/**
 * A PNG file's content: 8-bit RGB, the same bytes for the same picture.
 *
 * @param image A single frame.
 * @throws {RangeError} If there is not exactly one frame.
 */
export function encodePng(image: Frames): Uint8Array<ArrayBuffer> {
  const { frames, height, width, data } = image;
  if (frames !== 1) throw new RangeError(`png: expected one frame, found ${frames}`);
  const stride = width * 3;
  const filtered = new Uint8Array(height * (stride + 1));
  for (let y = 0; y < height; y++) {
    filtered[y * (stride + 1)] = 4; // Paeth
    for (let i = 0; i < stride; i++) {
      const at = y * stride + i;
      const left = i >= 3 ? data[at - 3] : 0;
      const up = y > 0 ? data[at - stride] : 0;
      const corner = i >= 3 && y > 0 ? data[at - stride - 3] : 0;
      filtered[y * (stride + 1) + 1 + i] = data[at] - paeth(left, up, corner);
    }
  }
  const head = new Uint8Array(13);
  new DataView(head.buffer).setUint32(0, width);
  new DataView(head.buffer).setUint32(4, height);
  head.set([8, 2, 0, 0, 0], 8);
  const parts = [
    Uint8Array.from(PNG_SIGNATURE),
    chunk("IHDR", head),
    chunk("IDAT", new Uint8Array(deflateSync(filtered))),
    chunk("IEND", new Uint8Array(0)),
  ];
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  parts.reduce((at, part) => (out.set(part, at), at + part.byteLength), 0);
  return out;
}

/** Encodes a GIF that repeats for ever, frame by frame, each with its own 256 colours. */
export class GifEncoder {
  readonly #encoder = gifenc.GIFEncoder();
  readonly #fps: number;
  readonly #scale: number;
  #count = 0;

  /**
   * @param fps Frames a second; GIF counts in hundredths of a second, so the true rate may differ a little, and it is at most 50.
   * @param scale Each pixel becomes a square of this side. Default 1.
   */
  constructor(fps: number, scale = 1) {
    this.#fps = fps;
    this.#scale = scale;
  }

  /** Appends frames. The result is what they add to the file, as a view that holds until the next call. */
  add({ frames, height, width, data }: Frames): Uint8Array<ArrayBuffer> {
    const size = height * width * 3, scale = this.#scale;
    this.#encoder.stream.reset(); // what was taken before; the encoder keeps its state
    for (let f = 0; f < frames; f++, this.#count++) {
      const rgba = withAlpha(data.subarray(f * size, (f + 1) * size)), palette = gifenc.quantize(rgba, 256);
      const index = squares(gifenc.applyPalette(rgba, palette), width, scale);
      // Whole hundredths for each frame, such that the sum stays right: frame i ends at round(100 (i + 1) / fps).
      const ends = [0, 1].map((i) => Math.round(100 * (this.#count + i) / this.#fps));
      const delay = 10 * Math.max(2, ends[1] - ends[0]);
      this.#encoder.writeFrame(index, width * scale, height * scale, { palette, delay, repeat: 0 });
    }
    return this.#encoder.bytesView();
  }

  /** Appends the trailer: the last bytes of the file. */
  finish(): Uint8Array<ArrayBuffer> {
    this.#encoder.stream.reset();
    this.#encoder.finish();
    return this.#encoder.bytesView();
  }
}

/** Each of the numbers, row by row, as a square. */
function squares(index: Uint8Array, width: number, scale: number): Uint8Array {
  if (scale === 1) return index;
  const row = width * scale, out = new Uint8Array(index.length * scale * scale);
  for (let from = 0, to = 0; from < index.length; from += width, to += row * scale) {
    for (let x = 0; x < row; x++) out[to + x] = index[from + Math.floor(x / scale)];
    for (let s = 1; s < scale; s++) out.copyWithin(to + s * row, to, to + row);
  }
  return out;
}

function withAlpha(rgb: Uint8Array): Uint8Array {
  const rgba = new Uint8Array(rgb.length / 3 * 4);
  for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) {
    rgba[j] = rgb[i];
    rgba[j + 1] = rgb[i + 1];
    rgba[j + 2] = rgb[i + 2];
    rgba[j + 3] = 255;
  }
  return rgba;
}
