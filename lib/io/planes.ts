/**
 * Frames as models see them, and back: planes of colours instead of pixels of three.
 *
 * @module
 */
import { type Frames, makeFrames } from "./frames.ts";

/** Selection of an image's pixels. */
export interface ImagePart {
  /** First row. */
  readonly top: number;
  /** First column. */
  readonly left: number;
  /** Rows. */
  readonly height: number;
  /** Columns. */
  readonly width: number;
  /** Columns of the whole image. */
  readonly stride: number;
  /** Whether to mirror left and right. */
  readonly flip?: boolean;
}

/**
 * Writes a part of an image as planes.
 *
 * @param image Colours 0 to 255, `[rows, stride, 3]`, whole or in between.
 * @param part Its pixels that count.
 * @param range What 0 and 255 become.
 * @param out `[3, height, width]`.
 */
export function writePlanes(
  image: ArrayLike<number>,
  part: ImagePart,
  range: readonly [number, number],
  out: Float32Array,
): void {
  const { top, left, height, width, stride, flip = false } = part, plane = height * width;
  const [low, high] = range, span = high - low;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = ((y + top) * stride + x + left) * 3, to = y * width + (flip ? width - 1 - x : x);
      for (let c = 0; c < 3; c++) out[to + c * plane] = image[from + c] / 255 * span + low;
    }
  }
}

/**
 * Colours 0 to 255, `[F, H, W, 3]`, as planes, `[F, 3, H, W]`.
 *
 * @param from The colours; those before rounding as `Float32Array` are taken too.
 * @param range What 0 and 255 become; -1 and 1 when absent.
 */
export function toPlanes(
  from: Omit<Frames, "data"> & { readonly data: Uint8Array | Float32Array },
  range: readonly [number, number] = [-1, 1],
): Float32Array {
  const { height, width } = from, each = height * width * 3, out = new Float32Array(from.frames * each);
  const part = { top: 0, left: 0, height, width, stride: width };
  for (let at = 0; at < out.length; at += each) {
    writePlanes(from.data.subarray(at, at + each), part, range, out.subarray(at, at + each));
  }
  return out;
}

/**
 * Planes in [-1, 1], `[F, 3, H, W]`, as colours rounded to 0 … 255; what lies outside is clamped.
 *
 * @param unrounded Where to write the colours before rounding too: `[F, H, W, 3]` in [0, 1].
 */
export function fromPlanes(
  planes: Float32Array,
  height: number,
  width: number,
  unrounded?: Float32Array,
): Frames {
  const pixels = height * width, count = planes.length / (3 * pixels);
  const out = makeFrames(count, height, width);
  for (let f = 0; f < count; f++) {
    for (let i = 0; i < pixels; i++) {
      for (let c = 0; c < 3; c++) {
        const value = Math.min(1, Math.max(0, planes[(f * 3 + c) * pixels + i] / 2 + 0.5));
        const to = (f * pixels + i) * 3 + c;
        if (unrounded) unrounded[to] = value;
        out.data[to] = Math.round(value * 255);
      }
    }
  }
  return out;
}
