import { ACTIVATIONS } from "../kernels/activation.ts";
import {
  conv2d,
  conv2dGradInput,
  conv2dGradWeight,
  depthwiseConv2d,
  depthwiseConv2dGradInput,
  depthwiseConv2dGradWeight,
} from "../kernels/conv2d.ts";
import { stridedCopy, stridedCopyGrad } from "../kernels/copy.ts";
import { glu, gluGrad, groupMean, groupMeanGrad, unary, unaryGrad } from "../kernels/elementwise.ts";
import { groupedLinear, groupedLinearGradInput, groupedLinearGradWeight } from "../kernels/linear.ts";
import {
  batchNorm,
  batchNormGrad,
  batchNormSums,
  batchStats,
  rmsNorm,
  rmsNormGrad,
} from "../kernels/norm.ts";
import { maxPool2d, maxPool2dGrad } from "../kernels/pool.ts";
import { absLoss, absLossGrad, columnSum } from "../kernels/reduce.ts";
import { reluAttention, reluAttentionGrad } from "../kernels/relu_attention.ts";
import type { HostBuffers, Kernel } from "../kernels/spec.ts";
import { agree, run, values, zeros } from "./finite_differences.ts";

Deno.test("gradients of dense convolutions agree with finite differences, strides and padding included", () => {
  for (const [KH, KW, stride, pad, OH, OW] of [[3, 3, 1, 1, 5, 6], [4, 4, 2, 1, 2, 3], [2, 3, 3, 0, 2, 2]]) {
    const p = {
      B: 2,
      H: 5,
      W: 6,
      I: 2,
      O: 3,
      KH,
      KW,
      OH,
      OW,
      stride,
      pad,
      act: 0,
      hasBias: 1,
      accumulate: 0,
      half: 0,
    };
    const count = 2 * OH * OW * 3, weights = 6 * KH * KW;
    const io: HostBuffers = { x: values(120), w: values(weights), bias: values(3), y: zeros(count) };
    const dz = values(count);
    agree(conv2d, io, p, { y: dz }, "x", run(conv2dGradInput, { dz, w: io.w, dx: values(120) }, p).dx!);
    const { dw, db } = run(conv2dGradWeight, { dz, x: io.x, dw: zeros(weights), db: zeros(3) }, p);
    agree(conv2d, io, p, { y: dz }, "w", dw!);
    agree(conv2d, io, p, { y: dz }, "bias", db!);
  }
});

Deno.test("gradients of depthwise convolutions and grouped layers agree with finite differences", () => {
  const p = { B: 2, H: 4, W: 3, C: 3, K: 3, act: 0, hasBias: 1 };
  const io: HostBuffers = { x: values(72), w: values(27), bias: values(3), y: zeros(72) }, dz = values(72);
  const dx = run(depthwiseConv2dGradInput, { dz, w: io.w, dx: values(72) }, p).dx!;
  const d = run(depthwiseConv2dGradWeight, { dz, x: io.x, dw: zeros(27), db: zeros(3) }, p);
  agree(depthwiseConv2d, io, p, { y: dz }, "x", dx);
  agree(depthwiseConv2d, io, p, { y: dz }, "w", d.dw!);
  agree(depthwiseConv2d, io, p, { y: dz }, "bias", d.db!);

  const q = { P: 4, GI: 6, GO: 4, I: 3, hasBias: 1 };
  const g: HostBuffers = { x: values(24), w: values(12), bias: values(4), y: zeros(16) }, up = values(16);
  const weights = run(groupedLinearGradWeight, { dz: up, x: g.x, dw: zeros(12), db: zeros(4) }, q);
  agree(
    groupedLinear,
    g,
    q,
    { y: up },
    "x",
    run(groupedLinearGradInput, { dz: up, w: g.w, dx: values(24) }, q).dx!,
  );
  agree(groupedLinear, g, q, { y: up }, "w", weights.dw!);
  agree(groupedLinear, g, q, { y: up }, "bias", weights.db!);
});

Deno.test("gradients of the RMS norm agree with finite differences", () => {
  const p = { P: 4, C: 5, eps: 1e-2, act: 0, hasBias: 1, hasResidual: 0 };
  const io: HostBuffers = { x: values(20), weight: values(5), bias: values(5), residual: null, y: zeros(20) };
  const dy = values(20), { dx, dw } = run(rmsNormGrad, { ...io, dy, dx: zeros(20), dw: zeros(20) }, p);
  const sum = (a: HostBuffers[string]) =>
    run(columnSum, { a, y: zeros(5) }, { M: 4, row: 0, W: 5, D: 5, col: 0 }).y!;
  agree(rmsNorm, io, p, { y: dy }, "x", dx!);
  agree(rmsNorm, io, p, { y: dy }, "weight", sum(dw));
  agree(rmsNorm, io, p, { y: dy }, "bias", sum(dy));
});

