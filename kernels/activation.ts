/**
 * Activations that other kernels fuse. The number is the value of their `act` flag.
 *
 * @module
 */

/** Activation codes of the `act` flag. `gelu` is the tanh approximation, which the authors use. */
export const ACTIVATIONS = { none: 0, silu: 1, gelu: 2, relu: 3 } as const;

/** Name of an activation. */
export type Activation = keyof typeof ACTIVATIONS;

/** The activation in double precision. */
export function activate(code: number, x: number): number {
  if (code === ACTIVATIONS.silu) return x / (1 + Math.exp(-x));
  if (code === ACTIVATIONS.gelu) {
    return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
  }
  if (code === ACTIVATIONS.relu) return Math.max(0, x);
  return x;
}
