/**
 * Operations on tensors. Each is one kernel launch; shapes are checked against the kernel's contract.
 *
 * Conventions: activations are assigned, parameter gradients accumulate; gradients are named `dX` and come in input
 * order. Optional `out` tensors are written in the named rows only.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { type Activation, ACTIVATIONS } from "../kernels/activation.ts";
import { attention as attentionKernel } from "../kernels/attention.ts";
import { conv2d as convKernel, depthwiseConv2d as depthwiseKernel } from "../kernels/conv2d.ts";
import { COPY_AXES, stridedCopy } from "../kernels/copy.ts";
import * as elementwise from "../kernels/elementwise.ts";
import * as linears from "../kernels/linear.ts";
import * as norms from "../kernels/norm.ts";
import { frameLoss as frameLossKernel } from "../kernels/reduce.ts";
import { reluAttention as reluAttentionKernel } from "../kernels/relu_attention.ts";
import { rotary as rotaryKernel } from "../kernels/rotary.ts";
import { type Kernel, type Params, parseContract, solveShapes } from "../kernels/spec.ts";
import { recording } from "./tape.ts";
import { type Shape, sizeOf, Tensor } from "./tensor.ts";

type Inputs = Readonly<Record<string, Tensor | null | undefined>>;

/**
 * Launches a kernel: solves and checks its sizes, makes the outputs that are not given, records or runs it.
 *
 * @param params Sizes that no input shows, scalars and flags.
 * @param outs Outputs that already exist; `null` leaves an optional output out.
 * @throws {RangeError} If a shape or dtype breaks the contract: kernel, tensor, expected, found.
 */
export function launch(
  kernel: Kernel,
  inputs: Inputs,
  params: Params,
  outs: Inputs = {},
): Record<string, Tensor> {
  const tensors: Record<string, Tensor | null | undefined> = { ...inputs, ...outs };
  const sizes = solveShapes(kernel, tensors, params);
  const device = Object.values(inputs).find((t) => t)!.device;
  const result: Record<string, Tensor> = {};
  for (const [name, text] of Object.entries(kernel.outputs)) {
    const { letters, optional } = parseContract(text);
    if (tensors[name] === undefined && !optional) {
      const shape = letters.map((l) => /^\d+$/.test(l) ? Number(l) : sizes[l]);
      if (shape.some((s) => s === undefined)) {
        throw new RangeError(`${kernel.name}: the size of ${name} is not known`);
      }
      tensors[name] = Tensor.empty(device, shape);
    }
    if (tensors[name]) result[name] = tensors[name]!;
  }
  const names = [...Object.keys(kernel.inputs), ...Object.keys(kernel.outputs)];
  const buffers = names.map((n) => {
    const t = tensors[n];
    if (t && t.device !== device) throw new RangeError(`${kernel.name}: ${n} lies on another device`);
    return t ? t.storage : null;
  });
  device.run({ kernel, buffers, params: sizes });
  recording()?.record(kernel, tensors, sizes);
  return result;
}

const flag = (t: unknown): number => t ? 1 : 0;

/** A column block of a modulation table `[R, G]` that multiplies an output row by row: row `rows[t]`, columns from `col`. */
export interface Gate {
  /** `[R, G]`. */
  readonly modulation: Tensor;
  /** `[T]` i32: the modulation row of each token. */
  readonly rows: Tensor;
  /** First column. */
  readonly col: number;
}

/** What {@linkcode linear} fuses, and the rows it works on. */
export interface LinearOptions {
  /** `[N]`. */
  readonly bias?: Tensor | null;
  /** Default none. */
  readonly act?: Activation;
  /** Multiplies after the activation. */
  readonly gate?: Gate;
  /** Same shape as the output. */
  readonly residual?: Tensor;
  /** First row of `x` and of the output, and the number of rows; default all. */
  readonly rows?: { readonly x?: number; readonly y?: number; readonly count: number };
  /** Output to write into, `[Y, N]`. */
  readonly out?: Tensor;
}

