// Normalisations on the cpu device (contracts and references: norm.ts). Sums run in 16 interleaved parts, so their error
// stays near 1e-7 for a few thousand channels.

import { BatchNorm, BatchNormGrad, BatchNormSums, BatchStats, NormModulate, NormModulateGrad, RmsNorm, RmsNormGrad } from "./arguments";
import { activate, lanes, madd } from "./cpu/simd.wasm";

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

export function normModulate(args: NormModulate, task: i32, scratch: usize): void {
  const T = args.T, D = args.D, G = <usize>args.G;
  const shiftCol = <usize>args.shiftCol, scaleCol = <usize>args.scaleCol, eps = args.eps;
  const bytes = <usize>D << 2, whole = bytes & ~15;
  const one = f32x4.splat(1.0);
  const end = min(T, (task + 1) * ROWS);
  for (let t = task * ROWS; t < end; t++) {
    const x = args.x + <usize>t * bytes, y = args.y + <usize>t * bytes;
    const row = <usize>load<u32>(args.rows + (<usize>t << 2));
    const table = args.modulation + (row * G << 2);
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

export function rmsNorm(args: RmsNorm, task: i32, scratch: usize): void {
  const weight = args.weight, bias = args.bias, residual = args.residual;
  const P = args.P, C = args.C, eps = args.eps;
  const act = args.act, hasBias = args.hasBias, hasResidual = args.hasResidual;
  const bytes = <usize>C << 2, whole = bytes & ~15;
  const end = min(P, (task + 1) * ROWS);
  for (let p = task * ROWS; p < end; p++) {
    const first = <usize>p * bytes;
    const x = args.x + first, y = args.y + first;
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

export function batchNorm(args: BatchNorm, task: i32, scratch: usize): void {
  const mean = args.mean, variance = args.variance;
  const weight = args.weight, bias = args.bias, residual = args.residual;
  const P = args.P, C = args.C, eps = args.eps;
  const act = args.act, hasResidual = args.hasResidual;
  const bytes = <usize>C << 2, whole = bytes & ~15;
  for (let i: usize = 0; i < bytes; i += 4) {
    store<f32>(scratch + i, load<f32>(weight + i) / sqrt<f32>(load<f32>(variance + i) + eps));
  }
  const end = min(P, (task + 1) * ROWS);
  for (let p = task * ROWS; p < end; p++) {
    const first = <usize>p * bytes;
    const x = args.x + first, y = args.y + first;
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

export function normModulateGrad(args: NormModulateGrad, task: i32, scratch: usize): void {
  const T = args.T, D = args.D, G = <usize>args.G;
  const scaleCol = <usize>args.scaleCol, eps = args.eps;
  const bytes = <usize>D << 2, whole = bytes & ~15;
  const one = f32x4.splat(1.0);
  const end = min(T, (task + 1) * ROWS);
  for (let t = task * ROWS; t < end; t++) {
    const first = <usize>t * bytes;
    const x = args.x + first, dy = args.dy + first;
    const dx = args.dx + first, dscale = args.dscale + first;
    const row = <usize>load<u32>(args.rows + (<usize>t << 2));
    const scale = args.modulation + (row * G + scaleCol << 2);
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

export function rmsNormGrad(args: RmsNormGrad, task: i32, scratch: usize): void {
  const weight = args.weight;
  const P = args.P, C = args.C, eps = args.eps;
  const bytes = <usize>C << 2, whole = bytes & ~15;
  const end = min(P, (task + 1) * ROWS);
  for (let p = task * ROWS; p < end; p++) {
    const first = <usize>p * bytes;
    const x = args.x + first, dy = args.dy + first;
    const dx = args.dx + first, dw = args.dw + first;
    const factor: f32 = <f32>1.0 / sqrt<f32>(powerSum(x, C, 0.0, true) / <f32>C + eps);
    const f = f32x4.splat(factor);
    let part0 = f32x4.splat(0.0), part1 = part0;
    let product: f32 = 0.0;
    let i: usize = 0;
    for (; i + 32 <= whole; i += 32) {
      const a = f32x4.mul(v128.load(dy + i), f32x4.mul(v128.load(x + i), f));
      const b = f32x4.mul(v128.load(dy + i, 16), f32x4.mul(v128.load(x + i, 16), f));
      v128.store(dw + i, a);
      v128.store(dw + i, b, 16);
      part0 = madd(a, v128.load(weight + i), part0);
      part1 = madd(b, v128.load(weight + i, 16), part1);
    }
    for (; i < bytes; i += 4) {
      const v = load<f32>(dy + i) * (load<f32>(x + i) * factor);
      store<f32>(dw + i, v);
      product += v * load<f32>(weight + i);
    }
    product = (lanes(f32x4.add(part0, part1)) + product) / <f32>C * factor;
    const m = f32x4.splat(product);
    for (i = 0; i < whole; i += 16) {
      const g = f32x4.mul(v128.load(dy + i), v128.load(weight + i));
      v128.store(dx + i, f32x4.mul(f32x4.sub(g, f32x4.mul(v128.load(x + i), m)), f));
    }
    for (; i < bytes; i += 4) {
      const g = load<f32>(dy + i) * load<f32>(weight + i);
      store<f32>(dx + i, (g - load<f32>(x + i) * product) * factor);
    }
  }
}

/** Channels of one task of a sum over pixels, and pixels whose sum is taken in single precision. */
const CHANNELS: i32 = 16;
const PIXELS: i32 = 64;

@inline
function addAt(sums: usize, c: i32, value: f32): void {
  const at = sums + (<usize>c << 3);
  store<f64>(at, load<f64>(at) + <f64>value);
}

@inline
function addFour(sums: usize, c: i32, v: v128): void {
  addAt(sums, c, f32x4.extract_lane(v, 0));
  addAt(sums, c + 1, f32x4.extract_lane(v, 1));
  addAt(sums, c + 2, f32x4.extract_lane(v, 2));
  addAt(sums, c + 3, f32x4.extract_lane(v, 3));
}

/**
 * Sums over P pixels of up to 16 channels that begin at x, `stride` bytes from pixel to pixel, as doubles in `sums`:
 * power 1: x - centre; power 2: its square; power 3: its product with dy. `centre` is 0 or has a float for each channel.
 */
function channelSums(
  x: usize, dy: usize, stride: usize, P: i32, width: i32, centre: usize, power: i32, sums: usize,
): void {
  memory.fill(sums, 0, <usize>CHANNELS << 3);
  for (let p0 = 0; p0 < P; p0 += PIXELS) {
    const count = min(PIXELS, P - p0);
    const first = <usize>p0 * stride;
    let c = 0;
    if (width == CHANNELS) {
      let m0 = f32x4.splat(0.0), m1 = m0, m2 = m0, m3 = m0;
      if (centre) {
        m0 = v128.load(centre);
        m1 = v128.load(centre, 16);
        m2 = v128.load(centre, 32);
        m3 = v128.load(centre, 48);
      }
      let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0;
      let at = x + first, other = dy + first;
      for (let p = count; p > 0; p--) {
        const a = f32x4.sub(v128.load(at), m0), b = f32x4.sub(v128.load(at, 16), m1);
        const c = f32x4.sub(v128.load(at, 32), m2), d = f32x4.sub(v128.load(at, 48), m3);
        if (power == 1) {
          s0 = f32x4.add(s0, a); s1 = f32x4.add(s1, b); s2 = f32x4.add(s2, c); s3 = f32x4.add(s3, d);
        } else if (power == 2) {
          s0 = madd(a, a, s0); s1 = madd(b, b, s1); s2 = madd(c, c, s2); s3 = madd(d, d, s3);
        } else {
          s0 = madd(a, v128.load(other), s0); s1 = madd(b, v128.load(other, 16), s1);
          s2 = madd(c, v128.load(other, 32), s2); s3 = madd(d, v128.load(other, 48), s3);
        }
        at += stride;
        other += stride;
      }
      addFour(sums, 0, s0);
      addFour(sums, 4, s1);
      addFour(sums, 8, s2);
      addFour(sums, 12, s3);
      continue;
    }
    for (; c + 4 <= width; c += 4) {
      const lane = <usize>c << 2;
      const middle = centre ? v128.load(centre + lane) : f32x4.splat(0.0);
      let sum = f32x4.splat(0.0);
      let at = first + lane;
      for (let p = count; p > 0; p--) {
        const v = f32x4.sub(v128.load(x + at), middle);
        if (power == 1) sum = f32x4.add(sum, v);
        else sum = madd(v, power == 2 ? v : v128.load(dy + at), sum);
        at += stride;
      }
      addFour(sums, c, sum);
    }
    for (; c < width; c++) {
      const lane = <usize>c << 2;
      const middle: f32 = centre ? load<f32>(centre + lane) : 0.0;
      let sum: f32 = 0.0;
      let at = first + lane;
      for (let p = count; p > 0; p--) {
        const v = load<f32>(x + at) - middle;
        sum += power == 1 ? v : v * (power == 2 ? v : load<f32>(dy + at));
        at += stride;
      }
      addAt(sums, c, sum);
    }
  }
}

export function batchStats(args: BatchStats, task: i32, scratch: usize): void {
  const P = args.P, C = args.C, momentum = <f64>args.momentum, hasRunning = args.hasRunning;
  const c0 = task * CHANNELS, width = min(CHANNELS, C - c0), first = <usize>c0 << 2;
  const x = args.x + first, stride = <usize>C << 2;
  const mean = args.mean + first, variance = args.variance + first;
  channelSums(x, 0, stride, P, width, 0, 1, scratch);
  for (let c = 0; c < width; c++) store<f32>(mean + (<usize>c << 2), <f32>(load<f64>(scratch + (<usize>c << 3)) / <f64>P));
  channelSums(x, 0, stride, P, width, mean, 2, scratch);
  for (let c = 0; c < width; c++) {
    const at = <usize>c << 2;
    const v = load<f64>(scratch + (<usize>c << 3)) / <f64>P;
    store<f32>(variance + at, <f32>v);
    if (hasRunning) {
      const runningMean = args.runningMean + first + at, runningVariance = args.runningVariance + first + at;
      const m = <f64>load<f32>(runningMean), r = <f64>load<f32>(runningVariance);
      store<f32>(runningMean, <f32>(m + momentum * (<f64>load<f32>(mean + at) - m)));
      store<f32>(runningVariance, <f32>(r + momentum * (v * <f64>P / <f64>(P - 1) - r)));
    }
  }
}

export function batchNormSums(args: BatchNormSums, task: i32, scratch: usize): void {
  const P = args.P, C = args.C, eps = args.eps;
  const c0 = task * CHANNELS, width = min(CHANNELS, C - c0), first = <usize>c0 << 2;
  const x = args.x + first, mean = args.mean + first;
  const variance = args.variance + first, dy = args.dy + first;
  const stride = <usize>C << 2;
  channelSums(x, dy, stride, P, width, mean, 3, scratch);
  for (let c = 0; c < width; c++) {
    const at = <usize>c << 2;
    const deviation = Math.sqrt(<f64>load<f32>(variance + at) + <f64>eps);
    store<f32>(args.dweight + first + at, <f32>(load<f64>(scratch + (<usize>c << 3)) / deviation));
  }
  channelSums(dy, 0, stride, P, width, 0, 1, scratch);
  for (let c = 0; c < width; c++) {
    store<f32>(args.dbias + first + (<usize>c << 2), <f32>load<f64>(scratch + (<usize>c << 3)));
  }
}

/** Pixels of one task of batchNormGrad: each task computes the channels' constants anew. */
const NORM_PIXELS: i32 = 64;

export function batchNormGrad(args: BatchNormGrad, task: i32, scratch: usize): void {
  const mean = args.mean, variance = args.variance, weight = args.weight;
  const dweight = args.dweight, dbias = args.dbias;
  const P = args.P, C = args.C, eps = args.eps;
  const bytes = <usize>C << 2, whole = bytes & ~15;
  // dx = factor dy + shift + inner (x - mean)
  const factor = scratch, shift = factor + bytes, inner = shift + bytes;
  for (let i: usize = 0; i < bytes; i += 4) {
    const inverse: f32 = <f32>1.0 / sqrt<f32>(load<f32>(variance + i) + eps);
    const f = load<f32>(weight + i) * inverse;
    store<f32>(factor + i, f);
    store<f32>(shift + i, -f * load<f32>(dbias + i) / <f32>P);
    store<f32>(inner + i, -f * inverse * load<f32>(dweight + i) / <f32>P);
  }
  const end = min(P, (task + 1) * NORM_PIXELS);
  for (let p = task * NORM_PIXELS; p < end; p++) {
    const first = <usize>p * bytes;
    const x = args.x + first, dy = args.dy + first, dx = args.dx + first;
    let i: usize = 0;
    for (; i < whole; i += 16) {
      const middle = f32x4.sub(v128.load(x + i), v128.load(mean + i));
      const rest = madd(middle, v128.load(inner + i), v128.load(shift + i));
      v128.store(dx + i, madd(v128.load(dy + i), v128.load(factor + i), rest));
    }
    for (; i < bytes; i += 4) {
      const rest = (load<f32>(x + i) - load<f32>(mean + i)) * load<f32>(inner + i) + load<f32>(shift + i);
      store<f32>(dx + i, load<f32>(dy + i) * load<f32>(factor + i) + rest);
    }
  }
}
