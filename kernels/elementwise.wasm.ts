// Elementwise kernels on the cpu device (contracts and references: elementwise.ts).

import { Accumulate, Binary, Embed, Fill, GateAdd, GateMul, Glu, GluGrad, GroupMean, GroupMeanGrad, Unary, UnaryGrad } from "./arguments";
import { activateRow, logistic2, madd, silu } from "./cpu/simd.wasm";

/** Elements, and rows, of one task. */
const ELEMENTS: i32 = 16384;
const ROWS: i32 = 16;

export function unary(args: Unary, task: i32, scratch: usize): void {
  const E = args.E, act = args.act;
  const first = <usize>(task * ELEMENTS) << 2, end = <usize>min(E, (task + 1) * ELEMENTS) << 2;
  activateRow(act, args.x + first, end - first, args.y + first);
}

@inline
function combine(op: u32, a: v128, b: v128, alpha: v128, beta: v128): v128 {
  if (op == 0) return madd(alpha, a, f32x4.mul(beta, b));
  if (op == 1) return madd(alpha, f32x4.sub(b, a), a);
  return f32x4.mul(alpha, f32x4.mul(a, b));
}

export function binary(args: Binary, task: i32, scratch: usize): void {
  const E = args.E, op = args.op;
  const alpha = f32x4.splat(args.alpha), beta = f32x4.splat(args.beta);
  const first = <usize>(task * ELEMENTS) << 2, end = <usize>min(E, (task + 1) * ELEMENTS) << 2;
  const a = args.a, b = args.b, y = args.y;
  let i = first;
  for (; i + 16 <= end; i += 16) {
    v128.store(y + i, combine(op, v128.load(a + i), v128.load(b + i), alpha, beta));
  }
  for (; i < end; i += 4) {
    const v = combine(op, v128.load_splat<f32>(a + i), v128.load_splat<f32>(b + i), alpha, beta);
    store<f32>(y + i, f32x4.extract_lane(v, 0));
  }
}

export function glu(args: Glu, task: i32, scratch: usize): void {
  const P = args.P, C = args.C;
  const bytes = <usize>C << 2, whole = bytes & ~15;
  const end = min(P, (task + 1) * ROWS);
  for (let p = task * ROWS; p < end; p++) {
    const a = args.x + <usize>p * 2 * bytes, g = a + bytes;
    const y = args.y + <usize>p * bytes;
    let i: usize = 0;
    for (; i < whole; i += 16) v128.store(y + i, f32x4.mul(v128.load(a + i), silu(v128.load(g + i))));
    for (; i < bytes; i += 4) {
      const v = f32x4.mul(v128.load_splat<f32>(a + i), silu(v128.load_splat<f32>(g + i)));
      store<f32>(y + i, f32x4.extract_lane(v, 0));
    }
  }
}

export function embed(args: Embed, task: i32, scratch: usize): void {
  const index = args.index, x = args.x;
  const R = args.R, D = args.D, hasX = args.hasX;
  const bytes = <usize>D << 2, whole = bytes & ~15;
  const end = min(R, (task + 1) * ROWS);
  for (let r = task * ROWS; r < end; r++) {
    const from = args.table + <usize>load<u32>(index + (<usize>r << 2)) * bytes;
    const first = <usize>r * bytes, y = args.y + first;
    if (!hasX) {
      memory.copy(y, from, bytes);
      continue;
    }
    let i: usize = 0;
    for (; i < whole; i += 16) v128.store(y + i, f32x4.add(v128.load(from + i), v128.load(x + first + i)));
    for (; i < bytes; i += 4) store<f32>(y + i, load<f32>(from + i) + load<f32>(x + first + i));
  }
}

export function groupMean(args: GroupMean, task: i32, scratch: usize): void {
  const x = args.x, residual = args.residual, y = args.y;
  const P = args.P, C = args.C, O = args.O, hasResidual = args.hasResidual;
  const r = C / O;
  const end = min(P, (task + 1) * ROWS) * O;
  let from = x + (<usize>(task * ROWS * C) << 2);
  for (let o = task * ROWS * O; o < end; o++) {
    let sum: f32 = 0.0;
    for (let j = 0; j < r; j++) {
      sum += load<f32>(from);
      from += 4;
    }
    const at = <usize>o << 2;
    store<f32>(y + at, sum / <f32>r + (hasResidual ? load<f32>(residual + at) : <f32>0.0));
  }
}

export function gateAdd(args: GateAdd, task: i32, scratch: usize): void {
  const x = args.x, modulation = args.modulation, rows = args.rows;
  const residual = args.residual, y = args.y;
  const M = args.M, row = args.row, D = args.D;
  const G = <usize>args.G, gateCol = <usize>args.gateCol;
  const bytes = <usize>D << 2, whole = bytes & ~15;
  const end = row + min(M, (task + 1) * ROWS);
  for (let t = row + task * ROWS; t < end; t++) {
    const gate = modulation + (<usize>load<u32>(rows + (<usize>t << 2)) * G + gateCol << 2);
    const first = <usize>t * bytes;
    let i: usize = 0;
    for (; i < whole; i += 16) {
      const at = first + i;
      v128.store(y + at, madd(v128.load(gate + i), v128.load(x + at), v128.load(residual + at)));
    }
    for (; i < bytes; i += 4) {
      const at = first + i;
      store<f32>(y + at, load<f32>(residual + at) + load<f32>(gate + i) * load<f32>(x + at));
    }
  }
}

