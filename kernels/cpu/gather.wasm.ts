// Convolutions through a BLAS that are not computed by Winograd's algorithm. Under each tap the channels of a pixel are one run of
// memory, and a table holds the addresses of these runs (gemm.wasm.ts). Here they are copied side by side.

import { blas, BLAS_COLUMNS, BLAS_ROWS, sgemm } from "./blas.wasm";
import { epilogue, panelOf, TILE_ROWS } from "./gemm.wasm";
import { PANEL } from "./pack.wasm";

/** Floats of a gathered row that are multiplied at a time, unless one run is longer. */
const DEPTH: i32 = 1024;

/** Whether a BLAS computes such a product: with few channels, copying takes longer than it saves. */
export function isGathered(length: i32, taps: i32, N: i32): bool {
  return blas && length * taps >= 48 && N >= 16;
}

/** Copies the runs of `count` taps from tap0 on of some rows, side by side. */
function gather(table: usize, rows: i32, taps: i32, tap0: i32, count: i32, length: i32, to: usize): void {
  const bytes = <usize>length << 2, whole = bytes & ~15;
  for (let r = 0; r < rows; r++) {
    let entry = table + (<usize>((r / TILE_ROWS * taps + tap0) * TILE_ROWS + r % TILE_ROWS) << 2);
    for (let tap = 0; tap < count; tap++) {
      const from = <usize>load<u32>(entry);
      let i: usize = 0;
      for (; i < whole; i += 16) v128.store(to + i, v128.load(from + i));
      for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(from + i));
      to += bytes;
      entry += 24;
    }
  }
}

/**
 * Rows of the table times the panels of the weights `[N, length, taps]`, then the epilogue, as product() in gemm.wasm.ts.
 * kernels/cpu/blocks.ts has the size of the scratch.
 */
export function gatheredProduct(
  table: usize, m0: i32, rows: i32, w: usize, half: u32, N: i32, n0: i32, n1: i32, length: i32, taps: i32, scratch: usize,
): void {
  const columns = n1 - n0, wide = (columns + PANEL - 1) & -PANEL, step = <usize>wide << 2;
  const K = length * taps, most = min(taps, max(1, DEPTH / length));
  const c = scratch, b = c + (<usize>(BLAS_ROWS * BLAS_COLUMNS) << 2), a = b + <usize>K * step;
  const buffer = a + (<usize>(BLAS_ROWS * most * length) << 2);
  for (let n = 0; n < columns; n += PANEL) {
    let from = panelOf(w, half, N, n0 + n, length, taps, buffer), to = b + (<usize>n << 2);
    for (let k = 0; k < K; k++) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      from += 32;
      to += step;
    }
  }
  for (let tap = 0; tap < taps; tap += most) {
    const count = min(most, taps - tap), depth = count * length, beta: f32 = tap > 0 ? 1.0 : 0.0;
    gather(table, rows, taps, tap, count, length, a);
    sgemm(0, 0, rows, wide, depth, a, depth, b + <usize>(tap * length) * step, wide, beta, c, wide);
  }
  epilogue(c, step, m0, rows, n0, columns);
}
