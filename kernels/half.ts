/**
 * Rounding of f32 weights to the f16 copy that the products of training read.
 *
 * @module
 */
import wgsl from "./half.wgsl" with { type: "text" };
import { type Case, defineKernel, type Kernel, type Params } from "./spec.ts";
import { specialise } from "./webgpu/specialise.ts";

/** The largest finite number that f16 holds. */
export const LARGEST_HALF = 65504;

/** Elements that one entry of `largest` covers. */
export const HALF_BLOCK = 4096;

/**
 * y[i] is the f16 nearest to x[i], ties to even; beyond ±65504 it stays there, and NaN stays NaN. largest[at + n] is the
 * largest |x| of elements n·4096 … (n+1)·4096-1, so that the host sees what did not fit; a NaN among them is the largest.
 */
export const toHalf: Kernel = defineKernel({
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
    views: { x: "u32", y: "u32", largest: "u32" },
    entry: "round",
    groups: (p) => Math.ceil(p.E / HALF_BLOCK),
    loops: () => HALF_BLOCK / 128 + 6,
  },
  wasm: { tasks: (p) => Math.ceil(p.E / HALF_BLOCK) },
  cases: halfCases(),
  tolerance: { bound: 0, why: "rounding to the nearest f16 is exact" },
});

function halfCases(): Case[] {
  const sizes = [[1, 0], [2, 1], [1003, 0], [HALF_BLOCK, 2], [2 * HALF_BLOCK + 5, 1], [10 * HALF_BLOCK, 3]];
  return sizes.flatMap(([E, at]) => {
    const params = { E, at, L: at + Math.ceil(E / HALF_BLOCK) + 1 };
    return [everySize, within].map((x) => ({ params, inputs: { x } }));
  });
}

/** Numbers of every size, and those at which rounding to f16 could go wrong: ties, subnormals, the ends. */
function everySize(p: Params, random: () => number): number[] {
  const edges = [
    ...[0, -0, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -11 + 2 ** -20, 2048.5, 65504, 65519, 65520, 1e30],
    ...[2 ** -14, 2 ** -14 - 2 ** -26, 2 ** -14 - 2 ** -25, 2 ** -15 + 2 ** -25, 3 * 2 ** -25, 2 ** -24],
    ...[2 ** -25, 2 ** -25 * (1 + 2 ** -20), 2 ** -26, 1e-40, 2 ** -24 * 1023.5, 2 ** -24 * 1022.5],
  ].flatMap((x) => [x, -x]);
  return Array.from({ length: p.E }, (_, i) => {
    const x = (random() * 2 - 1) * 2 ** Math.floor(random() * 44 - 28);
    return i % 2 ? x : edges[Math.floor(random() * 2 * edges.length)] ?? x;
  });
}

/** Mostly within f16, so that the largest are not all beyond it. */
function within(p: Params, random: () => number): number[] {
  return Array.from({ length: p.E }, () => (random() * 2 - 1) * 2 ** Math.floor(random() * 30 - 20));
}
