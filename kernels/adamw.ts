/**
 * The AdamW update.
 *
 * @module
 */
import wgsl from "./adamw.wgsl" with { type: "text" };
import { type Case, defineKernel, type Kernel, type Params } from "./spec.ts";

/**
 * In place, as PyTorch's AdamW: with g = scale · gradient (clipping and loss scaling),
 *
 *     p ← p (1 - lr · decay);  m ← β1 m + (1-β1) g;  v ← β2 v + (1-β2) g²;  p ← p - lr/bias1 · m / (√v/√bias2 + eps)
 *
 * where rest1 = 1 - β1, rest2 = 1 - β2, bias1 = 1 - β1^t and bias2 = 1 - β2^t are computed on the host, in double precision:
 * 1 - 0.999 of an f32 0.999 is off by 1.3e-5 of itself.
 */
export const adamw: Kernel = defineKernel({
  name: "adamw",
  inputs: { gradient: "E" },
  outputs: { parameters: "E", m: "E", v: "E" },
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
      io.parameters![i] = io.parameters![i] * (1 - p.lr * p.decay) - step;
    }
  },
  wgsl: { source: wgsl, entry: "update", groups: (p) => Math.ceil(p.E / 64), loops: () => 1 },
  wasm: { tasks: (p) => Math.ceil(p.E / 16384) },
  cases: adamwCases(),
});

function adamwCases(): Case[] {
  const rates = { lr: 1e-2, beta1: 0.9, rest1: 0.1, beta2: 0.999, rest2: 0.001, eps: 1e-8 };
  const v = (p: Params, random: () => number) => Array.from({ length: p.E }, () => random() * 0.01);
  const corrections = { bias1: 0.19, bias2: 0.001999, scale: 0.5 };
  return [
    ...[[1003, 0], [1003, 0.1], [40001, 0.01]].map(([E, decay]): Case => ({
      params: { E, ...rates, decay, ...corrections },
      inputs: { v },
    })),
    {
      // Only 1 - β2 decides v here: an f32 1 - 0.999 would show.
      params: { E: 1003, ...rates, decay: 0, bias1: 0.1, bias2: 0.001, scale: 1 },
      inputs: {
        gradient: (p, random) => Array.from({ length: p.E }, () => random() * 2000 - 1000),
        v: (p) => new Float32Array(p.E),
      },
    },
  ];
}
