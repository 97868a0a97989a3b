/**
 * Operations on channels-last images: what the autoencoder and the networks that judge it are made of.
 *
 * @module
 */
import { type Activation, ACTIVATIONS } from "../kernels/activation.ts";
import { conv2d as convKernel, depthwiseConv2d as depthwiseKernel, windows } from "../kernels/conv2d.ts";
import * as elementwise from "../kernels/elementwise.ts";
import { groupedLinear as groupedKernel } from "../kernels/linear.ts";
import * as norms from "../kernels/norm.ts";
import { maxPool2d as maxPoolKernel } from "../kernels/pool.ts";
import { absLoss as absLossKernel } from "../kernels/reduce.ts";
import { reluAttention as reluAttentionKernel } from "../kernels/relu_attention.ts";
import { flag, launch } from "./launch.ts";
import { add } from "./ops_algebra.ts";
import { activation, copy } from "./ops_basic.ts";
import { recording } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

/** 1x1 convolution in groups: x `[P, GI]`, w `[GO, I]`, y `[P, GO]`. */
export function groupedLinear(x: Tensor, w: Tensor, bias?: Tensor | null): Tensor {
  return launch(groupedKernel, { x, w, bias }, { hasBias: flag(bias) }).y;
}

/** The activation and the residual in launches of their own, each with a gradient: training needs the values in between. */
function unfused(y: Tensor, act: Activation, residual?: Tensor): Tensor {
  const active = activation(y, act);
  return residual ? add(active, residual) : active;
}

/** Channel RMS norm: y = act(x / rms(x) · weight + bias) + residual; x `[P, C]`. */
export function rmsNorm(
  x: Tensor,
  weight: Tensor,
  options: {
    readonly bias?: Tensor;
    readonly act?: Activation;
    readonly residual?: Tensor;
    readonly eps?: number;
  } = {},
): Tensor {
  const { bias, act = "none", residual, eps = 1e-5 } = options;
  if (recording() && act !== "none") return unfused(rmsNorm(x, weight, { bias, eps }), act, residual);
  const params = { eps, act: ACTIVATIONS[act], hasBias: flag(bias), hasResidual: flag(residual) };
  return launch(norms.rmsNorm, { x, weight, bias, residual }, params).y;
}

/** Batch norm with given statistics `[C]`: y = act((x - mean) / √(variance + eps) · weight + bias) + residual. */
export function batchNorm(
  x: Tensor,
  statistics: {
    readonly mean: Tensor;
    readonly variance: Tensor;
    readonly weight: Tensor;
    readonly bias: Tensor;
  },
  options: { readonly act?: Activation; readonly residual?: Tensor; readonly eps?: number } = {},
): Tensor {
  const { act = "none", residual, eps = 1e-5 } = options;
  if (recording() && act !== "none") return unfused(batchNorm(x, statistics, { eps }), act, residual);
  const params = { eps, act: ACTIVATIONS[act], hasResidual: flag(residual) };
  return launch(norms.batchNorm, { x, ...statistics, residual }, params).y;
}

/** Batch-norm statistics of a batch. */
export interface BatchStatistics {
  /** `[C]` mean over pixels and images. */
  readonly mean: Tensor;
  /** `[C]` biased variance. */
  readonly variance: Tensor;
  /** `[C]` running mean after this batch. */
  readonly runningMean: Tensor;
  /** `[C]` running variance after this batch. */
  readonly runningVariance: Tensor;
}

/**
 * Statistics of a batch `[P, C]`, for {@linkcode batchNorm} in training. The running ones come back as new tensors:
 * running + momentum · (batch - running), with the unbiased variance, as in PyTorch.
 *
 * Under a gradient, `batchNorm` with these statistics and the same `x` differentiates through them.
 *
 * @throws {RangeError} If P is 1: a single value has no variance.
 */
