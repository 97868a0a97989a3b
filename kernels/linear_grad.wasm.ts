// Gradients of linear layers on the cpu device (contracts and references: linear.ts). Both are products through the
// register tile of cpu/gemm.wasm.ts: of dz with panels of columns of w, and of the transposed dz with panels of x. A task
// packs what its tiles read, so one task covers more than a forward task does.

import { tile, TILE_ROWS } from "./cpu/gemm.wasm";
import { PANEL } from "./cpu/pack.wasm";
import { halves, lanes, word } from "./cpu/simd.wasm";

/** Rows of dz and columns of w of one task of the input's gradient. */
const INPUT_ROWS: i32 = 192;
const INPUT_COLUMNS: i32 = 48;
/** Rows and columns of dw of one task of the weight's gradient, and the tokens whose sum is taken at a time. */
const WEIGHT_ROWS: i32 = 96;
const WEIGHT_COLUMNS: i32 = 192;
const TOKENS: i32 = 512;

const STEP: usize = <usize>PANEL << 2;
const TILE_BYTES: usize = <usize>TILE_ROWS * STEP;

/** Columns c0 ... c0+width-1 of `count` rows, `stride` bytes apart, as a panel `[count, PANEL]`; the rest is zero. */
function panelOfRows(from: usize, stride: usize, count: i32, width: i32, to: usize): void {
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

/** `count` rows of `width` columns, `stride` bytes apart, as `width` rows of `count` floats. */
function transpose(from: usize, stride: usize, count: i32, width: i32, to: usize): void {
  const row = <usize>count << 2;
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

/** The half at an address as a float. */
@inline
function halfAt(from: usize): f32 {
  return f32x4.extract_lane(halves(i32x4.splat(<i32>load<u16>(from))), 0);
}

/** Columns k0 ... k0+width-1 of the weights `[N, K]`, row-major or packed, floats or halves, as a panel `[N, PANEL]`. */
function panelOfWeights(w: usize, half: u32, N: i32, K: i32, k0: i32, width: i32, to: usize): void {
  const packed = (w & 1) != 0;
  w &= ~1;
  if (!packed && !half) {
    panelOfRows(w + (<usize>k0 << 2), <usize>K << 2, N, width, to);
    return;
  }
  let n = 0;
  if (packed && !half && width == PANEL) {
    // A packed weight is already in panels, of rows of w: 16 times 16 blocks change places.
    for (; n + PANEL <= N; n += PANEL) {
      transpose(w + (<usize>(n * K + k0 * PANEL) << 2), STEP, PANEL, PANEL, to);
      to += <usize>PANEL * STEP;
    }
  }
  for (; n < N; n++) {
    for (let j = 0; j < PANEL; j++) {
      let v: f32 = 0.0;
      if (j < width) {
        const k = k0 + j;
        const at = <usize>(packed ? (n - n % PANEL) * K + k * PANEL + n % PANEL : n * K + k);
        v = half ? halfAt(w + (at << 1)) : load<f32>(w + (at << 2));
      }
      store<f32>(to + (<usize>j << 2), v);
    }
    to += STEP;
  }
}

/** Stores a tile `c` to rows of `stride` bytes, or adds it to them. */
function place(c: usize, y: usize, stride: usize, rows: i32, columns: i32, add: bool): void {
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

export function linearGradInput(args: usize, task: i32, scratch: usize): void {
  const M = <i32>word(args, 3), N = <i32>word(args, 4), K = <i32>word(args, 5), Z = <usize>word(args, 6);
  const xRow = <i32>word(args, 7), yRow = <i32>word(args, 8), zCol = <usize>word(args, 9);
  const add = word(args, 10) != 0, half = word(args, 11);
  const columnBlocks = (K + INPUT_COLUMNS - 1) / INPUT_COLUMNS;
  const m0 = task / columnBlocks * INPUT_ROWS, rows = min(INPUT_ROWS, M - m0);
  const k0 = task % columnBlocks * INPUT_COLUMNS, k1 = min(K, k0 + INPUT_COLUMNS);
  const dz = <usize>word(args, 0) + ((<usize>(yRow + m0) * Z + zCol) << 2);
  const stride = <usize>K << 2;
  const dx = <usize>word(args, 2) + <usize>(xRow + m0) * stride;
  const table = scratch, c = scratch + (INPUT_ROWS << 2), panel = c + TILE_BYTES;
  for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
    store<u32>(table + (<usize>r << 2), <u32>(dz + <usize>min(r, rows - 1) * (Z << 2)));
  }
  for (let k = k0; k < k1; k += PANEL) {
    const width = min(PANEL, k1 - k);
    panelOfWeights(<usize>word(args, 1), half, N, K, k, width, panel);
    for (let r = 0; r < rows; r += TILE_ROWS) {
      tile(table + (<usize>r << 2), 1, N, panel, c, STEP);
      const to = dx + <usize>r * stride + (<usize>k << 2);
      place(c, to, stride, min(TILE_ROWS, rows - r), width, add);
    }
  }
}

/** Sum of `count` floats in 16 interleaved parts. */
function sumOf(x: usize, count: i32): f32 {
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

export function linearGradWeight(args: usize, task: i32, scratch: usize): void {
  const M = <i32>word(args, 4), N = <i32>word(args, 5), K = <i32>word(args, 6), Z = <usize>word(args, 7);
  const xRow = <i32>word(args, 8), yRow = <i32>word(args, 9), zCol = <usize>word(args, 10);
  const hasBias = word(args, 11);
  const columnBlocks = (K + WEIGHT_COLUMNS - 1) / WEIGHT_COLUMNS;
  const n0 = task / columnBlocks * WEIGHT_ROWS, rows = min(WEIGHT_ROWS, N - n0);
  const k0 = task % columnBlocks * WEIGHT_COLUMNS, k1 = min(K, k0 + WEIGHT_COLUMNS);
  const stride = <usize>K << 2;
  const dw = <usize>word(args, 2) + <usize>n0 * stride;
  const table = scratch, c = scratch + (WEIGHT_ROWS << 2), panel = c + TILE_BYTES;
  const left = panel + <usize>TOKENS * STEP;
  for (let m = 0; m < M; m += TOKENS) {
    const count = min(TOKENS, M - m);
    const dz = <usize>word(args, 0) + ((<usize>(yRow + m) * Z + zCol + n0) << 2);
    transpose(dz, Z << 2, count, rows, left);
    if (hasBias && k0 == 0) {
      for (let n = 0; n < rows; n++) {
        const at = <usize>word(args, 3) + (<usize>(n0 + n) << 2);
        store<f32>(at, load<f32>(at) + sumOf(left + (<usize>(n * count) << 2), count));
      }
    }
    for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
      store<u32>(table + (<usize>r << 2), <u32>(left + (<usize>(min(r, rows - 1) * count) << 2)));
    }
    const x = <usize>word(args, 1) + <usize>(xRow + m) * stride;
    for (let k = k0; k < k1; k += PANEL) {
      const width = min(PANEL, k1 - k);
      panelOfRows(x + (<usize>k << 2), stride, count, width, panel);
      for (let r = 0; r < rows; r += TILE_ROWS) {
        tile(table + (<usize>r << 2), 1, count, panel, c, STEP);
        place(c, dw + <usize>r * stride + (<usize>k << 2), stride, min(TILE_ROWS, rows - r), width, true);
      }
    }
  }
}
