/**
 * Activations that other kernels fuse. The number is the value of their `act` flag.
 *
 * @module
 */

import wgsl from "./activation.wgsl" with { type: "text" };
import { sections } from "./webgpu/sections.ts";

/** The WGSL of activations, by its parts: `exp`, `silu` (on exp), `activate` and `activateGrad` (on both). */
export const activations = (...parts: ("exp" | "silu" | "activate" | "activateGrad")[]): string =>
  sections(wgsl, ...parts);

/** Activation codes of the `act` flag. `gelu` is the tanh approximation, which the authors
 * use; the slope of `leakyRelu` below 0 is 0.2, as in their discriminator. */
export const ACTIVATIONS = { none: 0, silu: 1, gelu: 2, relu: 3, leakyRelu: 4 } as const;

/** Name of an activation. */
export type Activation = keyof typeof ACTIVATIONS;

/** The activation in double precision. */
export function activate(code: number, x: number): number {
  if (code === ACTIVATIONS.silu) return x / (1 + Math.exp(-x));
  if (code === ACTIVATIONS.gelu) {
    return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)));
  }
  if (code === ACTIVATIONS.relu) return Math.max(0, x);
  if (code === ACTIVATIONS.leakyRelu) return x > 0 ? x : 0.2 * x;
  return x;
}

/** The derivative of the activation in double precision; at 0 that of ReLU is 0 and that of leaky ReLU 0.2, as in PyTorch. */
export function activateGrad(code: number, x: number): number {
  if (code === ACTIVATIONS.silu) {
    const s = 1 / (1 + Math.exp(-x));
    return s * (1 + x * (1 - s));
  }
  if (code === ACTIVATIONS.gelu) {
    const c = Math.sqrt(2 / Math.PI), t = Math.tanh(c * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
  }
  if (code === ACTIVATIONS.relu) return x > 0 ? 1 : 0;
  if (code === ACTIVATIONS.leakyRelu) return x > 0 ? 1 : 0.2;
  return 1;
}
