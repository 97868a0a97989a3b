// Gradients of linear layers on the cpu device (contracts and references: linear.ts). Both are products through the
// register tile of cpu/gemm.wasm.ts: of dz with panels of columns of w, and of the transposed dz with panels of x. A task
// packs what its tiles read, so one task covers more than a forward task does.

import { GroupedLinearGradInput, GroupedLinearGradWeight, LinearGradInput, LinearGradWeight } from "./arguments";
import { blas, BLAS_COLUMNS, BLAS_ROWS, floatsOf, sgemm } from "./cpu/blas.wasm";
import { tile, TILE_ROWS } from "./cpu/gemm.wasm";
import {
  addRows, LEFT_ROW, panelOfHalves, panelOfRows, panelPairOfRows, panelsOfRows, place, STEP, sumOf, TILE_BYTES, TOKENS,
  transpose, WEIGHT_COLUMNS, WEIGHT_ROWS,
} from "./cpu/gradient.wasm";
import { PANEL } from "./cpu/pack.wasm";
import { halfAt, madd } from "./cpu/simd.wasm";

/** Rows of dz and columns of w of one task of the input's gradient. */
const INPUT_ROWS: i32 = 192;
const INPUT_COLUMNS: i32 = 48;
/** Bytes of a panel of the weight's gradient. */
const PANEL_BYTES: usize = <usize>TOKENS * STEP;
/** Outputs whose products are added up at a time: their rows of w are then packed for all columns of a task at once. */
const OUTPUTS: i32 = 512;

/**
 * Columns k0 ... k0+width-1 of rows n ... end-1 of the weights `[N, K]`, row-major halves or packed, as a panel
 * `[end - n, PANEL]`. `n` is a multiple of PANEL.
 */
function panelOfWeights(w: usize, half: u32, n: i32, end: i32, K: i32, k0: i32, width: i32, to: usize): void {
  const packed = (w & 1) != 0;
  w &= ~1;
  if (!packed && half && width == PANEL) {
    panelOfHalves(w + (<usize>(n * K + k0) << 1), <usize>K << 1, end - n, to);
    return;
  }
  if (packed && !half && width == PANEL) {
    // A packed weight is already in panels, of rows of w: square blocks change places.
    for (; n + PANEL <= end; n += PANEL) {
      transpose(w + (<usize>(n * K + k0 * PANEL) << 2), STEP, PANEL, PANEL, to, STEP);
      to += <usize>PANEL * STEP;
    }
  }
  for (; n < end; n++) {
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

export function linearGradInput(args: LinearGradInput, task: i32, scratch: usize): void {
  const M = args.M, N = args.N, K = args.K, Z = <usize>args.Z;
  const xRow = args.xRow, yRow = args.yRow, zCol = <usize>args.zCol;
  const add = args.accumulate != 0, half = args.half;
  const blockRows = blas ? BLAS_ROWS : INPUT_ROWS, blockColumns = blas ? BLAS_COLUMNS : INPUT_COLUMNS;
  const columnBlocks = (K + blockColumns - 1) / blockColumns;
  const m0 = task / columnBlocks * blockRows, rows = min(blockRows, M - m0);
  const k0 = task % columnBlocks * blockColumns, k1 = min(K, k0 + blockColumns);
  const dz = args.dz + ((<usize>(yRow + m0) * Z + zCol) << 2);
  const stride = <usize>K << 2;
  const dx = args.dx + <usize>(xRow + m0) * stride;
  if (blas) {
    const columns = k1 - k0;
    const b = floatsOf(args.w + (<usize>k0 << (half ? 1 : 2)), half, K, N, columns, scratch);
    const beta: f32 = add ? 1.0 : 0.0;
    sgemm(0, 0, rows, columns, N, dz, <i32>Z, b, half ? columns : K, beta, dx + (<usize>k0 << 2), K);
    return;
  }
  const table = scratch, c = scratch + (INPUT_ROWS << 2), panels = c + TILE_BYTES;
  const w = args.w, columns = k1 - k0;
  for (let n = 0; n < N; n += OUTPUTS) {
    const end = min(N, n + OUTPUTS), count = end - n, panelBytes = <usize>count * STEP, onto = add || n > 0;
    for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
      store<u32>(table + (<usize>r << 2), <u32>(dz + <usize>min(r, rows - 1) * (Z << 2) + (<usize>n << 2)));
    }
    if (!half && !(w & 1)) panelsOfRows(w + (<usize>(n * K + k0) << 2), stride, count, columns, panels, panelBytes);
    else for (let k = 0; k < columns; k += PANEL) {
      const to = panels + <usize>(k / PANEL) * panelBytes;
      panelOfWeights(w, half, n, end, K, k0 + k, min(PANEL, columns - k), to);
    }
    for (let k = 0; k < columns; k += PANEL) {
      const panel = panels + <usize>(k / PANEL) * panelBytes, width = min(PANEL, columns - k);
      for (let r = 0; r < rows; r += TILE_ROWS) {
        const to = dx + <usize>r * stride + (<usize>(k0 + k) << 2);
        if (r + TILE_ROWS <= rows && width == PANEL) {
          tile(table + (<usize>r << 2), 1, count, 4, panel, to, stride, onto);
          continue;
        }
        tile(table + (<usize>r << 2), 1, count, 4, panel, c, STEP);
        place(c, to, stride, min(TILE_ROWS, rows - r), width, onto);
      }
    }
  }
}

export function linearGradWeight(args: LinearGradWeight, task: i32, scratch: usize): void {
  const M = args.M, N = args.N, K = args.K, Z = <usize>args.Z;
  const xRow = args.xRow, yRow = args.yRow, zCol = <usize>args.zCol;
  const hasBias = args.hasBias;
  const columnBlocks = (K + WEIGHT_COLUMNS - 1) / WEIGHT_COLUMNS;
  const n0 = task / columnBlocks * WEIGHT_ROWS, rows = min(WEIGHT_ROWS, N - n0);
  const k0 = task % columnBlocks * WEIGHT_COLUMNS, k1 = min(K, k0 + WEIGHT_COLUMNS);
  const stride = <usize>K << 2;
  const dw = args.dw + <usize>n0 * stride;
  if (blas) {
    const dz = args.dz + ((<usize>yRow * Z + zCol + n0) << 2), x = args.x + <usize>xRow * stride;
    sgemm(1, 0, rows, k1 - k0, M, dz, <i32>Z, x + (<usize>k0 << 2), K, 1.0, dw + (<usize>k0 << 2), K);
    if (hasBias && k0 == 0) addRows(dz, Z << 2, M, rows, args.db + (<usize>n0 << 2));
    return;
  }
  const table = scratch, c = scratch + (WEIGHT_ROWS << 2), panel = c + TILE_BYTES;
  const left = panel + 2 * PANEL_BYTES;
  for (let m = 0; m < M; m += TOKENS) {
    const count = min(TOKENS, M - m);
    const dz = args.dz + ((<usize>(yRow + m) * Z + zCol + n0) << 2);
    transpose(dz, Z << 2, count, rows, left, LEFT_ROW);
    if (hasBias && k0 == 0) {
      for (let n = 0; n < rows; n++) {
        const at = args.db + (<usize>(n0 + n) << 2);
        store<f32>(at, load<f32>(at) + sumOf(left + <usize>n * LEFT_ROW, count));
      }
    }
    for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
      store<u32>(table + (<usize>r << 2), <u32>(left + <usize>min(r, rows - 1) * LEFT_ROW));
    }
    const x = args.x + <usize>(xRow + m) * stride;
    for (let k = k0; k < k1; k += PANEL) {
      const width = min(PANEL, k1 - k), odd = ((k - k0) / PANEL & 1) != 0;
      const at = x + (<usize>k << 2);
      let from = panel;
      if (odd && width == PANEL) from += PANEL_BYTES;
      else if (k + 2 * PANEL <= k1) panelPairOfRows(at, stride, count, panel, PANEL_BYTES);
      else panelOfRows(at, stride, count, width, panel);
      for (let r = 0; r < rows; r += TILE_ROWS) {
        tile(table + (<usize>r << 2), 1, count, 4, from, c, STEP);
        place(c, dw + <usize>r * stride + (<usize>k << 2), stride, min(TILE_ROWS, rows - r), width, true);
      }
    }
  }
}

