// What attention and its gradients share on the cpu device: products between rows of one head and up to 64 queries or keys,
// which stand in the lanes.
//
// A block is up to BLOCK_ROWS rows times 64 lanes. The register tile reads its right side as panels of 8 lanes, so lanes are
// packed as panels [lane / 8][hd, 8], and a block of scores is panels [lane / 8][row, 8], which is how the next product
// reads it: results of rows and channels stand transposed, [channel, lane]. A BLAS takes lanes as rows [lane, hd], and its
// block is [row, 64].

import { blas, sgemm } from "./blas.wasm";
import { tile, TILE_ROWS } from "./gemm.wasm";
import { transpose } from "./gradient.wasm";
import { PANEL } from "./pack.wasm";

/** Queries or keys of a task. */
export const LANES: i32 = 64;
/** Bytes of 64 lanes. */
export const LANE_BYTES: usize = 256;
/** Rows of a block; it starts at a multiple of them, so that the order of a sum does not depend on what is beside it. */
const ROWS: i32 = 96;
/** With a BLAS: few large products. */
const BLAS_ROWS: i32 = 384;
/** Bytes of a panel's row. */
const STEP: usize = <usize>PANEL << 2;

@inline
export function blockRows(): i32 {
  return blas ? BLAS_ROWS : ROWS;
}

/** Bytes of a block of scores. */
@inline
export function blockBytes(): usize {
  return <usize>blockRows() * LANE_BYTES;
}

/** Bytes between the rows of a block of scores. */
@inline
export function scoreStep(): usize {
  return blas ? LANE_BYTES : STEP;
}

/** Where the panel that holds the lane at byte `i` of 256 begins, and the lane in it. */
@inline
export function scoreAt(i: usize): usize {
  return blas ? i : (i / STEP) * (<usize>ROWS * STEP) + i % STEP;
}

/** `count` rows of one head, times `factor`, as lanes; absent lanes of the last panel are zero. */
export function packLanes(from: usize, rowBytes: usize, hd: i32, count: i32, factor: f32, to: usize): void {
  const f = f32x4.splat(factor), head = <usize>hd << 2;
  const end = to + <usize>((count + PANEL - 1) / PANEL * PANEL) * head;
  memory.fill(to, 0, end - to);
  if (blas) {
    let out = to;
    for (; count > 0; count--) {
      memory.copy(out, from, head);
      from += rowBytes;
      out += head;
    }
  } else {
    let out = to;
    for (; count > 0; count -= PANEL) {
      transpose(from, rowBytes, min(PANEL, count), hd, out, STEP);
      from += <usize>PANEL * rowBytes;
      out += <usize>PANEL * head;
    }
  }
  for (; to < end; to += 16) v128.store(to, f32x4.mul(v128.load(to), f));
}

/** `count` rows of one head, one after the other. */
export function copyRows(from: usize, rowBytes: usize, hd: i32, count: i32, to: usize): void {
  const head = <usize>hd << 2, whole = head & ~15;
  for (; count > 0; count--) {
    let i: usize = 0;
    for (; i < whole; i += 16) v128.store(to + i, v128.load(from + i));
    for (; i < head; i += 4) store<f32>(to + i, load<f32>(from + i));
    from += rowBytes;
    to += head;
  }
}

/**
 * Zeros in those of `count` rows to which no lane gives weight: they may hold anything, and 0 times NaN would be NaN.
 * `weights` is a block of scores.
 */
export function clearUnseen(rows: usize, hd: i32, count: i32, weights: usize, panels: i32): void {
  const head = <usize>hd << 2, step = scoreStep(), panelBytes = scoreAt(STEP);
  for (; count > 0; count--) {
    let any = f32x4.splat(0.0), at = weights;
    for (let p = panels; p > 0; p--) {
      any = v128.or(any, v128.or(v128.load(at), v128.load(at, 16)));
      at += panelBytes;
    }
    if (!v128.any_true(any)) memory.fill(rows, 0, head);
    weights += step;
    rows += head;
  }
}

/** Addresses of the rows that copyRows wrote, and of their channels, for products. Whole groups of six. */
export function listRows(rows: usize, hd: i32, rowTable: usize, channelTable: usize): void {
  const head = <usize>hd << 2;
  for (let r: usize = 0; r < <usize>ROWS; r++) store<u32>(rowTable + (r << 2), <u32>(rows + r * head));
  for (let d = 0; d < hd || d % TILE_ROWS != 0; d++) {
    store<u32>(channelTable + (<usize>d << 2), <u32>(rows + (<usize>min(d, hd - 1) << 2)));
  }
}

/** A block of scores: `count` rows times the lanes. `rows` are `step` floats apart, and `table` lists them. */
export function scoreRows(
  rows: usize, step: i32, table: usize, count: i32, hd: i32, panels: i32, lanes: usize, to: usize,
): void {
  if (blas) {
    sgemm(0, 1, count, panels * PANEL, hd, rows, step, lanes, hd, 0.0, to, LANES);
    return;
  }
  for (; panels > 0; panels--) {
    for (let r = 0; r < count; r += TILE_ROWS) {
      tile(table + (<usize>r << 2), 1, hd, 4, lanes, to + <usize>r * STEP, STEP);
    }
    lanes += <usize>hd * STEP;
    to += <usize>ROWS * STEP;
  }
}

/** out[d, lane] += sum over `count` rows of rows[row, d] * weights[row, lane]; rows as above, `table` lists channels. */
export function addRows(
  rows: usize, step: i32, table: usize, count: i32, hd: i32, panels: i32, weights: usize, out: usize,
): void {
  if (blas) {
    sgemm(1, 0, hd, panels * PANEL, count, rows, step, weights, LANES, 1.0, out, LANES);
    return;
  }
  for (; panels > 0; panels--) {
    for (let d = 0; d < hd; d += TILE_ROWS) {
      const to = out + <usize>d * LANE_BYTES;
      tile(table + (<usize>d << 2), 1, count, <usize>step << 2, weights, to, LANE_BYTES, true);
    }
    weights += <usize>ROWS * STEP;
    out += STEP;
  }
}

/** Bytes of the channels of 64 lanes, whole groups of six. */
@inline
export function outBytes(hd: i32): usize {
  return <usize>((hd + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS) * LANE_BYTES;
}

/** `count` lanes of out[d, lane], times `factor`, as rows of one head. Overwrites `out`. */
export function storeLanes(out: usize, hd: i32, count: i32, factor: f32, to: usize, rowBytes: usize): void {
  const f = f32x4.splat(factor);
  if (factor != 1.0) {
    for (let d = 0; d < hd; d++) {
      const row = out + <usize>d * LANE_BYTES;
      for (let i: usize = 0; i < <usize>count << 2; i += 16) v128.store(row + i, f32x4.mul(v128.load(row + i), f));
    }
  }
  transpose(out, LANE_BYTES, hd, count, to, rowBytes);
}
