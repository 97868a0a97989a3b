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

const source = (part: string) => activation + sections(wgsl, part);

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
    source: source("normModulate"),
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
    source: sections(wgsl, "normModulateGrad"),
    entry: "backward",
    groups: (p) => p.T,
    loops: (p) => 4 * Math.ceil(p.D / 64) + 24,
  },
  wasm: { fn: "normModulateGrad", tasks: (p) => Math.ceil(p.T / 16) },
};
