// Gradients of convolutions on the cpu device (contracts and references: conv2d.ts).
//
// The gradient of a dense convolution's input is a product whose left rows are gathered, as in the forward pass: under
// each tap that reaches an input pixel the O channels of an output pixel. Which taps do depends on the pixel's row and
// column modulo the stride, so a task takes pixels of one such class. The gradient of the weight is the product of the
// transposed dz with the gathered x, whose columns are channels times taps.

import { CHANNELS, depthwiseImage } from "./cpu/depthwise.wasm";
import { tile, TILE_ROWS } from "./cpu/gemm.wasm";
import {
  LEFT_ROW, place, STEP, sumOf, TILE_BYTES, TOKENS, transpose, WEIGHT_COLUMNS, WEIGHT_ROWS,
} from "./cpu/gradient.wasm";
import { PANEL } from "./cpu/pack.wasm";
import { madd, word } from "./cpu/simd.wasm";

/** Pixels and channels of one task of the input's gradient; conv2d.ts counts with the same numbers. */
const INPUT_ROWS: i32 = 192;
const INPUT_COLUMNS: i32 = 48;

export function conv2dGradInput(args: usize, task: i32, scratch: usize): void {
  const dz = <usize>word(args, 0), w = <usize>word(args, 1), dx = <usize>word(args, 2);
  const B = <i32>word(args, 3), H = <i32>word(args, 4), W = <i32>word(args, 5), I = <i32>word(args, 6);
  const O = <i32>word(args, 7), KH = <i32>word(args, 8), KW = <i32>word(args, 9);
  const OH = <i32>word(args, 10), OW = <i32>word(args, 11);
  const stride = <i32>word(args, 12), pad = <i32>word(args, 13), add = word(args, 14) != 0;
  const columnBlocks = (I + INPUT_COLUMNS - 1) / INPUT_COLUMNS;
  const i0 = task % columnBlocks * INPUT_COLUMNS, i1 = min(I, i0 + INPUT_COLUMNS);
  // Rows cy, cy + stride ... times columns cx, cx + stride ... of each image are one class.
  let block = task / columnBlocks, cy = 0, cx = 0, height = 0, width = 0;
  for (;;) {
    height = (H - cy + stride - 1) / stride;
    width = (W - cx + stride - 1) / stride;
    const blocks = (B * max(0, height) * max(0, width) + INPUT_ROWS - 1) / INPUT_ROWS;
    if (block < blocks) break;
    block -= blocks;
    if (++cx == stride) {
      cx = 0;
      cy++;
    }
  }
  const m0 = block * INPUT_ROWS, rows = min(INPUT_ROWS, B * height * width - m0);
  const ky0 = (cy + pad) % stride, kx0 = (cx + pad) % stride;
  const down = max(0, (KH - ky0 + stride - 1) / stride), across = max(0, (KW - kx0 + stride - 1) / stride);
  const taps = down * across, rowBytes = <usize>O << 2;

  const zeros = scratch, table = zeros + ((rowBytes + 15) & ~15);
  const outputs = table + <usize>(INPUT_ROWS * taps << 2); // addresses of the rows of dx
  const c = outputs + <usize>(INPUT_ROWS << 2), panel = c + TILE_BYTES;
  memory.fill(zeros, 0, rowBytes);
  for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
    const m = m0 + min(r, rows - 1);
    const b = m / (height * width), y = m / width % height * stride + cy, x = m % width * stride + cx;
    store<u32>(outputs + (<usize>r << 2), <u32>(dx + (<usize>(((b * H + y) * W + x) * I) << 2)));
    let entry = table + (<usize>(r / TILE_ROWS * taps * TILE_ROWS + r % TILE_ROWS) << 2);
    for (let ky = ky0; ky < KH; ky += stride) {
      const oy = (y + pad - ky) / stride, inRow = y + pad >= ky && oy < OH;
      for (let kx = kx0; kx < KW; kx += stride) {
        const ox = (x + pad - kx) / stride;
        const inside = inRow && x + pad >= kx && ox < OW;
        store<u32>(entry, <u32>(inside ? dz + <usize>((b * OH + oy) * OW + ox) * rowBytes : zeros));
        entry += 24;
      }
    }
  }
  for (let i = i0; i < i1; i += PANEL) {
    const columns = min(PANEL, i1 - i);
    let to = panel;
    for (let ky = ky0; ky < KH; ky += stride) {
      for (let kx = kx0; kx < KW; kx += stride) {
        for (let o = 0; o < O; o++) {
          let from = w + (<usize>(((o * I + i) * KH + ky) * KW + kx) << 2);
          for (let j = 0; j < PANEL; j++) {
            store<f32>(to + (<usize>j << 2), j < columns ? load<f32>(from) : <f32>0.0);
            from += <usize>(KH * KW) << 2;
          }
          to += STEP;
        }
      }
    }
    for (let r = 0; r < rows; r += TILE_ROWS) {
      tile(table + <usize>(r * taps << 2), taps, O, 4, panel, c, STEP);
      for (let k = r; k < min(rows, r + TILE_ROWS); k++) {
        const at = <usize>load<u32>(outputs + (<usize>k << 2)) + (<usize>i << 2);
        place(c + <usize>(k - r) * STEP, at, 0, 1, columns, add);
      }
    }
  }
}

