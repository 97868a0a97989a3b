// Max-pooling on the cpu device (contracts and references: pool.ts).

import { MaxPool2d, MaxPool2dGrad } from "./arguments";

/** Channels of one task of the gradient. */
const CHANNELS: i32 = 16;

export function maxPool2d(args: MaxPool2d, task: i32, scratch: usize): void {
  const H = args.H, W = args.W, C = args.C;
  const OH = args.OH, OW = args.OW, K = args.K;
  const stride = args.stride, pad = args.pad;
  const b = task / OH, y0 = task % OH * stride - pad;
  const ky0 = max(0, -y0), ky1 = min(K, H - y0);
  const bytes = <usize>C << 2, whole = bytes & ~15;
  for (let ox = 0; ox < OW; ox++) {
    const x0 = ox * stride - pad;
    const kx0 = max(0, -x0), kx1 = min(K, W - x0);
    const from = args.x + <usize>((b * H + y0 + ky0) * W + x0 + kx0) * bytes;
    const to = args.y + <usize>(task * OW + ox) * bytes;
    for (let i: usize = 0; i < bytes;) {
      const vector = i < whole;
      let most = vector ? v128.load(from + i) : v128.load_splat<f32>(from + i);
      for (let ky = ky0; ky < ky1; ky++) {
        let at = from + i + <usize>((ky - ky0) * W) * bytes;
        for (let kx = kx0; kx < kx1; kx++) {
          most = f32x4.max(most, vector ? v128.load(at) : v128.load_splat<f32>(at));
          at += bytes;
        }
      }
      if (vector) v128.store(to + i, most);
      else store<f32>(to + i, f32x4.extract_lane(most, 0));
      i += vector ? 16 : 4;
    }
  }
}

export function maxPool2dGrad(args: MaxPool2dGrad, task: i32, scratch: usize): void {
  const x = args.x, dy = args.dy, dx = args.dx;
  const H = args.H, W = args.W, C = args.C;
  const OH = args.OH, OW = args.OW, K = args.K;
  const stride = args.stride, pad = args.pad;
  const blocks = (C + CHANNELS - 1) / CHANNELS;
  const b = task / blocks, c0 = task % blocks * CHANNELS, count = min(CHANNELS, C - c0);
  const bytes = <usize>C << 2, first = <usize>c0 << 2;
  for (let p = b * H * W; p < (b + 1) * H * W; p++) {
    memory.fill(dx + <usize>p * bytes + first, 0, <usize>count << 2);
  }
  for (let oy = 0; oy < OH; oy++) {
    const y0 = oy * stride - pad, ky0 = max(0, -y0), ky1 = min(K, H - y0);
    for (let ox = 0; ox < OW; ox++) {
      const x0 = ox * stride - pad, kx0 = max(0, -x0), kx1 = min(K, W - x0);
      const corner = <usize>((b * H + y0 + ky0) * W + x0 + kx0) * bytes + first;
      const up = dy + <usize>((b * OH + oy) * OW + ox) * bytes + first;
      for (let c = 0; c < count; c += 4) {
        const lane = <usize>c << 2, vector = c + 4 <= count;
        // Four channels at a time; one to three left over go through lane 0, one by one.
        const last = vector ? c + 1 : count;
        for (let one = c; one < last; one++) {
          const shift = corner + (vector ? lane : <usize>one << 2);
          let most = vector ? v128.load(x + shift) : v128.load_splat<f32>(x + shift);
          let winner = i32x4.splat(<i32>shift);
          for (let ky = 0; ky < ky1 - ky0; ky++) {
            let at = shift + <usize>(ky * W) * bytes;
            for (let kx = kx0; kx < kx1; kx++) {
              const v = vector ? v128.load(x + at) : v128.load_splat<f32>(x + at);
              const wins = f32x4.gt(v, most);
              most = v128.bitselect(v, most, wins);
              winner = v128.bitselect(i32x4.splat(<i32>at), winner, wins);
              at += bytes;
            }
          }
          if (vector) {
            addTo(dx + <usize><u32>i32x4.extract_lane(winner, 0), load<f32>(up + lane));
            addTo(dx + <usize><u32>i32x4.extract_lane(winner, 1) + 4, load<f32>(up + lane, 4));
            addTo(dx + <usize><u32>i32x4.extract_lane(winner, 2) + 8, load<f32>(up + lane, 8));
            addTo(dx + <usize><u32>i32x4.extract_lane(winner, 3) + 12, load<f32>(up + lane, 12));
          } else addTo(dx + <usize><u32>i32x4.extract_lane(winner, 0), load<f32>(up + (<usize>one << 2)));
        }
      }
    }
  }
}

@inline
function addTo(at: usize, value: f32): void {
  store<f32>(at, load<f32>(at) + value);
}
