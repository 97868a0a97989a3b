// The matrix product under linear layers, convolutions and attention. One register tile is 6 rows times 8 columns; each
// element is one chain of multiply-adds over k in ascending order, so a row's bits depend on nothing but that row and
// the weights: not on its neighbours, the tile it falls into, the thread, or whether the weights came packed.
//
// What decides speed is the number of instructions: the runtime checks the bounds of every load, so 12 multiply-adds come
// with 8 loads and 8 checks. Twelve accumulators, two weights and one broadcast fill the 15 registers that there are
// without spilling; the loop ends on an address because a counter would be spilled, and tests at its end because a test
// at its start costs a second jump (39 instead of 41 in the whole kernel); left rows are read in place, since
// one address a row and step shares a single check limit. Measured 2026-11-21 on a 2-core Xeon (AVX-512 machine, Deno
// 2.9.6, one thread, 72x768x768), GFLOP/s: this loop 45; with a counter 41; unrolled by two 43, by four 45, by eight 36;
// packed left rows 42; 4x12 43; 6x16 unrolled by four 26 to 48, as its spilled registers happen to be aligned. Blocking K
// gains nothing: a panel streams from the second-level cache fast enough.

import { packPanel, PANEL } from "./pack.wasm";
import { activate, activateRow, halfAt, halves, madd, prefetch } from "./simd.wasm";

/** Rows of a register tile. */
export const TILE_ROWS: i32 = 6;
/** Rows and columns of one task of a matrix product; kernels/cpu/blocks.ts counts with the same numbers. */
export const BLOCK_ROWS: i32 = 96;
export const BLOCK_COLUMNS: i32 = 48;

/**
 * c[r, j] = sum over taps and k of rows[tap, r][k] * b[tap, k, j], 6 rows of 8 columns.
 *
 * `rows` is a table of addresses, 6 for each tap; a tap is `length` floats, `step` bytes apart (a linear layer has one
 * tap, a 3x3 convolution nine). `b` is a panel, 8 floats for each k. `stride` is the distance of two rows of c in bytes.
 * With `add`, the chains begin at what is in c.
 */
export function tile(
  rows: usize, taps: i32, length: i32, step: usize, b: usize, c: usize, stride: usize, add: bool = false,
): void {
  const zero = f32x4.splat(0.0);
  let c00 = zero, c01 = zero;
  let c10 = zero, c11 = zero;
  let c20 = zero, c21 = zero;
  let c30 = zero, c31 = zero;
  let c40 = zero, c41 = zero;
  let c50 = zero, c51 = zero;
  if (add) {
    let from = c;
    c00 = v128.load(from); c01 = v128.load(from, 16); from += stride;
    c10 = v128.load(from); c11 = v128.load(from, 16); from += stride;
    c20 = v128.load(from); c21 = v128.load(from, 16); from += stride;
    c30 = v128.load(from); c31 = v128.load(from, 16); from += stride;
    c40 = v128.load(from); c41 = v128.load(from, 16); from += stride;
    c50 = v128.load(from); c51 = v128.load(from, 16);
  }
  let x = zero;
  for (; taps > 0; taps--) {
    let a0: usize = load<u32>(rows), a1: usize = load<u32>(rows, 4), a2: usize = load<u32>(rows, 8);
    let a3: usize = load<u32>(rows, 12), a4: usize = load<u32>(rows, 16), a5: usize = load<u32>(rows, 20);
    rows += 24;
    const end = b + (<usize>length << 5);
    if (b < end) do {
      const b0 = v128.load(b), b1 = v128.load(b, 16);
      x = v128.load_splat<f32>(a0); c00 = madd(x, b0, c00); c01 = madd(x, b1, c01);
      x = v128.load_splat<f32>(a1); c10 = madd(x, b0, c10); c11 = madd(x, b1, c11);
      x = v128.load_splat<f32>(a2); c20 = madd(x, b0, c20); c21 = madd(x, b1, c21);
      x = v128.load_splat<f32>(a3); c30 = madd(x, b0, c30); c31 = madd(x, b1, c31);
      x = v128.load_splat<f32>(a4); c40 = madd(x, b0, c40); c41 = madd(x, b1, c41);
      x = v128.load_splat<f32>(a5); c50 = madd(x, b0, c50); c51 = madd(x, b1, c51);
      a0 += step; a1 += step; a2 += step; a3 += step; a4 += step; a5 += step;
      b += 32;
    } while (b < end);
  }
  v128.store(c, c00); v128.store(c, c01, 16); c += stride;
  v128.store(c, c10); v128.store(c, c11, 16); c += stride;
  v128.store(c, c20); v128.store(c, c21, 16); c += stride;
  v128.store(c, c30); v128.store(c, c31, 16); c += stride;
  v128.store(c, c40); v128.store(c, c41, 16); c += stride;
  v128.store(c, c50); v128.store(c, c51, 16);
}

