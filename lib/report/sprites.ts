/**
 * Frames inside a page: sprite sheets as PNG, so that every pixel is exact, within a bound on their number.
 *
 * @module
 */
import { fitFrames, type Frames, makeFrames, sliceFrames } from "../io/frames.ts";
import { encodePng } from "../io/image.ts";

/** Pixels in all frames of a page: 36 MiB before compression, some 3,000 frames of 64 by 64 or 190 of 256 by 256. */
export const MOST_PIXELS: number = 12 * 2 ** 20;

/** Pixels in one sheet. */
const SHEET_PIXELS = 2 ** 21;

/** Limits of a page. */
export interface Fitted {
  /** Every so-many-th frame is shown. */
  readonly every: number;
  /** Rows and columns are divided by this. */
  readonly shrink: number;
}

/**
 * How frames come within {@linkcode MOST_PIXELS}: those above 256 pixels a side are made smaller first, then frames are left
 * out evenly.
 *
 * @param frames Frames of all clips together.
 */
export function fitting(frames: number, height: number, width: number, most: number = MOST_PIXELS): Fitted {
  if (frames * height * width <= most) return { every: 1, shrink: 1 };
  const shrink = Math.max(1, Math.ceil(Math.max(height, width) / 256));
  const pixels = frames * Math.ceil(height / shrink) * Math.ceil(width / shrink);
  return { every: Math.max(1, Math.ceil(pixels / most)), shrink };
}

/** Frames in order on several sheets of the same layout. */
export interface Sprites {
  /** Size of a frame. */
  readonly height: number;
  readonly width: number;
  /** Frames in a row of a sheet. */
  readonly columns: number;
  /** Frames on a full sheet. */
  readonly perSheet: number;
  /** PNG files. */
  readonly sheets: readonly Uint8Array[];
}

/** Puts frames onto sheets. */
export function spritesOf(frames: Frames): Sprites {
  const { height, width } = frames, stride = width * 3;
  const columns = Math.max(1, Math.floor(Math.sqrt(SHEET_PIXELS) / width));
  const perSheet = columns * Math.max(1, Math.floor(Math.sqrt(SHEET_PIXELS) / height));
  const sheets: Uint8Array[] = [];
  for (let first = 0; first < frames.frames; first += perSheet) {
    const count = Math.min(perSheet, frames.frames - first);
    const sheet = makeFrames(1, Math.ceil(count / columns) * height, Math.min(count, columns) * width);
    for (let i = 0; i < count; i++) {
      const top = Math.floor(i / columns) * height, left = (i % columns) * width;
      for (let y = 0; y < height; y++) {
        const from = ((first + i) * height + y) * stride;
        sheet.data.set(frames.data.subarray(from, from + stride), ((top + y) * sheet.width + left) * 3);
      }
    }
    sheets.push(encodePng(sheet));
  }
  return { height, width, columns, perSheet, sheets };
}

/** Every `every`-th frame from `first` on, made smaller by `shrink`. */
export function thinFrames(frames: Frames, first: number, { every, shrink }: Fitted): Frames {
  const count = Math.max(0, Math.ceil((frames.frames - first) / every)),
    each = frames.height * frames.width * 3;
  const kept = makeFrames(count, frames.height, frames.width);
  for (let i = 0; i < count; i++) {
    kept.data.set(sliceFrames(frames, first + i * every, first + i * every + 1).data, i * each);
  }
  const size = { height: Math.ceil(frames.height / shrink), width: Math.ceil(frames.width / shrink) };
  return fitFrames(kept, size, "stretch");
}
