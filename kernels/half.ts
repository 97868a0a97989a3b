/**
 * Rounding of f32 weights to the f16 copy that the products of training read.
 *
 * @module
 */
import wgsl from "./half.wgsl" with { type: "text" };
import type { Kernel } from "./spec.ts";
import { specialise } from "./webgpu/specialise.ts";

/** The largest finite number that f16 holds. */
export const LARGEST_HALF = 65504;

/** Elements that one entry of `largest` covers. */
export const HALF_BLOCK = 4096;

/**
 * y[i] is the f16 nearest to x[i], ties to even; beyond ±65504 it stays there, and NaN stays NaN. largest[at + n] is the
 * largest |x| of elements n·4096 … (n+1)·4096-1, so that the host sees what did not fit; a NaN among them is the largest.
 */
export const toHalf: Kernel = {
  name: "toHalf",
  inputs: { x: "E" },
  outputs: { y: "E:f16", largest: "L" },
  params: { E: "u32", at: "u32" },
  flags: [],
  flops: (p) => p.E,
  reference: (io, p) => {
    for (let i = 0; i < p.E; i++) {
      const x = io.x![i], size = Math.abs(x), n = p.at + Math.floor(i / HALF_BLOCK);
      io.y![i] = Math.f16round(Math.min(LARGEST_HALF, Math.max(-LARGEST_HALF, x)));
      io.largest![n] = i % HALF_BLOCK === 0 ? size : Math.max(io.largest![n], size);
    }
  },
  wgsl: {
    source: specialise(wgsl, { BLOCK: HALF_BLOCK }),
    entry: "round",
    groups: (p) => Math.ceil(p.E / HALF_BLOCK),
    loops: () => HALF_BLOCK / 128 + 6,
  },
  wasm: { fn: "toHalf", tasks: (p) => Math.ceil(p.E / HALF_BLOCK) },
};
