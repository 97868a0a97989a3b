/**
 * Streaming softmax attention over the keys that each query may see. Scores are never stored.
 *
 * @module
 */
import wgsl from "./attention.wgsl" with { type: "text" };
import gradients from "./attention_grad.wgsl" with { type: "text" };
import { uniform } from "./inputs.ts";
import { rows } from "./rows.ts";
import {
  type Case,
  defineKernel,
  type HostBuffers,
  type Kernel,
  type Params,
  type Pass,
  type Target,
} from "./spec.ts";
import { sections } from "./webgpu/sections.ts";
import { specialise } from "./webgpu/specialise.ts";
import { written } from "./webgpu/unroll.ts";

/** How the shaders read what all of them read. */
const VIEWS = { q: "vec4f", k: "vec4f", v: "vec4f", visible: "vec4i" } as const;

/** Queries of a workgroup, and keys of a block. */
const QUERIES = 32, KEYS = 32;

/** How a head passes through shared memory, as the shader's constants. */
function sliceOf({ hd }: Params) {
  const HV = hd / 4, SLICES = Math.ceil(HV / 16), SLICE = Math.ceil(HV / SLICES);
  const LANES = SLICE <= 4 ? 4 : SLICE <= 8 ? 8 : 16;
  return { HV, SLICES, SLICE, LANES, PARTS: 32 / LANES, LOADS: Math.ceil(KEYS * SLICE / 256) };
}

/** Workgroups that fill a large GPU, two for each of the 132 multiprocessors of an H200. Not measured. */
const MANY = 264;

/** Blocks of keys that are worth a workgroup, which then writes and reads about as much as two of them hold. */
const LEAST_BLOCKS = 4;

/** Workgroups that share the keys of a tile of queries; 32 is what the shader can tell apart. */
function sharesOf(p: Params): number {
  const tiles = Math.ceil(p.T / QUERIES) * p.A, blocks = Math.ceil((p.keys ?? 0) / KEYS);
  const each = Math.max(LEAST_BLOCKS, Math.ceil(blocks * tiles / MANY), Math.ceil(blocks / 32));
  return Math.max(1, Math.ceil(blocks / each));
}

const source = (p: Params, target: Target, end: string) =>
  written(specialise(sections(wgsl, "forward", end), sliceOf(p)), target);

/** Sums over a share of the keys, and what adds the shares up in one order. */
const PASSES: readonly Pass[] = [
  {
    reads: ["q", "k", "v", "visible"],
    writes: ["partial"],
    flags: ["hd", "hasSlope"],
    source: (p, target) => source(p, target, "partial"),
    views: { ...VIEWS, partial: "vec4f" },
    entry: "forward",
    groups: (p) => [Math.ceil(p.T / QUERIES), p.A, sharesOf(p)],
    loops: forwardLoops,
  },
  {
    reads: ["partial"],
    writes: ["y", "lse"],
    flags: ["hd", "hasLse"],
    source: (p) => specialise(sections(wgsl, "merge"), { HV: p.hd / 4 }),
    views: { partial: "vec4f", y: "vec4f" },
    entry: "merge",
    groups: (p) => Math.ceil(p.T * p.D / 256),
    loops: (p) => 2 * sharesOf(p),
  },
];

/** A block of keys: itself and at most 32 rows with NaN. S bounds what a query sees. */
function forwardLoops(p: Params): number {
  const blocks = Math.ceil((p.S ?? 0) / KEYS);
  return 33 * Math.ceil(blocks / sharesOf(p)) + Math.ceil(blocks / 32) + Math.ceil(blocks / 256) + 64;
}

/** Channels of a head for which the cpu device has room in its tables of addresses. */
const MOST_CHANNELS = 384;

/**
 * Scratch of a task on the cpu device, for one product of scores or for two: state and addresses, then for each 64 lanes,
 * a block of scores and one of rows, and 64 results in whole groups of six channels (kernels/cpu/heads.wasm.ts).
 */
