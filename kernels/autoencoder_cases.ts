/**
 * Sizes at which the kernels that train the autoencoder are checked.
 *
 * @module
 */
import { ACTIVATIONS } from "./activation.ts";
import type { KernelCase } from "./check.ts";
import { conv2dGradInput, conv2dGradWeight } from "./conv2d.ts";
import { depthwiseConv2dGradInput, depthwiseConv2dGradWeight } from "./conv2d.ts";
import { stridedCopyGrad } from "./copy.ts";
import { gluGrad, groupMeanGrad, unary, unaryGrad } from "./elementwise.ts";
import { groupedLinearGradInput, groupedLinearGradWeight } from "./linear.ts";
import { batchNormGrad, batchNormSums, batchStats, rmsNormGrad } from "./norm.ts";
import { maxPool2d, maxPool2dGrad } from "./pool.ts";
import { absLoss, absLossGrad } from "./reduce.ts";
import { reluAttentionGrad } from "./relu_attention.ts";
import type { Params } from "./spec.ts";

/** Output length of a window of K over `length` pixels. */
const windows = (length: number, K: number, stride: number, pad: number) =>
  Math.floor((length + 2 * pad - K) / stride) + 1;

function convGrads(
  [B, H, W, I, O]: readonly [number, number, number, number, number],
  KH: number,
  more: { KW?: number; stride?: number; pad?: number; accumulate?: number; hasBias?: number; half?: number } =
    {},
): KernelCase[] {
  const { KW = KH, stride = 1, pad = (KH - 1) / 2, accumulate = 0, hasBias = 1, half = 0 } = more;
  const OH = windows(H, KH, stride, pad), OW = windows(W, KW, stride, pad);
  const params = { B, H, W, I, O, KH, KW, OH, OW, stride, pad, accumulate, hasBias, half };
  return [
    { kernel: conv2dGradInput, params },
    { kernel: conv2dGradWeight, params, absent: hasBias ? [] : ["db"] },
  ];
}

function depthwiseGrads(
  B: number,
  H: number,
  W: number,
  C: number,
  K: number,
  hasBias: number,
): KernelCase[] {
  const params = { B, H, W, C, K, hasBias };
  return [
    { kernel: depthwiseConv2dGradInput, params },
    { kernel: depthwiseConv2dGradWeight, params, absent: hasBias ? [] : ["db"] },
  ];
}

function groupedGrads(P: number, GI: number, GO: number, I: number, hasBias: number): KernelCase[] {
  const params = { P, GI, GO, I, hasBias };
  return [
    { kernel: groupedLinearGradInput, params },
    { kernel: groupedLinearGradWeight, params, absent: hasBias ? [] : ["db"] },
  ];
}

const spread = (width: number, offset = 0) => (p: Params, random: () => number) =>
  Array.from({ length: p.P * p.C }, () => (random() * 2 - 1) * width + offset);

/** Some channels hardly vary: an eps of another size would show. */
const variance = (p: Params, random: () => number) =>
  Array.from({ length: p.C }, (_, i) => i < 2 ? 1e-6 : random() + 0.1);

/** Pixels of few values, so that windows have ties. */
const coarse = (p: Params, random: () => number) =>
  Array.from({ length: p.B * p.H * p.W * p.C }, () => Math.floor(random() * 5) - 2.5);

function pools(
  B: number,
  H: number,
  W: number,
  C: number,
  K: number,
  stride: number,
  pad: number,
): KernelCase[] {
  const OH = windows(H, K, stride, pad), OW = windows(W, K, stride, pad);
  const params = { B, H, W, C, OH, OW, K, stride, pad };
  return [maxPool2d, maxPool2dGrad].map((kernel) => ({ kernel, params, inputs: { x: coarse } }));
}

/** Parameters of a strided copy: sizes, input strides and output strides of six axes. */
function copyParams(
  X: number,
  Y: number,
  xAt: number,
  yAt: number,
  n: number[],
  xs: number[],
  ys: number[],
): Params {
  const axes = [0, 1, 2, 3, 4, 5];
  return Object.fromEntries([
    ["X", X],
    ["Y", Y],
    ["xAt", xAt],
    ["yAt", yAt],
    ...axes.flatMap((a) => [[`n${a}`, n[a]], [`xs${a}`, xs[a]], [`ys${a}`, ys[a]]]),
  ]);
}

