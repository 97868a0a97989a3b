/**
 * TensorBoard event files: scalars and pictures by step.
 *
 * A file is a sequence of records: length, its checksum, a protocol buffer (`tensorflow.Event`), its checksum.
 *
 * @module
 */
import { join } from "node:path";
import { accessError } from "./errors.ts";

/** Castagnoli polynomial, reflected. */
const POLYNOMIAL = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let c = i;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? (c >>> 1) ^ POLYNOMIAL : c >>> 1;
  return c >>> 0;
});

/**
 * CRC-32C of bytes.
 *
 * @example
 * ```ts
 * import { crc32c } from "./tfevents.ts";
 * console.assert(crc32c(new TextEncoder().encode("123456789")) === 0xe3069283);
 * ```
 */
export function crc32c(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (const b of bytes) c = TABLE[(c ^ b) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** The checksum as records carry it: rotated by 15 bits, plus a constant. */
const masked = (bytes: Uint8Array): number => {
  const c = crc32c(bytes);
  return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0;
};

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  parts.reduce((at, p) => (out.set(p, at), at + p.length), 0);
  return out;
}

function varint(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  do {
    out.push(rest % 128 + (rest >= 128 ? 128 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Uint8Array.from(out);
}

const key = (field: number, wire: number) => varint(field * 8 + wire);
const integer = (field: number, value: number) => joined([key(field, 0), varint(value)]);
const bytes = (field: number, value: Uint8Array) => joined([key(field, 2), varint(value.length), value]);
const string = (field: number, value: string) => bytes(field, new TextEncoder().encode(value));

function floating(field: number, value: number, size: 4 | 8): Uint8Array {
  const view = new DataView(new ArrayBuffer(size));
  if (size === 8) view.setFloat64(0, value, true);
  else view.setFloat32(0, value, true);
  return joined([key(field, size === 8 ? 1 : 5), new Uint8Array(view.buffer)]);
}

/** One record of an event file around an encoded event. */
export function encodeRecord(event: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = new Uint8Array(8), sum = new DataView(new ArrayBuffer(8));
  new DataView(head.buffer).setBigUint64(0, BigInt(event.length), true);
  sum.setUint32(0, masked(head), true);
  sum.setUint32(4, masked(event), true);
  return joined([head, new Uint8Array(sum.buffer, 0, 4), event, new Uint8Array(sum.buffer, 4, 4)]);
}

/** A picture: a PNG, or a GIF, which TensorBoard plays. */
export interface EventImage {
  /** Pixels across. */
  readonly width: number;
  /** Pixels down. */
  readonly height: number;
  /** The file's content. */
  readonly encoded: Uint8Array;
}

/** Appends events to a file of its own in a folder that TensorBoard watches. */
export class EventWriter {
  /** The file. */
  readonly path: string;

  /**
   * Makes the file, which says where it starts: TensorBoard drops what an earlier file has from there on.
   *
   * @param folder TensorBoard's folder; made if it does not exist.
   * @param fromStep First step that this file describes.
   * @throws {FileAccessError} If the system refuses.
   */
  constructor(folder: string, fromStep = 0) {
    const now = Date.now() / 1000; // TensorBoard reads files in the order of their names
    this.path = join(
      folder,
      `events.out.tfevents.${now.toFixed(3)}.far.${Deno.pid}.${crypto.randomUUID().slice(0, 8)}`,
    );
    try {
      Deno.mkdirSync(folder, { recursive: true });
    } catch (error) {
      throw accessError(folder, "cannot make", error);
    }
    this.#append(joined([floating(1, now, 8), string(3, "brain.Event:2")]));
    // session_log { status: START }
    this.#append(joined([floating(1, now, 8), integer(2, fromStep), bytes(7, integer(1, 1))]));
  }

  /** Writes one value for each tag. */
  scalars(step: number, values: Readonly<Record<string, number>>): void {
    const entries = Object.entries(values).map(([tag, value]) =>
      bytes(1, joined([string(1, tag), floating(2, value, 4)]))
    );
    this.#summary(step, entries);
  }

  /** Writes a picture. */
  image(step: number, tag: string, { width, height, encoded }: EventImage): void {
    const image = joined([integer(1, height), integer(2, width), integer(3, 3), bytes(4, encoded)]);
    this.#summary(step, [bytes(1, joined([string(1, tag), bytes(4, image)]))]);
  }

  #summary(step: number, values: readonly Uint8Array[]): void {
    this.#append(joined([floating(1, Date.now() / 1000, 8), integer(2, step), bytes(5, joined(values))]));
  }

  #append(event: Uint8Array): void {
    try {
      Deno.writeFileSync(this.path, encodeRecord(event), { append: true });
    } catch (error) {
      throw accessError(this.path, "cannot write", error);
    }
  }
}
