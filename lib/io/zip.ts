/**
 * The zip container of `.npz` and of what `torch.save` writes: an own reader of the directory, because a checkpoint's
 * members have to be found without reading them. The writer is in zip_write.ts.
 *
 * @module
 */
import { constants, crc32, inflateRawSync } from "node:zlib";
import { FileFormatError, quote } from "./errors.ts";
import type { ByteSource } from "./source.ts";

// Signatures of the format's records, and the values that send a reader to the 64-bit ones.
export const LOCAL = 0x04034b50;
export const CENTRAL = 0x02014b50;
export const END = 0x06054b50;
export const END64_LOCATOR = 0x07064b50;
export const END64 = 0x06064b50;
export const MAX16 = 0xffff;
export const MAX32 = 0xffffffff;

/** A directory longer than this belongs to no archive of tensors; reading it would only cost memory. */
const LONGEST_DIRECTORY = 2 ** 28;

/** One member of an archive. */
export interface ZipMember {
  /** Path inside the archive. */
  readonly name: string;
  /** Bytes as stored in the file. */
  readonly compressedSize: number;
  /** Bytes after inflating, as the directory declares them. */
  readonly size: number;
  /** Whether the bytes are stored as they are or deflated. */
  readonly deflated: boolean;
  /**
   * Reads, inflates and checks the member.
   *
   * @param limit Refuses a larger member before anything is read.
   * @throws {FileFormatError} If the member is larger, damaged, or its CRC-32 differs.
   */
  read(limit?: number): Uint8Array<ArrayBuffer>;
  /**
   * Reads the first `count` bytes, or all if there are fewer, without reading the rest and so without its CRC-32.
   *
   * @throws {FileFormatError} If they are damaged.
   */
  head(count: number): Uint8Array<ArrayBuffer>;
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A 64-bit field; beyond 2^53 it is out of any file's range, and the range checks say so. */
function uint64(data: DataView, at: number): number {
  return Number(data.getBigUint64(at, true));
}

interface Directory {
  readonly offset: number;
  readonly size: number;
  readonly count: number;
}

function findDirectory(source: ByteSource): Directory {
  const { path, size } = source;
  if (size < 22) throw new FileFormatError(path, `expected a zip archive, found only ${size} bytes`);
  // The end record is followed by a comment of at most 65,535 bytes.
  const tailSize = Math.min(size, 22 + MAX16);
  const tailStart = size - tailSize;
  const tail = view(source.read(tailStart, tailSize));
  let at = tailSize - 22;
  while (
    at >= 0 && !(tail.getUint32(at, true) === END && at + 22 + tail.getUint16(at + 20, true) === tailSize)
  ) at--;
  if (at < 0) {
    throw new FileFormatError(path, "expected a zip archive, found no directory at its end (truncated?)");
  }
  let directory: Directory = {
    count: tail.getUint16(at + 10, true),
    size: tail.getUint32(at + 12, true),
    offset: tail.getUint32(at + 16, true),
  };
  let directoryEnd = tailStart + at;
  if (at >= 20 && tail.getUint32(at - 20, true) === END64_LOCATOR) {
    const record = uint64(tail, at - 20 + 8);
    const end64 = view(source.read(record, 56));
    if (end64.getUint32(0, true) !== END64) {
      throw new FileFormatError(
        path,
        `expected the zip64 end record at offset ${record}, found something else`,
      );
    }
    directory = { count: uint64(end64, 32), size: uint64(end64, 40), offset: uint64(end64, 48) };
    directoryEnd = record;
  }
  if (directory.offset + directory.size > directoryEnd || directory.size > LONGEST_DIRECTORY) {
    throw new FileFormatError(
      path,
      `zip directory: expected it to end by offset ${directoryEnd}, found offset ${directory.offset} and ` +
        `${directory.size} bytes`,
    );
  }
  return directory;
}

interface Header {
  readonly name: string;
  readonly method: number;
  readonly flags: number;
  readonly crc: number;
  readonly compressedSize: number;
  readonly size: number;
  readonly offset: number;
  readonly length: number;
}

/** Values that do not fit 32 bits stand in an extra field, in a fixed order and only those that are needed. */
function extended(extra: DataView, fields: number[]): number[] {
  if (!fields.includes(MAX32)) return fields;
  for (let at = 0; at + 4 <= extra.byteLength;) {
    const [id, length] = [extra.getUint16(at, true), extra.getUint16(at + 2, true)];
    if (id === 1 && at + 4 + length <= extra.byteLength) {
      let next = at + 4;
      return fields.map((field) => {
        if (field !== MAX32 || next + 8 > at + 4 + length) return field;
        next += 8;
        return uint64(extra, next - 8);
      });
    }
    at += 4 + length;
  }
  return fields;
}

function readCentral(path: string, data: DataView, bytes: Uint8Array, at: number): Header {
  if (at + 46 > bytes.byteLength || data.getUint32(at, true) !== CENTRAL) {
    throw new FileFormatError(
      path,
      `zip directory: expected an entry at its offset ${at}, found something else`,
    );
  }
  const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) =>
    data.getUint16(at + field, true)
  );
  const length = 46 + nameLength + extraLength + commentLength;
  if (at + length > bytes.byteLength) {
    throw new FileFormatError(
      path,
      `zip directory: the entry at its offset ${at} is longer than the directory`,
    );
  }
  const extra = view(bytes.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength));
  const [size, compressedSize, offset] = extended(
    extra,
    [24, 20, 42].map((field) => data.getUint32(at + field, true)),
  );
  let name: string;
  try {
    name = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(at + 46, at + 46 + nameLength));
  } catch {
    throw new FileFormatError(path, `zip directory: the name of the entry at its offset ${at} is not UTF-8`);
  }
  return {
    name,
    flags: data.getUint16(at + 8, true),
    method: data.getUint16(at + 10, true),
    crc: data.getUint32(at + 16, true),
    compressedSize,
    size,
    offset,
    length,
  };
}