/** y = residual + gate · act(x wᵀ + bias); x `[X, K]`, w `[N, K]` (f32 or f16), y `[Y, N]`. */
export function linear(x: Tensor, w: Tensor, options: LinearOptions = {}): Tensor {
  const { bias, act = "none", gate, residual, rows, out } = options;
  const M = rows?.count ?? x.shape[0], yRow = rows?.y ?? 0;
  if (recording() && (act !== "none" || gate || residual)) return unfused(x, w, options, M, yRow);
  return launch(
    linears.linear,
    { x, w, bias, modulation: gate?.modulation, rows: gate?.rows, residual },
    {
      M,
      xRow: rows?.x ?? 0,
      yRow,
      gateCol: gate?.col ?? 0,
      ...(gate ? {} : { G: 0 }),
      ...(out || residual ? {} : { Y: yRow + M }),
      act: ACTIVATIONS[act],
      hasBias: flag(bias),
      hasGate: flag(gate),
      hasResidual: flag(residual),
      half: flag(w.dtype === "f16"),
    },
    out ? { y: out } : {},
  ).y;
}

/** The same in separate launches, each with a gradient of its own: training needs the values in between. */
function unfused(x: Tensor, w: Tensor, options: LinearOptions, M: number, yRow: number): Tensor {
  const { bias, act = "none", gate, residual, rows, out } = options;
  const T = out?.shape[0] ?? residual?.shape[0] ?? yRow + M;
  let y = Tensor.empty(x.device, [T, w.shape[0]]);
  linear(x, w, { bias, rows: { x: rows?.x ?? 0, y: yRow, count: M }, out: y });
  if (act !== "none") y = activation(y, act);
  if (!gate && !residual) return y;
  if (!gate || !residual) {
    throw new RangeError("linear: under a gradient a gate and a residual come together");
  }
  const sum = out ?? Tensor.empty(x.device, y.shape);
  gateAdd(y, gate, residual, { start: yRow, count: M }, sum);
  return sum;
}

/** Query, key and value projections of the same rows: y `[Y, 3N]` = [x wqᵀ + bq | x wkᵀ + bk | x wvᵀ + bv]. */
export function linearQkv(
  x: Tensor,
  w: readonly [Tensor, Tensor, Tensor],
  b: readonly [Tensor, Tensor, Tensor] | null,
  rows?: { readonly start: number; readonly count: number },
  out?: Tensor,
): Tensor {
  const M = rows?.count ?? x.shape[0], N = w[0].shape[0];
  return launch(
    linears.linearQkv,
    { x, wq: w[0], wk: w[1], wv: w[2], bq: b?.[0], bk: b?.[1], bv: b?.[2] },
    {
      M,
      N3: 3 * N,
      xRow: rows?.start ?? 0,
      yRow: rows?.start ?? 0,
      ...(out ? {} : { Y: (rows?.start ?? 0) + M }),
      hasBias: flag(b),
      half: flag(w[0].dtype === "f16"),
    },
    out ? { y: out } : {},
  ).y;
}

/** 1x1 convolution in groups: x `[P, GI]`, w `[GO, I]`, y `[P, GO]`. */
export function groupedLinear(x: Tensor, w: Tensor, bias?: Tensor | null): Tensor {
  return launch(linears.groupedLinear, { x, w, bias }, { hasBias: flag(bias) }).y;
}

/** adaLN (spec of the blocks): y = LN(x)·(1 + scale) + shift; x `[T, D]`, modulation `[R, G]`, rows `[T]`. */
export function normModulate(
  x: Tensor,
  modulation: Tensor,
  rows: Tensor,
  cols: { readonly shift: number; readonly scale: number },
  eps = 1e-6,
): Tensor {
  const params = { shiftCol: cols.shift, scaleCol: cols.scale, eps };
  return launch(norms.normModulate, { x, modulation, rows }, params).y;
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
  const params = { eps, act: ACTIVATIONS[act], hasResidual: flag(residual) };
  return launch(norms.batchNorm, { x, ...statistics, residual }, params).y;
}

/** Where {@linkcode rotary} writes, and with which angles. */
export interface RotaryTarget {
  /** `[T, hd/2]` cosines and sines of each token's angles. */
  readonly cos: Tensor;
  /** See `cos`. */
  readonly sin: Tensor;
  /** `[T]` i32: the row of `k` and `v` that each token writes. */
  readonly dest: Tensor;
  /** `[T, D]` queries. */
  readonly q: Tensor;
  /** `[S, D]` keys and values. */
  readonly k: Tensor;
  /** See `k`. */
  readonly v: Tensor;
}

/** Per-head RMS norm and rotation of q and k for rows `start … start+count-1` of qkv `[T, 3D]`, placed as `target` says. */
export function rotary(
  qkv: Tensor,
  wq: Tensor,
  wk: Tensor,
  target: RotaryTarget,
  rows: { readonly start: number; readonly count: number },
  eps = 1e-6,
): void {
  const { cos, sin, dest, q, k, v } = target;
  launch(rotaryKernel, { qkv, wq, wk, cos, sin, dest }, { row: rows.start, M: rows.count, eps }, { q, k, v });
}

