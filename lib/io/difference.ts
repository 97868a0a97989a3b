/**
 * Comparing two JSON values, to say what differs.
 *
 * @module
 */
import { show } from "./errors.ts";

/** The first place where two values differ. */
export interface Difference {
  /** Keys on the way there, e.g. `flags.steps`. */
  readonly path: string;
  /** Content of the first value there, as short JSON; `nothing` where it is missing. */
  readonly before: string;
  /** Content of the second value there. */
  readonly now: string;
}

type Json = Readonly<Record<string, unknown>> | readonly unknown[];

const isTree = (value: unknown): value is Json => typeof value === "object" && value !== null;

/** A value as it comes back from a JSON file: undefined keys are gone, NaN is null. */
export const asJson = (value: unknown): unknown => {
  const text = JSON.stringify(value);
  return text === undefined ? undefined : JSON.parse(text);
};

/**
 * Compares two JSON values; the order of keys does not count.
 *
 * @param before The earlier value.
 * @param now The later one.
 * @returns The first difference in the order of the later value's keys, or null.
 *
 * @example
 * ```ts
 * import { firstDifference } from "./difference.ts";
 * const found = firstDifference({ flags: { steps: 4 } }, { flags: { steps: 5 } });
 * console.assert(found?.path === "flags.steps" && found.before === "4" && found.now === "5");
 * console.assert(firstDifference({ a: 1, b: [2] }, { b: [2], a: 1 }) === null);
 * ```
 */
export function firstDifference(before: unknown, now: unknown): Difference | null {
  return differ(asJson(before), asJson(now), "");
}

function differ(before: unknown, now: unknown, path: string): Difference | null {
  if (Object.is(before, now)) return null;
  if (!isTree(before) || !isTree(now) || Array.isArray(before) !== Array.isArray(now)) {
    return { path: path || "everything", before: show(before), now: show(now) };
  }
  const [a, b] = [before, now] as Readonly<Record<string, unknown>>[];
  for (const key of new Set([...Object.keys(b), ...Object.keys(a)])) {
    const own = (value: Readonly<Record<string, unknown>>) =>
      Object.hasOwn(value, key) ? value[key] : undefined;
    const found = differ(own(a), own(b), path === "" ? key : `${path}.${key}`);
    if (found !== null) return found;
  }
  return null;
}
