/**
 * Operations on tensors. Each is one kernel launch; shapes are checked against the kernel's contract.
 *
 * Conventions: activations are assigned, parameter gradients accumulate; gradients are named `dX` and come in input
 * order. Optional `out` tensors are written in the named rows only.
 *
 * @module
 */
import { type Activation, ACTIVATIONS } from "../kernels/activation.ts";
import { attention as attentionKernel } from "../kernels/attention.ts";
import type { Device } from "../kernels/device.ts";
import * as elementwise from "../kernels/elementwise.ts";
import * as linears from "../kernels/linear.ts";
import { normModulate as normModulateKernel } from "../kernels/norm.ts";
import { frameLoss as frameLossKernel } from "../kernels/reduce.ts";
import { rotary as rotaryKernel } from "../kernels/rotary.ts";
import { flag, launch } from "./launch.ts";
import { activation } from "./ops_basic.ts";
import { recording } from "./tape.ts";
import { Tensor } from "./tensor.ts";

export { launch } from "./launch.ts";
export * from "./ops_algebra.ts";
export * from "./ops_basic.ts";
export * from "./ops_image.ts";

/** A column block of a modulation table `[R, G]` that multiplies an output row by row: row `rows[t]`, columns from `col`. */
export interface Gate {
  /** `[R, G]`. */
  readonly modulation: Tensor;
  /** `[T]` i32: the modulation row of each token. */
  readonly rows: Tensor;
  /** First column. */
  readonly col: number;
}

/** Fused operations of {@linkcode linear}, and its rows. */
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

/** adaLN (spec of the blocks): y = LN(x)·(1 + scale) + shift; x `[T, D]`, modulation `[R, G]`, rows `[T]`. */
export function normModulate(
  x: Tensor,
  modulation: Tensor,
  rows: Tensor,
  cols: { readonly shift: number; readonly scale: number },
  eps = 1e-6,
): Tensor {
  const params = { shiftCol: cols.shift, scaleCol: cols.scale, eps };
  return launch(normModulateKernel, { x, modulation, rows }, params).y;
}

/** Output and angles of {@linkcode rotary}. */
export interface RotaryTarget {
  /** `[T, hd]`: hd/2 cosines of each token's angles, then their sines. */
  readonly angles: Tensor;
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
  const { angles, dest, q, k, v } = target;
  launch(rotaryKernel, { qkv, wq, wk, angles, dest }, { row: rows.start, M: rows.count, eps }, { q, k, v });
}

/** Visible keys of each query of {@linkcode attention}: row ranges, never a matrix of scores. */
export interface Mask {
  /** `[T, 4]` two half-open ranges of key rows for each query, `[from, to, from, to]`; either may be empty. */
  readonly ranges: Int32Array;
  /** Rows S of the keys. */
  readonly keys: number;
  /** Mean number of visible keys of a query, for the FLOP count. */
  readonly visible: number;
  /** Temporal decay: slope · (key frame - query frame) is added to the scores. */
  readonly decay?: {
    /** Not 0. */
    readonly slope: number;
    /** `[T]` frame of each query. */
    readonly queryFrames: Int32Array;
    /** `[S]` frame of each key row. */
    readonly keyFrames: Int32Array;
  };
  /** The same on a device, from {@linkcode placeMask}. */
  readonly table?: Tensor;
}

/** A mask with its copy on a device. Attention uploads a mask without one at every call. */
export function placeMask(device: Device, mask: Mask): Mask {
  const { ranges, decay } = mask, T = ranges.length / 4;
  if (!decay) return { ...mask, table: Tensor.from(device, ranges) };
  const table = new Int32Array(5 * T + decay.keyFrames.length);
  table.set(ranges);
  table.set(decay.queryFrames, 4 * T);
  table.set(decay.keyFrames, 5 * T);
  return { ...mask, table: Tensor.from(device, table) };
}

/**
 * Streaming softmax attention: q `[T, D]`, k and v `[S, D]`, head width `hd`, scale 1/√hd; y `[T, D]`.
 *
 * @throws {RangeError} If the mask does not fit T and S.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, hd: number, mask: Mask): Tensor {
  const { ranges, keys, decay } = mask, T = q.shape[0], S = k.shape[0], A = q.shape[1] / hd;
  if (ranges.length !== 4 * T || keys !== S) {
    throw new RangeError(
      `attention: the mask is for ${ranges.length / 4} queries and ${keys} keys, expected ${T} and ${S}`,
    );
  }
  if (decay && (decay.queryFrames.length !== T || decay.keyFrames.length !== S)) {
    const { queryFrames, keyFrames } = decay;
    throw new RangeError(
      `attention: the mask's decay is for ${queryFrames.length} queries and ${keyFrames.length} keys, ` +
        `expected ${T} and ${S}`,
    );
  }
  const { table } = mask.table ? mask : placeMask(q.device, mask);
  const lse = recording() ? Tensor.empty(q.device, [T, A]) : null;
  return launch(
    attentionKernel,
    { q, k, v, visible: table },
    {
      A,
      hd,
      keys: mask.visible,
      scale: 1 / Math.sqrt(hd),
      slope: decay?.slope ?? 0,
      hasSlope: flag(decay),
      hasLse: flag(lse),
    },
    { lse },
  ).y;
}

/** (x or 0) + table[index]: table `[N, D]`, index `[R]` i32, y `[R, D]`. */
export function embed(table: Tensor, index: Tensor, x?: Tensor): Tensor {
  return launch(elementwise.embed, { table, index, x }, { hasX: flag(x) }).y;
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
  return launch(frameLossKernel, { prediction, expected: target, weight }, {}).loss;
}