/** `count` steps of a panel of halves as floats. */
function widenPanel(from: usize, count: i32, to: usize): void {
  for (; count > 0; count--) {
    const eight = v128.load(from);
    v128.store(to, halves(i32x4.extend_low_i16x8_s(eight)));
    v128.store(to, halves(i32x4.extend_high_i16x8_s(eight)), 16);
    from += 16;
    to += 32;
  }
}

/** Eight rows of K halves as a panel of floats: what packPanel and widening would give, in one go. */
function widenRows(w: usize, K: i32, panel: usize): void {
  const step = <usize>K << 1;
  for (let j = 0; j < PANEL; j += 4) {
    let r0 = w + <usize>j * step, r1 = r0 + step, r2 = r1 + step, r3 = r2 + step;
    let to = panel + (<usize>j << 2), k = K;
    for (; k >= 4; k -= 4) {
      const a = halves(v128.load16x4_s(r0)), b = halves(v128.load16x4_s(r1));
      const c = halves(v128.load16x4_s(r2)), d = halves(v128.load16x4_s(r3));
      const ab0 = i32x4.shuffle(a, b, 0, 4, 1, 5), ab1 = i32x4.shuffle(a, b, 2, 6, 3, 7);
      const cd0 = i32x4.shuffle(c, d, 0, 4, 1, 5), cd1 = i32x4.shuffle(c, d, 2, 6, 3, 7);
      v128.store(to, i64x2.shuffle(ab0, cd0, 0, 2));
      v128.store(to, i64x2.shuffle(ab0, cd0, 1, 3), 32);
      v128.store(to, i64x2.shuffle(ab1, cd1, 0, 2), 64);
      v128.store(to, i64x2.shuffle(ab1, cd1, 1, 3), 96);
      r0 += 8; r1 += 8; r2 += 8; r3 += 8;
      to += 128;
    }
    for (; k > 0; k--) {
      store<f32>(to, halfAt(r0));
      store<f32>(to, halfAt(r1), 4);
      store<f32>(to, halfAt(r2), 8);
      store<f32>(to, halfAt(r3), 12);
      r0 += 2; r1 += 2; r2 += 2; r3 += 2;
      to += 32;
    }
  }
}

/**
 * Address of panel `n0 / 8` as floats: in place when `w` is packed (bit 0 of its address is set) and f32, else packed or
 * widened into `buffer`, which holds two panels of floats (`64 * taps * length` bytes).
 */
export function panelOf(w: usize, half: u32, N: i32, n0: i32, length: i32, taps: i32, buffer: usize): usize {
  const K = length * taps;
  if (half && !(w & 1) && taps == 1 && n0 + PANEL <= N) {
    widenRows(w + (<usize>(n0 * K) << 1), K, buffer);
    return buffer;
  }
  let panel = (w & ~1) + ((<usize>n0 * K) << (half ? 1 : 2));
  if (!(w & 1)) {
    panel = half ? buffer + (<usize>K << 5) : buffer;
    packPanel(w, half, N, n0, length, taps, panel);
  }
  if (!half) return panel;
  widenPanel(panel, K, buffer);
  return buffer;
}

/** What follows the product. Each thread has its own copy; a kernel sets it at the start of each task. */
export let outAddress: usize = 0;
export let outStride: usize = 0;
export let outBias: usize = 0;
export let outAct: u32 = 0;
export let outResidual: usize = 0;
export let outGate: usize = 0;
export let outGateRows: usize = 0;
export let outGateStride: usize = 0;

/**
 * Sets the epilogue: element (m, n) goes to `y + m * stride + 4n`, all in bytes; bias and residual (laid out as y) are
 * 0 when absent; the gate of row m is at `gate + gateRows[m] * gateStride + 4n`.
 */