/**
 * Where a member's bytes begin: behind its local header, which repeats the name (or else the directory points to another
 * member) and has an extra field of its own length.
 */
function dataOffset(source: ByteSource, { name, offset }: Header): number {
  const local = view(source.read(offset, 30));
  const [nameLength, extraLength] = [local.getUint16(26, true), local.getUint16(28, true)];
  const isHere = local.getUint32(0, true) === LOCAL &&
    new TextDecoder().decode(source.read(offset + 30, nameLength)) === name;
  if (!isHere) {
    throw memberError(
      source.path,
      name,
      `expected its local header at offset ${offset}, found something else`,
    );
  }
  return offset + 30 + nameLength + extraLength;
}

/** Deflate packs at most 258 bytes into two bits; a member that claims more is a lie that need not be inflated. */
const HIGHEST_RATIO = 1032;

/** Inflates at most `most` bytes; a stream that is cut off gives what it holds so far. */
function inflate(packed: Uint8Array, most: number, partial: boolean): Uint8Array<ArrayBuffer> {
  const finishFlush = partial ? constants.Z_SYNC_FLUSH : constants.Z_FINISH;
  const bytes = inflateRawSync(packed, { maxOutputLength: Math.max(1, most), finishFlush });
  return new Uint8Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength);
}

function memberError(path: string, name: string, detail: string, cause?: unknown): FileFormatError {
  return new FileFormatError(path, `member ${quote(name)}: ${detail}`, { cause });
}

function inflateMember(source: ByteSource, header: Header): Uint8Array<ArrayBuffer> {
  const { name, size, compressedSize } = header;
  if (size > compressedSize * HIGHEST_RATIO) {
    throw memberError(
      source.path,
      name,
      `declares ${size} bytes, more than ${compressedSize} packed ones can hold`,
    );
  }
  const packed = source.read(dataOffset(source, header), compressedSize);
  try {
    return inflate(packed, size, false);
  } catch (error) {
    const more = (error as { code?: unknown }).code === "ERR_BUFFER_TOO_LARGE";
    const detail = more
      ? `expected ${size} bytes after inflating, found more`
      : `expected deflated data, found damage: ${(error as Error).message}`;
    throw memberError(source.path, name, detail, error);
  }
}

