/**
 * Strided copy: permutation, slice, concatenation, repetition and pixel shuffle are all this one kernel.
 *
 * @module
 */
import wgsl from "./copy.wgsl" with { type: "text" };
import { type Case, defineKernel, type Kernel, type Params } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";

/** Number of axes of a strided copy. Shorter shapes are padded with leading ones. */
export const COPY_AXES = 6;

const axes = [...Array(COPY_AXES).keys()];
const perAxis = (prefix: string) => Object.fromEntries(axes.map((a) => [`${prefix}${a}`, "u32" as const]));

/** Number of elements that a strided copy moves. */
const count = (p: Params) => axes.reduce((n, a) => n * p[`n${a}`], 1);

/**
 * For every index (i0 … i5) below (n0 … n5): y[yAt + Σ i·y_stride] = x[xAt + Σ i·x_stride]. An input stride of 0 repeats.
 * Works on any 4-byte element.
 */
export const stridedCopy: Kernel = defineKernel({
  name: "stridedCopy",
  inputs: { x: "X:f32|i32" },
  outputs: { y: "Y:f32|i32" },
  params: { xAt: "u32", yAt: "u32", ...perAxis("n"), ...perAxis("xs"), ...perAxis("ys") },
  flags: [],
  flops: () => 0,
  reference: (io, p) => {
    const total = count(p);
    for (let i = 0; i < total; i++) {
      let rest = i, from = p.xAt, to = p.yAt;
      for (let a = COPY_AXES - 1; a >= 0; a--) {
        const at = rest % p[`n${a}`];
        rest = Math.floor(rest / p[`n${a}`]);
        from += at * p[`xs${a}`];
        to += at * p[`ys${a}`];
      }
      io.y![to] = io.x![from];
    }
  },
  wgsl: {
    source: sections(wgsl, "forward"),
    views: { x: "u32", y: "u32" },
    entry: "forward",
    groups: (p) => Math.ceil(count(p) / 64),
    loops: () => 0,
  },
  wasm: { tasks: (p) => Math.ceil(count(p) / 16384), scratch: () => 96 },
  // A pixel unshuffle of [2, 4, 6, 3] by 2, a gather with a repeated axis, a transposition.
  cases: [
    copyCase(144, 150, 0, 6, [2, 2, 3, 3, 2, 2], [72, 36, 6, 1, 18, 3], [72, 36, 12, 4, 2, 1]),
    copyCase(35, 70, 5, 0, [1, 1, 1, 3, 2, 5], [0, 0, 0, 10, 0, 1], [0, 0, 0, 20, 5, 1]),
    copyCase(40000, 40000, 0, 0, [1, 1, 1, 1, 200, 200], [0, 0, 0, 0, 1, 200], [0, 0, 0, 0, 200, 1]),
  ],
  gradient: {
    saves: [],
    backward: (b) => {
      b.launch(stridedCopyGrad, { dy: b.grad("y") }, b.params, { dx: b.sum("x") });
    },
  },
});

/**
 * Gradient of {@linkcode stridedCopy}, with the same numbers: dx[xAt + Σ i·x_stride] += Σ dy[yAt + Σ i·y_stride] over the
 * axes whose input stride is 0 (repeated channels, say). The other axes must reach each element of x once at most, as
 * permutations and slices do.
 */
export const stridedCopyGrad: Kernel = defineKernel({
  name: "stridedCopyGrad",
  inputs: { dy: "Y" },
  outputs: { dx: "X" },
  params: stridedCopy.params,
  flags: [],
  flops: count,
  reference: (io, p) => {
    const total = count(p);
    for (let i = 0; i < total; i++) {
      let rest = i, to = p.xAt, from = p.yAt;
      for (let a = COPY_AXES - 1; a >= 0; a--) {
        const at = rest % p[`n${a}`];
        rest = Math.floor(rest / p[`n${a}`]);
        to += at * p[`xs${a}`];
        from += at * p[`ys${a}`];
      }
      io.dx![to] += io.dy![from];
    }
  },
  wgsl: {
    source: sections(wgsl, "backward"),
    entry: "backward",
    groups: (p) => Math.ceil(owned(p) / 64),
    loops: (p) => count(p) / Math.max(1, owned(p)),
  },
  wasm: { tasks: (p) => Math.ceil(owned(p) / 16384), scratch: () => 192 },
  // Repeated channels with a pixel shuffle, a permutation with offsets, a transposition, a sum of everything.
  cases: [
    copyCase(72, 144, 0, 0, [2, 3, 3, 2, 2, 2], [36, 12, 2, 0, 0, 1], [72, 24, 4, 12, 2, 1]),
    copyCase(35, 70, 5, 3, [1, 1, 1, 3, 2, 5], [0, 0, 0, 10, 0, 1], [0, 0, 0, 20, 5, 1]),
    copyCase(40000, 40000, 0, 0, [1, 1, 1, 1, 200, 200], [0, 0, 0, 0, 1, 200], [0, 0, 0, 0, 200, 1]),
    copyCase(3, 60, 1, 0, [1, 1, 1, 1, 3, 20], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 20, 1]),
  ],
});

/** Number of elements of x that a strided copy reads: the axes that do not repeat. */
function owned(p: Params): number {
  return axes.reduce((n, a) => p[`xs${a}`] === 0 && p[`n${a}`] > 0 ? n : n * p[`n${a}`], 1);
}

/** Index arithmetic of a strided copy, in elements; at most {@linkcode COPY_AXES} axes. */
export interface Strided {
  /** Number of indices along each axis. */
  readonly sizes: readonly number[];
  /** Stride of `x` for each axis. */
  readonly from: readonly number[];
  /** Stride of `y` for each axis. */
  readonly to: readonly number[];
  /** First element of `x`. */
  readonly fromAt?: number;
  /** First element of `y`. */
  readonly toAt?: number;
}

/** The scalars of a strided copy. */
export function copyParams({ sizes, from, to, fromAt = 0, toAt = 0 }: Strided): Record<string, number> {
  const lead = COPY_AXES - sizes.length;
  const params: Record<string, number> = { xAt: fromAt, yAt: toAt };
  for (let a = 0; a < COPY_AXES; a++) {
    params[`n${a}`] = a < lead ? 1 : sizes[a - lead];
    params[`xs${a}`] = a < lead ? 0 : from[a - lead];
    params[`ys${a}`] = a < lead ? 0 : to[a - lead];
  }
  return params;
}

function copyCase(
  ...[X, Y, fromAt, toAt, sizes, from, to]: [number, number, number, number, number[], number[], number[]]
): Case {
  return { params: { X, Y, ...copyParams({ sizes, from, to, fromAt, toAt }) } };
}
