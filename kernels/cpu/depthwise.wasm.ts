// A depthwise convolution of some channels of one image on the cpu device, forward or, with the filters turned round,
// backward.

import { activate, madd } from "./simd.wasm";

/** Channels of one task. */
export const CHANNELS: i32 = 32;

/**
 * `count` pixels of four channels whose nine neighbours all lie in the image: `above` is the upper left one of the first.
 * The same sums in the same order as at the border, with the filter in registers: 5 times as fast.
 */
function innerRow(
  above: usize, y: usize, filter: usize, act: u32, count: i32, pixel: usize, row: usize,
): void {
  const f0 = v128.load(filter), f1 = v128.load(filter, 128), f2 = v128.load(filter, 256);
  const f3 = v128.load(filter, 384), f4 = v128.load(filter, 512), f5 = v128.load(filter, 640);
  const f6 = v128.load(filter, 768), f7 = v128.load(filter, 896), f8 = v128.load(filter, 1024);
  let r0 = above, r1 = r0 + row, r2 = r1 + row;
  for (; count > 0; count--) {
    let sum = v128.load(filter, 1152);
    sum = madd(v128.load(r0), f0, sum);
    sum = madd(v128.load(r0 + pixel), f1, sum);
    sum = madd(v128.load(r0 + 2 * pixel), f2, sum);
    sum = madd(v128.load(r1), f3, sum);
    sum = madd(v128.load(r1 + pixel), f4, sum);
    sum = madd(v128.load(r1 + 2 * pixel), f5, sum);
    sum = madd(v128.load(r2), f6, sum);
    sum = madd(v128.load(r2 + pixel), f7, sum);
    sum = madd(v128.load(r2 + 2 * pixel), f8, sum);
    v128.store(y, act ? activate(act, sum) : sum);
    r0 += pixel;
    r1 += pixel;
    r2 += pixel;
    y += pixel;
  }
}

/**
 * y = act(conv(x) + bias) for the channels c0 ... c0+count-1 of image b, padding K / 2. `filters` holds K·K taps of 32
 * channels, then 32 biases.
 */
export function depthwiseImage(
  x: usize, y: usize, filters: usize, act: u32, H: i32, W: i32, C: i32, K: i32, b: i32, c0: i32, count: i32,
): void {
  const taps = K * K, pad = (K - 1) / 2;
  const whole = count & ~3;
  for (let oy = 0; oy < H; oy++) {
    const ky0 = max(0, pad - oy), ky1 = min(K, H + pad - oy);
    const inner = K == 3 && oy > 0 && oy < H - 1 && W > 2;
    if (inner) {
      const above = x + (<usize>(((b * H + oy - 1) * W) * C + c0) << 2);
      const first = y + (<usize>(((b * H + oy) * W + 1) * C + c0) << 2);
      for (let lane: usize = 0; lane < <usize>whole << 2; lane += 16) {
        innerRow(above + lane, first + lane, filters + lane, act, W - 2, <usize>C << 2, <usize>(W * C) << 2);
      }
    }
    for (let ox = 0; ox < W; ox++) {
      const kx0 = max(0, pad - ox), kx1 = min(K, W + pad - ox);
      const out = y + (<usize>(((b * H + oy) * W + ox) * C + c0) << 2);
      let c = inner && ox > 0 && ox < W - 1 ? whole : 0;
      for (; c < whole; c += 4) {
        const lane = <usize>c << 2;
        let sum = v128.load(filters + (<usize>(taps * CHANNELS) << 2) + lane);
        for (let ky = ky0; ky < ky1; ky++) {
          let from = x + (<usize>(((b * H + oy + ky - pad) * W + ox + kx0 - pad) * C + c0 + c) << 2);
          let filter = filters + (<usize>((ky * K + kx0) * CHANNELS) << 2) + lane;
          for (let kx = kx0; kx < kx1; kx++) {
            sum = madd(v128.load(from), v128.load(filter), sum);
            from += <usize>C << 2;
            filter += CHANNELS << 2;
          }
        }
        v128.store(out + lane, activate(act, sum));
      }
      for (; c < count; c++) {
        const lane = <usize>c << 2;
        let sum = v128.load_splat<f32>(filters + (<usize>(taps * CHANNELS) << 2) + lane);
        for (let ky = ky0; ky < ky1; ky++) {
          for (let kx = kx0; kx < kx1; kx++) {
            const from = x + (<usize>(((b * H + oy + ky - pad) * W + ox + kx - pad) * C + c0 + c) << 2);
            const filter = filters + (<usize>((ky * K + kx) * CHANNELS) << 2) + lane;
            sum = madd(v128.load_splat<f32>(from), v128.load_splat<f32>(filter), sum);
          }
        }
        store<f32>(out + lane, f32x4.extract_lane(activate(act, sum), 0));
      }
    }
  }
}