// Columns of the gathered x: panels of eight channels, under each panel the taps, so that a task's columns lie together in
// dw; the last I % PANEL channels are a narrower panel. Globals of the task that runs.
let xChannels: i32 = 0;
let xTaps: i32 = 0;

/** Channel of column q. */
@inline
function channelOf(q: i32): i32 {
  const whole = xChannels / PANEL * PANEL, rest = q - whole * xTaps;
  return rest < 0 ? q / (PANEL * xTaps) * PANEL + q % PANEL : whole + rest % (xChannels - whole);
}

/** Tap of column q. */
@inline
function tapOf(q: i32): i32 {
  const whole = xChannels / PANEL * PANEL, rest = q - whole * xTaps;
  return rest < 0 ? q / PANEL % xTaps : rest / (xChannels - whole);
}

/** Columns q0 ... end-1 of the gathered x under `count` pixels from m0 on, as a panel `[count, PANEL]`; the rest is zero. */
function panelOfPixels(args: usize, m0: i32, count: i32, q0: i32, end: i32, panel: usize): void {
  const H = <i32>word(args, 5), W = <i32>word(args, 6), I = xChannels;
  const KW = <i32>word(args, 10), OH = <i32>word(args, 11), OW = <i32>word(args, 12);
  const stride = <i32>word(args, 13), pad = <i32>word(args, 14);
  const rowBytes = <usize>I << 2;
  if (end - q0 < PANEL) memory.fill(panel, 0, <usize>count * STEP);
  for (let q = q0; q < end;) {
    // A run of channels under one tap.
    const tap = tapOf(q), i = channelOf(q), ky = tap / KW - pad, kx = tap % KW - pad;
    let run = 1;
    while (q + run < end && tapOf(q + run) == tap && channelOf(q + run) == i + run) run++;
    const bytes = <usize>run << 2;
    let to = panel + (<usize>(q - q0) << 2);
    let b = m0 / (OH * OW), oy = m0 / OW % OH, ox = m0 % OW;
    for (let m = count; m > 0;) {
      // Pixels of one row of outputs.
      const some = min(m, OW - ox), y = oy * stride + ky;
      if (<u32>y >= <u32>H) {
        for (let p = some; p > 0; p--) {
          memory.fill(to, 0, bytes);
          to += STEP;
        }
      } else {
        const row = <usize>word(args, 1) + <usize>((b * H + y) * W) * rowBytes + (<usize>i << 2);
        for (let p = 0; p < some; p++) {
          const x = (ox + p) * stride + kx;
          if (<u32>x >= <u32>W) memory.fill(to, 0, bytes);
          else {
            const from = row + <usize>x * rowBytes;
            if (run == PANEL) {
              for (let k: usize = 0; k < STEP; k += 16) v128.store(to + k, v128.load(from + k));
            } else {
              for (let k: usize = 0; k < bytes; k += 4) store<f32>(to + k, load<f32>(from + k));
            }
          }
          to += STEP;
        }
      }
      m -= some;
      ox = 0;
      if (++oy == OH) {
        oy = 0;
        b++;
      }
    }
    q += run;
  }
}

