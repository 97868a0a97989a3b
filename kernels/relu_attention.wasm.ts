// ReLU linear attention on the cpu device (contract and reference: relu_attention.ts).

import { ReluAttention, ReluAttentionGrad } from "./arguments";
import { lanes, madd } from "./cpu/simd.wasm";

/** Positions whose outer products are summed before they join the state: shorter chains, smaller error. */
const BLOCK: i32 = 64;

/** One task is one group of one image. Scratch: state [hd, hd + 4], whose column hd is the sum of keys; one output row. */
export function reluAttention(args: ReluAttention, task: i32, scratch: usize): void {
  const qkv = args.qkv, y = args.y;
  const P = args.P, G = args.G, eps = args.eps, hd = args.hd;
  const b = task / G, g = task % G;
  const inRow = <usize>(3 * hd * G) << 2, outRow = <usize>(hd * G) << 2;
  const q = qkv + <usize>(b * P) * inRow + (<usize>(3 * hd * g) << 2);
  const head = <usize>hd << 2, k = q + head, v = k + head;
  const out = y + <usize>(b * P) * outRow + (<usize>(hd * g) << 2);
  const stateRow = head + 16;
  memory.fill(scratch, 0, <usize>hd * stateRow);
  const zero = f32x4.splat(0.0);

  for (let p0 = 0; p0 < P; p0 += BLOCK) {
    const p1 = min(P, p0 + BLOCK);
    for (let a = 0; a < hd; a++) {
      const state = scratch + <usize>a * stateRow;
      let sum: f32 = 0.0;
      for (let p = p0; p < p1; p++) sum += max(<f32>0.0, load<f32>(k + <usize>p * inRow + (<usize>a << 2)));
      store<f32>(state + head, load<f32>(state + head) + sum);
      let d: usize = 0;
      for (; d + 16 <= head; d += 16) {
        let part = zero;
        let at = <usize>p0 * inRow;
        for (let p = p0; p < p1; p++) {
          const weight = f32x4.pmax(v128.load_splat<f32>(k + at + (<usize>a << 2)), zero);
          part = madd(weight, v128.load(v + at + d), part);
          at += inRow;
        }
        v128.store(state + d, f32x4.add(v128.load(state + d), part));
      }
      for (; d < head; d += 4) {
        let part: f32 = 0.0;
        for (let p = p0; p < p1; p++) {
          const at = <usize>p * inRow;
          part += max(<f32>0.0, load<f32>(k + at + (<usize>a << 2))) * load<f32>(v + at + d);
        }
        store<f32>(state + d, load<f32>(state + d) + part);
      }
    }
  }
  for (let p = 0; p < P; p++) {
    const query = q + <usize>p * inRow, to = out + <usize>p * outRow;
    let sum: f32 = 0.0;
    for (let a: usize = 0; a < head; a += 4) {
      sum += max(<f32>0.0, load<f32>(query + a)) * load<f32>(scratch + (a >> 2) * stateRow + head);
    }
    const divisor = f32x4.splat(sum + eps);
    let d: usize = 0;
    for (; d + 16 <= head; d += 16) {
      let value = zero;
      for (let a: usize = 0; a < head; a += 4) {
        const weight = f32x4.pmax(v128.load_splat<f32>(query + a), zero);
        value = madd(weight, v128.load(scratch + (a >> 2) * stateRow + d), value);
      }
      v128.store(to + d, f32x4.div(value, divisor));
    }
    for (; d < head; d += 4) {
      let value: f32 = 0.0;
      for (let a: usize = 0; a < head; a += 4) {
        value += max(<f32>0.0, load<f32>(query + a)) * load<f32>(scratch + (a >> 2) * stateRow + d);
      }
      store<f32>(to + d, value / (sum + eps));
    }
  }
}

/** Floats of one head's part of a row, ReLU applied where asked, zeros up to a multiple of four. */
@inline
function loadHead(from: usize, hd: i32, width: usize, relu: bool, to: usize): void {
  v128.store(to + width - 16, f32x4.splat(0.0));
  for (let d: usize = 0; d < <usize>hd << 2; d += 4) {
    const v = load<f32>(from + d);
    store<f32>(to + d, relu ? max<f32>(0.0, v) : v);
  }
}

