/**
 * Every kernel of the toolkit: what doctor checks and the tests go through. Written by deno task build:wasm.
 *
 * @module
 */
import * as adamw from "./adamw.ts";
import * as attention from "./attention.ts";
import * as conv2d from "./conv2d.ts";
import * as copy from "./copy.ts";
import * as elementwise from "./elementwise.ts";
import * as half from "./half.ts";
import * as linear from "./linear.ts";
import * as norm from "./norm.ts";
import * as pool from "./pool.ts";
import * as reduce from "./reduce.ts";
import * as relu_attention from "./relu_attention.ts";
import * as rotary from "./rotary.ts";
import * as softmax from "./softmax.ts";
import { type Kernel, kernelsOf } from "./spec.ts";

/** All kernels, file by file. */
export const KERNELS: readonly Kernel[] = [
  ...kernelsOf(adamw),
  ...kernelsOf(attention),
  ...kernelsOf(conv2d),
  ...kernelsOf(copy),
  ...kernelsOf(elementwise),
  ...kernelsOf(half),
  ...kernelsOf(linear),
  ...kernelsOf(norm),
  ...kernelsOf(pool),
  ...kernelsOf(reduce),
  ...kernelsOf(relu_attention),
  ...kernelsOf(rotary),
  ...kernelsOf(softmax),
];
