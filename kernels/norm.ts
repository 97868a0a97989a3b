/**
 * Normalisations: adaptive layer norm of the transformer, channel RMS norm and batch norm of the autoencoder.
 *
 * @module
 */
import wgsl from "./norm.wgsl" with { type: "text" };
import { activate, activations } from "./activation.ts";
import { indices, uniform, variances } from "./inputs.ts";
import { columnSum, rowSum } from "./reduce.ts";
import { rows } from "./rows.ts";
import { type Case, defineKernel, type Kernel } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";
import { unroll } from "./webgpu/unroll.ts";

/**
 * adaLN: y = LN(x) * (1 + scale) + shift, LN without weights over the D channels of a token. Shift and scale are
 * column blocks of row `rows[t]` of the modulation table, one row for each frame (or denoising step), not each token.
 */
export const normModulate: Kernel = defineKernel({
  name: "normModulate",
  inputs: { x: "T D", modulation: "R G", rows: "T:i32" },
  outputs: { y: "T D" },
  params: { T: "u32", D: "u32", G: "u32", shiftCol: "u32", scaleCol: "u32", eps: "f32" },
  flags: [],
  flops: (p) => 8 * p.T * p.D,
  reference: (io, p) => {
    const { x, modulation, rows, y } = io;
    for (let t = 0; t < p.T; t++) {
      let mean = 0;
      for (let d = 0; d < p.D; d++) mean += x![t * p.D + d] / p.D;
      let variance = 0;
      for (let d = 0; d < p.D; d++) variance += (x![t * p.D + d] - mean) ** 2 / p.D;
      const scale = 1 / Math.sqrt(variance + p.eps);
      const row = rows![t] * p.G;
      for (let d = 0; d < p.D; d++) {
        const h = (x![t * p.D + d] - mean) * scale;
        y![t * p.D + d] = h * (1 + modulation![row + p.scaleCol + d]) + modulation![row + p.shiftCol + d];
      }
    }
  },
  wgsl: {
    source: rows(64, "sum") + unroll(sections(wgsl, "normModulate")),
    views: { x: "vec4f", modulation: "vec4f", y: "vec4f" },
    entry: "forward",
    groups: (p) => p.T,
    loops: (p) => 3 * Math.ceil(p.D / 256),
  },
  wasm: { tasks: (p) => Math.ceil(p.T / 16) },
  cases: [
    normCase(1, 64),
    normCase(37, 96),
    normCase(20, 768, 4),
    normCase(5, 1152),
    normCase(3, 64, 1e-3), // variance about 3e-7: an eps of 1e-5 or 1e-8 would show
  ],
  gradient: {
    saves: ["x", "modulation", "rows"],
    backward: (b) => {
      const { scaleCol, shiftCol, eps, T } = b.params, dy = b.grad("y"), rows = b.saved("rows");
      const inputs = { x: b.saved("x"), modulation: b.saved("modulation"), rows, dy };
      const { dx, dscale } = b.launch(normModulateGrad, inputs, { scaleCol, eps });
      b.give("x", dx);
      if (!b.wants("modulation")) return;
      const y = b.sum("modulation"), range = { row: 0, M: T, hasB: 0 };
      b.launch(rowSum, { a: dy, rows }, { ...range, col: shiftCol }, { y });
      b.launch(rowSum, { a: dscale, rows }, { ...range, col: scaleCol }, { y });
    },
  },
});