export function conv2dGradWeight(args: usize, task: i32, scratch: usize): void {
  const dz = <usize>word(args, 0), dw = <usize>word(args, 2), db = <usize>word(args, 3);
  const B = <i32>word(args, 4), O = <i32>word(args, 8), OH = <i32>word(args, 11), OW = <i32>word(args, 12);
  const hasBias = word(args, 15);
  xChannels = <i32>word(args, 7);
  xTaps = <i32>word(args, 9) * <i32>word(args, 10);
  const width = xChannels * xTaps, M = B * OH * OW;
  const columnBlocks = (width + WEIGHT_COLUMNS - 1) / WEIGHT_COLUMNS;
  const o0 = task / columnBlocks * WEIGHT_ROWS, rows = min(WEIGHT_ROWS, O - o0);
  const q0 = task % columnBlocks * WEIGHT_COLUMNS, q1 = min(width, q0 + WEIGHT_COLUMNS);
  const table = scratch, c = scratch + (WEIGHT_ROWS << 2), panel = c + TILE_BYTES;
  const left = panel + <usize>TOKENS * STEP, places = left + <usize>WEIGHT_ROWS * LEFT_ROW;
  const rowBytes = <usize>width << 2;
  for (let m = 0; m < M; m += TOKENS) {
    const count = min(TOKENS, M - m);
    transpose(dz + (<usize>(m * O + o0) << 2), <usize>O << 2, count, rows, left, LEFT_ROW);
    if (hasBias && q0 == 0) {
      for (let o = 0; o < rows; o++) {
        const at = db + (<usize>(o0 + o) << 2);
        store<f32>(at, load<f32>(at) + sumOf(left + <usize>o * LEFT_ROW, count));
      }
    }
    for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
      store<u32>(table + (<usize>r << 2), <u32>(left + <usize>min(r, rows - 1) * LEFT_ROW));
    }
    for (let q = q0; q < q1; q += PANEL) {
      const columns = min(PANEL, q1 - q);
      panelOfPixels(args, m, count, q, q + columns, panel);
      for (let j = 0; j < columns; j++) {
        store<u32>(places + (<usize>j << 2), <u32>(channelOf(q + j) * xTaps + tapOf(q + j)) << 2);
      }
      for (let r = 0; r < rows; r += TILE_ROWS) {
        tile(table + (<usize>r << 2), 1, count, 4, panel, c, STEP);
        let from = c, to = dw + <usize>(o0 + r) * rowBytes;
        for (let k = min(TILE_ROWS, rows - r); k > 0; k--) {
          for (let j: usize = 0; j < <usize>columns << 2; j += 4) {
            const at = to + load<u32>(places + j);
            store<f32>(at, load<f32>(at) + load<f32>(from + j));
          }
          from += STEP;
          to += rowBytes;
        }
      }
    }
  }
}

export function depthwiseConv2dGradInput(args: usize, task: i32, scratch: usize): void {
  const dz = <usize>word(args, 0), w = <usize>word(args, 1), dx = <usize>word(args, 2);
  const H = <i32>word(args, 4), W = <i32>word(args, 5), C = <i32>word(args, 6), K = <i32>word(args, 7);
  const channelBlocks = (C + CHANNELS - 1) / CHANNELS;
  const b = task / channelBlocks, c0 = task % channelBlocks * CHANNELS, count = min(CHANNELS, C - c0);
  const taps = K * K;
  // The filters turned round, and no bias.
  for (let tap = 0; tap <= taps; tap++) {
    for (let c = 0; c < CHANNELS; c++) {
      const v: f32 = c < count && tap < taps
        ? load<f32>(w + (<usize>((c0 + c) * taps + taps - 1 - tap) << 2))
        : 0.0;
      store<f32>(scratch + (<usize>(tap * CHANNELS + c) << 2), v);
    }
  }
  depthwiseImage(dz, dx, scratch, 0, H, W, C, K, b, c0, count);
}

/** Channels of one task of a depthwise convolution's weight gradient. */
const WEIGHT_CHANNELS: i32 = 16;

/** total += the sum of dz times x over `count` pixels, four channels or (`single`) one. */
function addProducts(dz: usize, x: usize, count: i32, pixel: usize, single: bool, total: usize): void {
  if (single) {
    let sum: f32 = 0.0;
    for (; count > 0; count--) {
      sum += load<f32>(dz) * load<f32>(x);
      dz += pixel;
      x += pixel;
    }
    store<f32>(total, load<f32>(total) + sum);
    return;
  }
  let sum = f32x4.splat(0.0);
  for (; count > 0; count--) {
    sum = madd(v128.load(dz), v128.load(x), sum);
    dz += pixel;
    x += pixel;
  }
  v128.store(total, f32x4.add(v128.load(total), sum));
}

