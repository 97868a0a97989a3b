// Rounding to f16 on the cpu device (contract and reference: half.ts).

import { ToHalf } from "./arguments";

/** Elements of one task. */
const ELEMENTS: i32 = 4096;

/** Four floats, given as bits, as halves in the low 16 bits of each lane. */
@inline
function rounded(x: v128): v128 {
  const size = v128.and(x, i32x4.splat(0x7fffffff));
  const a = i32x4.min_s(size, i32x4.splat(0x477fe000)); // 65504
  const odd = v128.and(i32x4.shr_u(a, 13), i32x4.splat(1));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, odd), i32x4.splat(0xfff - 0x38000000)), 13);
  // Floats from 0.5 on are 2^-24 apart, as the halves below 2^-14 are: adding 0.5 rounds to them.
  const small = i32x4.sub(f32x4.add(a, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  const number = v128.bitselect(small, normal, i32x4.lt_s(a, i32x4.splat(0x38800000)));
  const value = v128.bitselect(i32x4.splat(0x7e00), number, i32x4.gt_s(size, i32x4.splat(0x7f800000)));
  return v128.or(value, i32x4.shr_u(v128.andnot(x, i32x4.splat(0x7fffffff)), 16));
}

export function toHalf(args: ToHalf, task: i32, scratch: usize): void {
  const E = args.E, first = task * ELEMENTS;
  const count = min(ELEMENTS, E - first);
  let x = args.x + (<usize>first << 2), y = args.y + (<usize>first << 1);
  let most = i32x4.splat(0);
  let left = count;
  for (; left >= 4; left -= 4) {
    const bits = v128.load(x), halves = rounded(bits);
    // Sizes order as their bits do, and NaN comes last.
    most = i32x4.max_s(most, v128.and(bits, i32x4.splat(0x7fffffff)));
    v128.store64_lane(y, i16x8.narrow_i32x4_u(halves, halves), 0);
    x += 16;
    y += 8;
  }
  for (; left > 0; left--) {
    const bits = v128.load32_splat(x);
    most = i32x4.max_s(most, v128.and(bits, i32x4.splat(0x7fffffff)));
    store<u16>(y, <u16>i32x4.extract_lane(rounded(bits), 0));
    x += 4;
    y += 2;
  }
  const a = max(i32x4.extract_lane(most, 0), i32x4.extract_lane(most, 1));
  const b = max(i32x4.extract_lane(most, 2), i32x4.extract_lane(most, 3));
  store<i32>(args.largest + (<usize>(args.at + task) << 2), max(a, b));
}
