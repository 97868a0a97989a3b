// Per-head RMS norm and rotary embedding on the cpu device (contract and reference: rotary.ts).

import { Rotary, RotaryGrad } from "./arguments";
import { lanes, madd } from "./cpu/simd.wasm";

/** Tokens of one task. */
const ROWS: i32 = 16;

/** One head of one token: RMS norm with weights, then rotation of adjacent pairs. */
@inline
function head(from: usize, to: usize, hd: i32, weight: usize, cos: usize, sin: usize, eps: f32): void {
  const bytes = <usize>hd << 2, whole = bytes & ~15;
  let squares = f32x4.splat(0.0);
  let sum: f32 = 0.0;
  let i: usize = 0;
  for (; i < whole; i += 16) {
    const x = v128.load(from + i);
    squares = madd(x, x, squares);
  }
  for (; i < bytes; i += 4) sum += load<f32>(from + i) * load<f32>(from + i);
  const factor: f32 = <f32>1.0 / sqrt<f32>((lanes(squares) + sum) / <f32>hd + eps);
  const f = f32x4.splat(factor);
  const signs = i32x4(0x80000000, 0, 0x80000000, 0);
  for (i = 0; i < whole; i += 16) {
    const x = f32x4.mul(f32x4.mul(v128.load(from + i), f), v128.load(weight + i));
    const turned = v128.xor(i32x4.shuffle(x, x, 1, 0, 3, 2), signs); // (-b, a) of each pair (a, b)
    const c = v128.load64_zero(cos + (i >> 1)), s = v128.load64_zero(sin + (i >> 1));
    const c2 = i32x4.shuffle(c, c, 0, 0, 1, 1), s2 = i32x4.shuffle(s, s, 0, 0, 1, 1);
    v128.store(to + i, madd(turned, s2, f32x4.mul(x, c2)));
  }
  for (; i < bytes; i += 8) {
    const a = load<f32>(from + i) * factor * load<f32>(weight + i);
    const b = load<f32>(from + i, 4) * factor * load<f32>(weight + i, 4);
    const c = load<f32>(cos + (i >> 1)), s = load<f32>(sin + (i >> 1));
    store<f32>(to + i, a * c - b * s);
    store<f32>(to + i, b * c + a * s, 4);
  }
}

export function rotary(args: Rotary, task: i32, scratch: usize): void {
  const qkv = args.qkv, wq = args.wq, wk = args.wk;
  const angles = args.angles, dest = args.dest;
  const q = args.q, k = args.k, v = args.v;
  const M = args.M, row = args.row, D = args.D, eps = args.eps;
  const hd = args.hd;
  const bytes = <usize>D << 2, half = <usize>(hd >> 1) << 2;
  const end = row + min(M, (task + 1) * ROWS);
  for (let t = row + task * ROWS; t < end; t++) {
    const from = qkv + <usize>t * 3 * bytes;
    const to = <usize>load<u32>(dest + (<usize>t << 2)) * bytes;
    const c = angles + <usize>t * 2 * half, s = c + half;
    for (let d = 0; d < D; d += hd) {
      const at = <usize>d << 2;
      head(from + at, q + <usize>t * bytes + at, hd, wq, c, s, eps);
      head(from + bytes + at, k + to + at, hd, wk, c, s, eps);
    }
    memory.copy(v + to, from + 2 * bytes, bytes);
  }
}

