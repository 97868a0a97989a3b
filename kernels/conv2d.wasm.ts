// Convolutions on the cpu device (contract and reference: conv2d.ts).
//
// A dense convolution is a matrix product whose left rows are gathered: under each tap the I channels of a pixel are
// one run of memory, so the product takes a table of addresses, and pixels outside the image point to a row of zeros.

import { Conv2d, DepthwiseConv2d } from "./arguments";
import { CHANNELS, depthwiseImage } from "./cpu/depthwise.wasm";
import { BLAS_COLUMNS, BLAS_ROWS } from "./cpu/blas.wasm";
import { gatheredProduct, isGathered } from "./cpu/gather.wasm";
import { BLOCK_COLUMNS, BLOCK_ROWS, product, setOutput, TILE_ROWS } from "./cpu/gemm.wasm";
import { isWinograd, transformFilters, winograd } from "./cpu/winograd.wasm";

export function conv2d(args: Conv2d, task: i32, scratch: usize): void {
  const x = args.x, w = args.w;
  const B = args.B, H = args.H, W = args.W, I = args.I;
  const O = args.O, KH = args.KH, KW = args.KW;
  const OH = args.OH, OW = args.OW;
  const stride = args.stride, pad = args.pad;
  const act = args.act, hasBias = args.hasBias, half = args.half;
  if (isWinograd(H, W, KH, KW, stride, pad, I, O)) {
    const phase = (O + 15) / 16, filters = args.shared;
    if (task < phase) transformFilters(w, half, O, I, filters, task, scratch);
    else winograd(x, args.y, filters, B, H, W, I, O, hasBias ? args.bias : 0, act, false, task - phase, scratch);
    return;
  }
  const taps = KH * KW, pixels = B * OH * OW;
  const gathered = isGathered(I, taps, O);
  const blockRows = gathered ? BLAS_ROWS : BLOCK_ROWS, blockColumns = gathered ? BLAS_COLUMNS : BLOCK_COLUMNS;
  const columnBlocks = (O + blockColumns - 1) / blockColumns;
  const m0 = task / columnBlocks * blockRows, rows = min(blockRows, pixels - m0);
  const n0 = task % columnBlocks * blockColumns, n1 = min(O, n0 + blockColumns);

  const zeros = scratch, rowBytes = <usize>I << 2;
  memory.fill(zeros, 0, rowBytes);
  const table = scratch + ((rowBytes + 15) & ~15);
  for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
    const m = m0 + min(r, rows - 1);
    const b = m / (OH * OW), oy = m / OW % OH, ox = m % OW;
    let entry = table + (<usize>(r / TILE_ROWS * taps * TILE_ROWS + r % TILE_ROWS) << 2);
    for (let ky = 0; ky < KH; ky++) {
      const iy = oy * stride + ky - pad;
      for (let kx = 0; kx < KW; kx++) {
        const ix = ox * stride + kx - pad;
        const inside = <u32>iy < <u32>H && <u32>ix < <u32>W;
        store<u32>(entry, <u32>(inside ? x + <usize>((b * H + iy) * W + ix) * rowBytes : zeros));
        entry += 24;
      }
    }
  }
  setOutput(args.y, <usize>O << 2, hasBias ? args.bias : 0, act, 0, 0, 0, 0);
  // Tables hold whole groups of six rows.
  const rest = table + (<usize>((blockRows + TILE_ROWS) * taps) << 2);
  if (gathered) gatheredProduct(table, m0, rows, w, half, O, n0, n1, I, taps, rest);
  else product(table, m0, rows, w, half, O, n0, n1, I, taps, rest);
}

export function depthwiseConv2d(args: DepthwiseConv2d, task: i32, scratch: usize): void {
  const x = args.x, w = args.w, bias = args.bias, y = args.y;
  const H = args.H, W = args.W, C = args.C, K = args.K;
  const act = args.act, hasBias = args.hasBias;
  const channelBlocks = (C + CHANNELS - 1) / CHANNELS;
  const b = task / channelBlocks, c0 = task % channelBlocks * CHANNELS, count = min(CHANNELS, C - c0);
  const taps = K * K;
  // Filters tap by tap, 32 channels each (zeros past the last), and the bias after them.
  for (let tap = 0; tap <= taps; tap++) {
    for (let c = 0; c < CHANNELS; c++) {
      let v: f32 = 0.0;
      if (c < count) {
        if (tap < taps) v = load<f32>(w + (<usize>((c0 + c) * taps + tap) << 2));
        else if (hasBias) v = load<f32>(bias + (<usize>(c0 + c) << 2));
      }
      store<f32>(scratch + (<usize>(tap * CHANNELS + c) << 2), v);
    }
  }
  depthwiseImage(x, y, scratch, act, H, W, C, K, b, c0, count);
}
