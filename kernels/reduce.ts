/**
 * Reductions of training: sums over tokens, the loss of each frame, squared norms. Every sum has one owner and one order,
 * so two runs give the same bits.
 *
 * @module
 */
import wgsl from "./reduce.wgsl" with { type: "text" };
import type { GradientRule } from "./gradient.ts";
import { indices } from "./inputs.ts";
import { rows } from "./rows.ts";
import { type Case, defineKernel, type Kernel } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";
import { specialise } from "./webgpu/specialise.ts";

/**
 * y[r, col+d] += Σ over tokens t of `row … row+M-1` with rows[t] = r of a[t, d] * b[t, d] (b absent: 1). The gradient
 * of a modulation table, whose rows tokens share, and of an embedding table.
 */
export const rowSum: Kernel = defineKernel({
  name: "rowSum",
  inputs: { a: "T D", b: "T D?", rows: "T:i32" },
  outputs: { y: "R G" },
  params: { M: "u32", row: "u32", D: "u32", R: "u32", G: "u32", col: "u32" },
  flags: ["hasB"],
  flops: (p) => 2 * p.M * p.D,
  reference: (io, p) => {
    for (let t = p.row; t < p.row + p.M; t++) {
      for (let d = 0; d < p.D; d++) {
        io.y![io.rows![t] * p.G + p.col + d] += io.a![t * p.D + d] * (p.hasB ? io.b![t * p.D + d] : 1);
      }
    }
  },
  wgsl: {
    source: sections(wgsl, "rowSum"),
    entry: "forward",
    groups: (p) => p.R * Math.ceil(p.D / 64),
    loops: (p) => Math.ceil(p.M / 256) * 67,
  },
  wasm: { tasks: (p) => p.R, scratch: (p) => 4 * p.D },
  cases: [
    {
      params: { T: 9, D: 40, R: 3, G: 120, col: 80, row: 0, M: 9, hasB: 1 },
      inputs: { rows: indices("T", "R") },
    },
    {
      params: { T: 300, D: 33, R: 4, G: 33, col: 0, row: 5, M: 290, hasB: 0 },
      absent: ["b"],
      inputs: { rows: indices("T", "R") },
    },
  ],
});

/** y[d] += Σ over the rows `row … row+M-1` of a[t, col+d], D columns of a tensor that is W wide. */
export const columnSum: Kernel = defineKernel({
  name: "columnSum",
  inputs: { a: "T W" },
  outputs: { y: "D" },
  params: { M: "u32", row: "u32", W: "u32", D: "u32", col: "u32" },
  flags: [],
  flops: (p) => p.M * p.D,
  reference: (io, p) => {
    for (let t = p.row; t < p.row + p.M; t++) {
      for (let d = 0; d < p.D; d++) io.y![d] += io.a![t * p.W + p.col + d];
    }
  },
  wgsl: {
    source: sections(wgsl, "columnSum"),
    entry: "forward",
    groups: (p) => [Math.ceil(p.D / 16), 1, 1],
    loops: (p) => Math.ceil(p.M / 16) + 15,
  },
  wasm: { tasks: (p) => Math.ceil(p.D / 64) },
  cases: [
    { params: { T: 9, W: 40, D: 40, col: 0, row: 0, M: 9 } },
    { params: { T: 300, W: 99, D: 70, col: 20, row: 7, M: 290 } },
  ],
});

/** loss[f] = weight[f] * mean over P of (prediction - expected)². */
export const frameLoss: Kernel = defineKernel({
  name: "frameLoss",
  inputs: { prediction: "F P", expected: "F P", weight: "F" },
  outputs: { loss: "F" },
  params: { F: "u32", P: "u32" },
  flags: [],
  flops: (p) => 3 * p.F * p.P,
  reference: (io, p) => {
    for (let f = 0; f < p.F; f++) {
      let sum = 0;
      for (let i = f * p.P; i < (f + 1) * p.P; i++) sum += (io.prediction![i] - io.expected![i]) ** 2 / p.P;
      io.loss![f] = io.weight![f] * sum;
    }
  },
  wgsl: {
    source: rows(64, "sum") + sections(wgsl, "squared", "loss", "blocks"),
    entry: "forward",
    groups: (p) => p.F,
    loops: (p) => Math.ceil(p.P / 64),
  },
  wasm: { tasks: (p) => p.F },
  cases: lossCases(),
  gradient: lossGradient(() => frameLossGrad),
});