/** Gradient of {@link head}: `to` gets the gradient of its input, `dw` adds that of the norm weight. */
@inline
function headGrad(
  from: usize, up: usize, to: usize, hd: i32, weight: usize, cos: usize, sin: usize, eps: f32, dw: usize,
): void {
  const bytes = <usize>hd << 2, whole = bytes & ~15;
  let squares = f32x4.splat(0.0), products = squares;
  let sum: f32 = 0.0, product: f32 = 0.0;
  let i: usize = 0;
  for (; i < whole; i += 16) {
    const x = v128.load(from + i);
    squares = madd(x, x, squares);
  }
  for (; i < bytes; i += 4) sum += load<f32>(from + i) * load<f32>(from + i);
  const factor: f32 = <f32>1.0 / sqrt<f32>((lanes(squares) + sum) / <f32>hd + eps);
  const f = f32x4.splat(factor);
  const signs = i32x4(0, 0x80000000, 0, 0x80000000);
  // Back through the rotation; `to` keeps the gradient of the normal x for the second pass.
  for (i = 0; i < whole; i += 16) {
    const y = v128.load(up + i);
    const turned = v128.xor(i32x4.shuffle(y, y, 1, 0, 3, 2), signs); // (b, -a) of each pair (a, b)
    const c = v128.load64_zero(cos + (i >> 1)), s = v128.load64_zero(sin + (i >> 1));
    const c2 = i32x4.shuffle(c, c, 0, 0, 1, 1), s2 = i32x4.shuffle(s, s, 0, 0, 1, 1);
    const g = madd(turned, s2, f32x4.mul(y, c2)), normal = f32x4.mul(v128.load(from + i), f);
    const inner = f32x4.mul(g, v128.load(weight + i));
    v128.store(dw + i, madd(g, normal, v128.load(dw + i)));
    products = madd(inner, normal, products);
    v128.store(to + i, inner);
  }
  for (; i < bytes; i += 8) {
    const a = load<f32>(up + i), b = load<f32>(up + i, 4);
    const c = load<f32>(cos + (i >> 1)), s = load<f32>(sin + (i >> 1));
    const g0 = a * c + b * s, g1 = b * c - a * s;
    const n0 = load<f32>(from + i) * factor, n1 = load<f32>(from + i, 4) * factor;
    const i0 = g0 * load<f32>(weight + i), i1 = g1 * load<f32>(weight + i, 4);
    store<f32>(dw + i, load<f32>(dw + i) + g0 * n0);
    store<f32>(dw + i, load<f32>(dw + i, 4) + g1 * n1, 4);
    product += i0 * n0 + i1 * n1;
    store<f32>(to + i, i0);
    store<f32>(to + i, i1, 4);
  }
  product = (lanes(products) + product) / <f32>hd;
  const p = f32x4.splat(product * factor);
  for (i = 0; i < whole; i += 16) {
    const rest = f32x4.sub(v128.load(to + i), f32x4.mul(v128.load(from + i), p));
    v128.store(to + i, f32x4.mul(rest, f));
  }
  for (; i < bytes; i += 4) {
    store<f32>(to + i, (load<f32>(to + i) - load<f32>(from + i) * (product * factor)) * factor);
  }
}

export function rotaryGrad(args: RotaryGrad, task: i32, scratch: usize): void {
  const qkv = args.qkv, w = args.w, angles = args.angles;
  const dest = args.dest, dy = args.dy, dv = args.dv;
  const dqkv = args.dqkv, dw = args.dw;
  const M = args.M, row = args.row, D = args.D, eps = args.eps;
  const hd = args.hd, part = <usize>args.part;
  const bytes = <usize>D << 2, half = <usize>(hd >> 1) << 2, head = 2 * half;
  const end = row + min(M, (task + 1) * ROWS);
  for (let t = row + task * ROWS; t < end; t++) {
    const at = (<usize>t * 3 + part) * bytes;
    const up = <usize>(part ? load<i32>(dest + (<usize>t << 2)) : t) * bytes;
    const c = angles + <usize>t * head, weights = dw + <usize>t * head;
    memory.fill(weights, 0, head);
    for (let d: usize = 0; d < bytes; d += head) {
      headGrad(qkv + at + d, dy + up + d, dqkv + at + d, hd, w, c, c + half, eps, weights);
    }
    if (part) memory.copy(dqkv + at + bytes, dv + up, bytes);
  }
}
