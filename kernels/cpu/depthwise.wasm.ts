// A depthwise convolution of some channels of one image on the cpu device, forward or, with the filters turned round,
// backward.
//
// Rows are copied to scratch, padded with zeros, before they are used: with 1024 channels, pixels are 4096 bytes apart and
// all of them meet in one set of the first-level cache.

import { activate, madd } from "./simd.wasm";

/** Channels of one task. */
export const CHANNELS: i32 = 32;
/** Bytes of a pixel, or a tap, in scratch. */
const PIXEL: usize = 128;

/**
 * Copies `count` channels of a row of W pixels, `step` bytes apart, to pixels `to + pad * pixel ...` of `pixel` bytes
 * each; 0 for a row of zeros. The margins and the channels beyond `count` keep what they hold.
 */
export function copyRow(from: usize, step: usize, W: i32, count: i32, pad: i32, pixel: usize, to: usize): void {
  to += <usize>pad * pixel;
  if (!from) {
    memory.fill(to, 0, <usize>W * pixel);
    return;
  }
  const bytes = <usize>count << 2, whole = bytes & ~15;
  for (; W > 0; W--) {
    let i: usize = 0;
    for (; i < whole; i += 16) v128.store(to + i, v128.load(from + i));
    for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(from + i));
    from += step;
    to += pixel;
  }
}

/** One row of four channels under a 3x3 filter in registers: W pixels of the three padded rows `r0`, `r1`, `r2`. */
function rowOfThree(r0: usize, r1: usize, r2: usize, y: usize, filter: usize, W: i32): void {
  const f0 = v128.load(filter), f1 = v128.load(filter, 128), f2 = v128.load(filter, 256);
  const f3 = v128.load(filter, 384), f4 = v128.load(filter, 512), f5 = v128.load(filter, 640);
  const f6 = v128.load(filter, 768), f7 = v128.load(filter, 896), f8 = v128.load(filter, 1024);
  for (; W > 0; W--) {
    let sum = v128.load(filter, 1152);
    sum = madd(v128.load(r0), f0, sum);
    sum = madd(v128.load(r0, 128), f1, sum);
    sum = madd(v128.load(r0, 256), f2, sum);
    sum = madd(v128.load(r1), f3, sum);
    sum = madd(v128.load(r1, 128), f4, sum);
    sum = madd(v128.load(r1, 256), f5, sum);
    sum = madd(v128.load(r2), f6, sum);
    sum = madd(v128.load(r2, 128), f7, sum);
    sum = madd(v128.load(r2, 256), f8, sum);
    v128.store(y, sum);
    r0 += PIXEL;
    r1 += PIXEL;
    r2 += PIXEL;
    y += PIXEL;
  }
}

/**
 * y = act(conv(x) + bias) for the channels c0 ... c0+count-1 of image b, padding K / 2. `scratch` holds K·K taps of 32
 * channels and 32 biases, and behind them room for K padded rows and one row of results.
 */
export function depthwiseImage(
  x: usize, y: usize, scratch: usize, act: u32, H: i32, W: i32, C: i32, K: i32, b: i32, c0: i32, count: i32,
): void {
  const taps = K * K, pad = (K - 1) / 2;
  const ring = scratch + <usize>(taps + 1) * PIXEL, padded = <usize>(W + K - 1) * PIXEL;
  const results = ring + <usize>K * padded;
  const step = <usize>C << 2, row = <usize>W * step;
  const first = (<usize>(b * H) * row) + (<usize>c0 << 2);
  memory.fill(ring, 0, <usize>K * padded);
  // Row r of the image stands at place (r + pad) % K of the ring.
  for (let r = 0; r < min(pad, H); r++) {
    copyRow(x + first + <usize>r * row, step, W, count, pad, PIXEL, ring + <usize>((r + pad) % K) * padded);
  }
  const bytes = <usize>count << 2, whole = bytes & ~15;
  for (let oy = 0; oy < H; oy++) {
    const next = oy + pad;
    copyRow(next < H ? x + first + <usize>next * row : 0, step, W, count, pad, PIXEL, ring + <usize>((next + pad) % K) * padded);
    for (let lane: usize = 0; lane < bytes; lane += 16) {
      if (K == 3) {
        const r0 = ring + <usize>(oy % 3) * padded + lane, r1 = ring + <usize>((oy + 1) % 3) * padded + lane;
        rowOfThree(r0, r1, ring + <usize>((oy + 2) % 3) * padded + lane, results + lane, scratch + lane, W);
        continue;
      }
      for (let ox = 0; ox < W; ox++) {
        let sum = v128.load(scratch + <usize>taps * PIXEL + lane);
        let filter = scratch + lane;
        for (let ky = 0; ky < K; ky++) {
          let from = ring + <usize>((oy + ky) % K) * padded + <usize>ox * PIXEL + lane;
          for (let kx = 0; kx < K; kx++) {
            sum = madd(v128.load(from), v128.load(filter), sum);
            from += PIXEL;
            filter += PIXEL;
          }
        }
        v128.store(results + <usize>ox * PIXEL + lane, sum);
      }
    }
    let from = results, to = y + first + <usize>oy * row;
    for (let ox = 0; ox < W; ox++) {
      let i: usize = 0;
      for (; i < whole; i += 16) v128.store(to + i, act ? activate(act, v128.load(from + i)) : v128.load(from + i));
      for (; i < bytes; i += 4) {
        store<f32>(to + i, f32x4.extract_lane(activate(act, v128.load_splat<f32>(from + i)), 0));
      }
      from += PIXEL;
      to += step;
    }
  }
}