/** Gradient of Σ dloss[f] loss[f]: dprediction = 2 dloss[f] weight[f] (prediction - expected) / P. */
export const frameLossGrad: Kernel = defineKernel({
  name: "frameLossGrad",
  inputs: { prediction: "F P", expected: "F P", weight: "F", dloss: "F" },
  outputs: { dprediction: "F P" },
  params: { F: "u32", P: "u32" },
  flags: [],
  flops: (p) => 3 * p.F * p.P,
  reference: (io, p) => {
    for (let i = 0; i < p.F * p.P; i++) {
      const f = Math.floor(i / p.P);
      io.dprediction![i] = 2 * io.dloss![f] * io.weight![f] * (io.prediction![i] - io.expected![i]) / p.P;
    }
  },
  wgsl: {
    source: sections(wgsl, "squared", "lossGrad"),
    entry: "forward",
    groups: (p) => Math.ceil(p.F * p.P / 64),
    loops: () => 0,
  },
  wasm: { tasks: (p) => p.F },
  cases: lossCases(),
});

/** Elements of x that one partial sum of {@linkcode squareSum} covers. */
export const SQUARE_SUM_BLOCK = 4096;

/** y[i] = Σ of x² over elements i·4096 … (i+1)·4096-1: the host adds the partial sums in double precision. */
export const squareSum: Kernel = defineKernel({
  name: "squareSum",
  inputs: { x: "E" },
  outputs: { y: "N" },
  params: { E: "u32", N: "u32" },
  flags: [],
  flops: (p) => 2 * p.E,
  reference: (io, p) => {
    io.y!.fill(0);
    for (let i = 0; i < p.E; i++) io.y![Math.floor(i / SQUARE_SUM_BLOCK)] += io.x![i] ** 2;
  },
  wgsl: {
    source: rows(64, "sum") + specialise(sections(wgsl, "squareSum", "blocks"), { BLOCK: SQUARE_SUM_BLOCK }),
    entry: "forward",
    groups: (p) => p.N,
    loops: () => SQUARE_SUM_BLOCK / 64,
  },
  wasm: { tasks: (p) => p.N },
  cases: [{ params: { E: 3 * SQUARE_SUM_BLOCK - 5, N: 3 } }, { params: { E: 7, N: 1 } }],
});

/** loss[f] = weight[f] * mean over P of |prediction - expected|: the L1 loss of the autoencoder, one row an image. */
export const absLoss: Kernel = defineKernel({
  name: "absLoss",
  inputs: frameLoss.inputs,
  outputs: frameLoss.outputs,
  params: frameLoss.params,
  flags: [],
  flops: (p) => 2 * p.F * p.P,
  reference: (io, p) => {
    for (let f = 0; f < p.F; f++) {
      let sum = 0;
      for (let i = f * p.P; i < (f + 1) * p.P; i++) {
        sum += Math.abs(io.prediction![i] - io.expected![i]) / p.P;
      }
      io.loss![f] = io.weight![f] * sum;
    }
  },
  wgsl: { ...frameLoss.wgsl, source: rows(64, "sum") + sections(wgsl, "absolute", "loss", "blocks") },
  wasm: { tasks: (p) => p.F },
  cases: lossCases(),
  gradient: lossGradient(() => absLossGrad),
});

/** Gradient of Σ dloss[f] loss[f]: dprediction = dloss[f] weight[f] sign(prediction - expected) / P; sign(0) is 0. */
export const absLossGrad: Kernel = defineKernel({
  name: "absLossGrad",
  inputs: frameLossGrad.inputs,
  outputs: frameLossGrad.outputs,
  params: frameLossGrad.params,
  flags: [],
  flops: (p) => 2 * p.F * p.P,
  reference: (io, p) => {
    for (let i = 0; i < p.F * p.P; i++) {
      const f = Math.floor(i / p.P);
      io.dprediction![i] = io.dloss![f] * io.weight![f] * Math.sign(io.prediction![i] - io.expected![i]) /
        p.P;
    }
  },
  wgsl: { ...frameLossGrad.wgsl, source: sections(wgsl, "absolute", "lossGrad") },
  wasm: { tasks: (p) => p.F },
  cases: lossCases(),
});

/** The rule of a loss per frame, whose gradient is the kernel that `grad` gives (it is defined further down). */
function lossGradient(grad: () => Kernel): GradientRule {
  return {
    saves: ["prediction", "expected", "weight"],
    constant: ["expected", "weight"],
    backward: (b) => {
      const read = { prediction: b.saved("prediction"), expected: b.saved("expected") };
      const inputs = { ...read, weight: b.saved("weight"), dloss: b.grad("loss") };
      b.give("prediction", b.launch(grad(), inputs, {}).dprediction);
    },
  };
}

function lossCases(): Case[] {
  return [[5, 1000], [1, 7], [2, 9000]].map(([F, P]) => ({ params: { F, P } }));
}
