/**
 * Means with their standard errors, and differences of two methods over the same clips.
 *
 * @module
 */

/** A mean over clips. */
export interface MeanError {
  /** The mean. */
  readonly mean: number;
  /** Standard error of the mean: sample standard deviation over the root of the number; NaN for a single clip. */
  readonly error: number;
  /** Number of clips. */
  readonly clips: number;
}

/**
 * Mean and standard error of one score a clip.
 *
 * @param values One number a clip.
 * @throws {RangeError} If there is none.
 *
 * @example
 * ```ts
 * import { meanError } from "./paired.ts";
 * const { mean, error } = meanError([1, 2, 3]);
 * console.assert(mean === 2 && Math.abs(error - 1 / Math.sqrt(3)) < 1e-12);
 * ```
 */
export function meanError(values: readonly number[]): MeanError {
  const n = values.length;
  if (n === 0) throw new RangeError("meanError: expected at least one clip, found none");
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  return { mean, error: n === 1 ? NaN : Math.sqrt(squares / (n - 1) / n), clips: n };
}

/**
 * Mean difference `a - b` of two methods on the same clips, with the standard error of the differences: clips differ far more
 * from each other than methods do, so the pairs must not be torn apart.
 *
 * @param a One score a clip.
 * @param b The other method's scores, in the same order.
 * @throws {RangeError} If they are not as many, or none.
 *
 * @example
 * ```ts
 * import { pairedDifference } from "./paired.ts";
 * const { mean, error } = pairedDifference([11, 21, 31], [10, 20, 30]);
 * console.assert(mean === 1 && error === 0);
 * ```
 */
export function pairedDifference(a: readonly number[], b: readonly number[]): MeanError {
  if (a.length !== b.length) {
    throw new RangeError(
      `pairedDifference: expected as many scores of both, found ${a.length} and ${b.length}`,
    );
  }
  return meanError(a.map((value, i) => value - b[i]));
}
