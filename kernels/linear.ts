/**
 * Linear layers: y = residual + gate * act(x wᵀ + bias), and the fused query-key-value projection.
 *
 * @module
 */
import wgsl from "./linear.wgsl" with { type: "text" };
import { activate } from "./activation.ts";
import activation from "./activation.wgsl" with { type: "text" };
import { productScratch, productTasks } from "./cpu/blocks.ts";
import type { HostBuffers, Kernel, Params } from "./spec.ts";
import { gemmSide } from "./webgpu/gemm.ts";
import { sections } from "./webgpu/sections.ts";

/**
 * One linear layer on the rows `yRow … yRow+M-1`, so that tokens of two kinds can lie in one tensor and be projected
 * by two layers into one output. `x` is read from row `xRow` on. The gate is a column block of a modulation table:
 * row `rows[t]`, columns `gateCol … gateCol+N-1`.
 */
export const linear: Kernel = {
  name: "linear",
  inputs: {
    x: "X K",
    w: "N K:f32|f16",
    bias: "N?",
    modulation: "R G?",
    rows: "Y:i32?",
    residual: "Y N?",
  },
  outputs: { y: "Y N" },
  params: { M: "u32", N: "u32", K: "u32", G: "u32", xRow: "u32", yRow: "u32", gateCol: "u32" },
  flags: ["act", "hasBias", "hasGate", "hasResidual", "half"],
  flops: (p) => 2 * p.M * p.N * p.K,
  reference: linearReference,
  wgsl: gemmSide(
    activation + sections(wgsl, "operands", "linear"),
    (p) => ({ rows: p.M, columns: p.N, depth: Math.ceil(p.K / 4) }),
  ),
  wasm: {
    fn: "linear",
    tasks: (p) => productTasks(p.M, p.N),
    scratch: (p) => productScratch(p.K, 1),
    packed: (p) => ({ w: [p.N, p.K, 1] }),
  },
};

function linearReference(io: HostBuffers, p: Params): void {
  const { x, w, bias, modulation, rows, residual, y } = io;
  for (let m = 0; m < p.M; m++) {
    const t = p.yRow + m;
    for (let n = 0; n < p.N; n++) {
      let sum = p.hasBias ? bias![n] : 0;
      for (let k = 0; k < p.K; k++) sum += x![(p.xRow + m) * p.K + k] * w![n * p.K + k];
      let v = activate(p.act, sum);
      if (p.hasGate) v *= modulation![rows![t] * p.G + p.gateCol + n];
      if (p.hasResidual) v += residual![t * p.N + n];
      y![t * p.N + n] = v;
    }
  }
}

/** Three projections of the same rows in one launch: y = [x wqᵀ + bq | x wkᵀ + bk | x wvᵀ + bv], N columns each. */
export const linearQkv: Kernel = {
  name: "linearQkv",
  inputs: {
    x: "X K",
    wq: "N K:f32|f16",
    wk: "N K:f32|f16",
    wv: "N K:f32|f16",
    bq: "N?",
    bk: "N?",
    bv: "N?",
  },
  outputs: { y: "Y N3" },
  params: { M: "u32", N: "u32", K: "u32", xRow: "u32", yRow: "u32" },
  flags: ["hasBias", "half"],
  flops: (p) => 6 * p.M * p.N * p.K,
  reference: (io, p) => {
    const parts: [string, string][] = [["wq", "bq"], ["wk", "bk"], ["wv", "bv"]];
    for (let m = 0; m < p.M; m++) {
      parts.forEach(([w, b], part) => {
        for (let n = 0; n < p.N; n++) {
          let sum = p.hasBias ? io[b]![n] : 0;
          for (let k = 0; k < p.K; k++) sum += io.x![(p.xRow + m) * p.K + k] * io[w]![n * p.K + k];
          io.y![(p.yRow + m) * 3 * p.N + part * p.N + n] = sum;
        }
      });
    }
  },
  wgsl: gemmSide(
    sections(wgsl, "operands", "qkv"),
    (p) => ({ rows: p.M, columns: 3 * p.N, depth: Math.ceil(p.K / 4) }),
  ),
  wasm: {
    fn: "linearQkv",
    tasks: (p) => 3 * productTasks(p.M, p.N),
    scratch: (p) => productScratch(p.K, 1),
    packed: (p) => ({ wq: [p.N, p.K, 1], wk: [p.N, p.K, 1], wv: [p.N, p.K, 1] }),
  },
};

