// Gradients of convolutions on the cpu device (contracts and references: conv2d.ts).
//
// The gradient of a dense convolution's input is a product whose left rows are gathered, as in the forward pass: under
// each tap that reaches an input pixel the O channels of an output pixel. Which taps do depends on the pixel's row and
// column modulo the stride, so a task takes pixels of one such class. The gradient of the weight is the product of the
// transposed dz with the gathered x, whose columns are taps times channels.

import { CHANNELS, depthwiseImage } from "./cpu/depthwise.wasm";
import { tile, TILE_ROWS } from "./cpu/gemm.wasm";
import { place, STEP, sumOf, TILE_BYTES, TOKENS, transpose, WEIGHT_COLUMNS, WEIGHT_ROWS } from "./cpu/gradient.wasm";
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

/**
 * Columns q0 ... of the gathered x under `count` pixels from m0 on, as a panel `[count, PANEL]`: column q is channel q % I
 * under tap q / I; columns from `end` on are zero.
 */
function panelOfPixels(args: usize, m0: i32, count: i32, q0: i32, end: i32, panel: usize): void {
  const H = <i32>word(args, 5), W = <i32>word(args, 6), I = <i32>word(args, 7);
  const KW = <i32>word(args, 10), OH = <i32>word(args, 11), OW = <i32>word(args, 12);
  const stride = <i32>word(args, 13), pad = <i32>word(args, 14);
  let j = 0;
  while (j < PANEL) {
    // A run of channels under one tap.
    const q = q0 + j;
    if (q >= end) {
      for (let m = 0; m < count; m++) {
        const to = panel + <usize>m * STEP;
        for (let k = j; k < PANEL; k++) store<f32>(to + (<usize>k << 2), 0.0);
      }
      return;
    }
    const tap = q / I, i = q % I, run = min(min(PANEL - j, I - i), end - q);
    const ky = tap / KW, kx = tap % KW;
    let b = m0 / (OH * OW), oy = m0 / OW % OH, ox = m0 % OW;
    let to = panel + (<usize>j << 2);
    for (let m = count; m > 0; m--) {
      const y = oy * stride + ky - pad, x = ox * stride + kx - pad;
      if (<u32>y < <u32>H && <u32>x < <u32>W) {
        const from = <usize>word(args, 1) + (<usize>(((b * H + y) * W + x) * I + i) << 2);
        if (run == PANEL) {
          for (let k: usize = 0; k < STEP; k += 16) v128.store(to + k, v128.load(from + k));
        } else {
          for (let k: usize = 0; k < <usize>run << 2; k += 4) store<f32>(to + k, load<f32>(from + k));
        }
      } else memory.fill(to, 0, <usize>run << 2);
      to += STEP;
      if (++ox == OW) {
        ox = 0;
        if (++oy == OH) {
          oy = 0;
          b++;
        }
      }
    }
    j += run;
  }
}