/** Channel RMS norm: y = act(x / sqrt(mean(x²) + eps) * weight + bias) + residual, over the C channels of a pixel. */
export const rmsNorm: Kernel = defineKernel({
  name: "rmsNorm",
  inputs: { x: "P C", weight: "C", bias: "C?", residual: "P C?" },
  outputs: { y: "P C" },
  params: { P: "u32", C: "u32", eps: "f32" },
  flags: ["act", "hasBias", "hasResidual"],
  flops: (p) => 6 * p.P * p.C,
  reference: (io, p) => {
    for (let r = 0; r < p.P; r++) {
      let square = 0;
      for (let c = 0; c < p.C; c++) square += io.x![r * p.C + c] ** 2 / p.C;
      const scale = 1 / Math.sqrt(square + p.eps);
      for (let c = 0; c < p.C; c++) {
        const i = r * p.C + c;
        const v = io.x![i] * scale * io.weight![c] + (p.hasBias ? io.bias![c] : 0);
        io.y![i] = activate(p.act, v) + (p.hasResidual ? io.residual![i] : 0);
      }
    }
  },
  wgsl: {
    source: activations("exp", "silu", "activate") + rows(16, "sum") + sections(wgsl, "rmsNorm"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P / 4),
    loops: (p) => 2 * Math.ceil(p.C / 16),
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: [
    rmsCase(9, 16, 0, 1, 1),
    rmsCase(33, 40, 3, 1, 0),
    rmsCase(5, 512, 1, 0, 1),
    rmsCase(4, 64, 0, 1, 0, 1e-3), // mean square 3e-7 below eps 1e-5
  ],
  gradient: {
    saves: ["x", "weight"],
    when: (p) => !p.act,
    backward: (b) => {
      const { P, eps, hasBias, hasResidual } = b.params, dy = b.grad("y");
      const { dx, dw } = b.launch(rmsNormGrad, { x: b.saved("x"), weight: b.saved("weight"), dy }, { eps });
      b.give("x", dx);
      const all = { row: 0, M: P, col: 0 };
      if (b.wants("weight")) b.launch(columnSum, { a: dw }, all, { y: b.sum("weight") });
      if (hasBias && b.wants("bias")) b.launch(columnSum, { a: dy }, all, { y: b.sum("bias") });
      if (hasResidual) b.add("residual", dy);
    },
  },
});

/** Batch norm with given statistics: y = act((x - mean) / sqrt(variance + eps) * weight + bias) + residual. */
export const batchNorm: Kernel = defineKernel({
  name: "batchNorm",
  inputs: { x: "P C", mean: "C", variance: "C", weight: "C", bias: "C", residual: "P C?" },
  outputs: { y: "P C" },
  params: { P: "u32", C: "u32", eps: "f32" },
  flags: ["act", "hasResidual"],
  flops: (p) => 4 * p.P * p.C,
  reference: (io, p) => {
    for (let i = 0; i < p.P * p.C; i++) {
      const c = i % p.C;
      const v = (io.x![i] - io.mean![c]) / Math.sqrt(io.variance![c] + p.eps) * io.weight![c] + io.bias![c];
      io.y![i] = activate(p.act, v) + (p.hasResidual ? io.residual![i] : 0);
    }
  },
  wgsl: {
    source: activations("exp", "silu", "activate") + sections(wgsl, "batchNorm"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P * p.C / 64),
    loops: () => 1,
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16), scratch: (p) => 4 * p.C },
  cases: [0, 3].map((act) => ({
    params: { P: 21, C: 24, act, hasResidual: act ? 0 : 1, eps: 1e-5 },
    absent: act ? ["residual"] : [],
    inputs: { variance: variances },
  })),
  gradient: {
    saves: ["x", "mean", "variance", "weight"],
    constant: ["mean", "variance"], // where they depend on x, that is part of dx
    when: (p) => !p.act,
    backward: (b) => {
      const { eps, hasResidual, C } = b.params, dy = b.grad("y");
      const inputs = { x: b.saved("x"), mean: b.saved("mean"), variance: b.saved("variance"), dy };
      const { dweight, dbias } = b.launch(batchNormSums, inputs, { eps });
      b.add("weight", dweight);
      b.add("bias", dbias);
      if (b.wants("x")) {
        const zero = b.zeros([C]), ofBatch = b.wants("mean"); // statistics that depend on x
        const sums = ofBatch ? { dweight, dbias } : { dweight: zero, dbias: zero };
        b.give("x", b.launch(batchNormGrad, { ...inputs, weight: b.saved("weight"), ...sums }, { eps }).dx);
      }
      if (hasResidual) b.add("residual", dy);
    },
  },
});

/**
 * Gradients of {@linkcode normModulate}: dx, and dscale[t] = dy * LN(x) for each token. Tokens that share a modulation
 * row are added up afterwards by `rowSum`; the gradient of the shift is dy itself.
 */
