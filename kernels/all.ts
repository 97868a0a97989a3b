/**
 * Every kernel by name: what `doctor` checks and the tests go through.
 *
 * @module
 */
import { attention } from "./attention.ts";
import { conv2d, depthwiseConv2d } from "./conv2d.ts";
import { stridedCopy } from "./copy.ts";
import { binary, embed, gateAdd, glu, groupMean, unary } from "./elementwise.ts";
import { groupedLinear, linear, linearQkv } from "./linear.ts";
import { batchNorm, normModulate, rmsNorm } from "./norm.ts";
import { reluAttention } from "./relu_attention.ts";
import { rotary } from "./rotary.ts";
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
];
