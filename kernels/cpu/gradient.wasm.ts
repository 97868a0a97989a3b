// What the gradients of linear layers and convolutions share on the cpu device: operands packed for the register tile of
// gemm.wasm.ts, and tiles added to a gradient.

import { TILE_ROWS } from "./gemm.wasm";
import { PANEL } from "./pack.wasm";
import { halfAt, halves, lanes } from "./simd.wasm";

/** Bytes of one step of a panel and of a register tile. */
export const STEP: usize = <usize>PANEL << 2;
export const TILE_BYTES: usize = <usize>TILE_ROWS * STEP;

/** Rows and columns of dw of one task of a weight's gradient, and the tokens or pixels whose sum is taken at a time. */
export const WEIGHT_ROWS: i32 = 192;
export const WEIGHT_COLUMNS: i32 = 192;
export const TOKENS: i32 = 512;
/** Bytes from row to row of the transposed dz: no power of two, or all rows would meet in the same cache sets. */
export const LEFT_ROW: usize = (<usize>TOKENS + 16) << 2;

/** Columns c0 ... c0+width-1 of `count` rows, `stride` bytes apart, as a panel `[count, PANEL]`; the rest is zero. */
export function panelOfRows(from: usize, stride: usize, count: i32, width: i32, to: usize): void {
  if (width == PANEL) {
    for (; count > 0; count--) {
      for (let j: usize = 0; j < STEP; j += 16) v128.store(to + j, v128.load(from + j));
      from += stride;
      to += STEP;
    }
    return;
  }
  for (; count > 0; count--) {
    for (let j: i32 = 0; j < PANEL; j++) {
      const at = <usize>j << 2;
      store<f32>(to + at, j < width ? load<f32>(from + at) : <f32>0.0);
    }
    from += stride;
    to += STEP;
  }
}

/**
 * Two neighbouring panels at once, the second `panelBytes` after the first: rows lie far apart, and a cache line of each
 * is fetched once instead of twice.
 */
export function panelPairOfRows(from: usize, stride: usize, count: i32, to: usize, panelBytes: usize): void {
  for (; count > 0; count--) {
    for (let j: usize = 0; j < STEP; j += 16) {
      v128.store(to + j, v128.load(from + j));
      v128.store(to + panelBytes + j, v128.load(from + STEP + j));
    }
    from += stride;
    to += STEP;
  }
}

/**
 * `columns` columns of `count` rows as panels, `panelBytes` apart: rows lie far apart, often in a page each, and are read
 * once for all panels.
 */
export function panelsOfRows(
  from: usize, stride: usize, count: i32, columns: i32, to: usize, panelBytes: usize,
): void {
  const bytes = <usize>(columns & ~(PANEL - 1)) << 2;
  for (let row = from, out = to, left = count; left > 0; left--) {
    for (let i: usize = 0, at = out; i < bytes; i += STEP, at += panelBytes) {
      v128.store(at, v128.load(row + i));
      v128.store(at, v128.load(row + i, 16), 16);
    }
    row += stride;
    out += STEP;
  }
  const rest = columns % PANEL;
  if (rest) panelOfRows(from + bytes, stride, count, rest, to + <usize>(columns / PANEL) * panelBytes);
}

/** Eight halves as floats. */
@inline
function widen(from: usize, to: usize): void {
  const eight = v128.load(from);
  v128.store(to, halves(i32x4.extend_low_i16x8_s(eight)));
  v128.store(to, halves(i32x4.extend_high_i16x8_s(eight)), 16);
}

/** A row of `count` halves as floats. */
export function widenRow(from: usize, count: i32, to: usize): void {
  for (; count >= 8; count -= 8) {
    widen(from, to);
    from += 16;
    to += 32;
  }
  for (; count > 0; count--) {
    store<f32>(to, halfAt(from));
    from += 2;
    to += 4;
  }
}

/** Eight columns of `count` rows of halves, `stride` bytes apart, as a panel of floats. */
export function panelOfHalves(from: usize, stride: usize, count: i32, to: usize): void {
  for (; count > 0; count--) {
    widen(from, to);
    from += stride;
    to += STEP;
  }
}

/**
 * `count` rows of `width` columns, `stride` bytes apart, as `width` rows of `count` floats, `row` bytes apart.
 */