export const normModulateGrad: Kernel = defineKernel({
  name: "normModulateGrad",
  inputs: { x: "T D", modulation: "R G", rows: "T:i32", dy: "T D" },
  outputs: { dx: "T D", dscale: "T D" },
  params: { T: "u32", D: "u32", G: "u32", scaleCol: "u32", eps: "f32" },
  flags: [],
  flops: (p) => 16 * p.T * p.D,
  reference: (io, p) => {
    const { x, modulation, rows, dy, dx, dscale } = io;
    for (let t = 0; t < p.T; t++) {
      const at = t * p.D, row = rows![t] * p.G + p.scaleCol;
      let mean = 0, variance = 0, sum = 0, product = 0;
      for (let d = 0; d < p.D; d++) mean += x![at + d] / p.D;
      for (let d = 0; d < p.D; d++) variance += (x![at + d] - mean) ** 2 / p.D;
      const inverse = 1 / Math.sqrt(variance + p.eps);
      const normal = (d: number) => (x![at + d] - mean) * inverse;
      for (let d = 0; d < p.D; d++) {
        const g = dy![at + d] * (1 + modulation![row + d]);
        sum += g / p.D;
        product += g * normal(d) / p.D;
      }
      for (let d = 0; d < p.D; d++) {
        const g = dy![at + d] * (1 + modulation![row + d]);
        dx![at + d] = (g - sum - normal(d) * product) * inverse;
        dscale![at + d] = dy![at + d] * normal(d);
      }
    }
  },
  wgsl: {
    source: rows(64, "sum") + sections(wgsl, "normModulateGrad"),
    views: { x: "vec4f", modulation: "vec4f", dy: "vec4f", dx: "vec4f", dscale: "vec4f" },
    entry: "backward",
    groups: (p) => p.T,
    loops: (p) => 4 * Math.ceil(p.D / 256),
  },
  wasm: { tasks: (p) => Math.ceil(p.T / 16) },
  cases: [[1, 64], [37, 96], [20, 768], [5, 1152]].map(([T, D]) => ({
    params: { T, D, R: 3, G: 3 * D, scaleCol: D, eps: 1e-6 },
    inputs: { rows: indices("T", "R") },
  })),
});

/**
 * Gradients of {@linkcode rmsNorm} before its activation and residual: dx, and for each pixel dw[p] = dy * x /
 * sqrt(mean(x²) + eps), which `columnSum` adds up to the gradient of the weight; that of the bias is the column sum of dy.
 */
