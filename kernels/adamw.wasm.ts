// The optimiser step on the cpu device (contract and reference: adamw.ts).

import { madd, real, word } from "./cpu/simd.wasm";

/** Elements of one task. */
const ELEMENTS: i32 = 16384;

export function adamw(args: usize, task: i32, scratch: usize): void {
  const E = <i32>word(args, 4);
  const lr = real(args, 5), b1 = real(args, 6), r1 = real(args, 7), b2 = real(args, 8), r2 = real(args, 9);
  const eps = real(args, 10), decay = real(args, 11), bias1 = real(args, 12), bias2 = real(args, 13);
  const scale = f32x4.splat(real(args, 14));
  const beta1 = f32x4.splat(b1), rest1 = f32x4.splat(r1);
  const beta2 = f32x4.splat(b2), rest2 = f32x4.splat(r2);
  const keep = f32x4.splat(<f32>1.0 - lr * decay), step = f32x4.splat(lr / bias1);
  const correct = f32x4.splat(<f32>1.0 / sqrt<f32>(bias2)), small = f32x4.splat(eps);
  const gradient = <usize>word(args, 0), p = <usize>word(args, 1), m = <usize>word(args, 2), v = <usize>word(args, 3);
  const end = <usize>min(E, (task + 1) * ELEMENTS) << 2;
  let i = <usize>(task * ELEMENTS) << 2;
  for (; i + 16 <= end; i += 16) {
    const g = f32x4.mul(v128.load(gradient + i), scale);
    const m1 = madd(beta1, v128.load(m + i), f32x4.mul(rest1, g));
    const v1 = madd(beta2, v128.load(v + i), f32x4.mul(rest2, f32x4.mul(g, g)));
    const root = madd(f32x4.sqrt(v1), correct, small);
    v128.store(m + i, m1);
    v128.store(v + i, v1);
    const change = f32x4.div(f32x4.mul(step, m1), root);
    v128.store(p + i, f32x4.sub(f32x4.mul(v128.load(p + i), keep), change));
  }
  for (; i < end; i += 4) {
    const g = load<f32>(gradient + i) * real(args, 14);
    const m1 = b1 * load<f32>(m + i) + r1 * g;
    const v1 = b2 * load<f32>(v + i) + r2 * g * g;
    store<f32>(m + i, m1);
    store<f32>(v + i, v1);
    const change = lr / bias1 * m1 / (sqrt<f32>(v1) / sqrt<f32>(bias2) + eps);
    store<f32>(p + i, load<f32>(p + i) * (<f32>1.0 - lr * decay) - change);
  }
}
