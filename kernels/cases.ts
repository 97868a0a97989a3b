/**
 * Sizes at which every kernel is checked: the smallest, odd edges, and one that fills several tiles.
 *
 * @module
 */
import { AUTOENCODER_GRADIENT_CASES } from "./autoencoder_cases.ts";
import { attention } from "./attention.ts";
import { conv2d, depthwiseConv2d } from "./conv2d.ts";
import { stridedCopy } from "./copy.ts";
import { binary, embed, gateAdd, glu, groupMean, unary } from "./elementwise.ts";
import { groupedLinear, linear, linearQkv } from "./linear.ts";
import { batchNorm, normModulate, rmsNorm } from "./norm.ts";
import { reluAttention } from "./relu_attention.ts";
import { rotary } from "./rotary.ts";
import type { Params } from "./spec.ts";
import type { KernelCase } from "./check.ts";
import { GRADIENT_CASES } from "./gradient_cases.ts";

const rowsOf = (count: string) => (p: Params, random: () => number) =>
  Array.from({ length: p[count] }, () => Math.floor(random() * p.R));

function linearCase(M: number, N: number, K: number, more: Partial<Record<string, number>> = {}): KernelCase {
  const xRow = more.xRow ?? 0, yRow = more.yRow ?? 0;
  const p = {
    act: 0,
    hasBias: 1,
    hasGate: 0,
    hasResidual: 0,
    half: 0,
    gateCol: 0,
    G: 1,
    R: 1,
    ...more,
    xRow,
    yRow,
  };
  const absent = [
    ...(p.hasBias ? [] : ["bias"]),
    ...(p.hasGate ? [] : ["modulation", "rows"]),
    ...(p.hasResidual ? [] : ["residual"]),
  ];
  const params = { ...p, M, N, K, X: xRow + M, Y: yRow + M } as Record<string, number>;
  return { kernel: linear, params, absent, inputs: { rows: rowsOf("Y") } };
}

function qkvCase(M: number, N: number, K: number, hasBias: number, half = 0): KernelCase {
  const params = { M, N, K, N3: 3 * N, hasBias, half, xRow: 1, yRow: 2, X: M + 1, Y: M + 3 };
  return { kernel: linearQkv, params, absent: hasBias ? [] : ["bq", "bk", "bv"] };
}

function normCase(T: number, D: number, spread = 1): KernelCase {
  const params = { T, D, R: 3, G: 6 * D, shiftCol: 2 * D, scaleCol: D, eps: 1e-6 };
  const x = (p: Params, random: () => number) =>
    Array.from({ length: p.T * p.D }, () => (random() * 2 - 1) * spread + 0.3 * spread);
  return { kernel: normModulate, params, inputs: { rows: rowsOf("T"), x } };
}

function rmsCase(
  P: number,
  C: number,
  act: number,
  hasBias: number,
  hasResidual: number,
  spread = 1,
): KernelCase {
  const absent = [...(hasBias ? [] : ["bias"]), ...(hasResidual ? [] : ["residual"])];
  const x = (p: Params, random: () => number) =>
    Array.from({ length: p.P * p.C }, () => (random() * 2 - 1) * spread);
  return { kernel: rmsNorm, params: { P, C, act, hasBias, hasResidual, eps: 1e-5 }, absent, inputs: { x } };
}

function rotaryCase(T: number, A: number, hd: number, row: number, M: number, S: number): KernelCase {
  const D = A * hd;
  const dest = (p: Params) => Array.from({ length: p.T }, (_, t) => (t * 7 + 3) % p.S); // distinct while S is prime to 7
  const params = { T, D, D3: 3 * D, hd, row, M, S, eps: 1e-6 };
  return { kernel: rotary, params, inputs: { dest } };
}

/** Frames of `n` tokens, frame-causal; `second` puts the last keys in a second range behind a gap. */
function attentionCase(
  T: number,
  A: number,
  hd: number,
  S: number,
  more: { slope?: number; second?: number; lse?: number; spread?: number } = {},
): KernelCase {
  const second = more.second ?? 0, spread = more.spread ?? 2;
  const ranges = (p: Params) =>
    Array.from({ length: p.T }, (_, t) => {
      const seen = Math.max(1, Math.ceil((Math.floor(t / 5) + 1) / Math.ceil(p.T / 5) * (p.S - second)));
      return second === 0
        ? [0, seen, 0, 0]
        : t % 11 === 3
        ? [0, seen, 0, 0]
        : [0, Math.max(0, seen - 2), p.S - second, p.S - 1];
    }).flat();
  const frames = (count: number) => Array.from({ length: count }, (_, i) => Math.floor(i / 5));
  const visible = (p: Params) => [...ranges(p), ...frames(p.T), ...frames(p.S)];
  const wide = (count: string) => (p: Params, random: () => number) =>
    Array.from({ length: p[count] * p.D }, () => (random() * 2 - 1) * spread);
  return {
    kernel: attention,
    params: {
      T,
      A,
      hd,
      S,
      D: A * hd,
      V: more.slope ? 5 * T + S : 4 * T,
      keys: S,
      scale: 1 / Math.sqrt(hd),
      slope: more.slope ?? 0,
      hasSlope: more.slope ? 1 : 0,
      hasLse: more.lse ?? 0,
    },
    inputs: { visible, q: wide("T"), k: wide("S") },
    absent: more.lse ? [] : ["lse"],
  };
}

