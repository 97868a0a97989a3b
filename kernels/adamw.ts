/**
 * The AdamW update.
 *
 * @module
 */
import wgsl from "./adamw.wgsl" with { type: "text" };
import type { Kernel } from "./spec.ts";

/**
 * In place, as PyTorch's AdamW: with g = scale · gradient (clipping and loss scaling),
 *
 *     p ← p (1 - lr · decay);  m ← β1 m + (1-β1) g;  v ← β2 v + (1-β2) g²;  p ← p - lr/bias1 · m / (√v/√bias2 + eps)
 *
 * where rest1 = 1 - β1, rest2 = 1 - β2, bias1 = 1 - β1^t and bias2 = 1 - β2^t are computed on the host, in double precision:
 * 1 - 0.999 of an f32 0.999 is off by 1.3e-5 of itself.
 */
export const adamw: Kernel = {
  name: "adamw",
  inputs: { gradient: "E" },
  outputs: { p: "E", m: "E", v: "E" },
  params: {
    E: "u32",
    lr: "f32",
    beta1: "f32",
    rest1: "f32",
    beta2: "f32",
    rest2: "f32",
    eps: "f32",
    decay: "f32",
    bias1: "f32",
    bias2: "f32",
    scale: "f32",
  },
  flags: [],
  flops: (p) => 14 * p.E,
  reference: (io, p) => {
    for (let i = 0; i < p.E; i++) {
      const g = io.gradient![i] * p.scale;
      const m = io.m![i] = p.beta1 * io.m![i] + p.rest1 * g;
      const v = io.v![i] = p.beta2 * io.v![i] + p.rest2 * g * g;
      const step = p.lr / p.bias1 * m / (Math.sqrt(v) / Math.sqrt(p.bias2) + p.eps);
      io.p![i] = io.p![i] * (1 - p.lr * p.decay) - step;
    }
  },
  wgsl: { source: wgsl, entry: "update", groups: (p) => Math.ceil(p.E / 64), loops: () => 1 },
  wasm: { fn: "adamw", tasks: (p) => Math.ceil(p.E / 16384) },
};
