// Normalisations on the cpu device (contracts and references: norm.ts). Sums run in 16 interleaved parts, so their error
// stays near 1e-7 for a few thousand channels.

import { activate, lanes, madd, real, word } from "./cpu/simd.wasm";

/** Tokens or pixels of one task. */
const ROWS: i32 = 16;

/** Sum of (x - centre)^power for power 1 or 2 over `count` floats. */
@inline
function powerSum(x: usize, count: i32, centre: f32, square: bool): f32 {
  const middle = f32x4.splat(centre);
  let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0;
  let rest: f32 = 0.0;
  let i = count;
  for (; i >= 16; i -= 16) {
    let a = f32x4.sub(v128.load(x), middle), b = f32x4.sub(v128.load(x, 16), middle);
    let c = f32x4.sub(v128.load(x, 32), middle), d = f32x4.sub(v128.load(x, 48), middle);
    if (square) {
      s0 = madd(a, a, s0); s1 = madd(b, b, s1); s2 = madd(c, c, s2); s3 = madd(d, d, s3);
    } else {
      s0 = f32x4.add(s0, a); s1 = f32x4.add(s1, b); s2 = f32x4.add(s2, c); s3 = f32x4.add(s3, d);
    }
    x += 64;
  }
  for (; i > 0; i--) {
    const v = load<f32>(x) - centre;
    rest += square ? v * v : v;
    x += 4;
  }
  return lanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3))) + rest;
}

export function normModulate(args: usize, task: i32, scratch: usize): void {
  const T = <i32>word(args, 4), D = <i32>word(args, 5), G = <usize>word(args, 6);
  const shiftCol = <usize>word(args, 7), scaleCol = <usize>word(args, 8), eps = real(args, 9);
  const bytes = <usize>D << 2, whole = bytes & ~15;
  const one = f32x4.splat(1.0);
  const end = min(T, (task + 1) * ROWS);
  for (let t = task * ROWS; t < end; t++) {
    const x = <usize>word(args, 0) + <usize>t * bytes, y = <usize>word(args, 3) + <usize>t * bytes;
    const row = <usize>load<u32>(<usize>word(args, 2) + (<usize>t << 2));
    const table = <usize>word(args, 1) + (row * G << 2);
    const shift = table + (shiftCol << 2), scale = table + (scaleCol << 2);
    const mean = powerSum(x, D, 0.0, false) / <f32>D;
    const variance = powerSum(x, D, mean, true) / <f32>D;
    const factor: f32 = <f32>1.0 / sqrt<f32>(variance + eps);
    const m = f32x4.splat(mean), f = f32x4.splat(factor);
    let i: usize = 0;
    for (; i < whole; i += 16) {
      const h = f32x4.mul(f32x4.sub(v128.load(x + i), m), f);
      v128.store(y + i, madd(h, f32x4.add(one, v128.load(scale + i)), v128.load(shift + i)));
    }
    for (; i < bytes; i += 4) {
      const h = (load<f32>(x + i) - mean) * factor;
      store<f32>(y + i, h * (<f32>1.0 + load<f32>(scale + i)) + load<f32>(shift + i));
    }
  }
}

export function rmsNorm(args: usize, task: i32, scratch: usize): void {
  const weight = <usize>word(args, 1), bias = <usize>word(args, 2), residual = <usize>word(args, 3);
  const P = <i32>word(args, 5), C = <i32>word(args, 6), eps = real(args, 7);
  const act = word(args, 8), hasBias = word(args, 9), hasResidual = word(args, 10);
  const bytes = <usize>C << 2, whole = bytes & ~15;
  const end = min(P, (task + 1) * ROWS);
  for (let p = task * ROWS; p < end; p++) {
    const first = <usize>p * bytes;
    const x = <usize>word(args, 0) + first, y = <usize>word(args, 4) + first;
    const factor: f32 = <f32>1.0 / sqrt<f32>(powerSum(x, C, 0.0, true) / <f32>C + eps);
    const f = f32x4.splat(factor);
    let i: usize = 0;
    for (; i < whole; i += 16) {
      let v = f32x4.mul(f32x4.mul(v128.load(x + i), f), v128.load(weight + i));
      if (hasBias) v = f32x4.add(v, v128.load(bias + i));
      if (act) v = activate(act, v);
      if (hasResidual) v = f32x4.add(v, v128.load(residual + first + i));
      v128.store(y + i, v);
    }
    for (; i < bytes; i += 4) {
      let v = load<f32>(x + i) * factor * load<f32>(weight + i);
      if (hasBias) v += load<f32>(bias + i);
      if (act) v = f32x4.extract_lane(activate(act, f32x4.splat(v)), 0);
      if (hasResidual) v += load<f32>(residual + first + i);
      store<f32>(y + i, v);
    }
  }
}