@inline
function dot(a: usize, b: usize, width: usize): f32 {
  let sum = f32x4.splat(0.0);
  for (let d: usize = 0; d < width; d += 16) sum = madd(v128.load(a + d), v128.load(b + d), sum);
  return lanes(sum);
}

/** to += factor * x. */
@inline
function addTimes(to: usize, factor: f32, x: usize, width: usize): void {
  const f = f32x4.splat(factor);
  for (let d: usize = 0; d < width; d += 16) v128.store(to + d, madd(f, v128.load(x + d), v128.load(to + d)));
}

/**
 * One task is one group of one image, pixels in ascending order. Scratch: the state [hd, hd padded to fours and four
 * more], whose column after the padding is the sum of keys, its gradient, and six rows of one pixel.
 */
export function reluAttentionGrad(args: ReluAttentionGrad, task: i32, scratch: usize): void {
  const P = args.P, G = args.G, eps = args.eps, hd = args.hd;
  const b = task / G, g = task % G;
  const inRow = <usize>(3 * hd * G) << 2, outRow = <usize>(hd * G) << 2, head = <usize>hd << 2;
  const first = <usize>(b * P) * inRow + (<usize>(3 * hd * g) << 2);
  const q = args.qkv + first, dq = args.dqkv + first;
  const k = q + head, v = k + head, dk = dq + head, dv = dk + head;
  const dy = args.dy + <usize>(b * P) * outRow + (<usize>(hd * g) << 2);
  const width = (head + 15) & ~15, row = width + 16;
  const state = scratch, up = state + <usize>hd * row;
  const query = up + <usize>hd * row, key = query + row, value = key + row, out = value + row, du = out + row;
  memory.fill(scratch, 0, 2 * <usize>hd * row);

  for (let p = 0; p < P; p++) {
    const at = <usize>p * inRow;
    loadHead(k + at, hd, width, true, key);
    loadHead(v + at, hd, width, false, value);
    for (let a: usize = 0; a < head; a += 4) {
      const weight = load<f32>(key + a), to = state + (a >> 2) * row;
      addTimes(to, weight, value, width);
      store<f32>(to + width, load<f32>(to + width) + weight);
    }
  }
  for (let p = 0; p < P; p++) {
    const at = <usize>p * inRow;
    loadHead(q + at, hd, width, true, query);
    loadHead(dy + <usize>p * outRow, hd, width, false, du);
    memory.fill(out, 0, row);
    let sum: f32 = 0.0;
    for (let a: usize = 0; a < head; a += 4) {
      const weight = load<f32>(query + a), from = state + (a >> 2) * row;
      addTimes(out, weight, from, width);
      sum += weight * load<f32>(from + width);
    }
    const inverse: f32 = <f32>1.0 / (sum + eps);
    const f = f32x4.splat(inverse);
    for (let d: usize = 0; d < width; d += 16) v128.store(du + d, f32x4.mul(v128.load(du + d), f));
    const rest = -dot(du, out, width) * inverse;
    for (let a: usize = 0; a < head; a += 4) {
      const from = state + (a >> 2) * row, to = up + (a >> 2) * row, weight = load<f32>(query + a);
      const sum = dot(from, du, width) + load<f32>(from + width) * rest;
      store<f32>(dq + at + a, load<f32>(q + at + a) > 0.0 ? sum : <f32>0.0);
      addTimes(to, weight, du, width);
      store<f32>(to + width, load<f32>(to + width) + weight * rest);
    }
  }
  for (let p = 0; p < P; p++) {
    const at = <usize>p * inRow;
    loadHead(k + at, hd, width, true, key);
    loadHead(v + at, hd, width, false, value);
    memory.fill(out, 0, row);
    for (let a: usize = 0; a < head; a += 4) {
      const from = up + (a >> 2) * row;
      const sum = dot(from, value, width) + load<f32>(from + width);
      store<f32>(dk + at + a, load<f32>(k + at + a) > 0.0 ? sum : <f32>0.0);
      addTimes(out, load<f32>(key + a), from, width);
    }
    memory.copy(dv + at, out, head);
  }
}
