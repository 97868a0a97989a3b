/**
 * Text files of the user, whole: settings, lists, tables, JSON.
 *
 * @module
 */
import { FileFormatError, quote, show } from "./errors.ts";
import { firstDuplicateKey } from "./json_keys.ts";
import { openSource } from "./source.ts";

/** No list of clips or table of actions comes near 256 MiB, and a larger text would not fit a string. */
const LONGEST_TEXT = 2 ** 28;

/**
 * A text file, without the mark that some editors put in front of it.
 *
 * @param path The file.
 * @param longest Refuses a longer file, in bytes, before it is read.
 * @throws {FileFormatError} If it is longer, or not UTF-8.
 * @throws {FileAccessError} If it cannot be opened, or is no regular file: what is there instead.
 */
export function readText(path: string, longest = LONGEST_TEXT): string {
  using source = openSource(path);
  const { size } = source;
  if (size > longest) {
    throw new FileFormatError(path, `expected at most ${longest} bytes of text, found ${size}`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(source.read(0, size));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new FileFormatError(path, "expected text in UTF-8, found other bytes", { cause: error });
  }
}

/**
 * Reads a JSON file. A key that occurs twice in one object is an error, because one of the two values would be lost.
 *
 * @param path The file.
 * @param expected What should be in it, for the message: "a list of clips".
 * @throws {FileFormatError} If it is no JSON, or a key occurs twice.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function readJson(path: string, expected: string): unknown {
  const text = readText(path);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FileFormatError(path, `expected ${expected} in JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const twice = firstDuplicateKey(text);
  if (twice !== undefined) {
    throw new FileFormatError(path, `expected ${expected} in JSON: key ${quote(twice)} occurs twice`);
  }
  return value;
}

/**
 * Reads a JSON file that holds one object.
 *
 * @param path The file.
 * @param expected What should be in it, for the message.
 * @throws {FileFormatError} If it holds something else.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function readJsonObject(path: string, expected = "one object"): Record<string, unknown> {
  const value = readJson(path, expected);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new FileFormatError(
    path,
    `expected ${expected} in JSON, found ${Array.isArray(value) ? "a list" : show(value)}`,
  );
}
