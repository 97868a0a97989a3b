/**
 * Ogg's pages carry a checksum and the last one a flag: nothing that is wrong with such a file goes unseen.
 *
 * @module
 */
import { FileFormatError } from "./errors.ts";
import type { ByteSource } from "./source.ts";

/** Ogg's CRC-32: polynomial 0x04c11db7, most significant bit first, no inversion (RFC 3533, section 6). */
const CRC = new Uint32Array(256).map((_, i) => {
  let value = i << 24;
  for (let bit = 0; bit < 8; bit++) value = (value << 1) ^ (value < 0 ? 0x04c11db7 : 0);
  return value;
});

function checksum(page: Uint8Array): number {
  let crc = 0;
  for (let i = 0; i < page.length; i++) {
    const byte = i >= 22 && i < 26 ? 0 : page[i]; // the checksum itself counts as zero
    crc = (crc << 8) ^ CRC[(crc >>> 24) ^ byte];
  }
  return crc >>> 0;
}

/**
 * Reads every page.
 *
 * @param source The file.
 * @throws {FileFormatError} If a page is damaged or missing, or the last one is not marked as the last.
 */
export function checkOgg(source: ByteSource): void {
  const fail = (detail: string): never => {
    throw new FileFormatError(source.path, `truncated or damaged: ${detail}`);
  };
  const open = new Map<number, number>(); // streams that have not ended, with the number of their next page
  for (let at = 0; at < source.size;) {
    const left = source.size - at, page = source.read(at, Math.min(left, 65_307)); // the longest page
    if (left < 27 || String.fromCharCode(...page.subarray(0, 4)) !== "OggS") {
      if (open.size === 0 && at > 0) return; // something behind a complete file
      fail(`expected a page at byte ${at} of ${source.size}, found none`);
    }
    const view = new DataView(page.buffer, page.byteOffset, page.byteLength), segments = page[26];
    const size = 27 + segments + page.subarray(27, 27 + segments).reduce((a, b) => a + b, 0);
    if (size > left) fail(`expected ${at + size} bytes (page at byte ${at}), found ${source.size}`);
    const [stored, found] = [view.getUint32(22, true), checksum(page.subarray(0, size))];
    if (stored !== found) fail(`expected the checksum ${stored} of the page at byte ${at}, found ${found}`);
    const flags = page[5], serial = view.getUint32(14, true), number = view.getUint32(18, true);
    const expected = open.get(serial);
    if (expected !== undefined && number !== expected) {
      fail(`expected page ${expected} at byte ${at}, found ${number}`);
    }
    if (flags & 4) open.delete(serial);
    else open.set(serial, number + 1);
    at += size;
  }
  if (open.size > 0) fail(`expected a page that ends the stream, found none in ${source.size} bytes`);
}
