/**
 * The safetensors format: eight bytes with the header's length, a JSON header, then all tensors without gaps. Read
 * lazily, from files of any size; written as a stream, byte for byte as the reference implementation orders it.
 *
 * @module
 */
import { type FileWriter, writeAtomic } from "./atomic.ts";
import { FileFormatError, quote, show } from "./errors.ts";
import { byteLength, type HostDType, type HostTensor, isHostDType, type LazyTensor } from "./host.ts";
import { firstDuplicateKey } from "./json_keys.ts";
import { type ByteSource, openSource } from "./source.ts";
import {
  type FileTensor,
  tensorBytes,
  tensorEntries,
  TensorFile,
  type TensorsToWrite,
} from "./tensor_file.ts";

/** The reference implementation refuses longer headers too. */
const LONGEST_HEADER = 100_000_000;

interface Entry {
  readonly name: string;
  readonly dtype: HostDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function readHeader(source: ByteSource): { header: Record<string, unknown>; start: number } {
  const { path, size } = source;
  if (size < 8) throw new FileFormatError(path, `expected a safetensors file, found only ${size} bytes`);
  const lengthField = source.read(0, 8);
  const length = new DataView(lengthField.buffer, lengthField.byteOffset, 8).getBigUint64(0, true);
  if (length < 2n || length > BigInt(LONGEST_HEADER) || length > BigInt(size - 8)) {
    throw new FileFormatError(
      path,
      `safetensors header: expected a length of 2 to ${
        Math.min(LONGEST_HEADER, size - 8)
      } bytes, found ${length} ` +
        `(no safetensors file, truncated or damaged)`,
    );
  }
  let header: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      source.read(8, Number(length)),
    );
    if (!text.startsWith("{")) throw new SyntaxError("does not start with {");
    header = JSON.parse(text);
    const twice = firstDuplicateKey(text);
    if (twice !== undefined) throw new SyntaxError(`key ${quote(twice)} occurs twice`);
  } catch (error) {
    const reason = (error as Error).message;
    throw new FileFormatError(path, `safetensors header: expected a JSON object, found ${reason}`, {
      cause: error,
    });
  }
  return { header: header as Record<string, unknown>, start: 8 + Number(length) };
}

function readMetadata(path: string, value: unknown): Record<string, string> {
  if (value === undefined) return {};
  const texts = typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((text) => typeof text === "string");
  if (!texts) throw new FileFormatError(path, "__metadata__: expected an object with text values only");
  return value as Record<string, string>;
}

function checkEntry(path: string, name: string, value: unknown): Entry {
  const fail = (expected: string, found: unknown): never => {
    throw new FileFormatError(path, `tensor ${quote(name)}: expected ${expected}, found ${show(found)}`);
  };
  if (typeof value !== "object" || value === null || Array.isArray(value)) fail("an object", value);
  const { dtype, shape, data_offsets: offsets, ...surplus } = value as Record<string, unknown>;
  if (Object.keys(surplus).length > 0) fail("dtype, shape and data_offsets only", Object.keys(surplus));
  if (!isHostDType(dtype)) return fail("a dtype such as F32, BF16 or I64", dtype);
  if (!Array.isArray(shape) || !shape.every(isSize)) return fail("a shape of non-negative integers", shape);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize) || offsets[0] > offsets[1]) {
    return fail("data_offsets [begin, end]", offsets);
  }
  const bytes = byteLength({ shape, dtype });
  if (bytes !== offsets[1] - offsets[0]) {
    fail(`data_offsets that span ${bytes} bytes for ${dtype} of shape [${shape}]`, offsets);
  }
  return { name, dtype, shape, begin: offsets[0], end: offsets[1] };
}

/** The format allows no gap, no overlap and nothing after the last tensor. */
function checkLayout(path: string, entries: readonly Entry[], available: number): void {
  let expected = 0;
  let before: string | undefined;
  for (const { name, begin, end } of entries) {
    if (end > available) {
      throw new FileFormatError(
        path,
        `tensor ${quote(name)}: expected its end within ${available} data bytes, found data_offsets ` +
          `[${begin}, ${end}] (truncated or damaged)`,
      );
    }
    if (begin !== expected) {
      const kind = begin < expected ? "overlaps" : "leaves a gap after";
      throw new FileFormatError(
        path,
        `tensor ${quote(name)}: expected its data at offset ${expected}, found ${begin}: it ${kind} ` +
          `${before === undefined ? "the header" : quote(before)}`,
      );
    }
    [expected, before] = [end, name];
  }
  if (expected !== available) {
    throw new FileFormatError(
      path,
      `expected ${expected} data bytes after the header, found ${available}: ${
        available - expected
      } belong to no tensor`,
    );
  }
}

