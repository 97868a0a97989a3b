/**
 * Streaming softmax attention over the keys that each query may see. Scores are never stored.
 *
 * @module
 */
import activation from "./activation.wgsl" with { type: "text" };
import wgsl from "./attention.wgsl" with { type: "text" };
import type { HostBuffers, Kernel, Params, Target } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";
import { specialise } from "./webgpu/specialise.ts";

/** Queries of a workgroup. */
const QUERIES = 16;

/**
 * Keys of a block and invocations of a query, as the shader's constants.
 *
 * On hardware 256 invocations share 16 queries, since a denoising step has few workgroups (64 queries of 12 heads: 48)
 * and waits for memory; not measured yet. Software adapters take the fewest invocations. Smaller blocks where shared
 * memory is small.
 */
function tileOf(hd: number, target: Target): { KEYS: number; LANES: number; PARTS: number } {
  const wide = target.software ? [] : [{ KEYS: 32, LANES: 16, PARTS: 2 }];
  const tiles = [...wide, ...[32, 16, 8].map((KEYS) => ({ KEYS, LANES: 8, PARTS: 1 }))];
  const bytes = ({ KEYS, LANES, PARTS }: typeof tiles[0]) =>
    4 * QUERIES * (hd + KEYS + LANES * PARTS) + 16 * KEYS * ((hd / 4) | 1);
  return tiles.find((tile) => bytes(tile) <= target.sharedBytes) ?? tiles.at(-1)!;
}

/** What the temporal decay adds to the score of query t and key s. */
const decay = (visible: ArrayLike<number>, t: number, s: number, p: Params): number =>
  p.hasSlope ? p.slope * (visible[5 * p.T + s] - visible[4 * p.T + t]) : 0;

/**
 * y[t] = softmax(q[t] kᵀ * scale + slope * (key frame - query frame)) v, per head.
 *
 * The first 4T words of `visible` are ranges: query t sees the rows from word 4t to before word 4t+1 of `k` and `v`, and
 * those from word 4t+2 to before word 4t+3; the second range may be empty. With a slope, the frames of the T queries and
 * then those of the S keys follow: one buffer for all three keeps the gradients within what every adapter binds. With
 * tokens sorted by frame, the frame-causal mask is such a prefix: distant frames (L2) in one range, near frames (L1) in
 * the other; clips of a batch are ranges too, so the kernel knows no batch. Blocks of keys that no query of a tile sees
 * are skipped. `lse` (log of the softmax denominator, `[T, A]`) is kept for the gradient.
 */
export const attention: Kernel = {
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
    source: (p, target) =>
      activation + specialise(sections(wgsl, "forward"), { HD: p.hd, ...tileOf(p.hd, target) }),
    entry: "forward",
    groups: (p) => [Math.ceil(p.T / QUERIES), p.A, 1],
    // A block of keys: loads, scores, weights and sums, as counted in the shader. S bounds what a query sees.
    loops: (p, target) => {
      const { KEYS, LANES, PARTS } = tileOf(p.hd, target), share = LANES * PARTS, vectors = p.hd / 4;
      const own = Math.ceil(KEYS / share), span = Math.ceil(vectors / LANES);
      const loads = Math.ceil(KEYS * vectors / (8 * share));
      const block = 2 * loads + own * (vectors + 2) + share + KEYS / PARTS * (1 + span) + span + 1;
      return Math.ceil((p.S ?? 0) / KEYS + 2) * block + 200;
    },
  },
  wasm: {
    fn: "attention",
    tasks: (p) => p.A * Math.ceil(p.T / 64),
    // State and scores, then 64 queries, 96 values and 66 results of one head, padded to 8 channels.
    scratch: (p) => 32768 + 4 * (64 * p.hd + (96 + 66) * Math.ceil(p.hd / 8) * 8),
  },
};

/** What the gradient of attention needs of each query and head: `stats[t]` = [lse (A) | Σ_d dy · y (A)]. */
export const attentionStats: Kernel = {
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
    source: sections(wgsl, "stats"),
    entry: "forward",
    groups: (p) => Math.ceil(p.T * p.A / 8),
    loops: (p) => Math.ceil(p.hd / 32) + 8,
  },
  wasm: { fn: "attentionStats", tasks: (p) => Math.ceil(p.T / 16) },
};

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

/** Rows that a workgroup of the gradients owns. */
const OWN = 32;

/** Rows of a block of the gradients: what fits into shared memory. */
function blockOf(hd: number, target: Target): number {
  const bytes = 16 * (32 * ((hd / 4) | 1) + OWN * 9) + 256;
  return bytes <= target.sharedBytes ? 32 : 16;
}

const gradientSource = (part: string, p: Params, target: Target) =>
  activation + specialise(sections(wgsl, "gradients", part), { HD: p.hd, BLOCK: blockOf(p.hd, target) });

/** Loop iterations over `count` rows of the other kind, all of them seen: loads, products and sums of each block. */
function gradientLoops(
  count: number,
  loads: number,
  adds: number,
  scanned: number,
  p: Params,
  target: Target,
): number {
  const block = blockOf(p.hd, target), vectors = p.hd / 4, span = Math.ceil(vectors / 8);
  const blocks = Math.ceil(count / block);
  const each = loads * Math.ceil(block * vectors / 64) + 2 * vectors + 16 + adds * span * (block / 4 + 1) + 1;
  return blocks * each + Math.ceil(blocks / 64) * (scanned + 1) + OWN + 5 * span;
}

/**
 * Scratch of a gradient's task on the cpu: state, two packed operands of 64 lanes, two blocks of 96 rows times 64 lanes,
 * 96 packed rows, and `results` blocks of 66 results, padded to 16 channels.
 */
const gradientScratch = (hd: number, results: number) =>
  64 * 1024 + 2 * 256 * hd + 4 * (96 + 66 * results) * Math.ceil(hd / 16) * 16;

/** Gradient of the queries. Scores are computed again, block by block, and never stored. */
export const attentionGradQuery: Kernel = {
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
    entry: "backward",
    groups: (p) => [Math.ceil(p.T / OWN), p.A, 1],
    loops: (p, target) => gradientLoops(p.S ?? 0, 2, 1, OWN, p, target),
  },
  wasm: {
    fn: "attentionGradQuery",
    tasks: (p) => p.A * Math.ceil(p.T / 64),
    scratch: (p) => gradientScratch(p.hd, 1),
  },
};

/** Gradients of keys and values: a tile of keys adds up over the queries that see it, in query order. */
export const attentionGradKey: Kernel = {
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
    entry: "backward",
    groups: (p) => [Math.ceil(p.S / OWN), p.A, 1],
    loops: (p, target) => gradientLoops(p.T, 3, 2, blockOf(p.hd, target), p, target),
  },
  wasm: {
    fn: "attentionGradKey",
    tasks: (p) => p.A * Math.ceil(p.S / 64),
    scratch: (p) => gradientScratch(p.hd, 2),
  },
};