/** The derivative of the activation with this code (kernels/activation.ts). */
@inline
function slope(code: u32, x: v128): v128 {
  const one = f32x4.splat(1.0), zero = f32x4.splat(0.0);
  if (code == 1) {
    const s = logistic2(f32x4.mul(x, f32x4.splat(-1.44269504)));
    return f32x4.mul(s, madd(x, f32x4.sub(one, s), one));
  }
  if (code == 2) {
    // x sigmoid(2u) with 2u = x (a + b x²), see gelu: s + x s (1 - s) (a + 3b x²).
    const square = f32x4.mul(x, x);
    const s = logistic2(f32x4.mul(x, madd(square, f32x4.splat(-0.102943240), f32x4.splat(-2.30220820))));
    const inner = madd(square, f32x4.splat(0.2140644489), f32x4.splat(1.5957691216));
    return madd(f32x4.mul(x, f32x4.mul(s, f32x4.sub(one, s))), inner, s);
  }
  if (code == 3) return v128.and(f32x4.gt(x, zero), one);
  if (code == 4) return v128.bitselect(one, f32x4.splat(0.2), f32x4.gt(x, zero));
  return one;
}

export function unaryGrad(args: UnaryGrad, task: i32, scratch: usize): void {
  const E = args.E, act = args.act;
  const first = <usize>(task * ELEMENTS) << 2, end = <usize>min(E, (task + 1) * ELEMENTS) << 2;
  const x = args.x, dy = args.dy, dx = args.dx;
  let i = first;
  if (act == 2) { // the transformer's: a loop of its own, without the choice in each step
    for (; i + 16 <= end; i += 16) v128.store(dx + i, f32x4.mul(v128.load(dy + i), slope(2, v128.load(x + i))));
  }
  for (; i + 16 <= end; i += 16) {
    v128.store(dx + i, f32x4.mul(v128.load(dy + i), slope(act, v128.load(x + i))));
  }
  for (; i < end; i += 4) {
    store<f32>(dx + i, load<f32>(dy + i) * f32x4.extract_lane(slope(act, v128.load_splat<f32>(x + i)), 0));
  }
}

export function gateMul(args: GateMul, task: i32, scratch: usize): void {
  const x = args.x, modulation = args.modulation, rows = args.rows;
  const y = args.y;
  const M = args.M, row = args.row, D = args.D;
  const G = <usize>args.G, gateCol = <usize>args.gateCol;
  const bytes = <usize>D << 2, whole = bytes & ~15;
  const end = row + min(M, (task + 1) * ROWS);
  for (let t = row + task * ROWS; t < end; t++) {
    const gate = modulation + (<usize>load<u32>(rows + (<usize>t << 2)) * G + gateCol << 2);
    const from = x + <usize>t * bytes, to = y + <usize>t * bytes;
    let i: usize = 0;
    for (; i < whole; i += 16) v128.store(to + i, f32x4.mul(v128.load(gate + i), v128.load(from + i)));
    for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(gate + i) * load<f32>(from + i));
  }
}

export function accumulate(args: Accumulate, task: i32, scratch: usize): void {
  const E = args.E, a = args.alpha, b = args.beta;
  const alpha = f32x4.splat(a), beta = f32x4.splat(b);
  const first = <usize>(task * ELEMENTS) << 2, end = <usize>min(E, (task + 1) * ELEMENTS) << 2;
  const x = args.x, y = args.y;
  let i = first;
  for (; i + 16 <= end; i += 16) {
    v128.store(y + i, madd(alpha, v128.load(x + i), f32x4.mul(beta, v128.load(y + i))));
  }
  for (; i < end; i += 4) {
    const v = madd(alpha, v128.load_splat<f32>(x + i), f32x4.mul(beta, v128.load_splat<f32>(y + i)));
    store<f32>(y + i, f32x4.extract_lane(v, 0));
  }
}

export function fill(args: Fill, task: i32, scratch: usize): void {
  const E = args.E, value = args.value, v = f32x4.splat(value);
  const first = <usize>(task * ELEMENTS) << 2, end = <usize>min(E, (task + 1) * ELEMENTS) << 2;
  const y = args.y;
  let i = first;
  for (; i + 16 <= end; i += 16) v128.store(y + i, v);
  for (; i < end; i += 4) store<f32>(y + i, value);
}

export function gluGrad(args: GluGrad, task: i32, scratch: usize): void {
  const P = args.P, C = args.C;
  const bytes = <usize>C << 2, whole = bytes & ~15;
  const end = min(P, (task + 1) * ROWS);
  for (let p = task * ROWS; p < end; p++) {
    const wide = <usize>p * 2 * bytes;
    const a = args.x + wide, g = a + bytes, dy = args.dy + <usize>p * bytes;
    const da = args.dx + wide, dg = da + bytes;
    let i: usize = 0;
    for (; i < whole; i += 16) {
      const up = v128.load(dy + i), gate = v128.load(g + i);
      v128.store(da + i, f32x4.mul(up, silu(gate)));
      v128.store(dg + i, f32x4.mul(f32x4.mul(up, v128.load(a + i)), slope(1, gate)));
    }
    for (; i < bytes; i += 4) {
      const up = load<f32>(dy + i), gate = v128.load_splat<f32>(g + i);
      store<f32>(da + i, up * f32x4.extract_lane(silu(gate), 0));
      store<f32>(dg + i, up * load<f32>(a + i) * f32x4.extract_lane(slope(1, gate), 0));
    }
  }
}

export function groupMeanGrad(args: GroupMeanGrad, task: i32, scratch: usize): void {
  const P = args.P, C = args.C, O = args.O;
  const r = C / O, end = min(P, (task + 1) * ROWS) * O;
  const factor: f32 = <f32>1.0 / <f32>r;
  let to = args.dx + (<usize>(task * ROWS * C) << 2);
  for (let o = task * ROWS * O; o < end; o++) {
    const v = load<f32>(args.dy + (<usize>o << 2)) * factor;
    for (let j = 0; j < r; j++) {
      store<f32>(to, v);
      to += 4;
    }
  }
}
