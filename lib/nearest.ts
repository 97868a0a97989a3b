/**
 * The "did you mean" of every unknown name: flags, verbs, option keys, tensor names.
 *
 * @module
 */

/**
 * Edits between two words: insertions, deletions, substitutions and swaps of neighbours, each one edit (optimal string
 * alignment). Stops counting above `limit`.
 */
function distance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    let smallest = i;
    for (let j = 1; j <= b.length; j++) {
      const substituted = last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      let edits = Math.min(last[j] + 1, row[j - 1] + 1, substituted);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        edits = Math.min(edits, beforeLast[j - 2] + 1);
      }
      row.push(edits);
      smallest = Math.min(smallest, edits);
    }
    if (smallest > limit) return limit + 1;
    [beforeLast, last] = [last, row];
  }
  return last[b.length];
}

/** Upper and lower case, dashes, underscores and dots are what people mix up most; they do not count as edits. */
function fold(name: string): string {
  return name.toLowerCase().replace(/[-_. ]/g, "");
}

/**
 * The candidate that a mistyped name most likely meant.
 *
 * @param name What was written.
 * @param candidates What could have been meant.
 * @returns The candidate with the fewest edits, the first of equals; undefined when more than a third of the name would
 * have to change.
 *
 * @example
 * ```ts
 * import { nearest } from "./nearest.ts";
 * console.assert(nearest("guidence", ["seed", "guidance"]) === "guidance");
 * console.assert(nearest("zebra", ["seed", "guidance"]) === undefined);
 * ```
 */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  const wanted = fold(name);
  let limit = Math.max(1, Math.floor(wanted.length / 3));
  let best: string | undefined;
  for (const candidate of candidates) {
    const edits = distance(wanted, fold(candidate), limit);
    if (edits > limit || (best !== undefined && edits === limit)) continue;
    best = candidate;
    limit = edits;
    if (edits === 0) break;
  }
  return best;
}

/**
 * A table without what every object has, so that `constructor` is as unknown a name in it as any other.
 *
 * @param entries The table.
 */
export const named = <T>(entries: Readonly<Record<string, T>>): Readonly<Record<string, T>> =>
  Object.assign(Object.create(null), entries);

/**
 * The end of an error message about an unknown name: `, did you mean "guidance"?` or nothing.
 *
 * @param name What was written.
 * @param candidates What could have been meant.
 */
export function didYouMean(name: string, candidates: Iterable<string>): string {
  const match = nearest(name, candidates);
  return match === undefined ? "" : `, did you mean ${JSON.stringify(match)}?`;
}
