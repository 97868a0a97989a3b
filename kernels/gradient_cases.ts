/**
 * Sizes at which the kernels of training are checked.
 *
 * @module
 */
import { adamw } from "./adamw.ts";
import { attentionGradKey, attentionGradQuery, attentionStats } from "./attention.ts";
import type { KernelCase } from "./check.ts";
import { accumulate, fill, gateMul, unaryGrad } from "./elementwise.ts";
import { HALF_BLOCK, toHalf } from "./half.ts";
import { linearGradInput, linearGradWeight } from "./linear.ts";
import { normModulateGrad } from "./norm.ts";
import { columnSum, frameLoss, frameLossGrad, rowSum, SQUARE_SUM_BLOCK, squareSum } from "./reduce.ts";
import { rotaryGrad } from "./rotary.ts";
import type { Params } from "./spec.ts";

const rows = (p: Params, random: () => number) =>
  Array.from({ length: p.T }, () => Math.floor(random() * p.R));

function inputGrad(M: number, N: number, K: number, more: Partial<Record<string, number>> = {}): KernelCase {
  const p = { accumulate: 0, half: 0, xRow: 0, yRow: 0, zCol: 0, Z: N, ...more } as Record<string, number>;
  return { kernel: linearGradInput, params: { ...p, M, N, K, X: p.xRow + M + 1, Y: p.yRow + M } };
}

function weightGrad(M: number, N: number, K: number, more: Partial<Record<string, number>> = {}): KernelCase {
  const p = { hasBias: 1, xRow: 0, yRow: 0, zCol: 0, Z: N, ...more } as Record<string, number>;
  const params = { ...p, M, N, K, X: p.xRow + M, Y: p.yRow + M };
  return { kernel: linearGradWeight, params, absent: p.hasBias ? [] : ["db"] };
}

/** Both parts: queries, then keys and values. */
function rotaryGrads(T: number, A: number, hd: number, row: number, M: number, S: number): KernelCase[] {
  const D = A * hd, params = { T, D, D3: 3 * D, hd, row, M, eps: 1e-6 };
  const dest = (p: Params) => Array.from({ length: p.T }, (_, t) => (t * 7 + 3) % p.S);
  return [
    { kernel: rotaryGrad, params: { ...params, S: T, part: 0 }, absent: ["dest", "dv"] },
    { kernel: rotaryGrad, params: { ...params, S, part: 1 }, inputs: { dest } },
  ];
}

/** Clips, frame-causal in frames of `n`, the second range empty for every third query; lse as attention gives it. */
function attentionGrads(T: number, A: number, hd: number, n: number, slope = 0, clips = 2): KernelCase[] {
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
  const scale = 1 / Math.sqrt(hd);
  const V = slope ? 5 * T + S : 4 * T;
  const params = { T, S, D, A, A2: 2 * A, V, hd, keys: S, scale, slope, hasSlope: slope ? 1 : 0 };
  return [attentionGradQuery, attentionGradKey].map((kernel) => ({
    kernel,
    params,
    inputs: { visible, stats },
  }));
}

/** Numbers of every size, and those at which rounding to f16 could go wrong: ties, subnormals, the ends. */
function halves(p: Params, random: () => number): number[] {
  const edges = [
    ...[0, -0, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -11 + 2 ** -20, 2048.5, 65504, 65519, 65520, 1e30],
    ...[2 ** -14, 2 ** -14 - 2 ** -26, 2 ** -14 - 2 ** -25, 2 ** -15 + 2 ** -25, 3 * 2 ** -25, 2 ** -24],
    ...[2 ** -25, 2 ** -25 * (1 + 2 ** -20), 2 ** -26, 1e-40, 2 ** -24 * 1023.5, 2 ** -24 * 1022.5],
  ].flatMap((x) => [x, -x]);
  return Array.from({ length: p.E }, (_, i) => {
    const x = (random() * 2 - 1) * 2 ** Math.floor(random() * 44 - 28);
    return i % 2 ? x : edges[Math.floor(random() * 2 * edges.length)] ?? x;
  });
}

/** Mostly within f16, so that the largest are not all beyond it. */
const within = (p: Params, random: () => number) =>
  Array.from({ length: p.E }, () => (random() * 2 - 1) * 2 ** Math.floor(random() * 30 - 20));

const nonNegative = (p: Params, random: () => number) => Array.from({ length: p.E }, () => random() * 0.01);

