/**
 * Strided copy: permutation, slice, concatenation, repetition and pixel shuffle are all this one kernel.
 *
 * @module
 */
import wgsl from "./copy.wgsl" with { type: "text" };
import type { Kernel, Params } from "./spec.ts";
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
export const stridedCopy: Kernel = {
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
    source: sections(wgsl, "params", "forward"),
    entry: "forward",
    groups: (p) => Math.ceil(count(p) / 64),
    loops: () => 0,
  },
  wasm: { fn: "stridedCopy", tasks: (p) => Math.ceil(count(p) / 16384), scratch: () => 64 },
};

/**
 * Gradient of {@linkcode stridedCopy}, with the same numbers: dx[xAt + Σ i·x_stride] += Σ dy[yAt + Σ i·y_stride] over the
 * axes whose input stride is 0 (repeated channels, say). The other axes must reach each element of x once at most, as
 * permutations and slices do.
 */
export const stridedCopyGrad: Kernel = {
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
    source: sections(wgsl, "params", "backward"),
    entry: "backward",
    groups: (p) => Math.ceil(owned(p) / 64),
    loops: (p) => count(p) / Math.max(1, owned(p)),
  },
  wasm: { fn: "stridedCopyGrad", tasks: (p) => Math.ceil(owned(p) / 16384), scratch: () => 192 },
};

/** Number of elements of x that a strided copy reads: the axes that do not repeat. */
function owned(p: Params): number {
  return axes.reduce((n, a) => p[`xs${a}`] === 0 && p[`n${a}`] > 0 ? n : n * p[`n${a}`], 1);
}
