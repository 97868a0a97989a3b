// The matrix product under linear layers, convolutions and attention. One register tile: 6 rows times 16 columns, each
// element one chain of multiply-adds over k in ascending order, so a row's bits depend on nothing but that row and the
// weights: not on its neighbours, the tile it falls into, the thread, or whether the weights came packed.
//
// Measured 2026-11-21 on a Xeon (Sapphire Rapids class, 2 cores), Deno 2.9.6, one thread, 60x768x768: 6x8 45, 6x16
// unrolled by four 46 to 49, 4x12 43, 4x16 40 GFLOP/s. Blocking K gains nothing: a panel streams from L2 fast enough.

import { packPanel, PANEL } from "./pack.wasm";
import { activate, halves, madd } from "./simd.wasm";

/** Rows of a register tile. */
export const TILE_ROWS: i32 = 6;
/** Rows and columns of one task of a matrix product; kernels/cpu/blocks.ts counts with the same numbers. */
export const BLOCK_ROWS: i32 = 96;
export const BLOCK_COLUMNS: i32 = 48;

/**
 * c[r, j] = sum over taps and k of rows[tap, r][k] * b[tap, k, j], 6 rows of 16 columns.
 *
 * `rows` is a table of addresses, 6 for each tap; a tap is a run of `length` floats (a linear layer has one, a 3x3
 * convolution nine). `b` is a panel, 16 floats a step. `stride` is the distance of two rows of c in bytes.
 */