/** What each query of {@linkcode attention} sees. */
export interface Visibility {
  /** `[T, 4]` i32: two half-open row ranges of the keys for each query. */
  readonly ranges: Tensor;
  /** Mean number of visible keys, for the FLOP count. */
  readonly keys: number;
  /** Temporal decay added to the scores: slope · (key frame - query frame); frames `[T]` and `[S]` i32. */
  readonly decay?: { readonly slope: number; readonly queryFrames: Tensor; readonly keyFrames: Tensor };
}

/** Streaming softmax attention: q `[T, D]`, k and v `[S, D]`, head width `hd`, scale 1/√hd; y `[T, D]`. */
export function attention(q: Tensor, k: Tensor, v: Tensor, hd: number, visible: Visibility): Tensor {
  const { ranges, keys, decay } = visible, A = q.shape[1] / hd;
  const lse = recording() ? Tensor.empty(q.device, [q.shape[0], A]) : null;
  return launch(
    attentionKernel,
    { q, k, v, ranges, queryFrames: decay?.queryFrames, keyFrames: decay?.keyFrames },
    {
      A,
      hd,
      keys,
      scale: 1 / Math.sqrt(hd),
      slope: decay?.slope ?? 0,
      hasSlope: flag(decay),
      hasLse: flag(lse),
    },
    { lse },
  ).y;
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
  const size = (input: number, k: number) => Math.floor((input + 2 * pad - k) / stride) + 1;
  return launch(convKernel, { x, w, bias }, {
    OH: size(x.shape[1], w.shape[2]),
    OW: size(x.shape[2], w.shape[3]),
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
  return launch(depthwiseKernel, { x, w, bias }, { act: ACTIVATIONS[act], hasBias: flag(bias) }).y;
}

/** Index arithmetic of {@linkcode copyStrided}, in elements; at most six axes. */
export interface Strided {
  /** Number of indices along each axis. */
  readonly sizes: Shape;
  /** Stride of `x` for each axis. */
  readonly from: Shape;
  /** Stride of `y` for each axis. */
  readonly to: Shape;
  /** First element of `x`. */
  readonly fromAt?: number;
  /** First element of `y`. */
  readonly toAt?: number;
}

/** y[toAt + Σ i·to] = x[fromAt + Σ i·from] for all indices below `sizes`. A stride of 0 repeats. */
export function copyStrided(x: Tensor, y: Tensor, { sizes, from, to, fromAt = 0, toAt = 0 }: Strided): void {
  const lead = COPY_AXES - sizes.length;
  if (lead < 0) {
    throw new RangeError(`copyStrided: found ${sizes.length} axes, expected at most ${COPY_AXES}`);
  }
  const last = (at: number, strides: Shape) => sizes.reduce((sum, n, i) => sum + (n - 1) * strides[i], at);
  if (sizeOf(sizes) > 0 && (last(fromAt, from) >= x.size || last(toAt, to) >= y.size)) {
    throw new RangeError(
      `copyStrided: reaches element ${last(fromAt, from)} of ${x.size} and ${last(toAt, to)} of ${y.size}`,
    );
  }
  const params: Record<string, number> = { xAt: fromAt, yAt: toAt };
  for (let a = 0; a < COPY_AXES; a++) {
    params[`n${a}`] = a < lead ? 1 : sizes[a - lead];
    params[`xs${a}`] = a < lead ? 0 : from[a - lead];
    params[`ys${a}`] = a < lead ? 0 : to[a - lead];
  }
  launch(stridedCopy, { x: x.reshape([x.size]) }, params, { y: y.reshape([y.size]) });
}

/** Row-major strides of a shape. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** Axes in another order: `permute(x, [0, 2, 1])`. At most six axes. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const strides = stridesOf(x.shape);
  const shape = order.map((a) => x.shape[a]);
  const y = Tensor.empty(x.device, shape, x.dtype);
  copyStrided(x, y, { sizes: shape, from: order.map((a) => strides[a]), to: stridesOf(shape) });
  return y;
}

/** The part `start … start+count-1` of one axis. */
export function slice(x: Tensor, axis: number, start: number, count: number): Tensor {
  const outer = sizeOf(x.shape.slice(0, axis)), inner = sizeOf(x.shape.slice(axis + 1)), n = x.shape[axis];
  if (start < 0 || start + count > n) {
    throw new RangeError(
      `slice: found ${start} to ${start + count}, expected within axis ${axis} of size ${n}`,
    );
  }
  const y = Tensor.empty(x.device, x.shape.with(axis, count), x.dtype);
  const sizes = [outer, count * inner];
  copyStrided(x, y, { sizes, from: [n * inner, 1], to: [count * inner, 1], fromAt: start * inner });
  return y;
}

/** Joins tensors along one axis. */
export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const total = parts.reduce((n, t) => n + t.shape[axis], 0);
  const outer = sizeOf(parts[0].shape.slice(0, axis)), inner = sizeOf(parts[0].shape.slice(axis + 1));
  const y = Tensor.empty(parts[0].device, parts[0].shape.with(axis, total), parts[0].dtype);
  let at = 0;
  for (const t of parts) {
    const n = t.shape[axis];
    copyStrided(t, y, {
      sizes: [outer, n * inner],
      from: [n * inner, 1],
      to: [total * inner, 1],
      toAt: at * inner,
    });
    at += n;
  }
  return y;
}

const flat = (t: Tensor) => t.reshape([t.size]);

function binary(a: Tensor, b: Tensor, op: number, alpha: number, beta: number): Tensor {
  if (a.size !== b.size) {
    throw new RangeError(`binary: found [${a.shape}] and [${b.shape}], expected one size`);
  }
  return launch(elementwise.binary, { a: flat(a), b: flat(b) }, { op, alpha, beta }).y.reshape(a.shape);
}

/** alpha·a + beta·b, elementwise. */
export const axpby = (a: Tensor, b: Tensor, alpha: number, beta: number): Tensor =>
  binary(a, b, elementwise.BINARY.axpby, alpha, beta);

/** a + b. */
export const add = (a: Tensor, b: Tensor): Tensor => axpby(a, b, 1, 1);

/** a + weight·(b - a): classifier-free guidance with a the unconditional and b the conditional velocity. */
export const lerp = (a: Tensor, b: Tensor, weight: number): Tensor =>
  binary(a, b, elementwise.BINARY.lerp, weight, 0);

/** alpha·a·b. */
export const mul = (a: Tensor, b: Tensor, alpha = 1): Tensor =>
  binary(a, b, elementwise.BINARY.mul, alpha, 0);

/** An activation on its own. */
export function activation(x: Tensor, act: Activation): Tensor {
  return launch(elementwise.unary, { x: flat(x) }, { act: ACTIVATIONS[act] }).y.reshape(x.shape);
}

/** a·silu(g) of `[P, 2C]` = [a | g]; y `[P, C]`. */
export function glu(x: Tensor): Tensor {
  return launch(elementwise.glu, { x }, { C: x.shape[1] / 2 }).y;
}

/** (x or 0) + table[index]: table `[N, D]`, index `[R]` i32, y `[R, D]`. */
export function embed(table: Tensor, index: Tensor, x?: Tensor): Tensor {
  return launch(elementwise.embed, { table, index, x }, { hasX: flag(x) }).y;
}

/** Means of C/O consecutive channels, plus residual: x `[P, C]`, y `[P, O]`. */
export function groupMean(x: Tensor, O: number, residual?: Tensor): Tensor {
  return launch(elementwise.groupMean, { x, residual }, { O, hasResidual: flag(residual) }).y;
}

/** residual + gate·x on rows `start … start+count-1`, written into `out` `[T, D]`. */
export function gateAdd(
  x: Tensor,
  gate: Gate,
  residual: Tensor,
  rows: { readonly start: number; readonly count: number },
  out: Tensor,
): void {
  launch(
    elementwise.gateAdd,
    { x, modulation: gate.modulation, rows: gate.rows, residual },
    { row: rows.start, M: rows.count, gateCol: gate.col },
    { y: out },
  );
}

/** weight[f] · mean over a frame of (prediction - target)²: prediction and target `[F, P]`, weight `[F]`, loss `[F]`. */
export function frameLoss(prediction: Tensor, target: Tensor, weight: Tensor): Tensor {
  return launch(frameLossKernel, { prediction, target, weight }, {}).loss;
}

/** In place: y ← beta·y + alpha·x. */
export function accumulate(y: Tensor, x: Tensor, alpha = 1, beta = 1): void {
  launch(elementwise.accumulate, { x: flat(x) }, { alpha, beta }, { y: flat(y) });
}

/** A tensor full of one value. */
export function full(device: Device, shape: Shape, value: number): Tensor {
  const y = Tensor.empty(device, shape);
  device.run({ kernel: elementwise.fill, buffers: [y.storage], params: { E: y.size, value } });
  return y;
}
