/**
 * Frames as models see them: planes of colours from -1 to 1.
 *
 * @module
 */
import { type Frames, makeFrames } from "./frames.ts";

/** Colours 0 to 255, `[F, H, W, 3]`, as planes in [-1, 1], `[F, 3, H, W]`. */
export function toPlanes(from: Frames): Float32Array {
  const pixels = from.height * from.width, out = new Float32Array(from.frames * 3 * pixels);
  for (let f = 0; f < from.frames; f++) {
    for (let i = 0; i < pixels; i++) {
      for (let c = 0; c < 3; c++) {
        out[(f * 3 + c) * pixels + i] = from.data[(f * pixels + i) * 3 + c] / 255 * 2 - 1;
      }
    }
  }
  return out;
}

/** Planes in [-1, 1], `[F, 3, H, W]`, as colours rounded to 0 … 255; what lies outside is clamped. */
export function fromPlanes(values: Float32Array, height: number, width: number): Frames {
  const pixels = height * width, count = values.length / (3 * pixels);
  const out = makeFrames(count, height, width);
  for (let f = 0; f < count; f++) {
    for (let i = 0; i < pixels; i++) {
      for (let c = 0; c < 3; c++) {
        const value = (values[(f * 3 + c) * pixels + i] + 1) * 127.5;
        out.data[(f * pixels + i) * 3 + c] = Math.min(255, Math.max(0, Math.round(value)));
      }
    }
  }
  return out;
}
