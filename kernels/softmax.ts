/**
 * Softmax of rows. Attention has its own, streaming one (attention.ts).
 *
 * @module
 */
import wgsl from "./softmax.wgsl" with { type: "text" };
import { activations } from "./activation.ts";
import { uniform } from "./inputs.ts";
import { rows } from "./rows.ts";
import { defineKernel, type Kernel } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";

/** y[p, c] = exp(x[p, c] - m) / Σ over c of the same, where m is the largest of the row. */
export const softmax: Kernel = defineKernel({
  name: "softmax",
  inputs: { x: "P C" },
  outputs: { y: "P C" },
  params: { P: "u32", C: "u32" },
  flags: [],
  flops: (p) => 12 * p.P * p.C,
  reference: (io, p) => {
    for (let first = 0; first < p.P * p.C; first += p.C) {
      let most = -Infinity, sum = 0;
      for (let i = first; i < first + p.C; i++) most = Math.max(most, io.x![i]);
      for (let i = first; i < first + p.C; i++) sum += Math.exp(io.x![i] - most);
      for (let i = first; i < first + p.C; i++) io.y![i] = Math.exp(io.x![i] - most) / sum;
    }
  },
  wgsl: {
    source: activations("exp") + rows(16, "most", "sum") + sections(wgsl, "softmax"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P / 4),
    loops: (p) => 3 * Math.ceil(p.C / 16),
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  // The second would overflow without the row's largest value; the third has rows of a single value.
  cases: [
    { params: { P: 9, C: 40 } },
    { params: { P: 33, C: 7 }, inputs: { x: uniform("P C", 60, 100) } },
    { params: { P: 18, C: 1 } },
    { params: { P: 2, C: 1030 }, inputs: { x: uniform("P C", 8) } },
  ],
  tolerance: {
    bound: 1e-6,
    why: "exponentials within 2 ulp of arguments of a few units, sums of at most 1030 of them",
  },
  gradient: {
    saves: ["y"],
    backward: (b) => b.give("x", b.launch(softmaxGrad, { y: b.saved("y"), dy: b.grad("y") }, {}).dx),
  },
});

/** Gradient of {@linkcode softmax}: dx = y · (dy - Σ over c of dy · y). */
export const softmaxGrad: Kernel = defineKernel({
  name: "softmaxGrad",
  inputs: { y: "P C", dy: "P C" },
  outputs: { dx: "P C" },
  params: { P: "u32", C: "u32" },
  flags: [],
  flops: (p) => 4 * p.P * p.C,
  reference: (io, p) => {
    for (let first = 0; first < p.P * p.C; first += p.C) {
      let sum = 0;
      for (let c = first; c < first + p.C; c++) sum += io.dy![c] * io.y![c];
      for (let c = first; c < first + p.C; c++) io.dx![c] = io.y![c] * (io.dy![c] - sum);
    }
  },
  wgsl: {
    source: rows(16, "sum") + sections(wgsl, "softmaxGrad"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P / 4),
    loops: (p) => 2 * Math.ceil(p.C / 16),
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: [
    { params: { P: 9, C: 40 } },
    { params: { P: 33, C: 7 } },
    { params: { P: 2, C: 1030 }, inputs: { y: uniform("P C", 0.001, 0.001) } },
  ],
});