/** Pixels of one task of a grouped layer's input gradient, and of one partial sum of its weight gradient. */
const PIXELS: i32 = 16;

/** to += factor * x, `bytes` bytes. */
@inline
function addTimes(to: usize, factor: f32, x: usize, bytes: usize): void {
  const f = f32x4.splat(factor);
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(to + i, madd(f, v128.load(x + i), v128.load(to + i)));
  for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(to + i) + factor * load<f32>(x + i));
}

export function groupedLinearGradInput(args: GroupedLinearGradInput, task: i32, scratch: usize): void {
  const dz = args.dz, w = args.w, dx = args.dx;
  const P = args.P, GI = args.GI, GO = args.GO, I = args.I;
  const O = GO / (GI / I), bytes = <usize>I << 2;
  const end = min(P, (task + 1) * PIXELS);
  for (let p = task * PIXELS; p < end; p++) {
    const to = dx + (<usize>(p * GI) << 2);
    memory.fill(to, 0, <usize>GI << 2);
    for (let o = 0; o < GO; o++) {
      const up = load<f32>(dz + (<usize>(p * GO + o) << 2));
      addTimes(to + <usize>(o / O) * bytes, up, w + <usize>o * bytes, bytes);
    }
  }
}

export function groupedLinearGradWeight(args: GroupedLinearGradWeight, task: i32, scratch: usize): void {
  const dz = args.dz, x = args.x, dw = args.dw, db = args.db;
  const P = args.P, GI = args.GI, GO = args.GO, I = args.I;
  const hasBias = args.hasBias;
  const O = GO / (GI / I), bytes = <usize>I << 2;
  for (let o = task * O; o < (task + 1) * O; o++) {
    let total: f32 = 0.0;
    for (let p0 = 0; p0 < P; p0 += PIXELS) {
      memory.fill(scratch, 0, bytes);
      let sum: f32 = 0.0;
      for (let p = p0; p < min(P, p0 + PIXELS); p++) {
        const up = load<f32>(dz + (<usize>(p * GO + o) << 2));
        addTimes(scratch, up, x + (<usize>(p * GI + task * I) << 2), bytes);
        sum += up;
      }
      addTimes(dw + <usize>o * bytes, 1.0, scratch, bytes);
      total += sum;
    }
    if (hasBias) {
      const at = db + (<usize>o << 2);
      store<f32>(at, load<f32>(at) + total);
    }
  }
}
