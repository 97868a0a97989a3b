/**
 * Option files in YAML, read as strictly as a configuration deserves: no key twice, no dates, no other surprises.
 *
 * @module
 */
// @ts-types="./std_yaml.d.ts"
// deno-lint-ignore no-import-prefix -- lib/ is also imported where no import map is
import { parse } from "npm:deno-std@1.4.0/yaml/mod.js";
import { FileFormatError, quote } from "./errors.ts";
import { openSource } from "./source.ts";

/** Values of an option file. */
export type YamlValue = null | boolean | number | string | YamlValue[] | { [key: string]: YamlValue };

/** Bounds that no option file comes near, and a hostile one does. */
const LONGEST_FILE = 2 ** 20;
const DEEPEST = 64;
const MOST_VALUES = 100_000;

/** A copy in which nothing is shared, so that aliases can neither make circles nor multiply without bound. */
function plain(
  path: string,
  value: unknown,
  name: string,
  depth: number,
  count: { values: number },
): YamlValue {
  const fail = (detail: string): never => {
    throw new FileFormatError(path, name === "" ? detail : `${quote(name)}: ${detail}`);
  };
  if (depth > DEEPEST) fail(`nested more than ${DEEPEST} deep, or inside itself`);
  if (++count.values > MOST_VALUES) fail(`holds more than ${MOST_VALUES} values`);
  if (
    value === null || typeof value === "boolean" || typeof value === "number" || typeof value === "string"
  ) {
    return value;
  }
  if (value instanceof Date) return fail("is read as a date, put it in quotes");
  if (Array.isArray(value)) {
    return value.map((item, i) => plain(path, item, `${name}[${i}]`, depth + 1, count));
  }
  if (typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) {
    return fail("expected a number, text, true, false, null, a list or a mapping");
  }
  const inside = name === "" ? "" : `${name}.`;
  // fromEntries defines keys, so that one called __proto__ is a key like any other.
  return Object.fromEntries(
    Object.entries(value!).map((
      [key, item],
    ) => [key, plain(path, item, `${inside}${key}`, depth + 1, count)]),
  );
}

/**
 * Reads YAML text. `!!float 20000` is the number 20000, as in the authors' option files; a key that occurs twice, several
 * documents, unknown tags, dates and binary data are errors.
 *
 * @param text The text.
 * @param path The file, for messages.
 * @throws {FileFormatError} If it is damaged or holds anything but plain values: where, and what.
 *
 * @example
 * ```ts
 * import { parseYaml } from "./yaml.ts";
 * const options = parseYaml("train: {lr: !!float 1e-4, steps: 100}", "options.yml") as { train: { lr: number } };
 * console.assert(options.train.lr === 0.0001);
 * ```
 */
export function parseYaml(text: string, path: string): YamlValue {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    // The library draws the place on further lines; its first line says it too.
    const [reason] = (error as Error).message.split("\n");
    const detail = error instanceof RangeError ? "nested too deeply" : reason.replace(/:$/, "");
    throw new FileFormatError(path, `expected YAML: ${detail}`, { cause: error });
  }
  return plain(path, value, "", 0, { values: 0 });
}

/**
 * Reads an option file: a mapping at the top.
 *
 * @param from A path, or the whole content.
 * @param name What to call bytes in messages.
 * @throws {FileFormatError} If it is no such YAML: where, and what.
 * @throws {FileAccessError} If the file cannot be opened.
 */
export function readYaml(from: string | Uint8Array, name?: string): { [key: string]: YamlValue } {
  using source = openSource(from, name);
  const { path, size } = source;
  if (size > LONGEST_FILE) {
    throw new FileFormatError(
      path,
      `expected an option file of at most ${LONGEST_FILE} bytes, found ${size}`,
    );
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(source.read(0, size));
  } catch (error) {
    throw new FileFormatError(path, "expected YAML text in UTF-8, found other bytes", { cause: error });
  }
  const value = parseYaml(text, path);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  const found = value === null ? "nothing" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
  throw new FileFormatError(path, `expected options as "key: value", found ${found}`);
}
