// Reductions of training on the cpu device (contracts and references: reduce.ts). Long sums run in blocks or in 16
// interleaved parts, always the same ones, so that their error stays near 1e-7.

import { AbsLoss, AbsLossGrad, ColumnSum, FrameLoss, FrameLossGrad, RowSum, SquareSum } from "./arguments";
import { lanes, madd } from "./cpu/simd.wasm";

/** Columns that one pass of {@link addRows} keeps in registers. */
const COLUMNS: i32 = 16;
/** Rows whose sum is taken apart before it joins the total. */
const ROWS: i32 = 64;
/** Columns of one task of columnSum. */
const TASK_COLUMNS: i32 = 64;
/** Elements of one partial sum of squareSum. */
const SQUARES: i32 = 4096;

export function rowSum(args: RowSum, task: i32, scratch: usize): void {
  const a = args.a, b = args.b, rows = args.rows;
  const M = args.M, row = args.row, D = args.D;
  const G = args.G, col = args.col, hasB = args.hasB;
  const y = args.y + (<usize>(task * G + col) << 2);
  const bytes = <usize>D << 2, whole = bytes & ~15;
  // Partial sums of up to 64 tokens stand in scratch.
  let pending = 0;
  memory.fill(scratch, 0, bytes);
  for (let t = row; t < row + M; t++) {
    if (load<i32>(rows + (<usize>t << 2)) != task) continue;
    const from = a + <usize>t * bytes, other = b + <usize>t * bytes;
    let i: usize = 0;
    for (; i < whole; i += 16) {
      const sum = v128.load(scratch + i), x = v128.load(from + i);
      v128.store(scratch + i, hasB ? madd(x, v128.load(other + i), sum) : f32x4.add(x, sum));
    }
    for (; i < bytes; i += 4) {
      const x = load<f32>(from + i);
      store<f32>(scratch + i, load<f32>(scratch + i) + (hasB ? x * load<f32>(other + i) : x));
    }
    if (++pending == ROWS) {
      addTo(y, scratch, bytes);
      memory.fill(scratch, 0, bytes);
      pending = 0;
    }
  }
  if (pending) addTo(y, scratch, bytes);
}

function addTo(y: usize, x: usize, bytes: usize): void {
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(y + i, f32x4.add(v128.load(y + i), v128.load(x + i)));
  for (; i < bytes; i += 4) store<f32>(y + i, load<f32>(y + i) + load<f32>(x + i));
}

export function columnSum(args: ColumnSum, task: i32, scratch: usize): void {
  const M = args.M, row = args.row, W = args.W, D = args.D;
  const col = args.col;
  const c0 = task * TASK_COLUMNS, c1 = min(D, c0 + TASK_COLUMNS);
  const a = args.a + (<usize>(row * W + col) << 2), y = args.y;
  const stride = <usize>W << 2;
  let c = c0;
  for (; c + COLUMNS <= c1; c += COLUMNS) {
    const to = y + (<usize>c << 2);
    let t0 = v128.load(to), t1 = v128.load(to, 16), t2 = v128.load(to, 32), t3 = v128.load(to, 48);
    for (let r0 = 0; r0 < M; r0 += ROWS) {
      let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0;
      let from = a + <usize>r0 * stride + (<usize>c << 2);
      for (let r = min(M, r0 + ROWS) - r0; r > 0; r--) {
        s0 = f32x4.add(s0, v128.load(from));
        s1 = f32x4.add(s1, v128.load(from, 16));
        s2 = f32x4.add(s2, v128.load(from, 32));
        s3 = f32x4.add(s3, v128.load(from, 48));
        from += stride;
      }
      t0 = f32x4.add(t0, s0);
      t1 = f32x4.add(t1, s1);
      t2 = f32x4.add(t2, s2);
      t3 = f32x4.add(t3, s3);
    }
    v128.store(to, t0);
    v128.store(to, t1, 16);
    v128.store(to, t2, 32);
    v128.store(to, t3, 48);
  }
  for (; c < c1; c++) {
    const to = y + (<usize>c << 2);
    let total = load<f32>(to);
    for (let r0 = 0; r0 < M; r0 += ROWS) {
      let sum: f32 = 0.0;
      let from = a + <usize>r0 * stride + (<usize>c << 2);
      for (let r = min(M, r0 + ROWS) - r0; r > 0; r--) {
        sum += load<f32>(from);
        from += stride;
      }
      total += sum;
    }
    store<f32>(to, total);
  }
}

