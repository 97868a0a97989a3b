/**
 * Normalisations: adaptive layer norm of the transformer, channel RMS norm and batch norm of the autoencoder.
 *
 * @module
 */
import wgsl from "./norm.wgsl" with { type: "text" };
import { activate } from "./activation.ts";
import activation from "./activation.wgsl" with { type: "text" };
import type { Kernel } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";

const source = (...parts: string[]) => activation + sections(wgsl, ...parts);

/**
 * adaLN: y = LN(x) * (1 + scale) + shift, LN without weights over the D channels of a token. Shift and scale are
 * column blocks of row `rows[t]` of the modulation table, one row for each frame (or denoising step), not each token.
 */
export const normModulate: Kernel = {
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
    source: source("sumOfGroup", "normModulate"),
    entry: "forward",
    groups: (p) => p.T,
    loops: (p) => 3 * Math.ceil(p.D / 64) + 16,
  },
  wasm: { fn: "normModulate", tasks: (p) => Math.ceil(p.T / 16) },
};

/** Channel RMS norm: y = act(x / sqrt(mean(x²) + eps) * weight + bias) + residual, over the C channels of a pixel. */
export const rmsNorm: Kernel = {
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
    source: source("rmsNorm"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P / 4),
    loops: (p) => 2 * Math.ceil(p.C / 16) + 20,
  },
  wasm: { fn: "rmsNorm", tasks: (p) => Math.ceil(p.P / 16) },
};

/** Batch norm with given statistics: y = act((x - mean) / sqrt(variance + eps) * weight + bias) + residual. */
export const batchNorm: Kernel = {
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
    source: source("batchNorm"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P * p.C / 64),
    loops: () => 1,
  },
  wasm: { fn: "batchNorm", tasks: (p) => Math.ceil(p.P / 16), scratch: (p) => 4 * p.C },
};

/**
 * Gradients of {@linkcode normModulate}: dx, and dscale[t] = dy * LN(x) for each token. Tokens that share a modulation
 * row are added up afterwards by `rowSum`; the gradient of the shift is dy itself.
 */
export const normModulateGrad: Kernel = {
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
    source: sections(wgsl, "sumOfGroup", "normModulateGrad"),
    entry: "backward",
    groups: (p) => p.T,
    loops: (p) => 4 * Math.ceil(p.D / 64) + 24,
  },
  wasm: { fn: "normModulateGrad", tasks: (p) => Math.ceil(p.T / 16) },
};

/**
 * Gradients of {@linkcode rmsNorm} before its activation and residual: dx, and for each pixel dw[p] = dy * x /
 * sqrt(mean(x²) + eps), which `columnSum` adds up to the gradient of the weight; that of the bias is the column sum of dy.
 */
export const rmsNormGrad: Kernel = {
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
    source: sections(wgsl, "rmsNormGrad"),
    entry: "backward",
    groups: (p) => Math.ceil(p.P / 4),
    loops: (p) => 2 * Math.ceil(p.C / 16) + 16,
  },
  wasm: { fn: "rmsNormGrad", tasks: (p) => Math.ceil(p.P / 16) },
};

/**
 * Statistics of a batch for {@linkcode batchNorm} in training: mean and biased variance of each channel over the P pixels
 * of all images. The running statistics move in place, running += momentum (batch - running), with the unbiased variance
 * (P - 1 in place of P; P is at least 2 there), as in PyTorch.
 */
export const batchStats: Kernel = {
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
  wasm: { fn: "batchStats", tasks: (p) => Math.ceil(p.C / 16), scratch: () => 128 },
};

/**
 * First half of the gradient of batch norm in training: the gradients of weight and bias over this batch, dweight = Σ dy *
 * normal x and dbias = Σ dy. They are assigned, since {@linkcode batchNormGrad} needs the sums of this batch alone;
 * `accumulate` adds them to the parameters' gradients.
 */
export const batchNormSums: Kernel = {
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
  wasm: { fn: "batchNormSums", tasks: (p) => Math.ceil(p.C / 16), scratch: () => 128 },
};

/**
 * Gradient of batch norm's input in training, where mean and variance are functions of x; `dweight` and `dbias` are the
 * sums of {@linkcode batchNormSums}: dx = weight / sqrt(variance + eps) * (dy - dbias / P - normal x * dweight / P). With
 * fixed statistics (evaluation) pass zeros for the sums.
 */
export const batchNormGrad: Kernel = {
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
  wasm: { fn: "batchNormGrad", tasks: (p) => Math.ceil(p.P / 64), scratch: (p) => 12 * p.C },
};
