/**
 * Streaming softmax attention over the keys that each query may see. Scores are never stored.
 *
 * @module
 */
import { specialise } from "./webgpu/specialise.ts";
import activation from "./activation.wgsl" with { type: "text" };
import wgsl from "./attention.wgsl" with { type: "text" };
import type { Kernel, Target } from "./spec.ts";

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

/**
 * y[t] = softmax(q[t] kᵀ * scale + slope * (keyFrame - queryFrame)) v, per head.
 *
 * Query t sees the rows `[ranges[t,0], ranges[t,1])` and `[ranges[t,2], ranges[t,3])` of `k` and `v`; the second range
 * may be empty. With tokens sorted by frame, the frame-causal mask is such a prefix: distant frames (L2) in one
 * range, near frames (L1) in the other; clips of a batch are ranges too, so the kernel knows no batch. Blocks of keys
 * that no query of a tile sees are skipped. `lse` (log of the softmax denominator, `[T, A]`) is kept for the gradient.
 */
export const attention: Kernel = {
  name: "attention",
  inputs: { q: "T D", k: "S D", v: "S D", ranges: "T 4:i32", queryFrames: "T:i32?", keyFrames: "S:i32?" },
  outputs: { y: "T D", lse: "T A?" },
  params: { T: "u32", D: "u32", A: "u32", scale: "f32", slope: "f32" },
  flags: ["hd", "hasSlope", "hasLse"],
  // `keys` is the mean number of visible keys of a query, when the caller knows it.
  flops: (p) => 4 * p.T * (p.keys ?? 0) * p.D,
  reference: (io, p) => {
    const { q, k, v, ranges, y } = io;
    for (let t = 0; t < p.T; t++) {
      const keys: number[] = [];
      for (let s = ranges![4 * t]; s < ranges![4 * t + 1]; s++) keys.push(s);
      for (let s = ranges![4 * t + 2]; s < ranges![4 * t + 3]; s++) keys.push(s);
      for (let head = 0; head < p.A; head++) {
        const at = head * p.hd;
        const scores = keys.map((s) => {
          let dot = 0;
          for (let d = 0; d < p.hd; d++) dot += q![t * p.D + at + d] * k![s * p.D + at + d];
          return dot * p.scale + (p.hasSlope ? p.slope * (io.keyFrames![s] - io.queryFrames![t]) : 0);
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
    source: (p, target) => activation + specialise(wgsl, { HD: p.hd, ...tileOf(p.hd, target) }),
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
