/**
 * What the tests of files share: seeded bytes, mutations of a good file, temporary folders.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { crc32, deflateSync } from "node:zlib";
import type { FileWriter } from "../lib/io/atomic.ts";
import { FileAccessError, FileFormatError } from "../lib/io/errors.ts";
import { byteLength, elements, type HostDType, type HostTensor, isHostDType } from "../lib/io/host.ts";
import type { FileTensor, TensorFile } from "../lib/io/tensor_file.ts";
import { ZipWriter } from "../lib/io/zip_write.ts";

/** Whole numbers from 0 to `below` - 1. */
export function pick(random: () => number, below: number): number {
  return Math.floor(random() * below);
}

/** A tensor with bytes from the generator; booleans are 0 or 1. */
export function randomTensor(random: () => number, shape: number[], dtype: HostDType): HostTensor {
  const data = new Uint8Array(byteLength({ shape, dtype }));
  for (let i = 0; i < data.length; i++) data[i] = pick(random, dtype === "BOOL" ? 2 : 256);
  return { shape, dtype, data };
}

/** A folder that exists while the body runs. */
export async function inFolder(body: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "far-io-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** That the body throws an error of ours, in one line that starts with the path and contains all of `parts`. */
export function assertRefused(body: () => unknown, ...parts: string[]): void {
  const error = assertThrows(body);
  assertOneLine(error, ...parts);
}

/** That an error is one of ours, in one line, and contains all of `parts`. */
export function assertOneLine(error: unknown, ...parts: string[]): void {
  if (!(error instanceof FileFormatError || error instanceof FileAccessError)) throw error;
  assert(!error.message.includes("\n"), error.message);
  assert(error.message.startsWith(`${error.path}: `), error.message);
  for (const part of parts) assert(error.message.includes(part), `expected "${part}" in: ${error.message}`);
}

/** A tensor of an accepted file, or undefined where reading it gives an error of ours. */
export function readOrRefused(tensor: FileTensor): HostTensor | undefined {
  try {
    return tensor.read();
  } catch (error) {
    assertOneLine(error);
  }
}

/** That an accepted file keeps its word: every tensor that can be read has the bytes that its shape and type need. */
export function assertConsistent(file: TensorFile): void {
  for (const [name, tensor] of file.tensors) {
    assert(isHostDType(tensor.dtype), name);
    assert(tensor.shape.every((size) => Number.isSafeInteger(size) && size >= 0), name);
    const read = readOrRefused(tensor);
    if (read === undefined) continue;
    assertEquals(read.shape, tensor.shape);
    assertEquals(read.dtype, tensor.dtype);
    assertEquals(read.data.byteLength, byteLength(tensor), name);
    elements(read);
  }
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff];

/**
 * One to four random edits of a good file: flipped bits, overwritten bytes, fields of all ones, cuts, removals, insertions
 * and copies from elsewhere in the file.
 */
export function mutate(good: Uint8Array, random: () => number): Uint8Array {
  let bytes = good.slice();
  for (let edits = 1 + pick(random, 4); edits > 0; edits--) {
    const at = pick(random, bytes.length);
    const length = 1 + pick(random, Math.min(16, Math.max(1, bytes.length - at)));
    switch (pick(random, 8)) {
      case 0:
      case 1:
        bytes[at] ^= 1 << pick(random, 8);
        break;
      case 2:
        bytes[at] = INTERESTING[pick(random, INTERESTING.length)];
        break;
      case 3:
        bytes.fill(0xff, at, at + length);
        break;
      case 4:
        bytes = bytes.slice(0, at);
        break;
      case 5:
        bytes = spliced(bytes, at, length, new Uint8Array(0));
        break;
      case 6:
        bytes = spliced(bytes, at, 0, new Uint8Array(length).map(() => pick(random, 256)));
        break;
      default: {
        const from = pick(random, bytes.length);
        bytes = spliced(bytes, at, length, bytes.slice(from, from + length));
      }
    }
    if (bytes.length === 0) return bytes;
  }
  return bytes;
}

function spliced(
  bytes: Uint8Array,
  at: number,
  removed: number,
  inserted: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(Math.max(0, bytes.length - removed) + inserted.length);
  out.set(bytes.subarray(0, at));
  out.set(inserted, at);
  out.set(bytes.subarray(at + removed), at + inserted.length);
  return out;
}

/** Mutations a reader gets; FAR_FUZZ asks for more than the 10,000 of every run. */
export const FUZZ = Number(Deno.env.get("FAR_FUZZ") ?? 10_000);

/** Collects what a writer writes. */
export class Memory implements FileWriter {
  readonly parts: Uint8Array[] = [];
  position = 0;
  write(bytes: Uint8Array): void {
    this.parts.push(bytes.slice());
    this.position += bytes.length;
  }
  bytes(): Uint8Array {
    const out = new Uint8Array(this.position);
    this.parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
    return out;
  }
}

/** A zip archive of these members. */
export function zipped(members: Record<string, Uint8Array>, deflate = false): Uint8Array {
  const memory = new Memory();
  const zip = new ZipWriter(memory);
  for (const [name, bytes] of Object.entries(members)) zip.add(name, bytes, { deflate });
  zip.finish();
  return memory.bytes();
}

/** A PNG of other kinds than we write: rows with their filter bytes, zlib-packed. */
export function png(
  head: { width: number; height: number; depth?: number; type: number; interlace?: number },
  rows: number[],
  palette?: number[],
  transparency?: number[],
): Uint8Array<ArrayBuffer> {
  const chunk = (name: string, data: Uint8Array) => {
    const body = new Uint8Array([...name].map((letter) => letter.charCodeAt(0)).concat([...data]));
    const out = new Uint8Array(body.length + 8);
    new DataView(out.buffer).setUint32(0, data.length);
    out.set(body, 4);
    new DataView(out.buffer).setUint32(4 + body.length, crc32(body));
    return [...out];
  };
  const ihdr = new Uint8Array(13);
  new DataView(ihdr.buffer).setUint32(0, head.width);
  new DataView(ihdr.buffer).setUint32(4, head.height);
  ihdr.set([head.depth ?? 8, head.type, 0, 0, head.interlace ?? 0], 8);
  const idat = deflateSync(new Uint8Array(rows));
  return new Uint8Array([
    ...[0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a],
    ...chunk("IHDR", ihdr),
    ...palette ? chunk("PLTE", new Uint8Array(palette)) : [],
    ...transparency ? chunk("tRNS", new Uint8Array(transparency)) : [],
    // Two chunks, as writers of large images make them.
    ...chunk("IDAT", new Uint8Array(idat.subarray(0, 3))),
    ...chunk("IDAT", new Uint8Array(idat.subarray(3))),
    ...chunk("IEND", new Uint8Array(0)),
  ]);
}

/** Variables that {@linkcode withEnvironment} has set, for the environment of child processes. */
export const OVERRIDDEN: Map<string, string> = new Map();

/**
 * Sets a variable of the environment while the body runs, as this test file sees it: files run at the same time in one process,
 * which has one environment. Child processes get it from {@linkcode OVERRIDDEN}.
 */
export async function withEnvironment(
  name: string,
  value: string,
  body: () => void | Promise<void>,
): Promise<void> {
  const get = Deno.env.get, before = OVERRIDDEN.get(name);
  Deno.env.get = (asked) => asked === name ? value : get.call(Deno.env, asked);
  OVERRIDDEN.set(name, value);
  try {
    await body();
  } finally {
    Deno.env.get = get;
    if (before === undefined) OVERRIDDEN.delete(name);
    else OVERRIDDEN.set(name, before);
  }
}

/** Sets FAR_FFMPEG while the body runs. */
export const withFfmpeg = (path: string, body: () => void | Promise<void>): Promise<void> =>
  withEnvironment("FAR_FFMPEG", path, body);

/** As on a machine without ffmpeg. */
export const withoutFfmpeg = (body: () => void | Promise<void>): Promise<void> => withFfmpeg("none", body);

/**
 * Bytes that this test file holds: its heap and the buffers outside of it. The resident memory of the process is that of all
 * files that run at the same time.
 */
export function ownMemory(): number {
  const { heapUsed, external } = Deno.memoryUsage();
  return heapUsed + external;
}
