/**
 * Linear layers: y = residual + gate * act(x wᵀ + bias), and the fused query-key-value projection.
 *
 * @module
 */
import wgsl from "./linear.wgsl" with { type: "text" };
import { activate, activations } from "./activation.ts";
import { blasScratch, blasTasks, productScratch, productTasks } from "./cpu/blocks.ts";
import type { Backward } from "./gradient.ts";
import { indices } from "./inputs.ts";
import { type Case, defineKernel, type HostBuffers, type Kernel, type Params, type Shaped } from "./spec.ts";
import { gemmSide, TILE_COLUMNS } from "./webgpu/gemm.ts";
import { sections } from "./webgpu/sections.ts";

/** 1 where all of these numbers are multiples of four, so that a shader reads rows by fours; a constant of the shader. */
const whole = (...numbers: number[]) => numbers.every((n) => n % 4 === 0) ? 1 : 0;

/** 1 where a tile of columns ends at this one; a constant of the shader. */
const apart = (column: number) => column % TILE_COLUMNS === 0 ? 1 : 0;

/**
 * One linear layer on the rows `yRow … yRow+M-1`, so that tokens of two kinds can lie in one tensor and be projected
 * by two layers into one output. `x` is read from row `xRow` on. The gate is a column block of a modulation table:
 * row `rows[t]`, columns `gateCol … gateCol+N-1`.
 */
export const linear: Kernel = defineKernel({
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
  wgsl: gemmSide({
    sizes: (p) => ({ rows: p.M, columns: p.N, depth: Math.ceil(p.K / 4) }),
    text: sections(wgsl, "sizes"),
    operands: {
      text: sections(wgsl, "operands", "linear"),
      reads: ["x", "w"],
      flags: ["half"],
      views: { x: "vec4f", w: "vec4u" },
      constants: { whole: (p) => whole(p.K) },
    },
    result: {
      text: activations("exp", "silu", "activate") + sections(wgsl, "linearStore"),
      reads: ["bias", "modulation", "rows", "residual"],
      writes: ["y"],
      flags: ["act", "hasBias", "hasGate", "hasResidual"],
    },
  }),
  wasm: {
    tasks: (p, blas) => blas ? blasTasks(p.M, p.N) : productTasks(p.M, p.N),
    scratch: (p, blas) => blas ? blasScratch(p.K, p.half) : productScratch(p.K, 1),
    packed: (p) => ({ w: [p.N, p.K, 1] }),
  },
  cases: linearCases(),
  tolerance: {
    bound: 1e-5,
    why: "f32 sums over K up to 3072, error about sqrt(K) * 6e-8 times the terms' size",
  },
  gradient: {
    saves: ["x", "w"],
    when: (p) => !p.act && !p.hasGate && !p.hasResidual,
    backward: (b) => linearBackward(b, b.grad("y"), "w", "bias", 0),
  },
});

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
export const linearQkv: Kernel = defineKernel({
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
  wgsl: gemmSide({
    sizes: (p) => ({ rows: p.M, columns: 3 * p.N, depth: Math.ceil(p.K / 4) }),
    text: sections(wgsl, "qkvSizes"),
    operands: {
      text: sections(wgsl, "operands", "qkv"),
      reads: ["x", "wq", "wk", "wv"],
      flags: ["half"],
      views: { x: "vec4f", wq: "vec4u", wk: "vec4u", wv: "vec4u" },
      constants: { whole: (p) => whole(p.K), apart: (p) => apart(p.N) },
    },
    result: {
      text: sections(wgsl, "qkvStore"),
      reads: ["bq", "bk", "bv"],
      writes: ["y"],
      flags: ["hasBias"],
    },
  }),
  wasm: {
    tasks: (p, blas) => 3 * (blas ? blasTasks(p.M, p.N) : productTasks(p.M, p.N)),
    scratch: (p, blas) => blas ? blasScratch(p.K, p.half) : productScratch(p.K, 1),
    packed: (p) => ({ wq: [p.N, p.K, 1], wk: [p.N, p.K, 1], wv: [p.N, p.K, 1] }),
  },
  cases: [qkvCase(5, 8, 6, 1), qkvCase(67, 64, 96, 0), qkvCase(20, 72, 64, 1, 1)],
  tolerance: { bound: 1e-5, why: "as linear" },
  gradient: {
    saves: ["x", "wq", "wk", "wv"],
    backward: (b) =>
      ["q", "k", "v"].forEach((part, i) =>
        linearBackward(b, b.grad("y"), `w${part}`, `b${part}`, i * b.params.N)
      ),
  },
});

