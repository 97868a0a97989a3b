// A depthwise convolution of some channels of one image on the cpu device, forward or, with the filters turned round,
// backward.

import { activate, madd } from "./simd.wasm";

/** Channels of one task. */
export const CHANNELS: i32 = 32;

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
    for (let ox = 0; ox < W; ox++) {
      const kx0 = max(0, pad - ox), kx1 = min(K, W + pad - ox);
      const out = y + (<usize>(((b * H + oy) * W + ox) * C + c0) << 2);
      let c = 0;
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
