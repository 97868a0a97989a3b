/**
 * ReLU linear attention of DC-AE's EfficientViT block.
 *
 * @module
 */
import wgsl from "./relu_attention.wgsl" with { type: "text" };
import { type Case, defineKernel, type Kernel, type Params, type Pass, type Shader } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";
import { specialise } from "./webgpu/specialise.ts";
import { written } from "./webgpu/unroll.ts";

/** Positions of a workgroup in an image that has more; fewer would leave most of the time to adding up the shares. */
const SHARE = 128;

const sharesOf = (p: Params): number => Math.ceil(p.P / SHARE);

/** Loop iterations of an invocation: positions come by 16, entries of the state by 256. Unrolled loops count as well. */
function loopsOf(p: Params): number {
  const entries = Math.ceil(p.hd * (p.hd + 1) / 256), rows = Math.ceil(p.hd / 16), wide = p.hd + 2;
  const chunk = 2 * (rows + entries * 17) + Math.ceil(wide / 16) * wide + p.hd + rows * wide + 2;
  const positions = sharesOf(p) === 1 ? p.P : SHARE;
  return Math.ceil(positions / 16) * 2 * chunk + Math.ceil(positions * p.hd / 256) * wide +
    entries * (sharesOf(p) + 4);
}

/** The text of some parts, its inner loops written out for hardware. */
const shader = (...parts: string[]): Shader["source"] => (p, target) =>
  written(specialise(sections(wgsl, "sizes", ...parts), { HD: p.hd, WIDE: p.hd + 1 }), target);

const side = (entry: string, ...parts: string[]): Shader => ({
  source: shader(...parts, entry),
  entry,
  groups: (p) => [p.G, p.B, 1],
  loops: loopsOf,
});

const pass = (reads: string[], writes: string[], entry: string, ...parts: string[]): Pass => ({
  ...side(entry, ...parts),
  groups: (p) => [p.G, p.B, sharesOf(p)],
  reads,
  writes,
  flags: ["hd"],
});

/** Floats of the sums of all shares. */
const stateSize = (p: Params): number => sharesOf(p) * p.B * p.G * p.hd * (p.hd + 1);

/** Sums of the shares, then what follows from their sum; a pass belongs to one kernel. */
const FORWARD = [
  pass(["qkv"], ["states"], "sum"),
  pass(["qkv", "states"], ["y"], "apply", "queries", "readState"),
];
const BACKWARD = [
  pass(["qkv"], ["states"], "sum"),
  pass(["qkv", "dy", "states"], ["dqkv", "ups"], "ofQueries", "readState", "queryGradients"),
  pass(["qkv", "ups"], ["dqkv"], "ofKeys", "keyGradients"),
];

/**
 * Group g of an image owns the channels 3·hd·g … of `qkv`: hd of q, hd of k, hd of v. With q and k through ReLU,
 * y = (Σ_p v_p (k_p · q)) / (Σ_p k_p · q + eps), which is the authors' linear form; their quadratic form (used when an
 * image has at most hd positions) is the same number by another order of summation. No softmax, no 1/√hd.
 */
export const reluAttention: Kernel = defineKernel({
  name: "reluAttention",
  inputs: { qkv: "B P C3" },
  outputs: { y: "B P C" },
  params: { B: "u32", P: "u32", G: "u32", eps: "f32" },
  flags: ["hd"],
  flops: (p) => 4 * p.B * p.P * p.G * p.hd * (p.hd + 1),
  reference: (io, p) => {
    const { qkv, y } = io, hd = p.hd, wide = 3 * hd * p.G;
    for (let b = 0; b < p.B; b++) {
      for (let g = 0; g < p.G; g++) {
        const at = (i: number, part: number, d: number) =>
          qkv![(b * p.P + i) * wide + 3 * hd * g + part * hd + d];
        const state = new Float64Array(hd * (hd + 1)); // [k channel, v channel and one for the sum]
        for (let i = 0; i < p.P; i++) {
          for (let a = 0; a < hd; a++) {
            const k = Math.max(0, at(i, 1, a));
            for (let d = 0; d < hd; d++) state[a * (hd + 1) + d] += k * at(i, 2, d);
            state[a * (hd + 1) + hd] += k;
          }
        }
        for (let i = 0; i < p.P; i++) {
          const out = new Float64Array(hd + 1);
          for (let a = 0; a < hd; a++) {
            const q = Math.max(0, at(i, 0, a));
            for (let d = 0; d <= hd; d++) out[d] += q * state[a * (hd + 1) + d];
          }
          for (let d = 0; d < hd; d++) y![(b * p.P + i) * hd * p.G + hd * g + d] = out[d] / (out[hd] + p.eps);
        }
      }
    }
  },
  wgsl: {
    ...side("forward", "queries"),
    passes: (p) => sharesOf(p) === 1 ? null : { scratch: { states: stateSize(p) }, passes: FORWARD },
  },
  wasm: { tasks: (p) => p.B * p.G, scratch: (p) => 4 * p.hd * (p.hd + 4) },
  cases: reluCases(),
  tolerance: { bound: 1e-5, why: "a ratio of two f32 sums over all positions" },
  gradient: {
    saves: ["qkv"],
    backward: (b) => {
      const { G, hd, eps, C } = b.params, inputs = { qkv: b.saved("qkv"), dy: b.grad("y") };
      b.give("qkv", b.launch(reluAttentionGrad, inputs, { G, hd, eps, C }).dqkv);
    },
  },
});

