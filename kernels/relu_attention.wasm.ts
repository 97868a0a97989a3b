// ReLU linear attention on the cpu device (contract and reference: relu_attention.ts).

import { madd, real, word } from "./cpu/simd.wasm";

/** Positions whose outer products are summed before they join the state: shorter chains, smaller error. */
const BLOCK: i32 = 64;

/** One task is one group of one image. Scratch: state [hd, hd + 4], whose column hd is the sum of keys; one output row. */
export function reluAttention(args: usize, task: i32, scratch: usize): void {
  const qkv = <usize>word(args, 0), y = <usize>word(args, 1);
  const P = <i32>word(args, 3), G = <i32>word(args, 4), eps = real(args, 5), hd = <i32>word(args, 6);
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
