/**
 * Per-head RMS norm and rotary embedding of queries and keys, and the placing of keys and values where attention
 * reads them (a KV cache, or fresh tensors).
 *
 * @module
 */
import wgsl from "./rotary.wgsl" with { type: "text" };
import { columnSum } from "./reduce.ts";
import { type Case, defineKernel, type Kernel, type Params } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";

/**
 * For the tokens `row … row+M-1` of `qkv` (`[q | k | v]`, D columns each): RMS norm over each head's `hd` channels with
 * weights `wq` and `wk`, rotation of adjacent pairs by the token's `angles` (hd/2 cosines, then as many sines), then q
 * to row t of `q`, and k and v (v untouched) to row `dest[t]` of `k` and `v`. Rows that `dest` does not name keep their
 * contents.
 *
 * The authors cache keys before rotation and rotate all of them at every call; positions are absolute, so caching
 * rotated keys is the same.
 */
export const rotary: Kernel = defineKernel({
  name: "rotary",
  inputs: { qkv: "T D3", wq: "hd", wk: "hd", angles: "T hd", dest: "T:i32" },
  outputs: { q: "T D", k: "S D", v: "S D" },
  params: { M: "u32", row: "u32", D: "u32", eps: "f32" },
  flags: ["hd"],
  flops: (p) => 20 * p.M * p.D,
  reference: (io, p) => {
    const half = p.hd / 2;
    for (let t = p.row; t < p.row + p.M; t++) {
      for (let part = 0; part < 2; part++) {
        const w = (part === 0 ? io.wq : io.wk)!;
        const out = (part === 0 ? io.q : io.k)!;
        const outRow = part === 0 ? t : io.dest![t];
        for (let head = 0; head < p.D / p.hd; head++) {
          const from = t * 3 * p.D + part * p.D + head * p.hd;
          let square = 0;
          for (let d = 0; d < p.hd; d++) square += io.qkv![from + d] ** 2 / p.hd;
          const scale = 1 / Math.sqrt(square + p.eps);
          for (let j = 0; j < half; j++) {
            const a = io.qkv![from + 2 * j] * scale * w[2 * j];
            const b = io.qkv![from + 2 * j + 1] * scale * w[2 * j + 1];
            const cos = io.angles![t * p.hd + j], sin = io.angles![t * p.hd + half + j];
            out[outRow * p.D + head * p.hd + 2 * j] = a * cos - b * sin;
            out[outRow * p.D + head * p.hd + 2 * j + 1] = b * cos + a * sin;
          }
        }
      }
      for (let d = 0; d < p.D; d++) io.v![io.dest![t] * p.D + d] = io.qkv![t * 3 * p.D + 2 * p.D + d];
    }
  },
  // Eight invocations share one head of one token, of q, k and v.
  wgsl: {
    source: sections(wgsl, "forward"),
    entry: "forward",
    groups: (p) => Math.ceil(p.M * (p.D / p.hd) / 8),
    loops: (p) => 2 * Math.ceil(p.hd / 16) + 12,
  },
  wasm: { tasks: (p) => Math.ceil(p.M / 16) },
  cases: [rotaryCase(6, 2, 32, 0, 6, 9), rotaryCase(40, 3, 64, 11, 25, 53), rotaryCase(5, 1, 8, 1, 3, 11)],
  gradient: {
    saves: ["qkv", "wq", "wk", "angles", "dest"],
    constant: ["angles"],
    backward: (b) => {
      const { row, M, hd, eps, T } = b.params, qkv = b.saved("qkv"), angles = b.saved("angles");
      const dqkv = b.sum("qkv");
      for (const part of [0, 1]) {
        const weight = part === 0 ? "wq" : "wk", dw = b.empty([T, hd]); // of each token
        const grads = part === 0
          ? { dy: b.grad("q") }
          : { dest: b.saved("dest"), dy: b.grad("k"), dv: b.grad("v") };
        const inputs = { qkv, w: b.saved(weight), angles, ...grads };
        b.launch(rotaryGrad, inputs, { row, M, hd, eps, part }, { dqkv, dw });
        if (b.wants(weight)) b.launch(columnSum, { a: dw }, { row, M, col: 0 }, { y: b.sum(weight) });
      }
    },
  },
});

