/**
 * Pictures for looking at results: clips side by side, and a contact sheet of many frames in one image.
 *
 * @module
 */
import { CELL, type Colour, drawText, stampFrames } from "./font.ts";
import { fillColour, type Frames, makeFrames } from "./frames.ts";

/** A clip and what to write above or beside it. */
export interface Labelled {
  /** A few words. */
  readonly label: string;
  /** The clip. */
  readonly frames: Frames;
  /** First frame that was predicted, not given; later frames get a coloured edge. */
  readonly predictedFrom?: number;
}

/** Options that all pictures share. */
export interface PictureOptions {
  /** Pixels of the picture a pixel of the clip; such that small clips reach about 128 pixels when absent. */
  readonly scale?: number;
  /** A text for the strip below, such as that the weights were random. */
  readonly stamp?: string;
}

const BACKGROUND: Colour = [24, 24, 24];
const GIVEN: Colour = [90, 90, 90];
const PREDICTED: Colour = [230, 140, 20];
const GAP = 4;

function filled(frames: number, height: number, width: number, colour: Colour): Frames {
  const out = makeFrames(frames, height, width);
  fillColour(out.data, colour);
  return out;
}

/** Copies one frame, each pixel as a square: a row is widened once and then copied. */
function paste(
  on: Frames,
  onFrame: number,
  from: Frames,
  frame: number,
  top: number,
  left: number,
  scale: number,
): void {
  const stride = from.width * 3, length = stride * scale;
  for (let y = 0; y < from.height; y++) {
    const source = from.data.subarray(
      (frame * from.height + y) * stride,
      (frame * from.height + y + 1) * stride,
    );
    const start = ((onFrame * on.height + top + y * scale) * on.width + left) * 3;
    if (scale === 1) on.data.set(source, start);
    else widen(source, scale, on.data.subarray(start, start + length));
    for (let s = 1; s < scale; s++) on.data.copyWithin(start + s * on.width * 3, start, start + length);
  }
}

/** Writes each pixel of a row `scale` times. */
function widen(row: Uint8Array, scale: number, out: Uint8Array): void {
  for (let i = 0, at = 0; i < row.length; i += 3) {
    for (let s = 0; s < scale; s++, at += 3) {
      out[at] = row[i];
      out[at + 1] = row[i + 1];
      out[at + 2] = row[i + 2];
    }
  }
}

/** An edge of two pixels around a rectangle, outside it. */
function edge(
  on: Frames,
  frame: number,
  top: number,
  left: number,
  height: number,
  width: number,
  colour: Colour,
): void {
  const line = (y: number, from: number, to: number) => {
    const start = (frame * on.height + y) * on.width;
    fillColour(on.data.subarray((start + from) * 3, (start + to) * 3), colour);
  };
  for (const y of [top - 2, top - 1, top + height, top + height + 1]) line(y, left - 2, left + width + 2);
  for (let y = top; y < top + height; y++) {
    line(y, left - 2, left);
    line(y, left + width, left + width + 2);
  }
}

function defaultScale(clips: readonly Labelled[]): number {
  const largest = Math.max(...clips.map(({ frames }) => Math.max(frames.height, frames.width)));
  return Math.max(1, Math.floor(128 / largest));
}

function checked(who: string, clips: readonly Labelled[]): void {
  if (clips.length === 0 || clips.some(({ frames }) => frames.frames === 0)) {
    throw new RangeError(`${who}: expected at least one clip with at least one frame`);
  }
}

/**
 * Clips next to each other, played together, each with its label above. A clip that ends before the others leaves its place
 * empty. Predicted frames have a coloured edge.
 *
 * @param clips The clips, from left to right; sizes and lengths may differ.
 * @param options Scale and stamp.
 * @throws {RangeError} If there is no clip or no frame.
 */
