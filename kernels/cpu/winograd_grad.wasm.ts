// The gradient of the filters of a 3x3 convolution by Winograd's algorithm (winograd.wasm.ts): for each of the 16 entries the
// product of the transformed gradients, turned, with the transformed inputs, summed over the tiles. Tasks sum some tiles for a
// block of filters; a second phase adds the sums up in a fixed order and transforms them back.

import { blas, sgemm } from "./blas.wasm";
import { tile, TILE_ROWS } from "./gemm.wasm";
import { addRows, place, STEP, transpose } from "./gradient.wasm";
import { PANEL } from "./pack.wasm";
import { APART, ENTRIES, rowOf, tilesOf, transformInputs } from "./winograd.wasm";

/** Channels of dz and of x of one task, and tiles of one product; kernels/cpu/winograd.ts counts with the same numbers. */
const CHANNELS: i32 = 192;
const TILES: i32 = 128;
/** Products of the first phase that are enough for many threads. */
const TASKS: i32 = 32;
/** Filters of one task of the second phase. */
const FILTERS: i32 = 8;
/** Bytes from row to row of the turned gradients. */
const LEFT_ROW: usize = (<usize>TILES + 16) << 2;

/** Stores p, p + q, p - q, -q, `step` bytes apart. */
@inline
function spread(p: v128, q: v128, to: usize, step: usize): void {
  v128.store(to, p);
  v128.store(to + step, f32x4.add(p, q));
  v128.store(to + 2 * step, f32x4.sub(p, q));
  v128.store(to + 3 * step, f32x4.neg(q));
}

/** A z At of the channels c0 ... c0+count-1 of `tiles` tiles from t0 on; dz is `[B, H, W, N]`, pixels outside are zeros. */
function transformGradients(
  dz: usize, H: i32, W: i32, N: i32, c0: i32, count: i32, t0: i32, tiles: i32, to: usize, row: usize, step: usize,
): void {
  const down = tilesOf(H), across = tilesOf(W), pixel = <usize>N << 2, line = <usize>W * pixel;
  const zero = f32x4.splat(0.0);
  let b = t0 / (down * across), ty = t0 / across % down, tx = t0 % across;
  for (; tiles > 0; tiles--) {
    const right = 2 * tx + 1 < W, below = 2 * ty + 1 < H;
    let from = dz + (<usize>(((b * H + 2 * ty) * W + 2 * tx) * N + c0) << 2);
    for (let c: usize = 0; c < <usize>count << 2; c += 16) {
      const a0 = v128.load(from), a1 = right ? v128.load(from + pixel) : zero;
      const b0 = below ? v128.load(from + line) : zero, b1 = below && right ? v128.load(from + line + pixel) : zero;
      const out = to + c;
      spread(a0, a1, out, step);
      spread(f32x4.add(a0, b0), f32x4.add(a1, b1), out + 4 * step, step);
      spread(f32x4.sub(a0, b0), f32x4.sub(a1, b1), out + 8 * step, step);
      spread(f32x4.neg(b0), f32x4.neg(b1), out + 12 * step, step);
      from += 16;
    }
    to += row;
    if (++tx == across) {
      tx = 0;
      if (++ty == down) {
        ty = 0;
        b++;
      }
    }
  }
}

/** Bytes of the sums of one entry. */
@inline
function sumBytes(O: i32, I: i32): usize {
  return (<usize>(O * I) << 2) + APART;
}

/** Blocks of filters, and tiles that one task of the first phase sums. */
@inline
function blocksOf(O: i32, I: i32): i32 {
  return ((O + CHANNELS - 1) / CHANNELS) * ((I + CHANNELS - 1) / CHANNELS);
}

function tilesOfPart(tiles: i32, blocks: i32): i32 {
  const parts = max(1, TASKS / blocks), least = (tiles + parts - 1) / parts;
  return (least + TILES - 1) / TILES * TILES;
}

/** Sums of one task: some tiles, a block of filters. dz is `[B, H, W, O]`, x `[B, H, W, I]`. */
function sumTiles(
  dz: usize, x: usize, sums: usize, H: i32, W: i32, O: i32, I: i32, tiles: i32, task: i32, scratch: usize,
): void {
  const blocks = blocksOf(O, I), across = (I + CHANNELS - 1) / CHANNELS, block = task % blocks;
  const o0 = block / across * CHANNELS, rows = min(CHANNELS, O - o0);
  const i0 = block % across * CHANNELS, columns = min(CHANNELS, I - i0);
  const part = task / blocks, each = tilesOfPart(tiles, blocks), end = min(tiles, (part + 1) * each);
  const sumStep = sumBytes(O, I), stride = <usize>I << 2;
  const corner = sums + <usize>(part * ENTRIES) * sumStep + (<usize>(o0 * I + i0) << 2);

  const zRow = rowOf(rows), xRow = rowOf(columns), panelBytes = <usize>TILES * STEP;
  const zStep = (<usize>(TILES * zRow) << 2) + APART, z = scratch + (<usize>(ENTRIES * columns) << 2);
  const inputs = z + <usize>ENTRIES * zStep;
  const panels = (columns + PANEL - 1) / PANEL;
  const xStep = (blas ? <usize>(TILES * xRow) << 2 : <usize>panels * panelBytes) + APART;
  const left = inputs + <usize>ENTRIES * xStep, table = left + <usize>rows * LEFT_ROW;
  const c = table + (<usize>(rows + TILE_ROWS) << 2);
  for (let t0 = part * each; t0 < end; t0 += TILES) {
    const count = min(TILES, end - t0), add = t0 > part * each;
    transformGradients(dz, H, W, O, o0, rows, t0, count, z, <usize>zRow << 2, zStep);
    if (blas) transformInputs(x, H, W, I, i0, columns, t0, count, inputs, <usize>xRow << 2, columns, 0, xStep, scratch);
    else transformInputs(x, H, W, I, i0, columns, t0, count, inputs, STEP, PANEL, panelBytes - STEP, xStep, scratch);
    for (let f = 0; f < ENTRIES; f++) {
      const to = corner + <usize>f * sumStep, up = z + <usize>f * zStep;
      let from = inputs + <usize>f * xStep;
      if (blas) {
        const beta: f32 = add ? 1.0 : 0.0;
        sgemm(1, 0, rows, columns, count, up, zRow, from, xRow, beta, to, I);
        continue;
      }
      transpose(up, <usize>zRow << 2, count, rows, left, LEFT_ROW);
      for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
        store<u32>(table + (<usize>r << 2), <u32>(left + <usize>min(r, rows - 1) * LEFT_ROW));
      }
      for (let i = 0; i < columns; i += PANEL) {
        for (let r = 0; r < rows; r += TILE_ROWS) {
          tile(table + (<usize>r << 2), 1, count, 4, from, c, STEP);
          const at = to + <usize>r * stride + (<usize>i << 2);
          place(c, at, stride, min(TILE_ROWS, rows - r), min(PANEL, columns - i), add);
        }
        from += panelBytes;
      }
    }
  }
}