export function transpose(from: usize, stride: usize, count: i32, width: i32, to: usize, row: usize): void {
  let m = 0;
  for (; m + 4 <= count; m += 4) {
    let a = from + <usize>m * stride, out = to + (<usize>m << 2);
    let n = 0;
    for (; n + 4 <= width; n += 4) {
      const r0 = v128.load(a), r1 = v128.load(a + stride);
      const r2 = v128.load(a + 2 * stride), r3 = v128.load(a + 3 * stride);
      const ab0 = i32x4.shuffle(r0, r1, 0, 4, 1, 5), ab1 = i32x4.shuffle(r0, r1, 2, 6, 3, 7);
      const cd0 = i32x4.shuffle(r2, r3, 0, 4, 1, 5), cd1 = i32x4.shuffle(r2, r3, 2, 6, 3, 7);
      v128.store(out, i64x2.shuffle(ab0, cd0, 0, 2));
      v128.store(out + row, i64x2.shuffle(ab0, cd0, 1, 3));
      v128.store(out + 2 * row, i64x2.shuffle(ab1, cd1, 0, 2));
      v128.store(out + 3 * row, i64x2.shuffle(ab1, cd1, 1, 3));
      a += 16;
      out += 4 * row;
    }
    for (; n < width; n++) {
      for (let i: usize = 0; i < 4; i++) store<f32>(out + (i << 2), load<f32>(a + i * stride));
      a += 4;
      out += row;
    }
  }
  for (; m < count; m++) {
    for (let n = 0; n < width; n++) {
      const at = from + <usize>m * stride + (<usize>n << 2);
      store<f32>(to + <usize>n * row + (<usize>m << 2), load<f32>(at));
    }
  }
}

/** Stores a tile `c` to rows of `stride` bytes, or adds it to them. */
export function place(c: usize, y: usize, stride: usize, rows: i32, columns: i32, add: bool): void {
  if (columns == PANEL) {
    for (; rows > 0; rows--) {
      for (let j: usize = 0; j < STEP; j += 16) {
        const v = v128.load(c + j);
        v128.store(y + j, add ? f32x4.add(v128.load(y + j), v) : v);
      }
      c += STEP;
      y += stride;
    }
    return;
  }
  const bytes = <usize>columns << 2, whole = bytes & ~15;
  for (let r = 0; r < rows; r++) {
    let j: usize = 0;
    if (add) {
      for (; j < whole; j += 16) v128.store(y + j, f32x4.add(v128.load(y + j), v128.load(c + j)));
      for (; j < bytes; j += 4) store<f32>(y + j, load<f32>(y + j) + load<f32>(c + j));
    } else {
      for (; j < whole; j += 16) v128.store(y + j, v128.load(c + j));
      for (; j < bytes; j += 4) store<f32>(y + j, load<f32>(c + j));
    }
    c += STEP;
    y += stride;
  }
}

/** Sum of `count` floats in 16 interleaved parts. */
export function sumOf(x: usize, count: i32): f32 {
  let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0;
  let rest: f32 = 0.0;
  for (; count >= 16; count -= 16) {
    s0 = f32x4.add(s0, v128.load(x));
    s1 = f32x4.add(s1, v128.load(x, 16));
    s2 = f32x4.add(s2, v128.load(x, 32));
    s3 = f32x4.add(s3, v128.load(x, 48));
    x += 64;
  }
  for (; count > 0; count--) {
    rest += load<f32>(x);
    x += 4;
  }
  return lanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3))) + rest;
}

/** to += the sum of `count` rows of `width` floats, `stride` bytes apart, TOKENS rows at a time. */
export function addRows(from: usize, stride: usize, count: i32, width: i32, to: usize): void {
  let n = 0;
  for (; n + 4 <= width; n += 4) {
    let at = from + (<usize>n << 2);
    const sums = to + (<usize>n << 2);
    for (let m = 0; m < count; m += TOKENS) {
      let s = f32x4.splat(0.0);
      for (let left = min(TOKENS, count - m); left > 0; left--) {
        s = f32x4.add(s, v128.load(at));
        at += stride;
      }
      v128.store(sums, f32x4.add(v128.load(sums), s));
    }
  }
  for (; n < width; n++) {
    let at = from + (<usize>n << 2);
    const sum = to + (<usize>n << 2);
    for (let m = 0; m < count; m += TOKENS) {
      let s: f32 = 0.0;
      for (let left = min(TOKENS, count - m); left > 0; left--) {
        s += load<f32>(at);
        at += stride;
      }
      store<f32>(sum, load<f32>(sum) + s);
    }
  }
}
