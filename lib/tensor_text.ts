/**
 * Tensors as text.
 *
 * @module
 */

/** Entries that are shown at each end of a long axis. */
const EDGE = 3;

const shown = (value: number): string =>
  Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : String(Number(value.toPrecision(4)));

/** Values row by row, in brackets; of an axis longer than six the first and last three. */
export function valuesText(values: ArrayLike<number>, shape: readonly number[]): string {
  const part = (axis: number, at: number, size: number): string => {
    if (axis === shape.length) return shown(values[at]);
    const n = shape[axis], step = size / n, all = Array.from({ length: n }, (_, i) => i);
    const indices = n > 2 * EDGE ? [...all.slice(0, EDGE), -1, ...all.slice(-EDGE)] : all;
    const between = axis === shape.length - 1
      ? ", "
      : `,${"\n".repeat(shape.length - 1 - axis)}${" ".repeat(axis + 1)}`;
    return `[${indices.map((i) => i < 0 ? "…" : part(axis + 1, at + i * step, step)).join(between)}]`;
  };
  return values.length === 0 ? "[]" : part(0, 0, values.length);
}

/** Smallest and largest value and the mean; values that are not finite are counted instead. */
export function rangeText(values: ArrayLike<number>): string {
  let low = Infinity, high = -Infinity, sum = 0, bad = 0;
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) bad++;
    else {
      low = Math.min(low, values[i]);
      high = Math.max(high, values[i]);
      sum += values[i];
    }
  }
  const finite = values.length - bad;
  const range = finite > 0
    ? `${shown(low)} to ${shown(high)}, mean ${shown(sum / finite)}`
    : "no finite values";
  return bad > 0 ? `${range}, ${bad} not finite` : range;
}
