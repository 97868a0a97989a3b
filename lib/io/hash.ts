/**
 * SHA-256, as the authors' file names carry it.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { accessError } from "./errors.ts";
import { openFile } from "./source.ts";

/** SHA-256 of bytes in hex. */
export const bytesHash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** SHA-256 of a file in hex, read in pieces; null for no file. */
export function fileHash(path: string): string;
export function fileHash(path: string | null): string | null;
export function fileHash(path: string | null): string | null {
  if (path === null) return null;
  using file = openFile(path);
  const hash = createHash("sha256"), piece = new Uint8Array(2 ** 20);
  try {
    for (let count; (count = file.readSync(piece)) !== null;) hash.update(piece.subarray(0, count));
  } catch (error) {
    throw accessError(path, "cannot read", error);
  }
  return hash.digest("hex");
}