export function setOutput(
  y: usize, stride: usize, bias: usize, act: u32, residual: usize,
  gate: usize, gateRows: usize, gateStride: usize,
): void {
  outAddress = y;
  outStride = stride;
  outBias = bias;
  outAct = act;
  outResidual = residual;
  outGate = gate;
  outGateRows = gateRows;
  outGateStride = gateStride;
}

/** Bias, activation, gate, residual and store of a block `c` (rows of `step` bytes, overwritten) at row m0, column n0. */
export function epilogue(c: usize, step: usize, m0: i32, rows: i32, n0: i32, columns: i32): void {
  const bytes = <usize>columns << 2, whole = bytes & ~15, at = <usize>n0 << 2;
  const bias = outBias + at;
  for (let r = 0; r < rows; r++) {
    const m = m0 + r;
    const y = outAddress + <usize>m * outStride + at;
    const residual = outResidual ? outResidual + <usize>m * outStride + at : 0;
    const gate = outGate ? outGate + <usize>load<u32>(outGateRows + (<usize>m << 2)) * outGateStride + at : 0;
    let j: usize = 0;
    if (gate && residual && outBias && !outAct) {
      for (; j < whole; j += 16) {
        const v = f32x4.add(v128.load(c + j), v128.load(bias + j));
        v128.store(y + j, f32x4.add(f32x4.mul(v, v128.load(gate + j)), v128.load(residual + j)));
      }
    } else {
      if (outBias) for (; j < whole; j += 16) v128.store(c + j, f32x4.add(v128.load(c + j), v128.load(bias + j)));
      if (outAct) activateRow(outAct, c, whole, c);
      if (gate) for (j = 0; j < whole; j += 16) v128.store(c + j, f32x4.mul(v128.load(c + j), v128.load(gate + j)));
      if (residual) for (j = 0; j < whole; j += 16) v128.store(c + j, f32x4.add(v128.load(c + j), v128.load(residual + j)));
      for (j = 0; j < whole; j += 16) v128.store(y + j, v128.load(c + j));
    }
    for (; j < bytes; j += 4) {
      let v = load<f32>(c + j);
      if (outBias) v += load<f32>(bias + j);
      if (outAct) v = f32x4.extract_lane(activate(outAct, f32x4.splat(v)), 0);
      if (gate) v *= load<f32>(gate + j);
      if (residual) v += load<f32>(residual + j);
      store<f32>(y + j, v);
    }
    c += step;
  }
}

/** Bytes of a row of the block of results. */
const BLOCK_ROW: usize = <usize>BLOCK_COLUMNS << 2;
/** Bytes of the block of results. */
const BLOCK_BYTES: usize = <usize>BLOCK_ROWS * BLOCK_ROW;

/**
 * Rows m0 ... m0+rows-1 times the columns n0 ... n1-1 of the weights `[N, length, taps]`, then the epilogue: at most
 * BLOCK_ROWS rows and, BLOCK_COLUMNS at a time, any columns. `table` holds `taps` times six row addresses for each group of six
 * rows (missing rows repeat a valid address). Scratch: a block of results, and the buffer of panelOf.
 */
export function product(
  table: usize, m0: i32, rows: i32, w: usize, half: u32, N: i32, n0: i32, n1: i32,
  length: i32, taps: i32, scratch: usize,
): void {
  const buffer = scratch + BLOCK_BYTES;
  for (; n0 < n1; n0 += BLOCK_COLUMNS) {
    const columns = min(BLOCK_COLUMNS, n1 - n0);
    for (let n = 0; n < columns; n += PANEL) {
      const panel = panelOf(w, half, N, n0 + n, length, taps, buffer);
      let addresses = table, c = scratch + (<usize>n << 2);
      prefetch(panel, 0, 1, <usize>(length * taps) << 5, c);
      for (let r = 0; r < rows; r += TILE_ROWS) {
        tile(addresses, taps, length, 4, panel, c, BLOCK_ROW);
        addresses += <usize>(taps * 24);
        c += <usize>TILE_ROWS * BLOCK_ROW;
      }
    }
    epilogue(scratch, BLOCK_ROW, m0, rows, n0, columns);
  }
}