export function tile(rows: usize, taps: i32, length: i32, b: usize, c: usize, stride: usize): void {
  const zero = f32x4.splat(0.0);
  let c00 = zero, c01 = zero, c02 = zero, c03 = zero;
  let c10 = zero, c11 = zero, c12 = zero, c13 = zero;
  let c20 = zero, c21 = zero, c22 = zero, c23 = zero;
  let c30 = zero, c31 = zero, c32 = zero, c33 = zero;
  let c40 = zero, c41 = zero, c42 = zero, c43 = zero;
  let c50 = zero, c51 = zero, c52 = zero, c53 = zero;
  let x = zero, b0 = zero, b1 = zero, b2 = zero, b3 = zero;
  for (; taps > 0; taps--) {
    let a0: usize = load<u32>(rows), a1: usize = load<u32>(rows, 4), a2: usize = load<u32>(rows, 8);
    let a3: usize = load<u32>(rows, 12), a4: usize = load<u32>(rows, 16), a5: usize = load<u32>(rows, 20);
    rows += 24;
    let k = length;
    for (; k >= 4; k -= 4) {
      b0 = v128.load(b, 0); b1 = v128.load(b, 16); b2 = v128.load(b, 32); b3 = v128.load(b, 48);
      x = v128.load_splat<f32>(a0); c00 = madd(x, b0, c00); c01 = madd(x, b1, c01); c02 = madd(x, b2, c02); c03 = madd(x, b3, c03);
      x = v128.load_splat<f32>(a1); c10 = madd(x, b0, c10); c11 = madd(x, b1, c11); c12 = madd(x, b2, c12); c13 = madd(x, b3, c13);
      x = v128.load_splat<f32>(a2); c20 = madd(x, b0, c20); c21 = madd(x, b1, c21); c22 = madd(x, b2, c22); c23 = madd(x, b3, c23);
      x = v128.load_splat<f32>(a3); c30 = madd(x, b0, c30); c31 = madd(x, b1, c31); c32 = madd(x, b2, c32); c33 = madd(x, b3, c33);
      x = v128.load_splat<f32>(a4); c40 = madd(x, b0, c40); c41 = madd(x, b1, c41); c42 = madd(x, b2, c42); c43 = madd(x, b3, c43);
      x = v128.load_splat<f32>(a5); c50 = madd(x, b0, c50); c51 = madd(x, b1, c51); c52 = madd(x, b2, c52); c53 = madd(x, b3, c53);
      b0 = v128.load(b, 64); b1 = v128.load(b, 80); b2 = v128.load(b, 96); b3 = v128.load(b, 112);
      x = v128.load_splat<f32>(a0, 4); c00 = madd(x, b0, c00); c01 = madd(x, b1, c01); c02 = madd(x, b2, c02); c03 = madd(x, b3, c03);
      x = v128.load_splat<f32>(a1, 4); c10 = madd(x, b0, c10); c11 = madd(x, b1, c11); c12 = madd(x, b2, c12); c13 = madd(x, b3, c13);
      x = v128.load_splat<f32>(a2, 4); c20 = madd(x, b0, c20); c21 = madd(x, b1, c21); c22 = madd(x, b2, c22); c23 = madd(x, b3, c23);
      x = v128.load_splat<f32>(a3, 4); c30 = madd(x, b0, c30); c31 = madd(x, b1, c31); c32 = madd(x, b2, c32); c33 = madd(x, b3, c33);
      x = v128.load_splat<f32>(a4, 4); c40 = madd(x, b0, c40); c41 = madd(x, b1, c41); c42 = madd(x, b2, c42); c43 = madd(x, b3, c43);
      x = v128.load_splat<f32>(a5, 4); c50 = madd(x, b0, c50); c51 = madd(x, b1, c51); c52 = madd(x, b2, c52); c53 = madd(x, b3, c53);
      b0 = v128.load(b, 128); b1 = v128.load(b, 144); b2 = v128.load(b, 160); b3 = v128.load(b, 176);
      x = v128.load_splat<f32>(a0, 8); c00 = madd(x, b0, c00); c01 = madd(x, b1, c01); c02 = madd(x, b2, c02); c03 = madd(x, b3, c03);
      x = v128.load_splat<f32>(a1, 8); c10 = madd(x, b0, c10); c11 = madd(x, b1, c11); c12 = madd(x, b2, c12); c13 = madd(x, b3, c13);
      x = v128.load_splat<f32>(a2, 8); c20 = madd(x, b0, c20); c21 = madd(x, b1, c21); c22 = madd(x, b2, c22); c23 = madd(x, b3, c23);
      x = v128.load_splat<f32>(a3, 8); c30 = madd(x, b0, c30); c31 = madd(x, b1, c31); c32 = madd(x, b2, c32); c33 = madd(x, b3, c33);
      x = v128.load_splat<f32>(a4, 8); c40 = madd(x, b0, c40); c41 = madd(x, b1, c41); c42 = madd(x, b2, c42); c43 = madd(x, b3, c43);
      x = v128.load_splat<f32>(a5, 8); c50 = madd(x, b0, c50); c51 = madd(x, b1, c51); c52 = madd(x, b2, c52); c53 = madd(x, b3, c53);
      b0 = v128.load(b, 192); b1 = v128.load(b, 208); b2 = v128.load(b, 224); b3 = v128.load(b, 240);
      x = v128.load_splat<f32>(a0, 12); c00 = madd(x, b0, c00); c01 = madd(x, b1, c01); c02 = madd(x, b2, c02); c03 = madd(x, b3, c03);
      x = v128.load_splat<f32>(a1, 12); c10 = madd(x, b0, c10); c11 = madd(x, b1, c11); c12 = madd(x, b2, c12); c13 = madd(x, b3, c13);
      x = v128.load_splat<f32>(a2, 12); c20 = madd(x, b0, c20); c21 = madd(x, b1, c21); c22 = madd(x, b2, c22); c23 = madd(x, b3, c23);
      x = v128.load_splat<f32>(a3, 12); c30 = madd(x, b0, c30); c31 = madd(x, b1, c31); c32 = madd(x, b2, c32); c33 = madd(x, b3, c33);
      x = v128.load_splat<f32>(a4, 12); c40 = madd(x, b0, c40); c41 = madd(x, b1, c41); c42 = madd(x, b2, c42); c43 = madd(x, b3, c43);
      x = v128.load_splat<f32>(a5, 12); c50 = madd(x, b0, c50); c51 = madd(x, b1, c51); c52 = madd(x, b2, c52); c53 = madd(x, b3, c53);
      a0 += 16; a1 += 16; a2 += 16; a3 += 16; a4 += 16; a5 += 16;
      b += 256;
    }
    for (; k > 0; k--) {
      b0 = v128.load(b, 0); b1 = v128.load(b, 16); b2 = v128.load(b, 32); b3 = v128.load(b, 48);
      x = v128.load_splat<f32>(a0); c00 = madd(x, b0, c00); c01 = madd(x, b1, c01); c02 = madd(x, b2, c02); c03 = madd(x, b3, c03);
      x = v128.load_splat<f32>(a1); c10 = madd(x, b0, c10); c11 = madd(x, b1, c11); c12 = madd(x, b2, c12); c13 = madd(x, b3, c13);
      x = v128.load_splat<f32>(a2); c20 = madd(x, b0, c20); c21 = madd(x, b1, c21); c22 = madd(x, b2, c22); c23 = madd(x, b3, c23);
      x = v128.load_splat<f32>(a3); c30 = madd(x, b0, c30); c31 = madd(x, b1, c31); c32 = madd(x, b2, c32); c33 = madd(x, b3, c33);
      x = v128.load_splat<f32>(a4); c40 = madd(x, b0, c40); c41 = madd(x, b1, c41); c42 = madd(x, b2, c42); c43 = madd(x, b3, c43);
      x = v128.load_splat<f32>(a5); c50 = madd(x, b0, c50); c51 = madd(x, b1, c51); c52 = madd(x, b2, c52); c53 = madd(x, b3, c53);
      a0 += 4; a1 += 4; a2 += 4; a3 += 4; a4 += 4; a5 += 4;
      b += 64;
    }
  }
  v128.store(c, c00, 0); v128.store(c, c01, 16); v128.store(c, c02, 32); v128.store(c, c03, 48); c += stride;
  v128.store(c, c10, 0); v128.store(c, c11, 16); v128.store(c, c12, 32); v128.store(c, c13, 48); c += stride;
  v128.store(c, c20, 0); v128.store(c, c21, 16); v128.store(c, c22, 32); v128.store(c, c23, 48); c += stride;
  v128.store(c, c30, 0); v128.store(c, c31, 16); v128.store(c, c32, 32); v128.store(c, c33, 48); c += stride;
  v128.store(c, c40, 0); v128.store(c, c41, 16); v128.store(c, c42, 32); v128.store(c, c43, 48); c += stride;
  v128.store(c, c50, 0); v128.store(c, c51, 16); v128.store(c, c52, 32); v128.store(c, c53, 48);
}