/** Clips of a batch side by side: tiles of queries whose key ranges do not touch. */
function clipsCase(clips: number, tokens: number): KernelCase {
  const test = attentionCase(clips * tokens, 2, 32, clips * tokens, { lse: 1 });
  const visible = (p: Params) =>
    Array.from({ length: p.T }, (_, t) => [t - t % tokens, t + 1, t - t % tokens, t - t % tokens]).flat();
  return { ...test, inputs: { ...test.inputs, visible } };
}

function convCase(
  [B, H, W, I, O]: readonly [number, number, number, number, number],
  K: number,
  more: { stride?: number; pad?: number; act?: number; hasBias?: number; half?: number } = {},
): KernelCase {
  const { stride = 1, pad = (K - 1) / 2, act = 0, hasBias = 1, half = 0 } = more;
  const OH = Math.floor((H + 2 * pad - K) / stride) + 1, OW = Math.floor((W + 2 * pad - K) / stride) + 1;
  const params = { B, H, W, I, O, KH: K, KW: K, OH, OW, stride, pad, act, hasBias, half };
  return { kernel: conv2d, params, absent: hasBias ? [] : ["bias"] };
}

function depthwiseCase(
  B: number,
  H: number,
  W: number,
  C: number,
  K: number,
  act: number,
  hasBias: number,
): KernelCase {
  return {
    kernel: depthwiseConv2d,
    params: { B, H, W, C, K, act, hasBias },
    absent: hasBias ? [] : ["bias"],
  };
}

/** Pixel unshuffle of [2, 4, 6, 3] by 2 and a gather with a repeated axis, as strided copies. */
const COPIES: KernelCase[] = [
  {
    kernel: stridedCopy,
    params: {
      X: 144,
      Y: 150,
      xAt: 0,
      yAt: 6,
      n0: 2,
      n1: 2,
      n2: 3,
      n3: 3,
      n4: 2,
      n5: 2,
      xs0: 72,
      xs1: 36,
      xs2: 6,
      xs3: 1,
      xs4: 18,
      xs5: 3,
      ys0: 72,
      ys1: 36,
      ys2: 12,
      ys3: 4,
      ys4: 2,
      ys5: 1,
    },
  },
  {
    kernel: stridedCopy,
    params: {
      X: 35,
      Y: 70,
      xAt: 5,
      yAt: 0,
      n0: 1,
      n1: 1,
      n2: 1,
      n3: 3,
      n4: 2,
      n5: 5,
      xs0: 0,
      xs1: 0,
      xs2: 0,
      xs3: 10,
      xs4: 0,
      xs5: 1,
      ys0: 0,
      ys1: 0,
      ys2: 0,
      ys3: 20,
      ys4: 5,
      ys5: 1,
    },
  },
  {
    kernel: stridedCopy,
    params: {
      X: 40000,
      Y: 40000,
      xAt: 0,
      yAt: 0,
      n0: 1,
      n1: 1,
      n2: 1,
      n3: 1,
      n4: 200,
      n5: 200,
      xs0: 0,
      xs1: 0,
      xs2: 0,
      xs3: 0,
      xs4: 1,
      xs5: 200,
      ys0: 0,
      ys1: 0,
      ys2: 0,
      ys3: 0,
      ys4: 200,
      ys5: 1,
    },
  },
];