function headScratch(hd: number, blas: boolean, products: number): number {
  if (hd > MOST_CHANNELS) {
    throw new RangeError(
      `attention: heads have ${hd} channels, expected at most ${MOST_CHANNELS} on the cpu device`,
    );
  }
  const rows = blas ? 384 : 96;
  return 5632 + 4 * products * (64 * hd + rows * (64 + hd) + 64 * Math.ceil(hd / 6) * 6);
}

/** Returns the term that the temporal decay adds to the score of query t and key s. */
const decay = (visible: ArrayLike<number>, t: number, s: number, p: Params): number =>
  p.hasSlope ? p.slope * (visible[5 * p.T + s] - visible[4 * p.T + t]) : 0;

/**
 * y[t] = softmax(q[t] kᵀ * scale + slope * (key frame - query frame)) v, per head.
 *
 * The first 4T words of `visible` are ranges: query t sees the rows from word 4t to before word 4t+1 of `k` and `v`, and
 * those from word 4t+2 to before word 4t+3; the second range may be empty. With a slope, the frames of the T queries and
 * then those of the S keys follow: one buffer for all three keeps the gradients within what every adapter binds. With
 * tokens sorted by frame, the frame-causal mask is such a prefix: short-term frames (L1) in one range, long-term frames
 * (L2) in the other; clips of a batch are ranges too, so the kernel knows no batch. Blocks of keys that no query of a
 * tile sees are skipped. `lse` (log of the softmax denominator, `[T, A]`) is kept for the gradient.
 */
export const attention: Kernel = defineKernel({
  name: "attention",
  inputs: { q: "T D", k: "S D", v: "S D", visible: "V:i32" },
  outputs: { y: "T D", lse: "T A?" },
  params: { T: "u32", D: "u32", A: "u32", scale: "f32", slope: "f32" },
  flags: ["hd", "hasSlope", "hasLse"],
  // `keys` is the mean number of visible keys of a query, when the caller knows it.
  flops: (p) => 4 * p.T * (p.keys ?? 0) * p.D,
  reference: (io, p) => {
    const { q, k, v, visible, y } = io;
    for (let t = 0; t < p.T; t++) {
      const keys: number[] = [];
      for (let s = visible![4 * t]; s < visible![4 * t + 1]; s++) keys.push(s);
      for (let s = visible![4 * t + 2]; s < visible![4 * t + 3]; s++) keys.push(s);
      for (let head = 0; head < p.A; head++) {
        const at = head * p.hd;
        const scores = keys.map((s) => {
          let dot = 0;
          for (let d = 0; d < p.hd; d++) dot += q![t * p.D + at + d] * k![s * p.D + at + d];
          return dot * p.scale + decay(visible!, t, s, p);
        });
        const max = scores.reduce((a, b) => Math.max(a, b), -Infinity);
        let sum = 0;
        for (const s of scores) sum += Math.exp(s - max);
        for (let d = 0; d < p.hd; d++) {
          let value = 0;
          scores.forEach((s, i) => value += Math.exp(s - max) * v![keys[i] * p.D + at + d]);
          y![t * p.D + at + d] = value / sum;
        }
        if (p.hasLse) io.lse![t * p.A + head] = max + Math.log(sum);
      }
    }
  },
  wgsl: {
    source: (p, target) => source(p, target, "whole"),
    views: { ...VIEWS, y: "vec4f" },
    entry: "forward",
    groups: (p) => [Math.ceil(p.T / QUERIES), p.A, 1],
    loops: forwardLoops,
    passes: (p) => {
      const shares = sharesOf(p);
      return shares === 1 ? null : { scratch: { partial: shares * p.T * p.A * (p.hd + 4) }, passes: PASSES };
    },
  },
  wasm: {
    tasks: (p) => p.A * Math.ceil(p.T / 64),
    scratch: (p, blas) => headScratch(p.hd, blas, 1),
  },
  cases: attentionCases(),
  tolerance: { bound: 5e-6, why: "scores of size 5 lose 5e-7 before exp, then a weighted mean" },
  gradient: {
    saves: ["q", "k", "v", "visible", "y", "lse"],
    constant: ["lse"],
    when: (p) => p.hasLse === 1,
    backward: (b) => {
      const { A, hd, keys, scale, slope, hasSlope } = b.params, dy = b.grad("y");
      const known = { y: b.saved("y"), dy, lse: b.saved("lse") };
      const { stats } = b.launch(attentionStats, known, { A, A2: 2 * A, hd });
      const read = { q: b.saved("q"), k: b.saved("k"), v: b.saved("v"), visible: b.saved("visible") };
      const inputs = { ...read, stats, dy }, params = { A, hd, keys, scale, slope, hasSlope };
      if (b.wants("q")) b.give("q", b.launch(attentionGradQuery, inputs, params).dq);
      const { dk, dv } = b.launch(attentionGradKey, inputs, params);
      b.give("k", dk);
      b.give("v", dv);
    },
  },
});