export const rmsNormGrad: Kernel = defineKernel({
  name: "rmsNormGrad",
  inputs: { x: "P C", weight: "C", dy: "P C" },
  outputs: { dx: "P C", dw: "P C" },
  params: { P: "u32", C: "u32", eps: "f32" },
  flags: [],
  flops: (p) => 12 * p.P * p.C,
  reference: (io, p) => {
    const { x, weight, dy, dx, dw } = io;
    for (let at = 0; at < p.P * p.C; at += p.C) {
      let square = 0, product = 0;
      for (let c = 0; c < p.C; c++) square += x![at + c] ** 2 / p.C;
      const inverse = 1 / Math.sqrt(square + p.eps);
      for (let c = 0; c < p.C; c++) {
        dw![at + c] = dy![at + c] * x![at + c] * inverse;
        product += dw![at + c] * weight![c] / p.C;
      }
      for (let c = 0; c < p.C; c++) {
        dx![at + c] = (dy![at + c] * weight![c] - x![at + c] * inverse * product) * inverse;
      }
    }
  },
  wgsl: {
    source: rows(16, "sum") + sections(wgsl, "rmsNormGrad"),
    entry: "backward",
    groups: (p) => Math.ceil(p.P / 4),
    loops: (p) => 2 * Math.ceil(p.C / 16),
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: [[9, 16, 1], [33, 42, 1], [5, 512, 4], [4, 64, 1e-3]].map(([P, C, width]) => ({
    params: { P, C, eps: 1e-5 },
    inputs: { x: uniform("P C", width) },
  })),
});

/**
 * Statistics of a batch for {@linkcode batchNorm} in training: mean and biased variance of each channel over the P pixels
 * of all images. The running statistics move in place, running += momentum (batch - running), with the unbiased variance
 * (P - 1 in place of P; P is at least 2 there), as in PyTorch.
 */
export const batchStats: Kernel = defineKernel({
  name: "batchStats",
  inputs: { x: "P C" },
  outputs: { mean: "C", variance: "C", runningMean: "C?", runningVariance: "C?" },
  params: { P: "u32", C: "u32", momentum: "f32" },
  flags: ["hasRunning"],
  flops: (p) => 4 * p.P * p.C,
  reference: (io, p) => {
    for (let c = 0; c < p.C; c++) {
      let mean = 0, variance = 0;
      for (let i = c; i < p.P * p.C; i += p.C) mean += io.x![i] / p.P;
      for (let i = c; i < p.P * p.C; i += p.C) variance += (io.x![i] - mean) ** 2 / p.P;
      io.mean![c] = mean;
      io.variance![c] = variance;
      if (p.hasRunning) {
        io.runningMean![c] += p.momentum * (mean - io.runningMean![c]);
        io.runningVariance![c] += p.momentum * (variance * p.P / (p.P - 1) - io.runningVariance![c]);
      }
    }
  },
  wgsl: {
    source: sections(wgsl, "channels", "batchStats"),
    entry: "forward",
    groups: (p) => [Math.ceil(p.C / 8), 1, 1],
    loops: (p) => 2 * Math.ceil(p.P / 32) + 10,
  },
  wasm: { tasks: (p) => Math.ceil(p.C / 16), scratch: () => 128 },
  cases: [
    ...[[2, 16, 0], [21, 24, 0], [300, 70, 3]].map(([P, C, offset]): Case => ({
      params: { P, C, momentum: 0.1, hasRunning: 1 },
      inputs: { x: uniform("P C", 1, offset) },
    })),
    { params: { P: 5, C: 3, momentum: 0.1, hasRunning: 0 }, absent: ["runningMean", "runningVariance"] },
  ],
  // The gradient through the statistics is part of batchNorm's rule.
  gradient: { saves: [], constant: ["x"], backward: () => {} },
});

/**
 * First half of the gradient of batch norm in training: the gradients of weight and bias over this batch, dweight = Σ dy *
 * normal x and dbias = Σ dy. They are assigned, since {@linkcode batchNormGrad} needs the sums of this batch alone;
 * `accumulate` adds them to the parameters' gradients.
 */
export const batchNormSums: Kernel = defineKernel({
  name: "batchNormSums",
  inputs: { x: "P C", mean: "C", variance: "C", dy: "P C" },
  outputs: { dweight: "C", dbias: "C" },
  params: { P: "u32", C: "u32", eps: "f32" },
  flags: [],
  flops: (p) => 5 * p.P * p.C,
  reference: (io, p) => {
    io.dweight!.fill(0);
    io.dbias!.fill(0);
    for (let i = 0; i < p.P * p.C; i++) {
      const c = i % p.C;
      io.dweight![c] += io.dy![i] * (io.x![i] - io.mean![c]) / Math.sqrt(io.variance![c] + p.eps);
      io.dbias![c] += io.dy![i];
    }
  },
  wgsl: {
    source: sections(wgsl, "channels", "batchNormSums"),
    entry: "forward",
    groups: (p) => [Math.ceil(p.C / 8), 1, 1],
    loops: (p) => Math.ceil(p.P / 32) + 5,
  },
  wasm: { tasks: (p) => Math.ceil(p.C / 16), scratch: () => 128 },
  cases: batchGradCases(),
});

/**
 * Gradient of batch norm's input in training, where mean and variance are functions of x; `dweight` and `dbias` are the
 * sums of {@linkcode batchNormSums}: dx = weight / sqrt(variance + eps) * (dy - dbias / P - normal x * dweight / P). With
 * fixed statistics (evaluation) pass zeros for the sums.
 */
export const batchNormGrad: Kernel = defineKernel({
  name: "batchNormGrad",
  inputs: { x: "P C", mean: "C", variance: "C", weight: "C", dy: "P C", dweight: "C", dbias: "C" },
  outputs: { dx: "P C" },
  params: { P: "u32", C: "u32", eps: "f32" },
  flags: [],
  flops: (p) => 7 * p.P * p.C,
  reference: (io, p) => {
    for (let i = 0; i < p.P * p.C; i++) {
      const c = i % p.C, inverse = 1 / Math.sqrt(io.variance![c] + p.eps);
      const normal = (io.x![i] - io.mean![c]) * inverse;
      io.dx![i] = io.weight![c] * inverse *
        (io.dy![i] - io.dbias![c] / p.P - normal * io.dweight![c] / p.P);
    }
  },
  wgsl: {
    source: sections(wgsl, "batchNormGrad"),
    entry: "backward",
    groups: (p) => Math.ceil(p.P * p.C / 64),
    loops: () => 0,
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 64), scratch: (p) => 12 * p.C },
  cases: batchGradCases(),
});

function normCase(T: number, D: number, spread = 1): Case {
  const params = { T, D, R: 3, G: 6 * D, shiftCol: 2 * D, scaleCol: D, eps: 1e-6 };
  return { params, inputs: { rows: indices("T", "R"), x: uniform("T D", spread, 0.3 * spread) } };
}

function rmsCase(
  ...[P, C, act, hasBias, hasResidual, spread = 1]: [number, number, number, number, number, number?]
): Case {
  const absent = [...(hasBias ? [] : ["bias"]), ...(hasResidual ? [] : ["residual"])];
  const params = { P, C, act, hasBias, hasResidual, eps: 1e-5 };
  return { params, absent, inputs: { x: uniform("P C", spread) } };
}

function batchGradCases(): Case[] {
  return [[21, 24], [300, 70], [5, 3]].map(([P, C]) => ({
    params: { P, C, eps: 1e-5 },
    inputs: { variance: variances },
  }));
}
