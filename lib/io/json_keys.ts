/**
 * `JSON.parse` keeps the last of two equal keys without a word; a checkpoint may not lose a tensor that way.
 *
 * @module
 */

// Runs of plain characters first: an alternative for each character would overflow the matcher on a long text.
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:,]/g;

/**
 * The first key that occurs twice in one object.
 *
 * @param text JSON that `JSON.parse` has accepted.
 *
 * @example
 * ```ts
 * import { firstDuplicateKey } from "./json_keys.ts";
 * console.assert(firstDuplicateKey('{"a":{"b":1},"b":[2,{"c":3,"c":4}]}') === "c");
 * console.assert(firstDuplicateKey('{"a":{"b":1},"b":2}') === undefined);
 * ```
 */
export function firstDuplicateKey(text: string): string | undefined {
  const open: Set<string>[] = []; // one set an object or list that is open; that of a list stays empty
  let last = "";
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === "{" || token === "[") open.push(new Set());
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      const key = JSON.parse(last) as string;
      const keys = open[open.length - 1];
      if (keys.has(key)) return key;
      keys.add(key);
    } else if (token !== ",") last = token;
  }
  return undefined;
}