/** Sum of (a - b)² over `count` floats; b may be 0 for none. */
function squares(a: usize, b: usize, count: i32): f32 {
  let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0;
  let rest: f32 = 0.0;
  let i = count;
  for (; i >= 16; i -= 16) {
    let x0 = v128.load(a), x1 = v128.load(a, 16), x2 = v128.load(a, 32), x3 = v128.load(a, 48);
    if (b) {
      x0 = f32x4.sub(x0, v128.load(b));
      x1 = f32x4.sub(x1, v128.load(b, 16));
      x2 = f32x4.sub(x2, v128.load(b, 32));
      x3 = f32x4.sub(x3, v128.load(b, 48));
      b += 64;
    }
    s0 = madd(x0, x0, s0);
    s1 = madd(x1, x1, s1);
    s2 = madd(x2, x2, s2);
    s3 = madd(x3, x3, s3);
    a += 64;
  }
  for (; i > 0; i--) {
    let x = load<f32>(a);
    if (b) {
      x -= load<f32>(b);
      b += 4;
    }
    rest += x * x;
    a += 4;
  }
  return lanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3))) + rest;
}

export function frameLoss(args: FrameLoss, task: i32, scratch: usize): void {
  const P = args.P, first = <usize>(task * P) << 2, at = <usize>task << 2;
  // Blocks of 4096, added up in double precision.
  let sum: f64 = 0.0;
  for (let i = 0; i < P; i += SQUARES) {
    const from = first + (<usize>i << 2);
    sum += <f64>squares(args.prediction + from, args.expected + from, min(SQUARES, P - i));
  }
  const weight = <f64>load<f32>(args.weight + at);
  store<f32>(args.loss + at, <f32>(weight * sum / <f64>P));
}

export function frameLossGrad(args: FrameLossGrad, task: i32, scratch: usize): void {
  const P = args.P, first = <usize>(task * P) << 2, at = <usize>task << 2;
  const factor: f32 = <f32>2.0 * load<f32>(args.dloss + at) * load<f32>(args.weight + at) / <f32>P;
  const f = f32x4.splat(factor);
  const a = args.prediction, b = args.expected, d = args.dprediction;
  const end = first + (<usize>P << 2);
  let i = first;
  for (; i + 16 <= end; i += 16) {
    v128.store(d + i, f32x4.mul(f, f32x4.sub(v128.load(a + i), v128.load(b + i))));
  }
  for (; i < end; i += 4) store<f32>(d + i, factor * (load<f32>(a + i) - load<f32>(b + i)));
}

export function squareSum(args: SquareSum, task: i32, scratch: usize): void {
  const E = args.E, first = task * SQUARES;
  const x = args.x + (<usize>first << 2);
  store<f32>(args.y + (<usize>task << 2), squares(x, 0, min(SQUARES, E - first)));
}

export function absLoss(args: AbsLoss, task: i32, scratch: usize): void {
  const P = args.P, first = <usize>(task * P) << 2, at = <usize>task << 2;
  const a = args.prediction + first, b = args.expected + first;
  let sum: f64 = 0.0;
  for (let i0 = 0; i0 < P; i0 += SQUARES) {
    const end = <usize>min(P, i0 + SQUARES) << 2;
    let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0;
    let rest: f32 = 0.0;
    let i = <usize>i0 << 2;
    for (; i + 64 <= end; i += 64) {
      s0 = f32x4.add(s0, f32x4.abs(f32x4.sub(v128.load(a + i), v128.load(b + i))));
      s1 = f32x4.add(s1, f32x4.abs(f32x4.sub(v128.load(a + i, 16), v128.load(b + i, 16))));
      s2 = f32x4.add(s2, f32x4.abs(f32x4.sub(v128.load(a + i, 32), v128.load(b + i, 32))));
      s3 = f32x4.add(s3, f32x4.abs(f32x4.sub(v128.load(a + i, 48), v128.load(b + i, 48))));
    }
    for (; i < end; i += 4) rest += abs<f32>(load<f32>(a + i) - load<f32>(b + i));
    sum += <f64>(lanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3))) + rest);
  }
  const weight = <f64>load<f32>(args.weight + at);
  store<f32>(args.loss + at, <f32>(weight * sum / <f64>P));
}

export function absLossGrad(args: AbsLossGrad, task: i32, scratch: usize): void {
  const P = args.P, first = <usize>(task * P) << 2, at = <usize>task << 2;
  const factor: f32 = load<f32>(args.dloss + at) * load<f32>(args.weight + at) / <f32>P;
  const a = args.prediction, b = args.expected, d = args.dprediction;
  const f = f32x4.splat(factor), zero = f32x4.splat(0.0);
  const end = first + (<usize>P << 2);
  let i = first;
  for (; i + 16 <= end; i += 16) {
    const x = f32x4.sub(v128.load(a + i), v128.load(b + i));
    const up = v128.and(f32x4.gt(x, zero), f), down = v128.and(f32x4.lt(x, zero), f);
    v128.store(d + i, f32x4.sub(up, down));
  }
  for (; i < end; i += 4) {
    const x = load<f32>(a + i) - load<f32>(b + i);
    store<f32>(d + i, x > 0.0 ? factor : x < 0.0 ? -factor : <f32>0.0);
  }
}