/** Batch norm with the statistics of its own batch. */
const trainedBatchNorm = {
  ...batchNorm,
  name: "batchStats and batchNorm",
  reference: (io, p) => {
    batchStats.reference(io, p);
    batchNorm.reference(io, p);
  },
} satisfies Kernel;

Deno.test("gradients of batch norm agree with finite differences through the batch's statistics", () => {
  const p = { P: 6, C: 3, eps: 1e-2, momentum: 0.1, hasRunning: 0, act: 0, hasResidual: 0 };
  const io: HostBuffers = {
    ...{
      x: values(18),
      mean: zeros(3),
      variance: zeros(3),
      weight: values(3),
      bias: values(3),
      residual: null,
    },
    ...{ runningMean: null, runningVariance: null, y: zeros(18) },
  };
  const dy = values(18), stats = { ...io, ...run(batchStats, io, p), dy };
  const sums = run(batchNormSums, { ...stats, dweight: zeros(3), dbias: zeros(3) }, p);
  const { dx } = run(batchNormGrad, { ...stats, ...sums, dy, dx: zeros(18) }, p);
  agree(trainedBatchNorm, io, p, { y: dy }, "x", dx!);
  agree(trainedBatchNorm, io, p, { y: dy }, "weight", sums.dweight!);
  agree(trainedBatchNorm, io, p, { y: dy }, "bias", sums.dbias!);
});

Deno.test("the gradient of ReLU attention agrees with finite differences", () => {
  const p = { B: 2, P: 3, G: 2, hd: 4, eps: 1e-3 };
  const io: HostBuffers = { qkv: values(144), y: zeros(48) }, dy = values(48);
  agree(
    reluAttention,
    io,
    p,
    { y: dy },
    "qkv",
    run(reluAttentionGrad, { ...io, dy, dqkv: zeros(144) }, p).dqkv!,
  );
});

Deno.test("gradients of gated units, group means, repetition and leaky ReLU agree with finite differences", () => {
  const io: HostBuffers = { x: values(24, 3), y: zeros(12) }, dy = values(12), p = { P: 3, C: 4 };
  agree(glu, io, p, { y: dy }, "x", run(gluGrad, { x: io.x, dy, dx: zeros(24) }, p).dx!);
  const q = { P: 4, C: 6, O: 3, hasResidual: 0 },
    means: HostBuffers = { x: values(24), residual: null, y: zeros(12) };
  agree(groupMean, means, q, { y: dy }, "x", run(groupMeanGrad, { dy, dx: zeros(24) }, q).dx!);
  const act = { E: 24, act: ACTIVATIONS.leakyRelu }, up = values(24);
  const leaky: HostBuffers = { x: values(24), y: zeros(24) };
  agree(unary, leaky, act, { y: up }, "x", run(unaryGrad, { x: leaky.x, dy: up, dx: zeros(24) }, act).dx!);
  // Channels [2, 3] of two pixels, each twice, with pixels and channels changing places.
  const copy = {
    ...{ xAt: 1, yAt: 2, n0: 1, n1: 1, n2: 1, n3: 3, n4: 2, n5: 2 },
    ...{ xs0: 0, xs1: 0, xs2: 0, xs3: 1, xs4: 3, xs5: 0, ys0: 0, ys1: 0, ys2: 0, ys3: 4, ys4: 2, ys5: 1 },
  };
  const copied: HostBuffers = { x: values(8), y: zeros(15) }, back = values(15).fill(0, 0, 2).fill(0, 14);
  agree(
    stridedCopy,
    copied,
    copy,
    { y: back },
    "x",
    run(stridedCopyGrad, { dy: back, dx: zeros(8) }, copy).dx!,
  );
});

Deno.test("gradients of max-pooling and of the L1 loss agree with finite differences", () => {
  for (const [K, stride, pad, OH, OW] of [[2, 2, 0, 3, 2], [3, 2, 1, 3, 3], [3, 1, 0, 4, 3]]) {
    const p = { B: 2, H: 6, W: 5, C: 2, OH, OW, K, stride, pad }, count = 4 * OH * OW;
    const io: HostBuffers = { x: values(120), y: zeros(count) }, dy = values(count);
    agree(maxPool2d, io, p, { y: dy }, "x", run(maxPool2dGrad, { x: io.x, dy, dx: zeros(120) }, p).dx!);
  }
  const p = { F: 2, P: 5 }, dloss = values(2);
  const io: HostBuffers = { prediction: values(10), expected: values(10), weight: values(2), loss: zeros(2) };
  const { dprediction } = run(absLossGrad, { ...io, dloss, dprediction: zeros(10) }, p);
  agree(absLoss, io, p, { loss: dloss }, "prediction", dprediction!);
});