/** A 1x1 convolution in groups: output group g reads input channels g*I … g*I+I-1. `w` is `[G*O, I]`. */
export const groupedLinear: Kernel = defineKernel({
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
    tasks: (p) => productTasks(p.P, 1),
    scratch: (p) => productScratch(p.I, 1),
  },
  cases: [
    { params: { P: 18, GI: 24, GO: 24, I: 8, hasBias: 0 }, absent: ["bias"] },
    { params: { P: 35, GI: 20, GO: 10, I: 4, hasBias: 1 } },
  ],
  tolerance: { bound: 1e-5, why: "as linear" },
  gradient: {
    saves: ["x", "w"],
    backward: (b) => {
      const { hasBias, GI } = b.params, dz = b.grad("y");
      if (b.wants("x")) b.give("x", b.launch(groupedLinearGradInput, { dz, w: b.saved("w") }, { GI }).dx);
      if (b.wants("w")) {
        const sums = { dw: b.sum("w"), db: hasBias ? b.sum("bias") : null };
        b.launch(groupedLinearGradWeight, { dz, x: b.saved("x") }, { hasBias }, sums);
      }
    },
  },
});

/** Scratch of a gradient's task on the cpu: addresses of 192 rows, one register tile, panels of `length` steps. */
const gradientScratch = (panels: number, length: number) => 4 * 192 + 512 + 32 * panels * length;

/**
 * Gradient of a linear layer's input: dx (+)= dz w, rows as in {@linkcode linear}. `dz` is columns `zCol … zCol+N-1` of
 * a tensor that may be wider (queries, keys and values side by side). With `accumulate` it adds to what is there.
 */
export const linearGradInput: Kernel = defineKernel({
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
  wgsl: gemmSide({
    sizes: (p) => ({ rows: p.M, columns: p.K, depth: Math.ceil(p.N / 4) }),
    text: sections(wgsl, "gradInputSizes"),
    operands: {
      text: sections(wgsl, "rowsFrom", "gradInput"),
      reads: ["dz", "w"],
      flags: ["half"],
      views: { dz: "vec4f", w: "u32" },
      constants: { whole: (p) => whole(p.Z, p.zCol, p.N) },
      byRow: { right: true },
    },
    result: { text: sections(wgsl, "gradInputStore"), reads: [], writes: ["dx"], flags: ["accumulate"] },
  }),
  wasm: {
    tasks: (p, blas) => blas ? blasTasks(p.M, p.K) : Math.ceil(p.M / 192) * Math.ceil(p.K / 48),
    scratch: (p, blas) => blas ? blasScratch(p.N, p.half) : gradientScratch(6, Math.min(p.N, 512)),
    packed: (p) => ({ w: [p.N, p.K, 1] }),
  },
  cases: linearGradInputCases(),
});

/** Gradients of a linear layer's weight and bias, accumulated: dw += dzᵀ x, db += column sums of dz. */
export const linearGradWeight: Kernel = defineKernel({
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
  wgsl: gemmSide({
    sizes: (p) => ({ rows: p.N, columns: p.K + p.hasBias, depth: Math.ceil(p.M / 4) }),
    text: sections(wgsl, "gradWeightSizes"),
    operands: {
      text: sections(wgsl, "rowsFrom", "gradWeight"),
      reads: ["dz", "x"],
      flags: ["hasBias"],
      constants: { whole: (p) => whole(p.M), apart: (p) => apart(p.K) },
      byRow: { left: true, right: true },
    },
    result: {
      text: sections(wgsl, "gradWeightStore"),
      reads: [],
      writes: ["dw", "db"],
      flags: ["hasBias"],
    },
  }),
  wasm: {
    tasks: (p) => Math.ceil(p.N / 192) * Math.ceil(p.K / 192),
    scratch: () => gradientScratch(2, 512) + 4 * 192 * 528, // the transposed block of dz behind it
  },
  cases: linearGradWeightCases(),
});

/** Gradient of {@linkcode groupedLinear}'s input: dx[p, g·I + i] = Σ over the outputs o of group g of dz[p, o] w[o, i]. */
export const groupedLinearGradInput: Kernel = defineKernel({
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
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: groupedGradCases(false),
});

/** Gradients of {@linkcode groupedLinear}'s weight and bias, accumulated. */
export const groupedLinearGradWeight: Kernel = defineKernel({
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
  wasm: { tasks: (p) => p.GI / p.I, scratch: (p) => 4 * (p.I + 4) },
  cases: groupedGradCases(true),
});

/** One linear layer's gradients from columns of dz. A layer whose weight is fixed has a fixed bias. */
function linearBackward<T extends Shaped>(
  b: Backward<T>,
  dz: T,
  w: string,
  bias: string,
  zCol: number,
): void {
  const { M, xRow, yRow, X, hasBias, half } = b.params, rows = { xRow, yRow, M };
  if (b.wants("x")) {
    const fresh = M === X ? b.fresh("x") : null, accumulate = fresh ? 0 : 1;
    const params = { ...rows, accumulate, half, zCol };
    b.launch(linearGradInput, { dz, w: b.saved(w) }, params, { dx: fresh ?? b.sum("x") });
  }
  if (b.wants(w)) {
    const outs = { dw: b.sum(w), db: hasBias ? b.sum(bias) : null };
    b.launch(linearGradWeight, { dz, x: b.saved("x") }, { ...rows, zCol, hasBias }, outs);
  }
}

