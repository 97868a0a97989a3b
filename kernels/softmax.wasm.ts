// Softmax on the cpu device (contracts and references: softmax.ts).

import { Softmax, SoftmaxGrad } from "./arguments";
import { exp, madd } from "./cpu/simd.wasm";

/** Rows of one task. */
const ROWS: i32 = 16;

@inline
function sumOf(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3);
}

export function softmax(args: Softmax, task: i32, scratch: usize): void {
  const bytes = <usize>args.C << 2, whole = bytes & ~15;
  const end = min(args.P, (task + 1) * ROWS);
  for (let row = task * ROWS; row < end; row++) {
    const x = args.x + <usize>row * bytes, y = args.y + <usize>row * bytes;
    let most: f32 = load<f32>(x);
    for (let i: usize = 4; i < bytes; i += 4) most = max<f32>(most, load<f32>(x + i));
    const m = f32x4.splat(most);
    let part = f32x4.splat(0.0);
    let i: usize = 0;
    for (; i < whole; i += 16) {
      const e = exp(f32x4.sub(v128.load(x + i), m));
      part = f32x4.add(part, e);
      v128.store(y + i, e);
    }
    let sum = sumOf(part);
    for (; i < bytes; i += 4) {
      const e = f32x4.extract_lane(exp(f32x4.sub(v128.load_splat<f32>(x + i), m)), 0);
      sum += e;
      store<f32>(y + i, e);
    }
    const s = f32x4.splat(sum);
    for (i = 0; i < whole; i += 16) v128.store(y + i, f32x4.div(v128.load(y + i), s));
    for (; i < bytes; i += 4) store<f32>(y + i, load<f32>(y + i) / sum);
  }
}

export function softmaxGrad(args: SoftmaxGrad, task: i32, scratch: usize): void {
  const bytes = <usize>args.C << 2, whole = bytes & ~15;
  const end = min(args.P, (task + 1) * ROWS);
  for (let row = task * ROWS; row < end; row++) {
    const first = <usize>row * bytes, y = args.y + first, dy = args.dy + first, dx = args.dx + first;
    let part = f32x4.splat(0.0);
    let i: usize = 0;
    for (; i < whole; i += 16) part = madd(v128.load(dy + i), v128.load(y + i), part);
    let sum = sumOf(part);
    for (; i < bytes; i += 4) sum += load<f32>(dy + i) * load<f32>(y + i);
    const s = f32x4.splat(sum);
    for (i = 0; i < whole; i += 16) {
      v128.store(dx + i, f32x4.mul(v128.load(y + i), f32x4.sub(v128.load(dy + i), s)));
    }
    for (; i < bytes; i += 4) store<f32>(dx + i, load<f32>(y + i) * (load<f32>(dy + i) - sum));
  }
}