/** A 1x1 convolution in groups: output group g reads input channels g*I … g*I+I-1. `w` is `[G*O, I]`. */
export const groupedLinear: Kernel = {
  name: "groupedLinear",
  inputs: { x: "P GI", w: "GO I", bias: "GO?" },
  outputs: { y: "P GO" },
  params: { P: "u32", GI: "u32", GO: "u32", I: "u32" },
  flags: ["hasBias"],
  flops: (p) => 2 * p.P * p.GO * p.I,
  reference: (io, p) => {
    const perGroup = p.GO / (p.GI / p.I);
    for (let r = 0; r < p.P; r++) {
      for (let o = 0; o < p.GO; o++) {
        const first = Math.floor(o / perGroup) * p.I;
        let sum = p.hasBias ? io.bias![o] : 0;
        for (let i = 0; i < p.I; i++) sum += io.x![r * p.GI + first + i] * io.w![o * p.I + i];
        io.y![r * p.GO + o] = sum;
      }
    }
  },
  wgsl: {
    source: sections(wgsl, "grouped"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P * p.GO / 64),
    loops: (p) => p.I,
  },
  wasm: {
    fn: "groupedLinear",
    tasks: (p) => productTasks(p.P, 1),
    scratch: (p) => productScratch(p.I, 1),
  },
};

/** Scratch of a gradient's task on the cpu: row addresses, one register tile, one panel. */
const gradientScratch = (rows: number, length: number) => 4 * rows + 512 + 64 * length;

/**
 * Gradient of a linear layer's input: dx (+)= dz w, rows as in {@linkcode linear}. `dz` is columns `zCol … zCol+N-1` of
 * a tensor that may be wider (queries, keys and values side by side). With `accumulate` it adds to what is there.
 */
export const linearGradInput: Kernel = {
  name: "linearGradInput",
  inputs: { dz: "Y Z", w: "N K:f32|f16" },
  outputs: { dx: "X K" },
  params: { M: "u32", N: "u32", K: "u32", Z: "u32", xRow: "u32", yRow: "u32", zCol: "u32" },
  flags: ["accumulate", "half"],
  flops: (p) => 2 * p.M * p.N * p.K,
  reference: (io, p) => {
    for (let m = 0; m < p.M; m++) {
      for (let k = 0; k < p.K; k++) {
        const at = (p.xRow + m) * p.K + k;
        let sum = p.accumulate ? io.dx![at] : 0;
        for (let n = 0; n < p.N; n++) sum += io.dz![(p.yRow + m) * p.Z + p.zCol + n] * io.w![n * p.K + k];
        io.dx![at] = sum;
      }
    }
  },
  wgsl: gemmSide(
    sections(wgsl, "gradInput"),
    (p) => ({ rows: p.M, columns: p.K, depth: Math.ceil(p.N / 4) }),
    undefined,
    { right: true },
  ),
  wasm: {
    fn: "linearGradInput",
    tasks: (p) => Math.ceil(p.M / 192) * Math.ceil(p.K / 48),
    scratch: (p) => gradientScratch(192, p.N),
    packed: (p) => ({ w: [p.N, p.K, 1] }),
  },
};

