/**
 * Small text files of the user, with plain errors.
 *
 * @module
 */
import { accessError } from "../lib/io/errors.ts";

/**
 * A whole text file.
 *
 * @throws {FileAccessError} If it cannot be opened: which one, and why.
 */
export function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
}
