// Products through a BLAS of the system, called tile by tile from the thread that owns the tile. The device supplies
// `sgemm` when it loads the module and switches it on; whatever surrounds a product (bias, activation, gate, residual,
// softmax) stays in these kernels.

import { epilogue } from "./gemm.wasm";
import { widenRow } from "./gradient.wasm";

/**
 * c = alpha op(a) op(b) + beta c on row-major floats: op(a) is [m, k], op(b) [k, n], and `lda`, `ldb`, `ldc` are the
 * distances of rows in floats. With beta 0 nothing of c is read.
 */
@external("env", "sgemm")
export declare function sgemm(
  transposeA: i32, transposeB: i32, m: i32, n: i32, k: i32,
  a: usize, lda: i32, b: usize, ldb: i32, beta: f32, c: usize, ldc: i32,
): void;

/** Whether products go through `sgemm`. Each thread has its own copy; the device sets it on all of them alike. */
export let blas: bool = false;

export function useBlas(on: i32): void {
  blas = on != 0;
}

/** Rows and columns of one task of a product; kernels/cpu/blocks.ts counts with the same numbers. */
export const BLAS_ROWS: i32 = 256;
export const BLAS_COLUMNS: i32 = 192;
/** Bytes of a tile of results in scratch; widened weights follow. */
const TILE_BYTES: usize = <usize>(BLAS_ROWS * BLAS_COLUMNS) << 2;

/**
 * `count` rows of row-major weights, `stride` elements apart, as floats: in place, or halves widened to `buffer`, rows
 * `width` floats apart. `width` columns are read.
 */
export function floatsOf(w: usize, half: i32, stride: i32, count: i32, width: i32, buffer: usize): usize {
  if (!half) return w;
  for (let r = 0; r < count; r++) {
    widenRow(w + (<usize>(r * stride) << 1), width, buffer + (<usize>(r * width) << 2));
  }
  return buffer;
}

/** Rows m0 ... m0+rows-1, which begin at `x`, times rows n0 ... n1-1 of the weights `[N, K]`, then the epilogue. */
export function blasProduct(
  x: usize, m0: i32, rows: i32, w: usize, half: i32, n0: i32, n1: i32, K: i32, scratch: usize,
): void {
  const columns = n1 - n0;
  const from = w + (<usize>(n0 * K) << (half ? 1 : 2));
  const b = floatsOf(from, half, K, columns, K, scratch + TILE_BYTES);
  sgemm(0, 1, rows, columns, K, x, K, b, K, 0.0, scratch, columns);
  epilogue(scratch, <usize>columns << 2, m0, rows, n0, columns);
}
