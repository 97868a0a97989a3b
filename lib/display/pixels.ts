/**
 * Small pictures: squares of colour by row and column.
 *
 * @module
 */
import { encodePng } from "../io/image_encode.ts";
import type { MediaBundle } from "./showing.ts";

/** Red, green and blue from 0 to 255. */
export type Rgb = readonly [red: number, green: number, blue: number];

/** Sides of pictures in pixels: smaller ones are enlarged by a whole factor, larger ones are thinned. */
const LEAST = 256, MOST = 1024;

/** How a picture comes to a size that can be looked at: every `every`-th row and column, each pixel a square of side `scale`. */
export function viewed(height: number, width: number): { readonly every: number; readonly scale: number } {
  const longer = Math.max(height, width, 1);
  return { every: Math.ceil(longer / MOST), scale: Math.max(1, Math.floor(LEAST / longer)) };
}

/**
 * A picture as PNG in base64.
 *
 * @param colour Colour of a row and column.
 * @param scale Side of the square of a row and column; chosen by {@linkcode viewed} unless given.
 */
export function picture(
  height: number,
  width: number,
  colour: (row: number, column: number) => Rgb,
  scale?: number,
): string {
  const view = scale === undefined ? viewed(height, width) : { every: 1, scale }, { every } = view;
  const H = Math.ceil(height / every) * view.scale, W = Math.ceil(width / every) * view.scale;
  const data = new Uint8Array(H * W * 3);
  for (let y = 0; y < H; y++) {
    if (y % view.scale > 0) {
      data.copyWithin(y * W * 3, (y - 1) * W * 3, y * W * 3);
      continue;
    }
    const row = Math.floor(y / view.scale) * every;
    for (let x = 0; x < W; x++) {
      data.set(colour(row, Math.floor(x / view.scale) * every), (y * W + x) * 3);
    }
  }
  return encodePng({ frames: 1, height: H, width: W, data }).toBase64();
}

/** A PNG with a line of text for where there are no pictures. */
export const pictureBundle = (png: string, text: string): MediaBundle => ({
  "image/png": png,
  "text/plain": text,
});

/** Blue for negative, white for zero, red for positive numbers; ±1 and beyond are darkest, what is not finite is black. */
export function diverging(value: number): Rgb {
  if (!Number.isFinite(value)) return [0, 0, 0];
  const fade = Math.round(255 * (1 - Math.min(1, Math.abs(value))));
  return value < 0 ? [fade, fade, 255] : [255, fade, fade];
}