/** total += the sum of dz over `count` pixels. */
function addPixels(dz: usize, count: i32, pixel: usize, single: bool, total: usize): void {
  if (single) {
    let sum: f32 = 0.0;
    for (; count > 0; count--) {
      sum += load<f32>(dz);
      dz += pixel;
    }
    store<f32>(total, load<f32>(total) + sum);
    return;
  }
  let sum = f32x4.splat(0.0);
  for (; count > 0; count--) {
    sum = f32x4.add(sum, v128.load(dz));
    dz += pixel;
  }
  v128.store(total, f32x4.add(v128.load(total), sum));
}

/** The three taps of one row of a 3x3 filter at once: `x` is under the middle tap of the first pixel of the row. */
function addRowOfThree(dz: usize, x: usize, count: i32, pixel: usize, total: usize): void {
  let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, left = s0;
  let here = v128.load(x);
  for (let p = count - 1; p > 0; p--) {
    const up = v128.load(dz), right = v128.load(x + pixel);
    s0 = madd(up, left, s0);
    s1 = madd(up, here, s1);
    s2 = madd(up, right, s2);
    left = here;
    here = right;
    dz += pixel;
    x += pixel;
  }
  const up = v128.load(dz);
  s0 = madd(up, left, s0);
  s1 = madd(up, here, s1);
  v128.store(total, f32x4.add(v128.load(total), s0));
  v128.store(total, f32x4.add(v128.load(total, 64), s1), 64);
  v128.store(total, f32x4.add(v128.load(total, 128), s2), 128);
}

export function depthwiseConv2dGradWeight(args: usize, task: i32, scratch: usize): void {
  const dz = <usize>word(args, 0), x = <usize>word(args, 1), dw = <usize>word(args, 2), db = <usize>word(args, 3);
  const B = <i32>word(args, 4), H = <i32>word(args, 5), W = <i32>word(args, 6), C = <i32>word(args, 7);
  const K = <i32>word(args, 8), hasBias = word(args, 9);
  const c0 = task * WEIGHT_CHANNELS, count = min(WEIGHT_CHANNELS, C - c0), taps = K * K, pad = (K - 1) / 2;
  const pixel = <usize>C << 2, row = <usize>W * pixel;
  // Sums of image rows join the totals in scratch: 16 channels a tap, then 16 of the bias.
  memory.fill(scratch, 0, <usize>(taps + 1) << 6);
  for (let line = 0; line < B * H; line++) {
    const y = line % H;
    for (let c = 0; c < count;) {
      const single = c + 4 > count;
      const lane = <usize>c << 2, at = <usize>line * row + (<usize>c0 << 2) + lane;
      for (let ky = 0; ky < K; ky++) {
        const iy = y + ky - pad;
        if (<u32>iy >= <u32>H) continue;
        const from = x + at + <usize>((iy - y) * W) * pixel, total = scratch + (<usize>(ky * K) << 6) + lane;
        if (K == 3 && !single) addRowOfThree(dz + at, from, W, pixel, total);
        else {
          for (let kx = 0; kx < K; kx++) {
            const first = max(0, pad - kx), end = min(W, W + pad - kx);
            const up = dz + at + <usize>first * pixel;
            const under = from + <usize>(first + kx - pad) * pixel;
            addProducts(up, under, end - first, pixel, single, total + (<usize>kx << 6));
          }
        }
      }
      if (hasBias) addPixels(dz + at, W, pixel, single, scratch + (<usize>taps << 6) + lane);
      c += single ? 1 : 4;
    }
  }
  for (let c = 0; c < count; c++) {
    for (let tap = 0; tap < taps; tap++) {
      const at = dw + (<usize>((c0 + c) * taps + tap) << 2);
      store<f32>(at, load<f32>(at) + load<f32>(scratch + (<usize>tap << 6) + (<usize>c << 2)));
    }
    if (hasBias) {
      const at = db + (<usize>(c0 + c) << 2);
      store<f32>(at, load<f32>(at) + load<f32>(scratch + (<usize>taps << 6) + (<usize>c << 2)));
    }
  }
}