/**
 * Opens a safetensors file. Only the header is read; it is checked as strictly as the reference implementation does, so
 * that every tensor of an accepted file has the bytes that its shape and type need.
 *
 * @param from A path, the whole content, or where to read it from.
 * @param name What to call bytes in messages.
 * @returns The open file; its tensors are ordered by their place in the file.
 * @throws {FileFormatError} If the content is damaged: file, tensor, expected, found.
 * @throws {FileAccessError} If the file cannot be opened.
 *
 * @example
 * ```ts
 * import { fromFloat32, toFloat32 } from "./host.ts";
 * import { openSafetensors, writeSafetensors } from "./safetensors.ts";
 * const path = `${Deno.makeTempDirSync()}/x.safetensors`;
 * await writeSafetensors(path, { "proj.bias": fromFloat32(new Float32Array([1, 2]), [2]) });
 * using file = openSafetensors(path);
 * console.assert(toFloat32(file.read("proj.bias"))[1] === 2);
 * ```
 */
export function openSafetensors(from: string | Uint8Array | ByteSource, name?: string): TensorFile {
  const source = typeof from === "string" || from instanceof Uint8Array ? openSource(from, name) : from;
  try {
    const { header, start } = readHeader(source);
    const metadata = readMetadata(source.path, header.__metadata__);
    const entries = Object.entries(header)
      .filter(([key]) => key !== "__metadata__")
      .map(([key, value]) => checkEntry(source.path, key, value))
      .sort((a, b) => a.begin - b.begin || a.end - b.end);
    checkLayout(source.path, entries, source.size - start);
    const tensors = new Map<string, FileTensor>(entries.map(({ name, shape, dtype, begin, end }) => [name, {
      shape,
      dtype,
      read: () => ({ shape, dtype, data: source.read(start + begin, end - begin) }),
    }]));
    return new TensorFile("safetensors", source, tensors, { metadata });
  } catch (error) {
    source.close();
    throw error;
  }
}

/** The reference writes wide types first, so that every tensor is aligned, and then by name. */
const WRITE_ORDER: readonly HostDType[] = [
  "U64",
  "I64",
  "F64",
  "F32",
  "U32",
  "I32",
  "BF16",
  "F16",
  "U16",
  "I16",
  "F8_E4M3",
  "F8_E5M2",
  "I8",
  "U8",
  "BOOL",
];

interface Plan {
  /** Length field, JSON, padding. */
  readonly header: Uint8Array;
  /** The tensors in file order. */
  readonly tensors: readonly (readonly [string, HostTensor | LazyTensor])[];
  readonly size: number;
}

function planFile(tensors: TensorsToWrite, metadata: Readonly<Record<string, string>>): Plan {
  const sorted = tensorEntries(tensors).sort(([nameA, a], [nameB, b]) =>
    WRITE_ORDER.indexOf(a.dtype) - WRITE_ORDER.indexOf(b.dtype) || (nameA < nameB ? -1 : 1)
  );
  const header = new Map<string, unknown>();
  const sortedKeys = Object.keys(metadata).sort();
  if (sortedKeys.length > 0) {
    header.set("__metadata__", Object.fromEntries(sortedKeys.map((key) => [key, metadata[key]])));
  }
  let end = 0;
  for (const [name, { dtype, shape }] of sorted) {
    if (name === "__metadata__" || header.has(name)) {
      const reason = name === "__metadata__"
        ? "the name is reserved by the format"
        : "two tensors have this name";
      throw new RangeError(`safetensors: tensor ${quote(name)}: ${reason}`);
    }
    const begin = end;
    end += byteLength({ shape, dtype });
    header.set(name, { dtype, shape, data_offsets: [begin, end] });
  }
  // Written by hand at the top level: an object would sort names such as "0" first and lose one called "__proto__".
  const fields = header.entries().map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  const json = new TextEncoder().encode(`{${[...fields].join(",")}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  const bytes = new Uint8Array(8 + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  return { header: bytes, tensors: sorted, size: bytes.byteLength + end };
}

async function writePlan(plan: Plan, file: FileWriter): Promise<void> {
  file.write(plan.header);
  for (const [name, tensor] of plan.tensors) file.write(await tensorBytes("safetensors", name, tensor));
}

/**
 * Writes a safetensors file as a stream: one tensor in memory at a time, all of the file or nothing. The same tensors
 * give the same bytes, whatever the order in which they come.
 *
 * @param path The file; replaced if it exists.
 * @param tensors Tensors by name, in memory or lazy.
 * @param metadata Text for the header's `__metadata__`.
 * @throws {RangeError} If a name is reserved or occurs twice, or bytes do not fit their shape.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writeSafetensors(
  path: string,
  tensors: TensorsToWrite,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const plan = planFile(tensors, metadata);
  await writeAtomic(path, (file) => writePlan(plan, file));
}

/**
 * The content of a safetensors file, in memory.
 *
 * @param tensors Tensors by name, in memory or lazy.
 * @param metadata Text for the header's `__metadata__`.
 * @throws {RangeError} If a name is reserved or occurs twice, or bytes do not fit their shape.
 */
export async function encodeSafetensors(
  tensors: TensorsToWrite,
  metadata: Readonly<Record<string, string>> = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const plan = planFile(tensors, metadata);
  const out = new Uint8Array(plan.size);
  let position = 0;
  await writePlan(plan, {
    write(bytes) {
      out.set(bytes, position);
      position += bytes.byteLength;
    },
    get position() {
      return position;
    },
  });
  return out;
}