/**
 * Gradient of {@linkcode reluAttention}. With S = Σ_p k_p v_pᵀ, s = Σ_p k_p, den = q · s + eps, y = Sᵀq / den and
 * u = dy / den: dq = S u - s (u · y); with dS = Σ_p q_p u_pᵀ and ds = -Σ_p q_p (u_p · y_p): dk = dS v + ds, dv = dSᵀ k.
 * dq and dk pass the ReLU where q and k are above 0.
 */
export const reluAttentionGrad: Kernel = defineKernel({
  name: "reluAttentionGrad",
  inputs: { qkv: "B P C3", dy: "B P C" },
  outputs: { dqkv: "B P C3" },
  params: { B: "u32", P: "u32", G: "u32", eps: "f32" },
  flags: ["hd"],
  flops: (p) => 12 * p.B * p.P * p.G * p.hd * (p.hd + 1),
  reference: (io, p) => {
    const { qkv, dy, dqkv } = io, hd = p.hd, wide = 3 * hd * p.G;
    for (let b = 0; b < p.B; b++) {
      for (let g = 0; g < p.G; g++) {
        const place = (i: number, part: number) => (b * p.P + i) * wide + 3 * hd * g + part * hd;
        const relu = (i: number, part: number, d: number) => Math.max(0, qkv![place(i, part) + d]);
        // [channel of q or k, channel of v and one for the sums], and its gradient.
        const state = new Float64Array(hd * (hd + 1)), up = new Float64Array(hd * (hd + 1));
        for (let i = 0; i < p.P; i++) {
          for (let a = 0; a < hd; a++) {
            for (let d = 0; d <= hd; d++) {
              state[a * (hd + 1) + d] += relu(i, 1, a) * (d < hd ? qkv![place(i, 2) + d] : 1);
            }
          }
        }
        for (let i = 0; i < p.P; i++) {
          const out = new Float64Array(hd + 1), du = new Float64Array(hd + 1);
          for (let a = 0; a < hd; a++) {
            for (let d = 0; d <= hd; d++) out[d] += relu(i, 0, a) * state[a * (hd + 1) + d];
          }
          const den = out[hd] + p.eps;
          for (let d = 0; d < hd; d++) {
            du[d] = dy![(b * p.P + i) * hd * p.G + hd * g + d] / den;
            du[hd] -= du[d] * out[d] / den;
          }
          for (let a = 0; a < hd; a++) {
            let sum = 0;
            for (let d = 0; d <= hd; d++) {
              sum += state[a * (hd + 1) + d] * du[d];
              up[a * (hd + 1) + d] += relu(i, 0, a) * du[d];
            }
            dqkv![place(i, 0) + a] = qkv![place(i, 0) + a] > 0 ? sum : 0;
          }
        }
        for (let i = 0; i < p.P; i++) {
          for (let d = 0; d < hd; d++) dqkv![place(i, 2) + d] = 0;
          for (let a = 0; a < hd; a++) {
            let sum = up[a * (hd + 1) + hd];
            for (let d = 0; d < hd; d++) {
              sum += up[a * (hd + 1) + d] * qkv![place(i, 2) + d];
              dqkv![place(i, 2) + d] += relu(i, 1, a) * up[a * (hd + 1) + d];
            }
            dqkv![place(i, 1) + a] = qkv![place(i, 1) + a] > 0 ? sum : 0;
          }
        }
      }
    }
  },
  wgsl: {
    ...side("backward", "queryGradients", "keyGradients"),
    passes: (p) =>
      sharesOf(p) === 1 ? null : { scratch: { states: stateSize(p), ups: stateSize(p) }, passes: BACKWARD },
  },
  wasm: { tasks: (p) => p.B * p.G, scratch: (p) => 8 * (p.hd + 3) * (p.hd + 8) },
  cases: reluCases(),
});

function reluCases(): Case[] {
  return [[1, 4, 1, 8], [2, 16, 4, 8], [1, 70, 3, 32], [3, 5, 2, 32], [2, 300, 2, 16]].map((
    [B, P, G, hd],
  ) => ({
    params: { B, P, G, hd, C: G * hd, C3: 3 * G * hd, eps: 1e-15 },
  }));
}
