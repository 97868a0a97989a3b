/**
 * Values that show themselves in a notebook: Jupyter's Deno kernel asks the value of a cell's last expression for its media
 * types by `Symbol.for("Jupyter.display")`.
 *
 * @module
 */

/** Representations of a value for a notebook, by media type: text as it is, binary formats in base64. */
export type MediaBundle = Readonly<Record<string, string>>;

/** Key under which the Deno kernel looks for a value's {@linkcode MediaBundle}. */
export const JUPYTER: unique symbol = Symbol.for("Jupyter.display");

/**
 * Gives a value a display. The property is not enumerable: copies, comparisons and `console.log` do not see it.
 *
 * @param value Stays what it is.
 * @param bundle Called whenever a notebook shows the value. Does not change it.
 * @returns The value itself.
 */
export function showing<T extends object>(
  value: T,
  bundle: (value: T) => MediaBundle | Promise<MediaBundle>,
): T {
  return Object.defineProperty(value, JUPYTER, { value: () => bundle(value), configurable: true });
}
