/**
 * An AVI file counts its chunks twice: where they are, and in an index at its end. ffmpeg skips what it cannot read without a
 * word, so the two are compared here.
 *
 * @module
 */
import { FileFormatError } from "./errors.ts";
import type { ByteSource } from "./source.ts";

const fourcc = (bytes: Uint8Array, at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));

interface Chunk {
  readonly type: string;
  readonly at: number;
  readonly size: number;
}

function chunkAt(source: ByteSource, at: number): Chunk {
  const head = source.read(at, 8);
  return {
    type: fourcc(head, 0),
    at,
    size: new DataView(head.buffer, head.byteOffset, 8).getUint32(4, true),
  };
}

/**
 * Walks over the lists of the file, and over its index.
 *
 * @param source The file.
 * @throws {FileFormatError} If the file is shorter than its lists, or a chunk is not where the index says.
 */
export function checkAvi(source: ByteSource): void {
  let movi: number | undefined;
  for (let at = 0; at + 12 <= source.size;) {
    const { type, size } = chunkAt(source, at);
    if (type !== "RIFF") break; // data of another program behind a complete file
    if (size === 0 || size >= 0xfffffff0) return; // written to a pipe: its length was not known
    if (at + 8 + size > source.size) {
      throw new FileFormatError(
        source.path,
        `truncated or damaged: expected ${at + 8 + size} bytes (as its header says), found ${source.size}`,
      );
    }
    for (let inner = at + 12, end = at + 8 + size; inner + 8 <= end;) {
      const part = chunkAt(source, inner);
      if (part.size > end - inner - 8) {
        throw new FileFormatError(
          source.path,
          `truncated or damaged: expected a sound file: chunk ${
            JSON.stringify(part.type)
          } at byte ${inner} has ${part.size} bytes, ` +
            `expected at most ${end - inner - 8}`,
        );
      }
      if (part.type === "LIST" && fourcc(source.read(inner + 8, 4), 0) === "movi") movi ??= inner + 8;
      if (part.type === "idx1" && movi !== undefined) checkIndex(source, part, movi);
      inner += 8 + part.size + part.size % 2;
    }
    at += 8 + size + size % 2;
  }
}

/** Every entry names a chunk, its place and its size. */
function checkIndex(source: ByteSource, index: Chunk, movi: number): void {
  const rows = source.read(index.at + 8, index.size - index.size % 16),
    view = new DataView(rows.buffer, rows.byteOffset);
  const count = rows.length / 16;
  const fitting = (base: number): number => {
    let fit = 0;
    for (let i = 0; i < count; i++) {
      const at = base + view.getUint32(16 * i + 8, true), size = view.getUint32(16 * i + 12, true);
      if (at + 8 > source.size) continue;
      const chunk = chunkAt(source, at), type = fourcc(rows, 16 * i);
      if (type === "rec " || (chunk.type === type && chunk.size === size)) fit++;
    }
    return fit;
  };
  // Places count from the list's name or from the start of the file; where neither fits, the index is another program's.
  const right = Math.max(fitting(movi), fitting(0));
  if (right === count || 2 * right < count) return;
  throw new FileFormatError(
    source.path,
    `truncated or damaged: expected ${count} chunks where its index says, found ${right} of them`,
  );
}
