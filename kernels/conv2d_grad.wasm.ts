// Gradients of convolutions on the cpu device (contracts and references: conv2d.ts).
//
// The gradient of a dense convolution's input is a product whose left rows are gathered, as in the forward pass: under
// each tap that reaches an input pixel the O channels of an output pixel. Which taps do depends on the pixel's row and
// column modulo the stride, so a task takes pixels of one such class. The gradient of the weight is the product of the
// transposed dz with the gathered x, whose columns are channels times taps.

import { Conv2dGradInput, Conv2dGradWeight, DepthwiseConv2dGradInput, DepthwiseConv2dGradWeight } from "./arguments";
import { CHANNELS, copyRow, depthwiseImage } from "./cpu/depthwise.wasm";
import { tile, TILE_ROWS } from "./cpu/gemm.wasm";
import {
  LEFT_ROW, place, STEP, sumOf, TILE_BYTES, TOKENS, transpose, WEIGHT_COLUMNS, WEIGHT_ROWS,
} from "./cpu/gradient.wasm";
import { PANEL } from "./cpu/pack.wasm";
import { halfAt, madd } from "./cpu/simd.wasm";
import { isWinograd, transformTurned, winograd } from "./cpu/winograd.wasm";
import { winogradGradWeight } from "./cpu/winograd_grad.wasm";

/** Pixels and channels of one task of the input's gradient; conv2d.ts counts with the same numbers. */
const INPUT_ROWS: i32 = 192;
const INPUT_COLUMNS: i32 = 48;

