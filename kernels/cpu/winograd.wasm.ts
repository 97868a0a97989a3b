// 3x3 convolutions with stride 1 as 16 products instead of 9 taps times 4 pixels: Winograd's F(2x2, 3x3) (Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", 2015). A tile is 2x2 pixels of the output. With d the 4x4 pixels
// under it, g the filter and z the tile's gradient, and sums over channels between the transforms:
//
//     y  = At [(G g Gt) * (Bt d B)] A        dg = Gt [(A z At) * (Bt d B)] G
//
// A pixel that is not finite spoils every pixel of a tile that sees it. Errors are no larger than those of the plain sum, whose
// chains are nine times as long (4x4 pixels of 512 channels, 2026-11-21: 1.3e-6 of the largest value, before 2.1e-6).
//
// Transforms are element by element over channels, so four channels are computed at a time. Of the 16 entries f of a 4x4
// block, entry f of all tiles is a matrix of its own, [tiles, channels]: one of the 16 products. Distances between these
// matrices are no powers of two, or all 16 stores of a transform would meet in the same cache set.

import { blas, sgemm } from "./blas.wasm";
import { panelOf, tile, TILE_ROWS } from "./gemm.wasm";
import { PANEL } from "./pack.wasm";
import { activate, halfAt } from "./simd.wasm";

/** Taps of a filter, and entries of a transformed one. */
const TAPS: i32 = 9;
export const ENTRIES: i32 = 16;
/** Bytes that keep the matrices of two entries off the same cache sets. */
export const APART: usize = 64;
/** Columns of the results that a task computes at a time. */
const BLAS_COLUMNS: i32 = 192;
const WASM_COLUMNS: i32 = 96;

/** Whether a convolution is computed so. It depends on the sizes of one image, so bits do not depend on the batch. */
export function isWinograd(H: i32, W: i32, KH: i32, KW: i32, stride: i32, pad: i32, K: i32, N: i32): bool {
  return KH == 3 && KW == 3 && stride == 1 && pad == 1 && H >= 4 && W >= 4 && K >= 8 && N >= 8 && ((K | N) & 3) == 0;
}

/** Tiles of an image, and of a task. */
export function tilesOf(length: i32): i32 {
  return (length + 1) >> 1;
}

function tilesOfTask(K: i32): i32 {
  if (blas) return K <= 256 ? 256 : 128;
  return K <= 128 ? 192 : K <= 256 ? 96 : 48;
}

/** Floats from row to row of transformed inputs: no large power of two either. */
export function rowOf(K: i32): i32 {
  return K % 128 == 0 ? K + 16 : K;
}

/** Channels rounded up to whole panels. */
@inline
function padded(N: i32): i32 {
  return (N + PANEL - 1) & -PANEL;
}

/** Bytes of one entry of all filters. */
@inline
function filterBytes(K: i32, N: i32): usize {
  return (<usize>(K * padded(N)) << 2) + APART;
}

/** Stores a, (a + c + b) / 2, (a + c - b) / 2, c, `step` bytes apart. */
@inline
function spread(a: v128, b: v128, c: v128, to: usize, step: usize): void {
  const half = f32x4.splat(0.5), sum = f32x4.mul(f32x4.add(a, c), half), middle = f32x4.mul(b, half);
  v128.store(to, a);
  v128.store(to + step, f32x4.add(sum, middle));
  v128.store(to + 2 * step, f32x4.sub(sum, middle));
  v128.store(to + 3 * step, c);
}

/** G g Gt of four filters, taps `tap` bytes apart, to entries `step` bytes apart. */
@inline
function transformFilter(from: usize, tap: usize, to: usize, step: usize): void {
  const half = f32x4.splat(0.5);
  const a0 = v128.load(from), a1 = v128.load(from + tap), a2 = v128.load(from + 2 * tap);
  const b0 = v128.load(from + 3 * tap), b1 = v128.load(from + 4 * tap), b2 = v128.load(from + 5 * tap);
  const c0 = v128.load(from + 6 * tap), c1 = v128.load(from + 7 * tap), c2 = v128.load(from + 8 * tap);
  spread(a0, a1, a2, to, step);
  const s0 = f32x4.mul(f32x4.add(a0, c0), half), m0 = f32x4.mul(b0, half);
  const s1 = f32x4.mul(f32x4.add(a1, c1), half), m1 = f32x4.mul(b1, half);
  const s2 = f32x4.mul(f32x4.add(a2, c2), half), m2 = f32x4.mul(b2, half);
  spread(f32x4.add(s0, m0), f32x4.add(s1, m1), f32x4.add(s2, m2), to + 4 * step, step);
  spread(f32x4.sub(s0, m0), f32x4.sub(s1, m1), f32x4.sub(s2, m2), to + 8 * step, step);
  spread(c0, c1, c2, to + 12 * step, step);
}

