// The optimiser step on the cpu device (contract and reference: adamw.ts).

import { Adamw } from "./arguments";
import { madd } from "./cpu/simd.wasm";

/** Elements of one task. */
const ELEMENTS: i32 = 16384;

export function adamw(args: Adamw, task: i32, scratch: usize): void {
  const E = args.E;
  const lr = args.lr, b1 = args.beta1, r1 = args.rest1, b2 = args.beta2, r2 = args.rest2;
  const eps = args.eps, decay = args.decay, bias1 = args.bias1, bias2 = args.bias2;
  const scale = f32x4.splat(args.scale);
  const beta1 = f32x4.splat(b1), rest1 = f32x4.splat(r1);
  const beta2 = f32x4.splat(b2), rest2 = f32x4.splat(r2);
  const keep = f32x4.splat(<f32>1.0 - lr * decay), step = f32x4.splat(lr / bias1);
  const correct = f32x4.splat(<f32>1.0 / sqrt<f32>(bias2)), small = f32x4.splat(eps);
  const gradient = args.gradient, p = args.parameters, m = args.m, v = args.v;
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
    const g = load<f32>(gradient + i) * args.scale;
    const m1 = b1 * load<f32>(m + i) + r1 * g;
    const v1 = b2 * load<f32>(v + i) + r2 * g * g;
    store<f32>(m + i, m1);
    store<f32>(v + i, v1);
    const change = lr / bias1 * m1 / (sqrt<f32>(v1) / sqrt<f32>(bias2) + eps);
    store<f32>(p + i, load<f32>(p + i) * (<f32>1.0 - lr * decay) - change);
  }
}