export function conv2dGradInput(args: Conv2dGradInput, task: i32, scratch: usize): void {
  const dz = args.dz, w = args.w, dx = args.dx;
  const B = args.B, H = args.H, W = args.W, I = args.I;
  const O = args.O, KH = args.KH, KW = args.KW;
  const OH = args.OH, OW = args.OW;
  const stride = args.stride, pad = args.pad, add = args.accumulate != 0, half = args.half;
  if (isWinograd(H, W, KH, KW, stride, pad, O, I)) {
    const phase = (I + 15) / 16, filters = args.shared;
    if (task < phase) transformTurned(w, half, I, O, filters, task, scratch);
    else winograd(dz, dx, filters, B, H, W, O, I, 0, 0, add, task - phase, scratch);
    return;
  }
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
          let at = <usize>(((o * I + i) * KH + ky) * KW + kx);
          for (let j = 0; j < PANEL; j++) {
            let v: f32 = 0.0;
            if (j < columns) v = half ? halfAt(w + (at << 1)) : load<f32>(w + (at << 2));
            store<f32>(to + (<usize>j << 2), v);
            at += <usize>(KH * KW);
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
function panelOfPixels(args: Conv2dGradWeight, m0: i32, count: i32, q0: i32, end: i32, panel: usize): void {
  const H = args.H, W = args.W, I = xChannels;
  const KW = args.KW, OH = args.OH, OW = args.OW;
  const stride = args.stride, pad = args.pad;
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
        const row = args.x + <usize>((b * H + y) * W) * rowBytes + (<usize>i << 2);
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

export function conv2dGradWeight(args: Conv2dGradWeight, task: i32, scratch: usize): void {
  const dz = args.dz, dw = args.dw, db = args.db;
  const B = args.B, O = args.O, OH = args.OH, OW = args.OW;
  const hasBias = args.hasBias;
  if (isWinograd(args.H, args.W, args.KH, args.KW, args.stride, args.pad, args.I, O)) {
    const bias = hasBias ? db : 0;
    winogradGradWeight(dz, args.x, dw, bias, args.shared, B, args.H, args.W, O, args.I, task, scratch);
    return;
  }
  xChannels = args.I;
  xTaps = args.KH * args.KW;
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

export function depthwiseConv2dGradInput(args: DepthwiseConv2dGradInput, task: i32, scratch: usize): void {
  const dz = args.dz, w = args.w, dx = args.dx;
  const H = args.H, W = args.W, C = args.C, K = args.K;
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

/** Bytes of a pixel or a tap of these channels in scratch. */
const PIXEL: usize = 64;

/** Four channels of one row under a 3x3 filter: nine sums of dz times x and that of dz join the totals. */
function addRowOfThree(dz: usize, r0: usize, r1: usize, r2: usize, W: i32, total: usize): void {
  let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0, s8 = s0, s9 = s0;
  for (; W > 0; W--) {
    const up = v128.load(dz);
    s0 = madd(up, v128.load(r0), s0);
    s1 = madd(up, v128.load(r0, 64), s1);
    s2 = madd(up, v128.load(r0, 128), s2);
    s3 = madd(up, v128.load(r1), s3);
    s4 = madd(up, v128.load(r1, 64), s4);
    s5 = madd(up, v128.load(r1, 128), s5);
    s6 = madd(up, v128.load(r2), s6);
    s7 = madd(up, v128.load(r2, 64), s7);
    s8 = madd(up, v128.load(r2, 128), s8);
    s9 = f32x4.add(up, s9);
    dz += PIXEL;
    r0 += PIXEL;
    r1 += PIXEL;
    r2 += PIXEL;
  }
  v128.store(total, f32x4.add(v128.load(total), s0));
  v128.store(total, f32x4.add(v128.load(total, 64), s1), 64);
  v128.store(total, f32x4.add(v128.load(total, 128), s2), 128);
  v128.store(total, f32x4.add(v128.load(total, 192), s3), 192);
  v128.store(total, f32x4.add(v128.load(total, 256), s4), 256);
  v128.store(total, f32x4.add(v128.load(total, 320), s5), 320);
  v128.store(total, f32x4.add(v128.load(total, 384), s6), 384);
  v128.store(total, f32x4.add(v128.load(total, 448), s7), 448);
  v128.store(total, f32x4.add(v128.load(total, 512), s8), 512);
  v128.store(total, f32x4.add(v128.load(total, 576), s9), 576);
}

export function depthwiseConv2dGradWeight(args: DepthwiseConv2dGradWeight, task: i32, scratch: usize): void {
  const dz = args.dz, x = args.x, dw = args.dw, db = args.db;
  const B = args.B, H = args.H, W = args.W, C = args.C;
  const K = args.K, hasBias = args.hasBias;
  const c0 = task * WEIGHT_CHANNELS, count = min(WEIGHT_CHANNELS, C - c0), taps = K * K, pad = (K - 1) / 2;
  const step = <usize>C << 2, row = <usize>W * step;
  // Totals: 16 channels a tap, then 16 of the bias, which sums of image rows join. Behind them K padded rows of x, of which
  // row r stands at place (r + pad) % K, and a row of dz.
  const ring = scratch + <usize>(taps + 1) * PIXEL, padded = <usize>(W + K - 1) * PIXEL;
  const up = ring + <usize>K * padded;
  memory.fill(scratch, 0, up + <usize>W * PIXEL - scratch);
  for (let b = 0; b < B; b++) {
    const first = <usize>(b * H) * row + (<usize>c0 << 2);
    for (let r = -pad; r < pad; r++) {
      const from = r >= 0 && r < H ? x + first + <usize>r * row : 0;
      copyRow(from, step, W, count, pad, PIXEL, ring + <usize>((r + pad) % K) * padded);
    }
    for (let y = 0; y < H; y++) {
      const next = y + pad, from = next < H ? x + first + <usize>next * row : 0;
      copyRow(from, step, W, count, pad, PIXEL, ring + <usize>((next + pad) % K) * padded);
      copyRow(dz + first + <usize>y * row, step, W, count, 0, PIXEL, up);
      for (let lane: usize = 0; lane < <usize>count << 2; lane += 16) {
        if (K == 3) {
          const r0 = ring + <usize>(y % 3) * padded + lane, r1 = ring + <usize>((y + 1) % 3) * padded + lane;
          addRowOfThree(up + lane, r0, r1, ring + <usize>((y + 2) % 3) * padded + lane, W, scratch + lane);
          continue;
        }
        for (let tap = 0; tap <= taps; tap++) {
          let sum = f32x4.splat(0.0);
          let at = up + lane;
          let under = ring + <usize>((y + tap / K) % K) * padded + <usize>(tap % K) * PIXEL + lane;
          for (let ox = 0; ox < W; ox++) {
            sum = tap < taps ? madd(v128.load(at), v128.load(under), sum) : f32x4.add(v128.load(at), sum);
            at += PIXEL;
            under += PIXEL;
          }
          const total = scratch + <usize>tap * PIXEL + lane;
          v128.store(total, f32x4.add(v128.load(total), sum));
        }
      }
    }
  }
  for (let c = 0; c < count; c++) {
    for (let tap = 0; tap < taps; tap++) {
      const at = dw + (<usize>((c0 + c) * taps + tap) << 2);
      store<f32>(at, load<f32>(at) + load<f32>(scratch + <usize>tap * PIXEL + (<usize>c << 2)));
    }
    if (hasBias) {
      const at = db + (<usize>(c0 + c) << 2);
      store<f32>(at, load<f32>(at) + load<f32>(scratch + <usize>taps * PIXEL + (<usize>c << 2)));
    }
  }
}
