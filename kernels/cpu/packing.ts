/**
 * The private layout of packed weights: rows as panels of 8, each of which takes the bytes of its own rows.
 *
 * @module
 */
import type { PackRequest } from "../device.ts";

/** Rows of a panel. */
export const PANEL = 8;

/** A weight's private layout: rows of `length * taps` elements as panels of 8 rows. */
export interface Packing {
  readonly rows: number;
  readonly length: number;
  readonly taps: number;
  readonly half: boolean;
}

/** Where packing happens: the device's memory, a panel of scratch in it, and the functions that copy a panel. */
export interface PanelMemory {
  readonly view: Uint8Array;
  readonly scratch: number;
  readonly exports: Readonly<Record<string, unknown>>;
}

/** Bytes of all rows in the authors' layout. */
const rowBytes = ({ rows, length, taps, half }: Packing) => rows * length * taps * (half ? 2 : 4);

/** Bytes of a panel, and of 8 rows in the authors' layout. */
export const panelBytes = ({ length, taps, half }: Packing): number => PANEL * length * taps * (half ? 2 : 4);

/** Bytes of all panels; the last one is padded to 8 rows. */
export const packedBytes = (packing: Packing): number =>
  Math.ceil(packing.rows / PANEL) * panelBytes(packing);

/**
 * The packing that is asked for; null for a weight without elements.
 *
 * @param bytes Size of the buffer.
 * @throws {RangeError} If shape or dtype do not fit the kind, or the buffer is too small.
 */
export function packingOf({ kind, shape, dtype }: PackRequest, bytes: number): Packing | null {
  const rank = kind === "linear" ? 2 : 4;
  if (shape.length !== rank) {
    throw new RangeError(`pack: a ${kind} weight has shape [${shape.join(", ")}], expected rank ${rank}`);
  }
  if (dtype === "i32") throw new RangeError(`pack: a ${kind} weight has dtype i32, expected f32 or f16`);
  const [rows, length, kh = 1, kw = 1] = shape;
  const packing = { rows, length, taps: kh * kw, half: dtype === "f16" }, needed = rowBytes(packing);
  if (needed > bytes) {
    throw new RangeError(`pack: shape [${shape.join(", ")}] needs ${needed} bytes, the buffer has ${bytes}`);
  }
  return needed > 0 ? packing : null;
}

/** Packs the rows at an address in place, panel by panel through the scratch. */
export function packRows({ view, scratch, exports }: PanelMemory, at: number, packing: Packing): void {
  const { rows, length, taps, half } = packing, step = panelBytes(packing);
  const pack = exports.packPanel as (...args: number[]) => void;
  for (let n = 0, to = at; n < rows; n += PANEL, to += step) {
    pack(at, half ? 1 : 0, rows, n, length, taps, scratch);
    view.copyWithin(to, scratch, scratch + step);
  }
}

/** Some bytes of packed rows, in the authors' layout. */
export function readRows(
  { view, scratch, exports }: PanelMemory,
  at: number,
  packing: Packing,
  byteOffset: number,
  bytes: number,
): ArrayBuffer {
  const { rows, length, taps, half } = packing, step = panelBytes(packing), total = rowBytes(packing);
  const result = new Uint8Array(bytes), unpack = exports.unpackPanel as (...args: number[]) => void;
  for (let n = 0, first = 0; n < rows; n += PANEL, first += step) {
    const end = Math.min(first + step, total);
    const from = Math.max(first, byteOffset), to = Math.min(end, byteOffset + bytes);
    if (from >= to) continue;
    unpack(at + first, half ? 1 : 0, Math.min(PANEL, rows - n), 0, length, taps, scratch);
    result.set(view.subarray(scratch + from - first, scratch + to - first), from - byteOffset);
  }
  return result.buffer;
}