/** Cases of the kernels that only training uses. */
export const GRADIENT_CASES: readonly KernelCase[] = [
  inputGrad(1, 1, 1),
  inputGrad(7, 13, 5),
  inputGrad(66, 72, 130, { accumulate: 1, xRow: 2, yRow: 3, Z: 216, zCol: 72 }),
  inputGrad(130, 300, 136),
  inputGrad(33, 96, 64, { half: 1 }),
  inputGrad(1, 1, 1, { half: 1 }),
  inputGrad(7, 13, 5, { half: 1, accumulate: 1 }),
  inputGrad(66, 71, 85, { half: 1, xRow: 2, yRow: 3, Z: 216, zCol: 72 }), // odd rows: columns start inside a word
  inputGrad(200, 300, 136, { half: 1 }),
  inputGrad(400, 40, 100), // more rows and columns than one task has
  weightGrad(1, 1, 1),
  weightGrad(7, 13, 5, { hasBias: 0 }),
  weightGrad(66, 72, 130, { xRow: 2, yRow: 3, Z: 216, zCol: 72 }),
  weightGrad(300, 136, 100),
  weightGrad(600, 200, 210), // more than one task, and more tokens than one partial sum has
  ...[[1, 64], [37, 96], [20, 768], [5, 1152]].map(([T, D]): KernelCase => ({
    kernel: normModulateGrad,
    params: { T, D, R: 3, G: 3 * D, scaleCol: D, eps: 1e-6 },
    inputs: { rows },
  })),
  ...rotaryGrads(6, 2, 32, 0, 6, 9),
  ...rotaryGrads(40, 3, 64, 11, 25, 53),
  ...rotaryGrads(5, 1, 8, 1, 3, 11),
  { kernel: attentionStats, params: { T: 37, A: 3, A2: 6, hd: 32, D: 96 } },
  { kernel: attentionStats, params: { T: 5, A: 1, A2: 2, hd: 8, D: 8 } },
  ...attentionGrads(6, 1, 8, 2),
  ...attentionGrads(50, 2, 32, 7),
  ...attentionGrads(70, 3, 64, 16, 0.1),
  ...attentionGrads(20, 1, 128, 4),
  ...attentionGrads(220, 2, 64, 64, -0.05, 1), // several tiles and blocks, some of them seen whole
  ...[1, 2, 3].map((act): KernelCase => ({
    kernel: unaryGrad,
    params: { E: 1003, act },
    inputs: {
      x: (p, random) =>
        Array.from({ length: p.E }, (_, i) => i < 4 ? [-90, 90, -20, 0][i] : random() * 16 - 8),
    },
  })),
  { kernel: gateMul, params: { T: 9, D: 40, R: 3, G: 120, gateCol: 80, row: 0, M: 9 }, inputs: { rows } },
  { kernel: gateMul, params: { T: 70, D: 33, R: 2, G: 33, gateCol: 0, row: 5, M: 30 }, inputs: { rows } },
  { kernel: accumulate, params: { E: 1003, alpha: 0.25, beta: 0.75 } },
  { kernel: accumulate, params: { E: 5, alpha: 1, beta: 1 } },
  { kernel: accumulate, params: { E: 40001, alpha: 1, beta: 0.5 } },
  { kernel: fill, params: { E: 1003, value: -0.5 } },
  { kernel: fill, params: { E: 1, value: 0 } },
  { kernel: fill, params: { E: 40001, value: 2 } },
  { kernel: unaryGrad, params: { E: 40001, act: 2 } },
  { kernel: rowSum, params: { T: 9, D: 40, R: 3, G: 120, col: 80, row: 0, M: 9, hasB: 1 }, inputs: { rows } },
  {
    kernel: rowSum,
    params: { T: 300, D: 33, R: 4, G: 33, col: 0, row: 5, M: 290, hasB: 0 },
    absent: ["b"],
    inputs: { rows },
  },
  { kernel: columnSum, params: { T: 9, W: 40, D: 40, col: 0, row: 0, M: 9 } },
  { kernel: columnSum, params: { T: 300, W: 99, D: 70, col: 20, row: 7, M: 290 } },
  { kernel: frameLoss, params: { F: 5, P: 1000 } },
  { kernel: frameLoss, params: { F: 1, P: 7 } },
  { kernel: frameLoss, params: { F: 2, P: 9000 } },
  { kernel: frameLossGrad, params: { F: 5, P: 1000 } },
  { kernel: frameLossGrad, params: { F: 1, P: 7 } },
  { kernel: squareSum, params: { E: 3 * SQUARE_SUM_BLOCK - 5, N: 3 } },
  { kernel: squareSum, params: { E: 7, N: 1 } },
  ...[[1, 0], [2, 1], [1003, 0], [HALF_BLOCK, 2], [2 * HALF_BLOCK + 5, 1], [10 * HALF_BLOCK, 3]].flatMap(
    ([E, at]): KernelCase[] => {
      const params = { E, at, L: at + Math.ceil(E / HALF_BLOCK) + 1 };
      return [halves, within].map((x) => ({ kernel: toHalf, params, inputs: { x } }));
    },
  ),
  ...[[1003, 0], [1003, 0.1], [40001, 0.01]].map(([E, decay]): KernelCase => ({
    kernel: adamw,
    params: {
      E,
      lr: 1e-2,
      beta1: 0.9,
      rest1: 0.1,
      beta2: 0.999,
      rest2: 0.001,
      eps: 1e-8,
      decay,
      bias1: 0.19,
      bias2: 0.001999,
      scale: 0.5,
    },
    inputs: { v: nonNegative },
  })),
  {
    // Only 1 - β2 decides v here: an f32 1 - 0.999 would show.
    kernel: adamw,
    params: {
      ...{ E: 1003, lr: 1e-2, beta1: 0.9, rest1: 0.1, beta2: 0.999, rest2: 0.001 },
      ...{ eps: 1e-8, decay: 0, bias1: 0.1, bias2: 0.001, scale: 1 },
    },
    inputs: {
      gradient: (p, random) => Array.from({ length: p.E }, () => random() * 2000 - 1000),
      v: (p) => new Float32Array(p.E),
    },
  },
];