/** Statistics of each query and head for the gradient of attention: `stats[t]` = [lse (A) | Σ_d dy · y (A)]. */
export const attentionStats: Kernel = defineKernel({
  name: "attentionStats",
  inputs: { y: "T D", dy: "T D", lse: "T A" },
  outputs: { stats: "T A2" },
  params: { T: "u32", D: "u32", A: "u32" },
  flags: ["hd"],
  flops: (p) => 2 * p.T * p.D,
  reference: (io, p) => {
    for (let t = 0; t < p.T; t++) {
      for (let head = 0; head < p.A; head++) {
        let sum = 0;
        for (let d = 0; d < p.hd; d++) {
          sum += io.y![t * p.D + head * p.hd + d] * io.dy![t * p.D + head * p.hd + d];
        }
        io.stats![t * 2 * p.A + head] = io.lse![t * p.A + head];
        io.stats![t * 2 * p.A + p.A + head] = sum;
      }
    }
  },
  wgsl: {
    source: rows(16, "sum") + sections(gradients, "stats"),
    views: { y: "vec4f", dy: "vec4f" },
    entry: "forward",
    groups: (p) => Math.ceil(p.T * p.A / 4),
    loops: (p) => Math.ceil(p.hd / 64),
  },
  wasm: { tasks: (p) => Math.ceil(p.T / 16) },
  cases: [
    { params: { T: 37, A: 3, A2: 6, hd: 32, D: 96 } },
    { params: { T: 5, A: 1, A2: 2, hd: 8, D: 8 } },
  ],
});

/** Calls `visit` for every visible (query, key) pair of a head with its weight and the gradient of its score. */
function eachPair(
  io: HostBuffers,
  p: Params,
  visit: (t: number, s: number, at: number, w: number, ds: number) => void,
) {
  const { q, k, v, visible, dy, stats } = io;
  for (let t = 0; t < p.T; t++) {
    for (const r of [0, 2]) {
      for (let s = visible![4 * t + r]; s < visible![4 * t + r + 1]; s++) {
        for (let head = 0; head < p.A; head++) {
          const at = head * p.hd;
          let dot = 0, up = 0;
          for (let d = 0; d < p.hd; d++) {
            dot += q![t * p.D + at + d] * k![s * p.D + at + d];
            up += dy![t * p.D + at + d] * v![s * p.D + at + d];
          }
          const score = dot * p.scale + decay(visible!, t, s, p);
          const weight = Math.exp(score - stats![t * 2 * p.A + head]);
          visit(t, s, at, weight, weight * (up - stats![t * 2 * p.A + p.A + head]));
        }
      }
    }
  }
}

const GRAD_INPUTS = {
  q: "T D",
  k: "S D",
  v: "S D",
  visible: "V:i32",
  stats: "T A2",
  dy: "T D",
} as const;

const GRAD_VIEWS = { ...VIEWS, dy: "vec4f" } as const;

/** Rows that a workgroup of the gradients owns. */
const OWN = 32;

/** How a head passes through shared memory in the gradients, as the shader's constants. */
function gradientSlice(p: Params) {
  const { HV, SLICES, SLICE } = sliceOf(p);
  const STEPS = SLICE % 2 === 0 ? 2 : 1;
  return { HV, SLICES, SLICE, SPAN: Math.ceil(SLICE / 8), LOADS: Math.ceil(SLICE / 2), STEPS };
}

const gradientSource = (part: string, p: Params, target: Target) =>
  written(specialise(sections(gradients, "gradients", part), gradientSlice(p)), target);

