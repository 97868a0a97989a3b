/**
 * Every kernel by name: what `doctor` checks and the tests go through.
 *
 * @module
 */
import { adamw } from "./adamw.ts";
import { attention, attentionGradKey, attentionGradQuery, attentionStats } from "./attention.ts";
import { conv2d, depthwiseConv2d } from "./conv2d.ts";
import { stridedCopy } from "./copy.ts";
import {
  accumulate,
  binary,
  embed,
  fill,
  gateAdd,
  gateMul,
  glu,
  groupMean,
  unary,
  unaryGrad,
} from "./elementwise.ts";
import { groupedLinear, linear, linearGradInput, linearGradWeight, linearQkv } from "./linear.ts";
import { batchNorm, normModulate, normModulateGrad, rmsNorm } from "./norm.ts";
import { columnSum, frameLoss, frameLossGrad, rowSum, squareSum } from "./reduce.ts";
import { reluAttention } from "./relu_attention.ts";
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
];