function readMember(
  source: ByteSource,
  header: Header,
  limit: number,
  checked: boolean,
): Uint8Array<ArrayBuffer> {
  const { path } = source;
  const { name, size, method } = header;
  if (size > limit) throw memberError(path, name, `declares ${size} bytes, the limit is ${limit}`);
  const bytes = method === 8 ? inflateMember(source, header) : source.read(dataOffset(source, header), size);
  if (bytes.byteLength !== size) {
    throw memberError(path, name, `expected ${size} bytes after inflating, found ${bytes.byteLength}`);
  }
  const sum = checked ? crc32(bytes) : header.crc;
  if (sum !== header.crc) {
    const [expected, found] = [header.crc, sum].map((crc) => crc.toString(16).padStart(8, "0"));
    throw memberError(path, name, `expected CRC-32 ${expected}, found ${found}: the file is damaged`);
  }
  return bytes;
}

function readHead(source: ByteSource, header: Header, count: number): Uint8Array<ArrayBuffer> {
  const { name, method, size, compressedSize } = header;
  const wanted = Math.min(count, size);
  const start = dataOffset(source, header);
  if (method === 0) return source.read(start, wanted);
  // Incompressible bytes grow a little when packed, so twice the count always holds them.
  const packed = source.read(start, Math.min(compressedSize, 2 * wanted + 64));
  try {
    const bytes = inflate(packed, packed.byteLength * HIGHEST_RATIO, true).subarray(0, wanted);
    if (bytes.byteLength === wanted) return bytes;
  } catch (error) {
    throw memberError(
      source.path,
      name,
      `expected deflated data, found damage: ${(error as Error).message}`,
      error,
    );
  }
  throw memberError(source.path, name, `expected at least ${wanted} bytes after inflating, found fewer`);
}

/**
 * Reads the directory of a zip archive: stored and deflated members, zip64.
 *
 * @param source The archive.
 * @param options `zerosAreUnchecked`: when every member's CRC-32 is zero, none was computed (PyTorch can be told so), and
 * members are read without that check.
 * @returns The members in directory order, by name.
 * @throws {FileFormatError} If the directory is damaged, two members share a name or their bytes, or a member is encrypted
 * or packed in a way that neither NumPy nor PyTorch writes.
 */
export function readZip(
  source: ByteSource,
  options: { readonly zerosAreUnchecked?: boolean } = {},
): Map<string, ZipMember> {
  const { path } = source;
  const directory = findDirectory(source);
  const bytes = source.read(directory.offset, directory.size);
  const data = view(bytes);
  const members = new Map<string, ZipMember>();
  const places: Header[] = [];
  const checked = () => !options.zerosAreUnchecked || places.some(({ crc }) => crc !== 0);
  let at = 0;
  for (let i = 0; i < directory.count; i++) {
    const header = readCentral(path, data, bytes, at);
    at += header.length;
    const { name, method, size, compressedSize } = header;
    const fail = (detail: string): never => {
      throw new FileFormatError(path, `member ${quote(name)}: ${detail}`);
    };
    if (members.has(name)) fail("occurs twice in the zip directory");
    if (header.flags & 1) fail("is encrypted, expected plain data");
    if (method !== 0 && method !== 8) {
      fail(`expected stored or deflated data (method 0 or 8), found method ${method}`);
    }
    if (method === 0 && size !== compressedSize) {
      fail(`is stored with ${compressedSize} bytes but declares ${size}`);
    }
    if (header.offset + 30 + compressedSize > directory.offset) {
      fail(
        `expected it before the directory at ${directory.offset}, found offset ${header.offset}, ${compressedSize} bytes`,
      );
    }
    places.push(header);
    members.set(name, {
      name,
      compressedSize,
      size,
      deflated: method === 8,
      read: (limit = Infinity) => readMember(source, header, limit, checked()),
      head: (count) => readHead(source, header, count),
    });
  }
  checkOverlap(path, places);
  return members;
}

/** Members that share their bytes are how a small archive claims to hold petabytes; no writer of tensors makes them. */
function checkOverlap(path: string, places: Header[]): void {
  let [end, before] = [0, ""];
  for (const { name, offset, compressedSize } of places.sort((a, b) => a.offset - b.offset)) {
    if (offset < end) {
      throw new FileFormatError(path, `member ${quote(name)}: overlaps ${quote(before)} at offset ${offset}`);
    }
    [end, before] = [offset + 30 + compressedSize, name];
  }
}