/** Loop iterations over `count` rows of the other kind, all of them seen: scanned in chunks of 64 blocks. */
function gradientLoops(count: number, p: Params): number {
  const { SLICES, SLICE, STEPS } = gradientSlice(p), blocks = Math.ceil(count / 32) + 1;
  return blocks * (1 + 2 * SLICES * SLICE / STEPS) + Math.ceil(blocks / 64) * 33 + 2 * OWN;
}

/** Gradient of the queries. Scores are computed again, block by block, and never stored. */
export const attentionGradQuery: Kernel = defineKernel({
  name: "attentionGradQuery",
  inputs: GRAD_INPUTS,
  outputs: { dq: "T D" },
  params: { T: "u32", D: "u32", A: "u32", scale: "f32", slope: "f32" },
  flags: ["hd", "hasSlope"],
  flops: (p) => 6 * p.T * (p.keys ?? 0) * p.D,
  reference: (io, p) => {
    io.dq!.fill(0);
    eachPair(io, p, (t, s, at, _w, ds) => {
      for (let d = 0; d < p.hd; d++) io.dq![t * p.D + at + d] += ds * p.scale * io.k![s * p.D + at + d];
    });
  },
  wgsl: {
    source: (p, target) => gradientSource("gradQuery", p, target),
    views: { ...GRAD_VIEWS, dq: "vec4f" },
    entry: "backward",
    groups: (p) => [Math.ceil(p.T / OWN), p.A, 1],
    loops: (p) => gradientLoops(p.S ?? 0, p),
  },
  wasm: {
    tasks: (p) => p.A * Math.ceil(p.T / 64),
    scratch: (p, blas) => headScratch(p.hd, blas, 2),
  },
  cases: attentionGradCases(),
});

/** Gradients of keys and values: a tile of keys adds up over the queries that see it, in query order. */
export const attentionGradKey: Kernel = defineKernel({
  name: "attentionGradKey",
  inputs: GRAD_INPUTS,
  outputs: { dk: "S D", dv: "S D" },
  params: { T: "u32", S: "u32", D: "u32", A: "u32", scale: "f32", slope: "f32" },
  flags: ["hd", "hasSlope"],
  flops: (p) => 8 * p.T * (p.keys ?? 0) * p.D,
  reference: (io, p) => {
    io.dk!.fill(0);
    io.dv!.fill(0);
    eachPair(io, p, (t, s, at, w, ds) => {
      for (let d = 0; d < p.hd; d++) {
        io.dk![s * p.D + at + d] += ds * p.scale * io.q![t * p.D + at + d];
        io.dv![s * p.D + at + d] += w * io.dy![t * p.D + at + d];
      }
    });
  },
  wgsl: {
    source: (p, target) => gradientSource("gradKey", p, target),
    views: { ...GRAD_VIEWS, dk: "vec4f", dv: "vec4f" },
    entry: "backward",
    groups: (p) => [Math.ceil(p.S / OWN), p.A, 1],
    loops: (p) => gradientLoops(p.T, p),
  },
  wasm: {
    tasks: (p) => p.A * Math.ceil(p.S / 64),
    scratch: (p, blas) => headScratch(p.hd, blas, 2),
  },
  cases: attentionGradCases(),
});

/** Frames of 5 tokens, frame-causal; `second` puts the last keys in a second range behind a gap. */
function attentionCase(
  T: number,
  A: number,
  hd: number,
  S: number,
  more: { slope?: number; second?: number; lse?: number; spread?: number } = {},
): Case {
  const { slope = 0, second = 0, lse = 0, spread = 2 } = more;
  const ranges = (p: Params) =>
    Array.from({ length: p.T }, (_, t) => {
      const seen = Math.max(1, Math.ceil((Math.floor(t / 5) + 1) / Math.ceil(p.T / 5) * (p.S - second)));
      return second === 0 || t % 11 === 3
        ? [0, seen, 0, 0]
        : [0, Math.max(0, seen - 2), p.S - second, p.S - 1];
    }).flat();
  const frames = (count: number) => Array.from({ length: count }, (_, i) => Math.floor(i / 5));
  const visible = (p: Params) => [...ranges(p), ...frames(p.T), ...frames(p.S)];
  return {
    params: {
      ...{ T, A, hd, S, D: A * hd, V: slope ? 5 * T + S : 4 * T, keys: S, scale: 1 / Math.sqrt(hd), slope },
      ...{ hasSlope: slope ? 1 : 0, hasLse: lse },
    },
    inputs: { visible, q: uniform("T D", spread), k: uniform("S D", spread) },
    absent: lse ? [] : ["lse"],
  };
}