export function batchStatistics(
  x: Tensor,
  running: { readonly mean: Tensor; readonly variance: Tensor },
  momentum = 0.1,
): BatchStatistics {
  if (x.shape[0] < 2) {
    throw new RangeError(`batchStatistics: found ${x.shape[0]} value per channel, expected at least 2`);
  }
  const runningMean = copy(running.mean), runningVariance = copy(running.variance);
  const { mean, variance } = launch(norms.batchStats, { x }, { momentum, hasRunning: 1 }, {
    runningMean,
    runningVariance,
  });
  return { mean, variance, runningMean, runningVariance };
}

/** DC-AE's ReLU linear attention: qkv `[B, P, 3·G·hd]` in G groups of [q | k | v]; y `[B, P, G·hd]`. */
export function reluAttention(qkv: Tensor, hd: number, eps = 1e-15): Tensor {
  const G = qkv.shape[2] / (3 * hd);
  return launch(reluAttentionKernel, { qkv }, { G, C: G * hd, hd, eps }).y;
}

/** Convolution of channels-last images: x `[B, H, W, I]`, w `[O, I, KH, KW]`, zero padding; y `[B, OH, OW, O]`. */
export function conv2d(
  x: Tensor,
  w: Tensor,
  options: {
    readonly bias?: Tensor | null;
    readonly act?: Activation;
    readonly stride?: number;
    readonly pad?: number;
  } = {},
): Tensor {
  const { bias, act = "none", stride = 1, pad = (w.shape[2] - 1) / 2 } = options;
  if (recording() && act !== "none") return unfused(conv2d(x, w, { bias, stride, pad }), act);
  return launch(convKernel, { x, w, bias }, {
    OH: windows(x.shape[1], w.shape[2], stride, pad),
    OW: windows(x.shape[2], w.shape[3], stride, pad),
    stride,
    pad,
    act: ACTIVATIONS[act],
    hasBias: flag(bias),
    half: flag(w.dtype === "f16"),
  }).y;
}

/** Depthwise convolution: x `[B, H, W, C]`, w `[C, 1, K, K]`, padding (K-1)/2; y `[B, H, W, C]`. */
export function depthwiseConv2d(
  x: Tensor,
  w: Tensor,
  options: { readonly bias?: Tensor | null; readonly act?: Activation } = {},
): Tensor {
  const { bias, act = "none" } = options;
  if (recording() && act !== "none") return unfused(depthwiseConv2d(x, w, { bias }), act);
  return launch(depthwiseKernel, { x, w, bias }, { act: ACTIVATIONS[act], hasBias: flag(bias) }).y;
}

/** a·silu(g) of `[P, 2C]` = [a | g]; y `[P, C]`. */
export function glu(x: Tensor): Tensor {
  return launch(elementwise.glu, { x }, { C: x.shape[1] / 2 }).y;
}

/**
 * Means of C/O consecutive channels, plus residual: x `[P, C]`, y `[P, O]`.
 *
 * @throws {RangeError} If O does not divide C.
 */
export function groupMean(x: Tensor, O: number, residual?: Tensor): Tensor {
  if (x.shape[1] % O !== 0) {
    throw new RangeError(`groupMean: O is ${O}, expected a divisor of ${x.shape[1]} channels`);
  }
  return launch(elementwise.groupMean, { x, residual }, { O, hasResidual: flag(residual) }).y;
}

/** Largest value of each window of K×K pixels, channels last: x `[B, H, W, C]`, y `[B, OH, OW, C]`; padding never wins. */
export function maxPool2d(x: Tensor, K: number, stride: number, pad = 0): Tensor {
  const OH = windows(x.shape[1], K, stride, pad), OW = windows(x.shape[2], K, stride, pad);
  return launch(maxPoolKernel, { x }, { OH, OW, K, stride, pad }).y;
}

/** weight[f] · mean of |prediction - target|: prediction and target `[F, P]`, weight `[F]`, loss `[F]`. */
export function absLoss(prediction: Tensor, target: Tensor, weight: Tensor): Tensor {
  return launch(absLossKernel, { prediction, expected: target, weight }, {}).loss;
}