export function conv2dGradWeight(args: usize, task: i32, scratch: usize): void {
  const dz = <usize>word(args, 0), dw = <usize>word(args, 2), db = <usize>word(args, 3);
  const B = <i32>word(args, 4), I = <i32>word(args, 7), O = <i32>word(args, 8);
  const KH = <i32>word(args, 9), KW = <i32>word(args, 10), OH = <i32>word(args, 11), OW = <i32>word(args, 12);
  const hasBias = word(args, 15);
  const taps = KH * KW, width = I * taps, M = B * OH * OW;
  const columnBlocks = (width + WEIGHT_COLUMNS - 1) / WEIGHT_COLUMNS;
  const o0 = task / columnBlocks * WEIGHT_ROWS, rows = min(WEIGHT_ROWS, O - o0);
  const q0 = task % columnBlocks * WEIGHT_COLUMNS, q1 = min(width, q0 + WEIGHT_COLUMNS);
  const table = scratch, c = scratch + (WEIGHT_ROWS << 2), panel = c + TILE_BYTES;
  const left = panel + <usize>TOKENS * STEP;
  for (let m = 0; m < M; m += TOKENS) {
    const count = min(TOKENS, M - m);
    transpose(dz + (<usize>(m * O + o0) << 2), <usize>O << 2, count, rows, left);
    if (hasBias && q0 == 0) {
      for (let o = 0; o < rows; o++) {
        const at = db + (<usize>(o0 + o) << 2);
        store<f32>(at, load<f32>(at) + sumOf(left + (<usize>(o * count) << 2), count));
      }
    }
    for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
      store<u32>(table + (<usize>r << 2), <u32>(left + (<usize>(min(r, rows - 1) * count) << 2)));
    }
    for (let q = q0; q < q1; q += PANEL) {
      panelOfPixels(args, m, count, q, q1, panel);
      for (let r = 0; r < rows; r += TILE_ROWS) {
        tile(table + (<usize>r << 2), 1, count, 4, panel, c, STEP);
        for (let j = 0; j < min(PANEL, q1 - q); j++) {
          const tap = (q + j) / I, i = (q + j) % I;
          for (let k = 0; k < min(TILE_ROWS, rows - r); k++) {
            const at = dw + (<usize>(((o0 + r + k) * I + i) * taps + tap) << 2);
            store<f32>(at, load<f32>(at) + load<f32>(c + <usize>k * STEP + (<usize>j << 2)));
          }
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

export function depthwiseConv2dGradWeight(args: usize, task: i32, scratch: usize): void {
  const dz = <usize>word(args, 0), x = <usize>word(args, 1), dw = <usize>word(args, 2), db = <usize>word(args, 3);
  const B = <i32>word(args, 4), H = <i32>word(args, 5), W = <i32>word(args, 6), C = <i32>word(args, 7);
  const K = <i32>word(args, 8), hasBias = word(args, 9);
  const c0 = task * WEIGHT_CHANNELS, count = min(WEIGHT_CHANNELS, C - c0), taps = K * K, pad = (K - 1) / 2;
  const bytes = <usize>C << 2;
  // Sums of image rows join the totals in scratch, 16 channels a tap and then 16 of the bias.
  memory.fill(scratch, 0, <usize>(taps + 1) << 6);
  for (let row = 0; row < B * H; row++) {
    const y = row % H;
    const up = dz + <usize>(row * W) * bytes + (<usize>c0 << 2);
    for (let c = 0; c < count; c += 4) {
      const lane = <usize>c << 2;
      // Four channels at a time; one to three left over go through lane 0, one by one.
      const vector = c + 4 <= count;
      const parts: usize = vector ? 4 : <usize>(count - c) << 2;
      for (let one: usize = 0; one < parts; one += 4) {
        const shift = lane + one;
        for (let tap = 0; tap <= taps; tap++) {
          let sum = f32x4.splat(0.0);
          let at = up + shift;
          if (tap == taps) {
            for (let ox = 0; ox < W; ox++) {
              sum = f32x4.add(sum, vector ? v128.load(at) : v128.load_splat<f32>(at));
              at += bytes;
            }
          } else {
            const iy = y + tap / K - pad, kx = tap % K - pad;
            if (<u32>iy >= <u32>H) continue;
            const ox0 = max(0, -kx), ox1 = min(W, W - kx);
            at += <usize>ox0 * bytes;
            let from = x + <usize>((row + iy - y) * W + ox0 + kx) * bytes + (<usize>c0 << 2) + shift;
            for (let ox = ox0; ox < ox1; ox++) {
              const a = vector ? v128.load(at) : v128.load_splat<f32>(at);
              sum = madd(a, vector ? v128.load(from) : v128.load_splat<f32>(from), sum);
              at += bytes;
              from += bytes;
            }
          }
          const total = scratch + (<usize>tap << 6) + shift;
          if (vector) v128.store(total, f32x4.add(v128.load(total), sum));
          else store<f32>(total, load<f32>(total) + f32x4.extract_lane(sum, 0));
        }
      }
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