/** Adds four channels of one tap to dw, whose channels are nine floats apart. */
@inline
function addTap(v: v128, to: usize): void {
  store<f32>(to, load<f32>(to) + f32x4.extract_lane(v, 0));
  store<f32>(to, load<f32>(to, 36) + f32x4.extract_lane(v, 1), 36);
  store<f32>(to, load<f32>(to, 72) + f32x4.extract_lane(v, 2), 72);
  store<f32>(to, load<f32>(to, 108) + f32x4.extract_lane(v, 3), 108);
}

/** Entry f of four channels, summed over the parts. */
@inline
function total(sums: usize, parts: i32, partBytes: usize): v128 {
  let sum = v128.load(sums);
  for (let p = 1; p < parts; p++) {
    sums += partBytes;
    sum = f32x4.add(sum, v128.load(sums));
  }
  return sum;
}

/** Gt s G of the sums of some filters, added to dw. */
function addFilters(sums: usize, parts: i32, dw: usize, O: i32, I: i32, o0: i32): void {
  const step = sumBytes(O, I), part = <usize>ENTRIES * step, half = f32x4.splat(0.5);
  let from = sums + (<usize>(o0 * I) << 2), to = dw + <usize>(o0 * I * 36);
  const end = from + (<usize>(min(FILTERS, O - o0) * I) << 2);
  for (; from < end; from += 16) {
    // Column fx of Gt s has the rows u = s0 + (s1 + s2) / 2, v = (s1 - s2) / 2, w = (s1 + s2) / 2 + s3.
    let at = from;
    let u0 = half, u1 = half, u2 = half, v0 = half, v1 = half, v2 = half, w0 = half, w1 = half, w2 = half;
    for (let fx = 0; fx < 4; fx++) {
      const s0 = total(at, parts, part), s1 = total(at + 4 * step, parts, part);
      const s2 = total(at + 8 * step, parts, part), s3 = total(at + 12 * step, parts, part);
      const sum = f32x4.mul(f32x4.add(s1, s2), half), v = f32x4.mul(f32x4.sub(s1, s2), half);
      const u = f32x4.add(s0, sum), w = f32x4.add(sum, s3);
      if (fx == 0) { u0 = u; v0 = v; w0 = w; }
      else if (fx == 1) { u1 = u; v1 = v; w1 = w; }
      else if (fx == 2) { u2 = u; v2 = v; w2 = w; }
      else {
        addRow(u0, u1, u2, u, to);
        addRow(v0, v1, v2, v, to + 12);
        addRow(w0, w1, w2, w, to + 24);
      }
      at += step;
    }
    to += 144;
  }
}

/** Three taps of four channels from one row of Gt s. */
@inline
function addRow(s0: v128, s1: v128, s2: v128, s3: v128, to: usize): void {
  const half = f32x4.splat(0.5), sum = f32x4.mul(f32x4.add(s1, s2), half);
  addTap(f32x4.add(s0, sum), to);
  addTap(f32x4.mul(f32x4.sub(s1, s2), half), to + 4);
  addTap(f32x4.add(sum, s3), to + 8);
}

/** One task of dw += the gradient of the filters `[O, I, 3, 3]`, db += sums of dz; db is 0 when absent. */
export function winogradGradWeight(
  dz: usize, x: usize, dw: usize, db: usize, sums: usize,
  B: i32, H: i32, W: i32, O: i32, I: i32, task: i32, scratch: usize,
): void {
  const tiles = B * tilesOf(H) * tilesOf(W), blocks = blocksOf(O, I), each = tilesOfPart(tiles, blocks);
  const parts = (tiles + each - 1) / each;
  if (task < blocks * parts) {
    sumTiles(dz, x, sums, H, W, O, I, tiles, task, scratch);
    return;
  }
  const o0 = (task - blocks * parts) * FILTERS;
  addFilters(sums, parts, dw, O, I, o0);
  if (db) addRows(dz + (<usize>o0 << 2), <usize>O << 2, B * H * W, min(FILTERS, O - o0), db + (<usize>o0 << 2));
}