/** Clips of a batch side by side: tiles of queries whose key ranges do not touch. */
function clipsCase(clips: number, tokens: number): Case {
  const test = attentionCase(clips * tokens, 2, 32, clips * tokens, { lse: 1 });
  const visible = (p: Params) =>
    Array.from({ length: p.T }, (_, t) => [t - t % tokens, t + 1, t - t % tokens, t - t % tokens]).flat();
  return { ...test, inputs: { ...test.inputs, visible } };
}

function attentionCases(): Case[] {
  return [
    attentionCase(5, 1, 8, 5),
    attentionCase(7, 2, 8, 10, { second: 3, slope: 0.3, lse: 1 }),
    attentionCase(37, 2, 32, 50, { lse: 1 }),
    attentionCase(64, 3, 64, 200, { slope: 0.1 }),
    attentionCase(40, 2, 64, 97, { second: 20, slope: -0.2, lse: 1 }),
    attentionCase(18, 1, 128, 70, { second: 9 }),
    attentionCase(16, 1, 32, 40, { spread: 12 }), // scores of several hundred: the running maximum matters
    attentionCase(64, 12, 64, 300),
    attentionCase(33, 1, 68, 90, { lse: 1 }), // a last slice of the head that is not full
    attentionCase(3, 1, 8, 8300, { second: 20, lse: 1 }), // more blocks of keys than the shader marks at a time, shared by 29 workgroups
    attentionCase(20, 1, 32, 820, { second: 400, lse: 1 }), // several blocks of a BLAS
    clipsCase(3, 20),
    clipsCase(5, 7),
  ];
}

/** Clips, frame-causal in frames of `n`, the second range empty for every third query; lse as attention gives it. */
function attentionGradCase(T: number, A: number, hd: number, n: number, slope = 0, clips = 2): Case {
  const S = T + 3, D = A * hd, length = Math.ceil(T / clips);
  const ranges = (p: Params) =>
    Array.from({ length: p.T }, (_, t) => {
      const clip = t - t % length, end = Math.min(T, clip + length, clip + Math.ceil((t - clip + 1) / n) * n);
      return [clip, end, ...(t % 3 ? [T, T + 2] : [0, 0])];
    }).flat();
  const frames = (count: number) => Array.from({ length: count }, (_, i) => Math.floor(i / n));
  const visible = (p: Params) => [...ranges(p), ...frames(p.T), ...frames(p.S)];
  // Scores of random q and k lie within about 1.5; weights exp(score - lse) stay below 1 with an lse of 2 to 3.
  const stats = (p: Params, random: () => number) =>
    Array.from({ length: p.T * 2 * p.A }, (_, i) => i % (2 * p.A) < p.A ? 2 + random() : random() - 0.5);
  const V = slope ? 5 * T + S : 4 * T, scale = 1 / Math.sqrt(hd);
  const params = { T, S, D, A, A2: 2 * A, V, hd, keys: S, scale, slope, hasSlope: slope ? 1 : 0 };
  return { params, inputs: { visible, stats } };
}

function attentionGradCases(): Case[] {
  return [
    attentionGradCase(6, 1, 8, 2),
    attentionGradCase(50, 2, 32, 7),
    attentionGradCase(70, 3, 64, 16, 0.1),
    attentionGradCase(20, 1, 128, 4),
    attentionGradCase(20, 1, 68, 4),
    attentionGradCase(220, 2, 64, 64, -0.05, 1), // several tiles and blocks, some of them seen whole
    attentionGradCase(420, 1, 32, 60, 0, 1), // several blocks of a BLAS
  ];
}