/** Every case that both devices must pass. */
export const CASES: readonly KernelCase[] = [
  linearCase(1, 1, 1),
  linearCase(7, 13, 5, { hasBias: 0 }),
  linearCase(64, 96, 64, { act: 2 }),
  linearCase(66, 72, 130, { act: 1, xRow: 3, yRow: 5 }),
  linearCase(70, 40, 33, { hasGate: 1, hasResidual: 1, R: 4, G: 200, gateCol: 120, xRow: 2, yRow: 4 }),
  linearCase(130, 136, 300, { hasResidual: 1, act: 3 }),
  linearCase(33, 48, 768, { half: 1 }),
  linearCase(9, 21, 7, { half: 1, hasGate: 1, R: 2, G: 21 }),
  linearCase(16, 24, 3072),
  linearCase(5, 9, 4001), // sums so long that a loop in a loader would pass what a software adapter runs
  qkvCase(5, 8, 6, 1),
  qkvCase(67, 64, 96, 0),
  qkvCase(20, 72, 64, 1, 1),
  {
    kernel: groupedLinear,
    params: { P: 18, GI: 24, GO: 24, I: 8, hasBias: 0 },
    absent: ["bias"],
  },
  { kernel: groupedLinear, params: { P: 35, GI: 20, GO: 10, I: 4, hasBias: 1 } },
  normCase(1, 64),
  normCase(37, 96),
  normCase(20, 768, 4),
  normCase(5, 1152),
  normCase(3, 64, 1e-3), // variance about 3e-7: an eps of 1e-5 or 1e-8 would show
  rmsCase(9, 16, 0, 1, 1),
  rmsCase(33, 40, 3, 1, 0),
  rmsCase(5, 512, 1, 0, 1),
  rmsCase(4, 64, 0, 1, 0, 1e-3), // mean square 3e-7 below eps 1e-5
  ...[0, 3].map((act): KernelCase => ({
    kernel: batchNorm,
    params: { P: 21, C: 24, act, hasResidual: act ? 0 : 1, eps: 1e-5 },
    absent: act ? ["residual"] : [],
    inputs: { variance: (p, random) => Array.from({ length: p.C }, (_, i) => i < 2 ? 1e-6 : random() + 0.1) },
  })),
  rotaryCase(6, 2, 32, 0, 6, 9),
  rotaryCase(40, 3, 64, 11, 25, 53),
  rotaryCase(5, 1, 8, 1, 3, 11),
  attentionCase(5, 1, 8, 5),
  attentionCase(37, 2, 32, 50, { lse: 1 }),
  attentionCase(64, 3, 64, 200, { slope: 0.1 }),
  attentionCase(40, 2, 64, 97, { second: 20, slope: -0.2, lse: 1 }),
  attentionCase(18, 1, 128, 70, { second: 9 }),
  attentionCase(16, 1, 32, 40, { spread: 12 }), // scores of several hundred: the running maximum matters
  attentionCase(64, 12, 64, 300),
  clipsCase(3, 20),
  clipsCase(5, 7),
  ...[[1, 4, 1, 8], [2, 16, 4, 8], [1, 70, 3, 32], [3, 5, 2, 32]].map(([B, P, G, hd]): KernelCase => ({
    kernel: reluAttention,
    params: { B, P, G, hd, C: G * hd, C3: 3 * G * hd, eps: 1e-15 },
  })),
  convCase([1, 1, 1, 1, 1], 1),
  convCase([2, 5, 7, 3, 10], 3, { act: 1 }),
  convCase([1, 8, 8, 32, 48], 3, { hasBias: 0 }),
  convCase([1, 9, 8, 20, 70], 3, { act: 3 }),
  convCase([2, 9, 11, 6, 5], 4, { stride: 2, pad: 1 }),
  convCase([1, 23, 23, 3, 9], 11, { stride: 4, pad: 2, act: 3 }),
  convCase([1, 6, 6, 12, 16], 5),
  convCase([1, 8, 8, 16, 24], 3, { half: 1 }),
  convCase([1, 6, 6, 256, 40], 3),
  convCase([1, 3, 3, 1023, 9], 3), // long, as above
  convCase([1, 4, 4, 512, 40], 3), // 4608 products: VGG16 and the widest stages
  depthwiseCase(2, 5, 6, 24, 3, 0, 1),
  depthwiseCase(1, 8, 8, 30, 5, 1, 0),
  ...COPIES,
  ...[0, 1, 2, 3].map((act): KernelCase => ({
    kernel: unary,
    params: { E: 1003, act },
    inputs: {
      x: (p, random) =>
        Array.from({ length: p.E }, (_, i) => i < 4 ? [-90, 90, -20, 0][i] : random() * 16 - 8),
    },
  })),
  ...[0, 1, 2].map((op): KernelCase => ({ kernel: binary, params: { E: 517, op, alpha: 1.5, beta: -0.75 } })),
  { kernel: glu, params: { P: 19, C: 24, C2: 48 } },
  { kernel: glu, params: { P: 2, C: 5, C2: 10 } },
  {
    kernel: embed,
    params: { R: 9, N: 5, D: 40, hasX: 0 },
    absent: ["x"],
    inputs: { index: (p, r) => Array.from({ length: p.R }, () => Math.floor(r() * p.N)) },
  },
  {
    kernel: embed,
    params: { R: 17, N: 4, D: 33, hasX: 1 },
    inputs: { index: (p, r) => Array.from({ length: p.R }, () => Math.floor(r() * p.N)) },
  },
  { kernel: groupMean, params: { P: 21, C: 32, O: 8, hasResidual: 1 } },
  { kernel: groupMean, params: { P: 5, C: 12, O: 12, hasResidual: 0 }, absent: ["residual"] },
  {
    kernel: gateAdd,
    params: { T: 9, D: 40, R: 3, G: 120, gateCol: 80, row: 0, M: 9 },
    inputs: { rows: rowsOf("T") },
  },
  {
    kernel: gateAdd,
    params: { T: 70, D: 33, R: 2, G: 33, gateCol: 0, row: 5, M: 30 },
    inputs: { rows: rowsOf("T") },
  },
  ...GRADIENT_CASES,
  ...AUTOENCODER_GRADIENT_CASES,
];
