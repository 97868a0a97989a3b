/**
 * Every kernel by name: what `doctor` checks and the tests go through.
 *
 * @module
 */
import { adamw } from "./adamw.ts";
import { attention, attentionGradKey, attentionGradQuery, attentionStats } from "./attention.ts";
import {
  conv2d,
  conv2dGradInput,
  conv2dGradWeight,
  depthwiseConv2d,
  depthwiseConv2dGradInput,
  depthwiseConv2dGradWeight,
} from "./conv2d.ts";
import { stridedCopy, stridedCopyGrad } from "./copy.ts";
import {
  accumulate,
  binary,
  embed,
  fill,
  gateAdd,
  gateMul,
  glu,
  gluGrad,
  groupMean,
  groupMeanGrad,
  unary,
  unaryGrad,
} from "./elementwise.ts";
import { toHalf } from "./half.ts";
import {
  groupedLinear,
  groupedLinearGradInput,
  groupedLinearGradWeight,
  linear,
  linearGradInput,
  linearGradWeight,
  linearQkv,
} from "./linear.ts";
import {
  batchNorm,
  batchNormGrad,
  batchNormSums,
  batchStats,
  normModulate,
  normModulateGrad,
  rmsNorm,
  rmsNormGrad,
} from "./norm.ts";
import { maxPool2d, maxPool2dGrad } from "./pool.ts";
import { absLoss, absLossGrad, columnSum, frameLoss, frameLossGrad, rowSum, squareSum } from "./reduce.ts";
import { reluAttention, reluAttentionGrad } from "./relu_attention.ts";
import { rotary, rotaryGrad } from "./rotary.ts";
import type { Kernel } from "./spec.ts";

/** All kernels of the toolkit. */
export const KERNELS: readonly Kernel[] = [
  linear,
  linearQkv,
  groupedLinear,
  normModulate,
  rmsNorm,
  batchNorm,
  rotary,
  attention,
  reluAttention,
  conv2d,
  depthwiseConv2d,
  stridedCopy,
  unary,
  binary,
  glu,
  embed,
  groupMean,
  gateAdd,
  linearGradInput,
  linearGradWeight,
  normModulateGrad,
  rotaryGrad,
  attentionStats,
  attentionGradQuery,
  attentionGradKey,
  unaryGrad,
  gateMul,
  accumulate,
  fill,
  rowSum,
  columnSum,
  frameLoss,
  frameLossGrad,
  squareSum,
  adamw,
  toHalf,
  conv2dGradInput,
  conv2dGradWeight,
  depthwiseConv2dGradInput,
  depthwiseConv2dGradWeight,
  groupedLinearGradInput,
  groupedLinearGradWeight,
  rmsNormGrad,
  batchStats,
  batchNormSums,
  batchNormGrad,
  reluAttentionGrad,
  gluGrad,
  groupMeanGrad,
  stridedCopyGrad,
  maxPool2d,
  maxPool2dGrad,
  absLoss,
  absLossGrad,
];