/**
 * Transforms a panel `[taps, K, PANEL]` of the filters of outputs n0 ... n0+7: to panels `[K, PANEL]` of each entry, or, for
 * a BLAS, to columns of matrices `[K, N]`.
 */
function transformPanel(panel: usize, K: i32, N: i32, n0: i32, filters: usize): void {
  const tap = <usize>K << 5, step = filterBytes(K, N), row: usize = blas ? <usize>padded(N) << 2 : 32;
  let to = filters + (blas ? <usize>n0 << 2 : <usize>(n0 * K) << 2);
  for (let k = 0; k < K; k++) {
    transformFilter(panel, tap, to, step);
    transformFilter(panel + 16, tap, to + 16, step);
    panel += 32;
    to += row;
  }
}

/** Filters of one task: a cache line of a BLAS's rows. */
const FILTERS: i32 = 16;

/** One task of transforming the filters `[N, K, 3, 3]`. Scratch: the buffer of panelOf. */
export function transformFilters(w: usize, half: i32, N: i32, K: i32, filters: usize, task: i32, scratch: usize): void {
  const end = min(N, (task + 1) * FILTERS);
  for (let n = task * FILTERS; n < end; n += PANEL) {
    transformPanel(panelOf(w, half, N, n, K, TAPS, scratch), K, N, n, filters);
  }
}

/** The same for the filters of the input's gradient: those of `[K, N, 3, 3]`, turned round. Scratch: a panel. */
export function transformTurned(w: usize, half: i32, N: i32, K: i32, filters: usize, task: i32, scratch: usize): void {
  const end = min(N, (task + 1) * FILTERS), tap = <usize>K << 5;
  for (let n = task * FILTERS; n < end; n += PANEL) {
    const width = min(PANEL, N - n);
    if (width < PANEL) memory.fill(scratch, 0, <usize>TAPS * tap);
    for (let k = 0; k < K; k++) {
      let from = w + (<usize>((k * N + n) * TAPS) << (half ? 1 : 2));
      for (let j = 0; j < width; j++) {
        let to = scratch + 8 * tap + (<usize>k << 5) + (<usize>j << 2);
        for (let t = 0; t < TAPS; t++) {
          store<f32>(to, half ? halfAt(from) : load<f32>(from));
          from += half ? 2 : 4;
          to -= tap;
        }
      }
    }
    transformPanel(scratch, K, N, n, filters);
  }
}

/** Stores a - c, b + c, c - b, b - d, `step` bytes apart. */
@inline
function difference(a: v128, b: v128, c: v128, d: v128, to: usize, step: usize): void {
  v128.store(to, f32x4.sub(a, c));
  v128.store(to + step, f32x4.add(b, c));
  v128.store(to + 2 * step, f32x4.sub(c, b));
  v128.store(to + 3 * step, f32x4.sub(b, d));
}

/** Bt d B of four channels: rows of pixels at r0 ... r3, pixels `pixel` bytes apart, to entries `step` bytes apart. */
@inline
function transformPixels(r0: usize, r1: usize, r2: usize, r3: usize, pixel: usize, to: usize, step: usize): void {
  const two = 2 * pixel, three = 3 * pixel;
  const b0 = v128.load(r1), b1 = v128.load(r1 + pixel), b2 = v128.load(r1 + two), b3 = v128.load(r1 + three);
  const c0 = v128.load(r2), c1 = v128.load(r2 + pixel), c2 = v128.load(r2 + two), c3 = v128.load(r2 + three);
  difference(
    f32x4.sub(v128.load(r0), c0), f32x4.sub(v128.load(r0 + pixel), c1),
    f32x4.sub(v128.load(r0 + two), c2), f32x4.sub(v128.load(r0 + three), c3), to, step,
  );
  difference(f32x4.add(b0, c0), f32x4.add(b1, c1), f32x4.add(b2, c2), f32x4.add(b3, c3), to + 4 * step, step);
  difference(f32x4.sub(c0, b0), f32x4.sub(c1, b1), f32x4.sub(c2, b2), f32x4.sub(c3, b3), to + 8 * step, step);
  difference(
    f32x4.sub(b0, v128.load(r3)), f32x4.sub(b1, v128.load(r3 + pixel)),
    f32x4.sub(b2, v128.load(r3 + two)), f32x4.sub(b3, v128.load(r3 + three)), to + 12 * step, step,
  );
}