export function batchNorm(args: usize, task: i32, scratch: usize): void {
  const mean = <usize>word(args, 1), variance = <usize>word(args, 2);
  const weight = <usize>word(args, 3), bias = <usize>word(args, 4), residual = <usize>word(args, 5);
  const P = <i32>word(args, 7), C = <i32>word(args, 8), eps = real(args, 9);
  const act = word(args, 10), hasResidual = word(args, 11);
  const bytes = <usize>C << 2, whole = bytes & ~15;
  for (let i: usize = 0; i < bytes; i += 4) {
    store<f32>(scratch + i, load<f32>(weight + i) / sqrt<f32>(load<f32>(variance + i) + eps));
  }
  const end = min(P, (task + 1) * ROWS);
  for (let p = task * ROWS; p < end; p++) {
    const first = <usize>p * bytes;
    const x = <usize>word(args, 0) + first, y = <usize>word(args, 6) + first;
    let i: usize = 0;
    for (; i < whole; i += 16) {
      let v = madd(f32x4.sub(v128.load(x + i), v128.load(mean + i)), v128.load(scratch + i), v128.load(bias + i));
      if (act) v = activate(act, v);
      if (hasResidual) v = f32x4.add(v, v128.load(residual + first + i));
      v128.store(y + i, v);
    }
    for (; i < bytes; i += 4) {
      let v = (load<f32>(x + i) - load<f32>(mean + i)) * load<f32>(scratch + i) + load<f32>(bias + i);
      if (act) v = f32x4.extract_lane(activate(act, f32x4.splat(v)), 0);
      if (hasResidual) v += load<f32>(residual + first + i);
      store<f32>(y + i, v);
    }
  }
}

export function normModulateGrad(args: usize, task: i32, scratch: usize): void {
  const T = <i32>word(args, 6), D = <i32>word(args, 7), G = <usize>word(args, 8);
  const scaleCol = <usize>word(args, 9), eps = real(args, 10);
  const bytes = <usize>D << 2, whole = bytes & ~15;
  const one = f32x4.splat(1.0);
  const end = min(T, (task + 1) * ROWS);
  for (let t = task * ROWS; t < end; t++) {
    const first = <usize>t * bytes;
    const x = <usize>word(args, 0) + first, dy = <usize>word(args, 3) + first;
    const dx = <usize>word(args, 4) + first, dscale = <usize>word(args, 5) + first;
    const row = <usize>load<u32>(<usize>word(args, 2) + (<usize>t << 2));
    const scale = <usize>word(args, 1) + (row * G + scaleCol << 2);
    const mean = powerSum(x, D, 0.0, false) / <f32>D;
    const factor: f32 = <f32>1.0 / sqrt<f32>(powerSum(x, D, mean, true) / <f32>D + eps);
    const m = f32x4.splat(mean), f = f32x4.splat(factor);
    // Means of g = dy (1 + scale) and of g times the normal x.
    let g0 = f32x4.splat(0.0), g1 = g0, h0 = g0, h1 = g0;
    let rest: f32 = 0.0, product: f32 = 0.0;
    let i: usize = 0;
    for (; i + 32 <= whole; i += 32) {
      const a = f32x4.mul(v128.load(dy + i), f32x4.add(one, v128.load(scale + i)));
      const b = f32x4.mul(v128.load(dy + i, 16), f32x4.add(one, v128.load(scale + i, 16)));
      g0 = f32x4.add(g0, a);
      g1 = f32x4.add(g1, b);
      h0 = madd(a, f32x4.mul(f32x4.sub(v128.load(x + i), m), f), h0);
      h1 = madd(b, f32x4.mul(f32x4.sub(v128.load(x + i, 16), m), f), h1);
    }
    for (; i < bytes; i += 4) {
      const g = load<f32>(dy + i) * (<f32>1.0 + load<f32>(scale + i));
      rest += g;
      product += g * (load<f32>(x + i) - mean) * factor;
    }
    rest = (lanes(f32x4.add(g0, g1)) + rest) / <f32>D;
    product = (lanes(f32x4.add(h0, h1)) + product) / <f32>D;
    const s = f32x4.splat(rest), p = f32x4.splat(product);
    for (i = 0; i < whole; i += 16) {
      const up = v128.load(dy + i), normal = f32x4.mul(f32x4.sub(v128.load(x + i), m), f);
      const g = f32x4.mul(up, f32x4.add(one, v128.load(scale + i)));
      v128.store(dx + i, f32x4.mul(f32x4.sub(f32x4.sub(g, s), f32x4.mul(normal, p)), f));
      v128.store(dscale + i, f32x4.mul(up, normal));
    }
    for (; i < bytes; i += 4) {
      const up = load<f32>(dy + i), normal = (load<f32>(x + i) - mean) * factor;
      const g = up * (<f32>1.0 + load<f32>(scale + i));
      store<f32>(dx + i, (g - rest - normal * product) * factor);
      store<f32>(dscale + i, up * normal);
    }
  }
}