/** Cases of the kernels that only the autoencoder's training uses. */
export const AUTOENCODER_GRADIENT_CASES: readonly KernelCase[] = [
  ...convGrads([1, 1, 1, 1, 1], 1),
  ...convGrads([2, 5, 7, 3, 10], 3, { accumulate: 1 }),
  ...convGrads([1, 8, 8, 32, 48], 3, { hasBias: 0 }),
  ...convGrads([1, 9, 8, 20, 100], 3),
  ...convGrads([2, 9, 11, 6, 5], 4, { stride: 2, pad: 1 }),
  ...convGrads([1, 8, 8, 5, 16], 4, { stride: 2, pad: 1, accumulate: 1 }),
  ...convGrads([1, 23, 23, 3, 9], 11, { stride: 4, pad: 2 }),
  ...convGrads([1, 6, 7, 12, 16], 5),
  ...convGrads([1, 5, 6, 7, 9], 2, { KW: 3, pad: 0 }),
  ...convGrads([3, 16, 16, 4, 8], 3), // 768 pixels: more than one block of a long sum
  ...convGrads([1, 15, 14, 60, 24], 3), // more pixels and channels than one task of dx has
  ...convGrads([1, 4, 5, 24, 200], 3), // more rows and columns than one task of dw has
  ...convGrads([1, 1, 1, 1, 1], 1, { half: 1 }),
  ...convGrads([2, 5, 7, 3, 10], 3, { half: 1, accumulate: 1 }),
  ...convGrads([1, 8, 8, 5, 16], 4, { half: 1, stride: 2, pad: 1 }),
  ...convGrads([1, 15, 14, 60, 24], 3, { half: 1 }),
  ...depthwiseGrads(2, 5, 6, 24, 3, 1),
  ...depthwiseGrads(1, 8, 8, 38, 5, 0),
  ...depthwiseGrads(2, 2, 1, 3, 5, 1), // taps that no pixel of the image meets
  ...groupedGrads(18, 24, 24, 8, 0),
  ...groupedGrads(35, 20, 10, 4, 1),
  ...groupedGrads(70, 6, 9, 2, 1),
  ...[[9, 16, 1], [33, 42, 1], [5, 512, 4], [4, 64, 1e-3]].map(([P, C, width]): KernelCase => ({
    kernel: rmsNormGrad,
    params: { P, C, eps: 1e-5 },
    inputs: { x: spread(width) },
  })),
  ...[[2, 16, 0], [21, 24, 0], [300, 70, 3]].map(([P, C, offset]): KernelCase => ({
    kernel: batchStats,
    params: { P, C, momentum: 0.1, hasRunning: 1 },
    inputs: { x: spread(1, offset) },
  })),
  {
    kernel: batchStats,
    params: { P: 5, C: 3, momentum: 0.1, hasRunning: 0 },
    absent: ["runningMean", "runningVariance"],
  },
  ...[[21, 24], [300, 70], [5, 3]].flatMap(([P, C]): KernelCase[] =>
    [batchNormSums, batchNormGrad].map((kernel) => ({
      kernel,
      params: { P, C, eps: 1e-5 },
      inputs: { variance },
    }))
  ),
  ...[[1, 4, 1, 8], [2, 16, 4, 8], [1, 70, 3, 32], [3, 5, 2, 32]].map(([B, P, G, hd]): KernelCase => ({
    kernel: reluAttentionGrad,
    params: { B, P, G, hd, C: G * hd, C3: 3 * G * hd, eps: 1e-15 },
  })),
  { kernel: gluGrad, params: { P: 19, C: 24, C2: 48 } },
  { kernel: gluGrad, params: { P: 2, C: 5, C2: 10 } },
  { kernel: groupMeanGrad, params: { P: 21, C: 32, O: 8 } },
  { kernel: groupMeanGrad, params: { P: 5, C: 12, O: 12 } },
  // Repeated channels with a pixel shuffle, a permutation with offsets, a sum of everything.
  {
    kernel: stridedCopyGrad,
    params: copyParams(72, 144, 0, 0, [2, 3, 3, 2, 2, 2], [36, 12, 2, 0, 0, 1], [72, 24, 4, 12, 2, 1]),
  },
  {
    kernel: stridedCopyGrad,
    params: copyParams(35, 70, 5, 3, [1, 1, 1, 3, 2, 5], [0, 0, 0, 10, 0, 1], [0, 0, 0, 20, 5, 1]),
  },
  {
    kernel: stridedCopyGrad,
    params: copyParams(40000, 40000, 0, 0, [1, 1, 1, 1, 200, 200], [0, 0, 0, 0, 1, 200], [
      0,
      0,
      0,
      0,
      200,
      1,
    ]),
  },
  {
    kernel: stridedCopyGrad,
    params: copyParams(3, 60, 1, 0, [1, 1, 1, 1, 3, 20], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 20, 1]),
  },
  ...pools(2, 8, 6, 20, 2, 2, 0),
  ...pools(1, 9, 11, 5, 3, 2, 0),
  ...pools(1, 7, 7, 16, 3, 2, 1),
  ...[unary, unaryGrad].map((kernel): KernelCase => ({
    kernel,
    params: { E: 1003, act: ACTIVATIONS.leakyRelu },
    inputs: {
      x: (p, random) => Array.from({ length: p.E }, (_, i) => i < 3 ? [-90, 90, 0][i] : random() * 16 - 8),
    },
  })),
  ...[[5, 1000], [1, 7], [2, 9000]].flatMap(([F, P]): KernelCase[] =>
    [absLoss, absLossGrad].map((kernel) => ({ kernel, params: { F, P } }))
  ),
];
