/**
 * Inputs of kernel cases that must not be uniform in [-1, 1].
 *
 * @module
 */
import type { Params } from "./spec.ts";

type Made = (p: Params, random: () => number) => number[];

const product = (letters: string, p: Params) => letters.split(" ").reduce((n, l) => n * p[l], 1);

/** Indices below `below`, one for each element of the shape `letters`: `indices("T", "R")`. */
export const indices = (letters: string, below: string): Made => (p, random) =>
  Array.from({ length: product(letters, p) }, () => Math.floor(random() * p[below]));

/** Uniform in [offset - width, offset + width]. */
export const uniform = (letters: string, width: number, offset = 0): Made => (p, random) =>
  Array.from({ length: product(letters, p) }, () => (random() * 2 - 1) * width + offset);

/** Arguments of an activation in [-8, 8], with ends that overflow a naive exp, and zero. */
export const activationInputs: Made = (p, random) =>
  Array.from({ length: p.E }, (_, i) => i < 4 ? [-90, 90, -20, 0][i] : random() * 16 - 8);

/** Variances of channels; the first two hardly vary: an eps of another size would show. */
export const variances: Made = (p, random) =>
  Array.from({ length: p.C }, (_, i) => i < 2 ? 1e-6 : random() + 0.1);