/**
 * Transforms the channels c0 ... c0+count-1 of the pixels under `tiles` tiles from t0 on; x is `[B, H, W, K]`. A tile's
 * results begin `row` bytes after those of the tile before; behind each `group` channels lie `apart` bytes more, so that
 * panels come out too. `patch` holds 16 pixels of `count` floats.
 */
export function transformInputs(
  x: usize, H: i32, W: i32, K: i32, c0: i32, count: i32, t0: i32, tiles: i32,
  to: usize, row: usize, group: i32, apart: usize, step: usize, patch: usize,
): void {
  const down = tilesOf(H), across = tilesOf(W), pixelBytes = <usize>K << 2, bytes = <usize>count << 2;
  const groupBytes = <usize>group << 2;
  let b = t0 / (down * across), ty = t0 / across % down, tx = t0 % across;
  for (; tiles > 0; tiles--) {
    const iy = 2 * ty - 1, ix = 2 * tx - 1;
    let r0 = x + (<usize>(((b * H + iy) * W + ix) * K + c0) << 2);
    let line = <usize>W * pixelBytes, pixel = pixelBytes;
    if (iy < 0 || ix < 0 || iy + 4 > H || ix + 4 > W) {
      let at = patch, from = r0;
      for (let py = 0; py < 4; py++) {
        for (let px = 0; px < 4; px++) {
          const inside = <u32>(iy + py) < <u32>H && <u32>(ix + px) < <u32>W;
          const source = from + <usize>px * pixelBytes;
          if (inside) for (let k: usize = 0; k < bytes; k += 16) v128.store(at + k, v128.load(source + k));
          else for (let k: usize = 0; k < bytes; k += 16) v128.store(at + k, f32x4.splat(0.0));
          at += bytes;
        }
        from += line;
      }
      r0 = patch;
      line = 4 * bytes;
      pixel = bytes;
    }
    let r1 = r0 + line, r2 = r1 + line, r3 = r2 + line, out = to;
    for (let left = bytes; left > 0;) {
      const some = min(left, groupBytes), end = out + some;
      do {
        transformPixels(r0, r1, r2, r3, pixel, out, step);
        r0 += 16;
        r1 += 16;
        r2 += 16;
        r3 += 16;
        out += 16;
      } while (out < end);
      out += apart;
      left -= some;
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

/** Stores or adds four channels of one pixel of the results, after bias and activation. */
@inline
function put(v: v128, to: usize, act: u32, add: bool): void {
  if (act) v = activate(act, v);
  v128.store(to, add ? f32x4.add(v128.load(to), v) : v);
}

/**
 * At m A of the columns n0 ... n0+columns-1, then bias and activation, or added to y; y is `[B, H, W, N]`. The products'
 * rows are `row` bytes apart, entries `step`.
 */
function transformOutputs(
  from: usize, row: usize, step: usize, t0: i32, tiles: i32,
  y: usize, H: i32, W: i32, N: i32, n0: i32, columns: i32, bias: usize, act: u32, add: bool,
): void {
  const down = tilesOf(H), across = tilesOf(W), pixel = <usize>N << 2, line = <usize>W * pixel;
  let b = t0 / (down * across), ty = t0 / across % down, tx = t0 % across;
  for (; tiles > 0; tiles--) {
    const right = 2 * tx + 1 < W, below = 2 * ty + 1 < H;
    const first = y + (<usize>(((b * H + 2 * ty) * W + 2 * tx) * N + n0) << 2);
    for (let c: usize = 0; c < <usize>columns << 2; c += 16) {
      let m = from + c;
      const a0 = v128.load(m), a1 = v128.load(m + step), a2 = v128.load(m + 2 * step), a3 = v128.load(m + 3 * step);
      m += 4 * step;
      const b0 = v128.load(m), b1 = v128.load(m + step), b2 = v128.load(m + 2 * step), b3 = v128.load(m + 3 * step);
      m += 4 * step;
      const c0 = v128.load(m), c1 = v128.load(m + step), c2 = v128.load(m + 2 * step), c3 = v128.load(m + 3 * step);
      m += 4 * step;
      const d0 = v128.load(m), d1 = v128.load(m + step), d2 = v128.load(m + 2 * step), d3 = v128.load(m + 3 * step);
      const shift = bias ? v128.load(bias + (<usize>n0 << 2) + c) : f32x4.splat(0.0);
      const u0 = f32x4.add(f32x4.add(a0, b0), c0), u1 = f32x4.add(f32x4.add(a1, b1), c1);
      const u2 = f32x4.add(f32x4.add(a2, b2), c2), u3 = f32x4.add(f32x4.add(a3, b3), c3);
      const to = first + c;
      put(f32x4.add(f32x4.add(f32x4.add(u0, u1), u2), shift), to, act, add);
      if (right) put(f32x4.add(f32x4.sub(f32x4.sub(u1, u2), u3), shift), to + pixel, act, add);
      if (!below) continue;
      const l0 = f32x4.sub(f32x4.sub(b0, c0), d0), l1 = f32x4.sub(f32x4.sub(b1, c1), d1);
      const l2 = f32x4.sub(f32x4.sub(b2, c2), d2), l3 = f32x4.sub(f32x4.sub(b3, c3), d3);
      put(f32x4.add(f32x4.add(f32x4.add(l0, l1), l2), shift), to + line, act, add);
      if (right) put(f32x4.add(f32x4.sub(f32x4.sub(l1, l2), l3), shift), to + line + pixel, act, add);
    }
    from += row;
    if (++tx == across) {
      tx = 0;
      if (++ty == down) {
        ty = 0;
        b++;
      }
    }
  }
}

/**
 * One task of y = act(conv(x) + bias), or y += conv(x): some tiles and columns. x is `[B, H, W, K]`, y `[B, H, W, N]`, and
 * `filters` come from transformFilters or transformTurned. kernels/cpu/winograd.ts counts the tasks and the scratch.
 */
export function winograd(
  x: usize, y: usize, filters: usize, B: i32, H: i32, W: i32, K: i32, N: i32,
  bias: usize, act: u32, add: bool, task: i32, scratch: usize,
): void {
  const tiles = B * tilesOf(H) * tilesOf(W), most = tilesOfTask(K), blocks = (tiles + most - 1) / most;
  const parts = min((N + WASM_COLUMNS - 1) / WASM_COLUMNS, max(1, 16 / blocks));
  const share = padded((N + parts - 1) / parts);
  const t0 = task / parts * most, rows = min(most, tiles - t0);
  const first = task % parts * share, last = min(N, first + share);
  if (first >= last) return;
  const width = blas ? BLAS_COLUMNS : WASM_COLUMNS, rowFloats = rowOf(K), rowBytes = <usize>rowFloats << 2;
  const step = <usize>most * rowBytes + APART, filterStep = filterBytes(K, N);
  const inputs = scratch + (<usize>(ENTRIES * K) << 2), products = inputs + <usize>ENTRIES * step;
  const table = products + <usize>ENTRIES * ((<usize>(most * width) << 2) + APART);

  transformInputs(x, H, W, K, 0, K, t0, rows, inputs, rowBytes, K, 0, step, scratch);
  if (!blas) {
    let at = table;
    for (let f = 0; f < ENTRIES; f++) {
      for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
        store<u32>(at, <u32>(inputs + <usize>f * step + <usize>min(r, rows - 1) * rowBytes));
        at += 4;
      }
    }
  }
  for (let n = first; n < last; n += width) {
    const columns = min(width, last - n), wide = padded(columns), productRow = <usize>wide << 2;
    const productStep = <usize>most * productRow + APART;
    let at = table;
    for (let f = 0; f < ENTRIES; f++) {
      const to = products + <usize>f * productStep, b = filters + <usize>f * filterStep;
      if (blas) {
        const a = inputs + <usize>f * step;
        sgemm(0, 0, rows, wide, K, a, rowFloats, b + (<usize>n << 2), padded(N), 0.0, to, wide);
        continue;
      }
      for (let j = 0; j < wide; j += PANEL) {
        const panel = b + (<usize>((n + j) * K) << 2);
        for (let r = 0; r < rows; r += TILE_ROWS) {
          tile(at + (<usize>r << 2), 1, K, 4, panel, to + <usize>r * productRow + (<usize>j << 2), productRow);
        }
      }
      at += <usize>((rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS) << 2;
    }
    transformOutputs(products, productRow, productStep, t0, rows, y, H, W, N, n, columns, bias, act, add);
  }
}