/**
 * c[r, j] = c[r, j] * decay[r] + sum over k of a[k, r] * b[k, j]: the tile for a left factor that lies k-major
 * (`aStride` bytes from k to k + 1). Streaming softmax adds one block of keys to its running result with it.
 */
export function tileKMajor(
  a: usize, aStride: usize, b: usize, length: i32, c: usize, stride: usize, decay: usize,
): void {
  const zero = f32x4.splat(0.0);
  let c00 = zero, c01 = zero, c02 = zero, c03 = zero;
  let c10 = zero, c11 = zero, c12 = zero, c13 = zero;
  let c20 = zero, c21 = zero, c22 = zero, c23 = zero;
  let c30 = zero, c31 = zero, c32 = zero, c33 = zero;
  let c40 = zero, c41 = zero, c42 = zero, c43 = zero;
  let c50 = zero, c51 = zero, c52 = zero, c53 = zero;
  let x = zero, b0 = zero, b1 = zero, b2 = zero, b3 = zero;
  for (let k = length; k > 0; k--) {
      b0 = v128.load(b, 0); b1 = v128.load(b, 16); b2 = v128.load(b, 32); b3 = v128.load(b, 48);
      x = v128.load_splat<f32>(a); c00 = madd(x, b0, c00); c01 = madd(x, b1, c01); c02 = madd(x, b2, c02); c03 = madd(x, b3, c03);
      x = v128.load_splat<f32>(a, 4); c10 = madd(x, b0, c10); c11 = madd(x, b1, c11); c12 = madd(x, b2, c12); c13 = madd(x, b3, c13);
      x = v128.load_splat<f32>(a, 8); c20 = madd(x, b0, c20); c21 = madd(x, b1, c21); c22 = madd(x, b2, c22); c23 = madd(x, b3, c23);
      x = v128.load_splat<f32>(a, 12); c30 = madd(x, b0, c30); c31 = madd(x, b1, c31); c32 = madd(x, b2, c32); c33 = madd(x, b3, c33);
      x = v128.load_splat<f32>(a, 16); c40 = madd(x, b0, c40); c41 = madd(x, b1, c41); c42 = madd(x, b2, c42); c43 = madd(x, b3, c43);
      x = v128.load_splat<f32>(a, 20); c50 = madd(x, b0, c50); c51 = madd(x, b1, c51); c52 = madd(x, b2, c52); c53 = madd(x, b3, c53);
    a += aStride;
    b += 64;
  }
  x = v128.load_splat<f32>(decay, 0);
  v128.store(c, madd(v128.load(c, 0), x, c00), 0); v128.store(c, madd(v128.load(c, 16), x, c01), 16); v128.store(c, madd(v128.load(c, 32), x, c02), 32); v128.store(c, madd(v128.load(c, 48), x, c03), 48);
  c += stride;
  x = v128.load_splat<f32>(decay, 4);
  v128.store(c, madd(v128.load(c, 0), x, c10), 0); v128.store(c, madd(v128.load(c, 16), x, c11), 16); v128.store(c, madd(v128.load(c, 32), x, c12), 32); v128.store(c, madd(v128.load(c, 48), x, c13), 48);
  c += stride;
  x = v128.load_splat<f32>(decay, 8);
  v128.store(c, madd(v128.load(c, 0), x, c20), 0); v128.store(c, madd(v128.load(c, 16), x, c21), 16); v128.store(c, madd(v128.load(c, 32), x, c22), 32); v128.store(c, madd(v128.load(c, 48), x, c23), 48);
  c += stride;
  x = v128.load_splat<f32>(decay, 12);
  v128.store(c, madd(v128.load(c, 0), x, c30), 0); v128.store(c, madd(v128.load(c, 16), x, c31), 16); v128.store(c, madd(v128.load(c, 32), x, c32), 32); v128.store(c, madd(v128.load(c, 48), x, c33), 48);
  c += stride;
  x = v128.load_splat<f32>(decay, 16);
  v128.store(c, madd(v128.load(c, 0), x, c40), 0); v128.store(c, madd(v128.load(c, 16), x, c41), 16); v128.store(c, madd(v128.load(c, 32), x, c42), 32); v128.store(c, madd(v128.load(c, 48), x, c43), 48);
  c += stride;
  x = v128.load_splat<f32>(decay, 20);
  v128.store(c, madd(v128.load(c, 0), x, c50), 0); v128.store(c, madd(v128.load(c, 16), x, c51), 16); v128.store(c, madd(v128.load(c, 32), x, c52), 32); v128.store(c, madd(v128.load(c, 48), x, c53), 48);
}