/** Gradients of a linear layer's weight and bias, accumulated: dw += dzᵀ x, db += column sums of dz. */
export const linearGradWeight: Kernel = {
  name: "linearGradWeight",
  inputs: { dz: "Y Z", x: "X K" },
  outputs: { dw: "N K", db: "N?" },
  params: { M: "u32", N: "u32", K: "u32", Z: "u32", xRow: "u32", yRow: "u32", zCol: "u32" },
  flags: ["hasBias"],
  flops: (p) => 2 * p.M * p.N * p.K,
  reference: (io, p) => {
    for (let n = 0; n < p.N; n++) {
      for (let m = 0; m < p.M; m++) {
        const dz = io.dz![(p.yRow + m) * p.Z + p.zCol + n];
        if (p.hasBias) io.db![n] += dz;
        for (let k = 0; k < p.K; k++) io.dw![n * p.K + k] += dz * io.x![(p.xRow + m) * p.K + k];
      }
    }
  },
  wgsl: gemmSide(
    sections(wgsl, "gradWeight"),
    (p) => ({ rows: p.N, columns: p.K + p.hasBias, depth: Math.ceil(p.M / 4) }),
    undefined,
    { left: true, right: true },
  ),
  wasm: {
    fn: "linearGradWeight",
    tasks: (p) => Math.ceil(p.N / 192) * Math.ceil(p.K / 192),
    scratch: () => gradientScratch(192, 512) + 4 * 192 * 528, // the transposed block of dz behind it
  },
};

/** Gradient of {@linkcode groupedLinear}'s input: dx[p, g·I + i] = Σ over the outputs o of group g of dz[p, o] w[o, i]. */
export const groupedLinearGradInput: Kernel = {
  name: "groupedLinearGradInput",
  inputs: { dz: "P GO", w: "GO I" },
  outputs: { dx: "P GI" },
  params: { P: "u32", GI: "u32", GO: "u32", I: "u32" },
  flags: [],
  flops: (p) => 2 * p.P * p.GO * p.I,
  reference: (io, p) => {
    const perGroup = p.GO / (p.GI / p.I);
    io.dx!.fill(0);
    for (let i = 0; i < p.P * p.GO; i++) {
      const r = Math.floor(i / p.GO), o = i % p.GO, first = r * p.GI + Math.floor(o / perGroup) * p.I;
      for (let j = 0; j < p.I; j++) io.dx![first + j] += io.dz![i] * io.w![o * p.I + j];
    }
  },
  wgsl: {
    source: sections(wgsl, "groupedGradInput"),
    entry: "backward",
    groups: (p) => Math.ceil(p.P * p.GI / 64),
    loops: (p) => p.GO / (p.GI / p.I),
  },
  wasm: { fn: "groupedLinearGradInput", tasks: (p) => Math.ceil(p.P / 16) },
};

/** Gradients of {@linkcode groupedLinear}'s weight and bias, accumulated. */
export const groupedLinearGradWeight: Kernel = {
  name: "groupedLinearGradWeight",
  inputs: { dz: "P GO", x: "P GI" },
  outputs: { dw: "GO I", db: "GO?" },
  params: { P: "u32", GI: "u32", GO: "u32", I: "u32" },
  flags: ["hasBias"],
  flops: (p) => 2 * p.P * p.GO * p.I,
  reference: (io, p) => {
    const perGroup = p.GO / (p.GI / p.I);
    for (let i = 0; i < p.P * p.GO; i++) {
      const r = Math.floor(i / p.GO), o = i % p.GO, first = r * p.GI + Math.floor(o / perGroup) * p.I;
      for (let j = 0; j < p.I; j++) io.dw![o * p.I + j] += io.dz![i] * io.x![first + j];
      if (p.hasBias) io.db![o] += io.dz![i];
    }
  },
  wgsl: {
    source: sections(wgsl, "groupedGradWeight"),
    entry: "backward",
    groups: (p) => Math.ceil(p.GO * p.I / 64),
    loops: (p) => p.P,
  },
  wasm: { fn: "groupedLinearGradWeight", tasks: (p) => p.GI / p.I, scratch: (p) => 4 * (p.I + 4) },
};
