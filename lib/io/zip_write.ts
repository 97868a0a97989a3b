/**
 * The writer beside zip.ts: an archive as a stream, the same bytes for the same members.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { crc32, deflateRawSync } from "node:zlib";
import type { FileWriter } from "./atomic.ts";
import { CENTRAL, END, END64, END64_LOCATOR, LOCAL, MAX16, MAX32 } from "./zip.ts";

/** A fixed date (1 January 1980, the format's first), so that the same content gives the same bytes. */
const DATE = 0x21;

interface Written {
  readonly name: Uint8Array;
  readonly method: number;
  readonly crc: number;
  readonly compressedSize: number;
  readonly size: number;
  readonly offset: number;
}

/** Writes an archive member by member. The same members give the same bytes. */
export class ZipWriter {
  readonly #file: FileWriter;
  readonly #start: number;
  readonly #written: Written[] = [];

  /**
   * Starts an archive.
   *
   * @param file Where to write.
   */
  constructor(file: FileWriter) {
    this.#file = file;
    this.#start = file.position;
  }

  /**
   * Appends a member.
   *
   * @param name Path inside the archive.
   * @param bytes The content.
   * @param options `deflate` packs it; `align` pads the local header so that stored bytes begin at a multiple.
   */
  add(name: string, bytes: Uint8Array, options: { deflate?: boolean; align?: number } = {}): void {
    const packed = options.deflate ? new Uint8Array(deflateRawSync(bytes)) : bytes;
    const member: Written = {
      name: new TextEncoder().encode(name),
      method: options.deflate ? 8 : 0,
      crc: crc32(bytes),
      compressedSize: packed.byteLength,
      size: bytes.byteLength,
      offset: this.#file.position - this.#start,
    };
    this.#written.push(member);
    const extra = localExtra(member, options.align ?? 1);
    const header = Buffer.alloc(30);
    header.writeUInt32LE(LOCAL, 0);
    writeCommon(header, 4, member);
    header.writeUInt16LE(extra.byteLength, 28);
    this.#file.write(header);
    this.#file.write(member.name);
    this.#file.write(extra);
    this.#file.write(packed);
  }

  /** Writes the directory. Nothing may be added afterwards. */
  finish(): void {
    const start = this.#file.position - this.#start;
    for (const member of this.#written) this.#file.write(centralEntry(member));
    const size = this.#file.position - this.#start - start;
    const count = this.#written.length;
    if (count >= MAX16 || start >= MAX32 || size >= MAX32) this.#file.write(end64(count, size, start));
    const end = Buffer.alloc(22);
    end.writeUInt32LE(END, 0);
    end.writeUInt16LE(Math.min(count, MAX16), 8);
    end.writeUInt16LE(Math.min(count, MAX16), 10);
    end.writeUInt32LE(Math.min(size, MAX32), 12);
    end.writeUInt32LE(Math.min(start, MAX32), 16);
    this.#file.write(end);
  }
}

function large(member: Written): boolean {
  return member.size >= MAX32 || member.compressedSize >= MAX32;
}

/** The fields that local header and directory entry share, from "version needed" to the name's length. */
function writeCommon(out: Buffer, at: number, member: Written): void {
  out.writeUInt16LE(large(member) || member.offset >= MAX32 ? 45 : 20, at);
  out.writeUInt16LE(0x0800, at + 2); // names are UTF-8
  out.writeUInt16LE(member.method, at + 4);
  out.writeUInt16LE(0, at + 6);
  out.writeUInt16LE(DATE, at + 8);
  out.writeUInt32LE(member.crc, at + 10);
  out.writeUInt32LE(large(member) ? MAX32 : member.compressedSize, at + 14);
  out.writeUInt32LE(large(member) ? MAX32 : member.size, at + 18);
  out.writeUInt16LE(member.name.byteLength, at + 22);
}

function zip64Field(values: number[]): Buffer {
  const field = Buffer.alloc(4 + 8 * values.length);
  field.writeUInt16LE(1, 0);
  field.writeUInt16LE(8 * values.length, 2);
  values.forEach((value, i) => field.writeBigUInt64LE(BigInt(value), 4 + 8 * i));
  return field;
}

/** The sizes that need 64 bits, and padding as PyTorch makes it ("FB" and as many Z as it takes). */
function localExtra(member: Written, align: number): Buffer {
  const sizes = large(member) ? zip64Field([member.size, member.compressedSize]) : Buffer.alloc(0);
  if (align === 1) return sizes;
  const start = member.offset + 30 + member.name.byteLength + sizes.byteLength + 4;
  const padding = Buffer.alloc(4 + (align - start % align) % align, "Z");
  padding.write("FB", 0, "latin1");
  padding.writeUInt16LE(padding.byteLength - 4, 2);
  return Buffer.concat([sizes, padding]);
}

function centralEntry(member: Written): Buffer {
  const values = large(member) ? [member.size, member.compressedSize] : [];
  if (member.offset >= MAX32) values.push(member.offset);
  const extra = values.length > 0 ? zip64Field(values) : Buffer.alloc(0);
  const entry = Buffer.alloc(46);
  entry.writeUInt32LE(CENTRAL, 0);
  entry.writeUInt16LE(45, 4);
  writeCommon(entry, 6, member);
  entry.writeUInt16LE(extra.byteLength, 30);
  entry.writeUInt32LE(Math.min(member.offset, MAX32), 42);
  return Buffer.concat([entry, member.name, extra]);
}

function end64(count: number, size: number, start: number): Buffer {
  const record = Buffer.alloc(56 + 20);
  record.writeUInt32LE(END64, 0);
  record.writeBigUInt64LE(44n, 4);
  record.writeUInt16LE(45, 12);
  record.writeUInt16LE(45, 14);
  record.writeBigUInt64LE(BigInt(count), 24);
  record.writeBigUInt64LE(BigInt(count), 32);
  record.writeBigUInt64LE(BigInt(size), 40);
  record.writeBigUInt64LE(BigInt(start), 48);
  record.writeUInt32LE(END64_LOCATOR, 56);
  record.writeBigUInt64LE(BigInt(start + size), 64);
  record.writeUInt32LE(1, 72);
  return record;
}