function linearCase(M: number, N: number, K: number, more: Record<string, number> = {}): Case {
  const p: Record<string, number> = {
    ...{ act: 0, hasBias: 1, hasGate: 0, hasResidual: 0, half: 0, gateCol: 0, G: 1, R: 1, xRow: 0, yRow: 0 },
    ...more,
  };
  const absent = [
    ...(p.hasBias ? [] : ["bias"]),
    ...(p.hasGate ? [] : ["modulation", "rows"]),
    ...(p.hasResidual ? [] : ["residual"]),
  ];
  const params = { ...p, M, N, K, X: p.xRow + M, Y: p.yRow + M };
  return { params, absent, inputs: { rows: indices("Y", "R") } };
}

function linearCases(): Case[] {
  return [
    linearCase(1, 1, 1),
    linearCase(7, 13, 5, { hasBias: 0 }),
    linearCase(64, 96, 64, { act: 2 }),
    linearCase(66, 72, 130, { act: 1, xRow: 3, yRow: 5 }),
    linearCase(70, 40, 33, { hasGate: 1, hasResidual: 1, R: 4, G: 200, gateCol: 120, xRow: 2, yRow: 4 }),
    linearCase(130, 136, 300, { hasResidual: 1, act: 3 }),
    linearCase(33, 48, 768, { half: 1 }),
    linearCase(9, 21, 7, { half: 1, hasGate: 1, R: 2, G: 21 }),
    linearCase(16, 24, 3072),
    linearCase(5, 9, 4001), // sums so long that a loop in a loader would pass what a software adapter runs
  ];
}

function qkvCase(M: number, N: number, K: number, hasBias: number, half = 0): Case {
  const params = { M, N, K, N3: 3 * N, hasBias, half, xRow: 1, yRow: 2, X: M + 1, Y: M + 3 };
  return { params, absent: hasBias ? [] : ["bq", "bk", "bv"] };
}

function inputCase(M: number, N: number, K: number, more: Record<string, number> = {}): Case {
  const p: Record<string, number> = { accumulate: 0, half: 0, xRow: 0, yRow: 0, zCol: 0, Z: N, ...more };
  return { params: { ...p, M, N, K, X: p.xRow + M + 1, Y: p.yRow + M } };
}

function linearGradInputCases(): Case[] {
  return [
    inputCase(1, 1, 1),
    inputCase(7, 13, 5),
    inputCase(66, 72, 130, { accumulate: 1, xRow: 2, yRow: 3, Z: 216, zCol: 72 }),
    inputCase(130, 300, 136),
    inputCase(33, 96, 64, { half: 1 }),
    inputCase(1, 1, 1, { half: 1 }),
    inputCase(7, 13, 5, { half: 1, accumulate: 1 }),
    inputCase(66, 71, 85, { half: 1, xRow: 2, yRow: 3, Z: 216, zCol: 72 }), // odd rows: columns start inside a word
    inputCase(200, 300, 136, { half: 1 }),
    inputCase(400, 40, 100), // more rows and columns than one task has
    inputCase(20, 1040, 30), // more outputs than are added up at a time
    inputCase(20, 1040, 30, { half: 1 }),
  ];
}

function weightCase(M: number, N: number, K: number, more: Record<string, number> = {}): Case {
  const p: Record<string, number> = { hasBias: 1, xRow: 0, yRow: 0, zCol: 0, Z: N, ...more };
  const params = { ...p, M, N, K, X: p.xRow + M, Y: p.yRow + M };
  return { params, absent: p.hasBias ? [] : ["db"] };
}

function linearGradWeightCases(): Case[] {
  return [
    weightCase(1, 1, 1),
    weightCase(7, 13, 5, { hasBias: 0 }),
    weightCase(66, 72, 130, { xRow: 2, yRow: 3, Z: 216, zCol: 72 }),
    weightCase(300, 136, 100),
    weightCase(600, 200, 210), // more than one task, and more tokens than one partial sum has
  ];
}

function groupedGradCases(weight: boolean): Case[] {
  return [[18, 24, 24, 8, 0], [35, 20, 10, 4, 1], [70, 6, 9, 2, 1]].map(([P, GI, GO, I, hasBias]) => ({
    params: { P, GI, GO, I, hasBias },
    absent: weight && !hasBias ? ["db"] : [],
  }));
}