/**
 * Gradients of one part of {@linkcode rotary} for rows `row … row+M-1`: of the queries (`part` 0) or of the keys with
 * the values (`part` 1), so that a launch binds few enough buffers for every adapter. `w` is that part's norm weight,
 * `dy` the gradient of `q`, read at row t, or of `k`, read like `dv` at row `dest[t]`, where the forward pass wrote. The
 * part's columns of `dqkv` are assigned; `dw[t]` is the sum over token t's heads of the gradient of the norm weight,
 * `columnSum` adds tokens up.
 */
export const rotaryGrad: Kernel = defineKernel({
  name: "rotaryGrad",
  inputs: { qkv: "T D3", w: "hd", angles: "T hd", dest: "T:i32?", dy: "S D", dv: "S D?" },
  outputs: { dqkv: "T D3", dw: "T hd" },
  params: { M: "u32", row: "u32", D: "u32", eps: "f32" },
  flags: ["hd", "part"],
  flops: (p) => 25 * p.M * p.D,
  reference: (io, p) => {
    const half = p.hd / 2, hd = p.hd;
    for (let t = p.row; t < p.row + p.M; t++) {
      const upRow = p.part === 0 ? t : io.dest![t];
      for (let d = 0; d < hd; d++) io.dw![t * hd + d] = 0;
      for (let head = 0; head < p.D / hd; head++) {
        const from = t * 3 * p.D + p.part * p.D + head * hd;
        let square = 0;
        for (let d = 0; d < hd; d++) square += io.qkv![from + d] ** 2 / hd;
        const inverse = 1 / Math.sqrt(square + p.eps), g = new Float64Array(hd); // gradient before the rotation
        for (let j = 0; j < half; j++) {
          const up = upRow * p.D + head * hd + 2 * j, a = io.dy![up], b = io.dy![up + 1];
          const cos = io.angles![t * hd + j], sin = io.angles![t * hd + half + j];
          g[2 * j] = a * cos + b * sin;
          g[2 * j + 1] = b * cos - a * sin;
        }
        let product = 0;
        for (let d = 0; d < hd; d++) {
          const normal = io.qkv![from + d] * inverse;
          io.dw![t * hd + d] += g[d] * normal;
          product += g[d] * io.w![d] * normal / hd;
        }
        for (let d = 0; d < hd; d++) {
          io.dqkv![from + d] = (g[d] * io.w![d] - io.qkv![from + d] * inverse * product) * inverse;
        }
      }
      if (p.part === 0) continue;
      for (let d = 0; d < p.D; d++) io.dqkv![t * 3 * p.D + 2 * p.D + d] = io.dv![upRow * p.D + d];
    }
  },
  wgsl: {
    source: sections(wgsl, "backward"),
    entry: "backward",
    groups: (p) => p.M,
    loops: (p) => (Math.ceil(p.D / p.hd / 8) + 1) * (3 * Math.ceil(p.hd / 16) + 9) + 9,
  },
  wasm: { tasks: (p) => Math.ceil(p.M / 16) },
  cases: [[6, 2, 32, 0, 6, 9], [40, 3, 64, 11, 25, 53], [5, 1, 8, 1, 3, 11]].flatMap(
    ([T, A, hd, row, M, S]): Case[] => {
      const { params, inputs } = rotaryCase(T, A, hd, row, M, S);
      return [
        { params: { ...params, S: T, part: 0 }, absent: ["dest", "dv"] },
        { params: { ...params, part: 1 }, inputs },
      ];
    },
  ),
});

function rotaryCase(T: number, A: number, hd: number, row: number, M: number, S: number): Case {
  const dest = (p: Params) => Array.from({ length: p.T }, (_, t) => (t * 7 + 3) % S); // distinct while S is prime to 7
  return { params: { T, D: A * hd, D3: 3 * A * hd, hd, row, M, S, eps: 1e-6 }, inputs: { dest } };
}