/** `count` steps of a panel of halves as floats. */
function widenPanel(from: usize, count: i32, to: usize): void {
  const zero = i32x4.splat(0);
  for (; count > 0; count--) {
    const low = v128.load(from), high = v128.load(from, 16);
    v128.store(to, halves(i16x8.shuffle(low, zero, 0, 8, 1, 8, 2, 8, 3, 8)));
    v128.store(to, halves(i16x8.shuffle(low, zero, 4, 8, 5, 8, 6, 8, 7, 8)), 16);
    v128.store(to, halves(i16x8.shuffle(high, zero, 0, 8, 1, 8, 2, 8, 3, 8)), 32);
    v128.store(to, halves(i16x8.shuffle(high, zero, 4, 8, 5, 8, 6, 8, 7, 8)), 48);
    from += 32;
    to += 64;
  }
}

/**
 * Address of panel `n0 / 16` as floats: in place when `w` is packed (bit 0 of its address is set) and f32, else
 * packed or widened into `buffer`, which holds two panels (`2 * 64 * taps * length` bytes).
 */
export function panelOf(
  w: usize, half: u32, N: i32, n0: i32, length: i32, taps: i32, buffer: usize,
): usize {
  const K = length * taps;
  let panel = (w & ~1) + ((<usize>n0 * K) << (half ? 1 : 2));
  if (!(w & 1)) {
    panel = half ? buffer + (<usize>K << 6) : buffer;
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

/** Bias, activation, gate, residual and store of a tile `c` (rows of 64 bytes) at row m0, column n0. */
function epilogue(c: usize, m0: i32, rows: i32, n0: i32, columns: i32): void {
  const whole = columns & ~3;
  for (let r = 0; r < rows; r++) {
    const m = m0 + r;
    const y = outAddress + <usize>m * outStride;
    const residual = outResidual ? outResidual + <usize>m * outStride : 0;
    const gate = outGate ? outGate + <usize>load<u32>(outGateRows + (<usize>m << 2)) * outGateStride : 0;
    let j = 0;
    for (; j < whole; j += 4) {
      const at = <usize>(n0 + j) << 2;
      let v = v128.load(c + (<usize>j << 2));
      if (outBias) v = f32x4.add(v, v128.load(outBias + at));
      if (outAct) v = activate(outAct, v);
      if (gate) v = f32x4.mul(v, v128.load(gate + at));
      if (residual) v = f32x4.add(v, v128.load(residual + at));
      v128.store(y + at, v);
    }
    for (; j < columns; j++) {
      const at = <usize>(n0 + j) << 2;
      let v = load<f32>(c + (<usize>j << 2));
      if (outBias) v += load<f32>(outBias + at);
      if (outAct) v = f32x4.extract_lane(activate(outAct, f32x4.splat(v)), 0);
      if (gate) v *= load<f32>(gate + at);
      if (residual) v += load<f32>(residual + at);
      store<f32>(y + at, v);
    }
    c += 64;
  }
}

/** Bytes of scratch that {@link product} needs beside the table of row addresses. */
@inline
export function productScratch(length: i32, taps: i32): usize {
  return 512 + (<usize>(length * taps) << 7);
}

/**
 * Rows m0 ... m0+rows-1 times the columns n0 ... n1-1 of the weights `[N, length, taps]`, then the epilogue. `table`
 * holds `taps` times six row addresses for each group of six rows (missing rows repeat a valid address).
 */
export function product(
  table: usize, m0: i32, rows: i32, w: usize, half: u32, N: i32, n0: i32, n1: i32,
  length: i32, taps: i32, scratch: usize,
): void {
  const c = scratch, buffer = scratch + 512;
  for (let n = n0; n < n1; n += PANEL) {
    const panel = panelOf(w, half, N, n, length, taps, buffer);
    const columns = min(PANEL, n1 - n);
    let addresses = table;
    for (let r = 0; r < rows; r += TILE_ROWS) {
      tile(addresses, taps, length, panel, c, 64);
      epilogue(c, m0 + r, min(TILE_ROWS, rows - r), n, columns);
      addresses += <usize>(taps * 24);
    }
  }
}