export function sideBySide(clips: readonly Labelled[], options: PictureOptions = {}): Frames {
  checked("sideBySide", clips);
  const scale = options.scale ?? defaultScale(clips);
  const count = Math.max(...clips.map(({ frames }) => frames.frames));
  const height = Math.max(...clips.map(({ frames }) => frames.height)) * scale;
  const widths = clips.map(({ label, frames }) => Math.max(frames.width * scale, label.length * CELL.width));
  const head = CELL.height + GAP;
  const total = widths.reduce((sum, width) => sum + width + 2 * GAP, 0);
  const out = filled(count, head + height + 2 * GAP, total, BACKGROUND);
  let left = GAP;
  clips.forEach(({ label, frames, predictedFrom }, i) => {
    drawText(out, label, { left, top: 2 });
    for (let f = 0; f < frames.frames; f++) {
      paste(out, f, frames, f, head + GAP, left, scale);
      const colour = f >= (predictedFrom ?? Infinity) ? PREDICTED : GIVEN;
      edge(out, f, head + GAP, left, frames.height * scale, frames.width * scale, colour);
    }
    left += widths[i] + 2 * GAP;
  });
  return options.stamp === undefined ? out : stampFrames(out, options.stamp);
}

/** At most `most` of the numbers 0 to `count` - 1, evenly spaced, with the first and the last. */
export function spaced(count: number, most: number): number[] {
  if (count <= most) return Array.from({ length: count }, (_, i) => i);
  if (most === 1) return [0];
  return Array.from({ length: most }, (_, i) => Math.round(i * (count - 1) / (most - 1)));
}

/**
 * One image with a row of frames for each clip, the frame's number above its column and the clip's label above its row.
 * When there are more frames than columns, evenly spaced ones are shown. Predicted frames have a coloured edge.
 *
 * @param clips The clips, from top to bottom; lengths may differ.
 * @param options Scale and stamp, the largest number of columns (16 when absent), and the number of the first frame (0 when
 * absent), from which columns are counted.
 * @returns A single frame.
 * @throws {RangeError} If there is no clip, no frame or no column.
 */
export function contactSheet(
  clips: readonly Labelled[],
  options: PictureOptions & { readonly columns?: number; readonly firstFrame?: number } = {},
): Frames {
  checked("contactSheet", clips);
  const { columns: most = 16, firstFrame = 0 } = options;
  if (!Number.isSafeInteger(most) || most < 1) {
    throw new RangeError(`contactSheet: expected at least 1 column, found ${most}`);
  }
  const scale = options.scale ?? Math.max(1, Math.floor(defaultScale(clips) / 2));
  const numbers = spaced(Math.max(...clips.map(({ frames }) => frames.frames)), most);
  const digits = String(firstFrame + numbers[numbers.length - 1]).length;
  const cell = Math.max(digits * CELL.width, Math.max(...clips.map(({ frames }) => frames.width)) * scale) +
    2 * GAP;
  const heights = clips.map(({ frames }) => frames.height * scale + CELL.height + 3 * GAP);
  const longest = Math.max(...clips.map(({ label }) => label.length)) * CELL.width;
  const head = CELL.height + GAP;
  const total = heights.reduce((a, b) => a + b, head);
  const out = filled(1, total, Math.max(numbers.length * cell, longest) + 2 * GAP, BACKGROUND);
  numbers.forEach((number, column) => {
    drawText(out, String(firstFrame + number), { left: 2 * GAP + column * cell, top: GAP }, [160, 160, 160]);
  });
  let top = head;
  clips.forEach(({ label, frames, predictedFrom }, row) => {
    drawText(out, label, { left: 2 * GAP, top: top + GAP });
    numbers.forEach((number, column) => {
      if (number >= frames.frames) return;
      const [y, x] = [top + CELL.height + 2 * GAP, 2 * GAP + column * cell];
      paste(out, 0, frames, number, y, x, scale);
      const colour = number >= (predictedFrom ?? Infinity) ? PREDICTED : GIVEN;
      edge(out, 0, y, x, frames.height * scale, frames.width * scale, colour);
    });
    top += heights[row];
  });
  return options.stamp === undefined ? out : stampFrames(out, options.stamp);
}
