// Gradients of attention on the cpu device (contracts and references: attention.ts).
//
// Both gradients recompute scores block by block as the forward kernel does. One task is one head of 64 queries (or of
// 64 keys), which stand in the lanes; the other side comes in blocks of 96 rows that start at multiples of 96 and are
// read in place. A block's weights and score gradients stand as [row, lane], so those of a lane, one row apart, are a left
// row of the product that adds them up. Sums run over rows in ascending order, and a hidden pair adds 0 exactly.

import { AttentionGradKey, AttentionGradQuery, AttentionStats } from "./arguments";
import { blas, sgemm } from "./cpu/blas.wasm";
import { tile, TILE_ROWS } from "./cpu/gemm.wasm";
import { place, STEP, TILE_BYTES } from "./cpu/gradient.wasm";
import { anySees, copySeenRows, scaleRows, SCORE_ROW as ROW } from "./cpu/heads.wasm";
import { PANEL } from "./cpu/pack.wasm";
import { exp2, lanes, madd } from "./cpu/simd.wasm";

/** Queries or keys of a task, and rows of a block. */
const LANES: i32 = 64;
const ROWS: i32 = 96;
const LOG2E: f32 = 1.44269504;
/** Tokens of one task of attentionStats. */
const TOKENS: i32 = 16;

// Scratch: addresses of the rows of both products and of the lanes' columns, state of the lanes, one register tile, then
// blocks.
const FIRST: usize = 0; // 96 words
const SECOND: usize = 384; // 96 words
const COLUMNS: usize = 768; // 66 words
const LSE: usize = 1040; // 64 floats, in exponents of 2
const DELTA: usize = 1296; // 64 floats
const RANGES: usize = 1552; // 4 times 64 words
const FRAMES: usize = 2576; // 64 floats
const TILE: usize = 2832; // 6 rows of a panel
const BLOCKS: usize = TILE + ((TILE_BYTES + 63) & ~63);
/** Whole groups of six rows, and what the last group of six lanes reads past them. */
const SCORE_BYTES: usize = 102 * 256 + 64;

export function attentionStats(args: AttentionStats, task: i32, scratch: usize): void {
  const T = args.T, D = args.D, A = args.A, hd = args.hd;
  const head = <usize>hd << 2, whole = head & ~15;
  const end = min(T, (task + 1) * TOKENS);
  for (let t = task * TOKENS; t < end; t++) {
    let y = args.y + (<usize>(t * D) << 2), dy = args.dy + (<usize>(t * D) << 2);
    let lse = args.lse + (<usize>(t * A) << 2), to = args.stats + (<usize>(2 * t * A) << 2);
    for (let a = A; a > 0; a--) {
      let part = f32x4.splat(0.0);
      let sum: f32 = 0.0;
      let i: usize = 0;
      for (; i < whole; i += 16) part = madd(v128.load(y + i), v128.load(dy + i), part);
      for (; i < head; i += 4) sum += load<f32>(y + i) * load<f32>(dy + i);
      store<f32>(to, load<f32>(lse));
      store<f32>(to + (<usize>A << 2), lanes(part) + sum);
      y += head;
      dy += head;
      lse += 4;
      to += 4;
    }
  }
}

/**
 * `count` rows of one head, times `factor`, as panels `[LANES / PANEL][hd, PANEL]`, or rows for a BLAS; absent lanes are
 * zero.
 */
function packLanes(from: usize, rowBytes: usize, hd: i32, count: i32, factor: f32, to: usize): void {
  const padded = (count + PANEL - 1) / PANEL * PANEL;
  if (blas) {
    scaleRows(from, rowBytes, hd, count, padded, factor, to);
    return;
  }
  for (let i = 0; i < padded; i++) {
    let out = to + <usize>(i / PANEL) * (<usize>hd * STEP) + (<usize>(i % PANEL) << 2);
    for (let d: usize = 0; d < <usize>hd << 2; d += 4) {
      store<f32>(out, i < count ? load<f32>(from + d) * factor : <f32>0.0);
      out += STEP;
    }
    from += rowBytes;
  }
}

/**
 * Rows of one head as panels `[width / PANEL][count, PANEL]`. Rows that no lane sees may hold anything and become zeros:
 * `weights` says which, 0 when all are seen.
 */
function packRows(from: usize, rowBytes: usize, hd: i32, count: i32, weights: usize, to: usize): void {
  const panelBytes = <usize>count * STEP, head = <usize>hd << 2;
  for (let k = 0; k < count; k++) {
    const seen = !weights || anySees(weights + <usize>k * ROW, ROW);
    let out = to + <usize>k * STEP;
    for (let d: usize = 0; d < head; d += STEP) {
      if (seen && d + STEP <= head) {
        for (let j: usize = 0; j < STEP; j += 16) v128.store(out + j, v128.load(from + d + j));
      } else {
        for (let j: usize = 0; j < STEP; j += 4) {
          store<f32>(out + j, seen && d + j < head ? load<f32>(from + d + j) : <f32>0.0);
        }
      }
      out += panelBytes;
    }
    from += rowBytes;
  }
}

/** Both products of a block: rows of `first` with panels `a`, of `second` with panels `b`, as [row, lane]. */
function scoreBlock(
  scratch: usize, first: usize, second: usize, rowBytes: usize, count: i32, hd: i32, panels: i32,
  a: usize, b: usize, scores: usize, products: usize,
): void {
  if (blas) {
    const D = <i32>(rowBytes >> 2), used = panels * PANEL;
    sgemm(0, 1, count, used, hd, first, D, a, hd, 0.0, scores, LANES);
    sgemm(0, 1, count, used, hd, second, D, b, hd, 0.0, products, LANES);
    return;
  }
  for (let r = 0; r < count || r % TILE_ROWS != 0; r++) {
    const at = <usize>min(r, count - 1) * rowBytes;
    store<u32>(scratch + (<usize>r << 2), <u32>(first + at), FIRST);
    store<u32>(scratch + (<usize>r << 2), <u32>(second + at), SECOND);
  }
  for (let p = 0; p < panels; p++) {
    const panel = <usize>(p * hd) * STEP, lane = <usize>p * STEP;
    for (let r = 0; r < count; r += TILE_ROWS) {
      const table = scratch + (<usize>r << 2), to = <usize>r * ROW + lane;
      tile(table + FIRST, 1, hd, 4, a + panel, scores + to, ROW);
    }
    for (let r = 0; r < count; r += TILE_ROWS) {
      const table = scratch + (<usize>r << 2), to = <usize>r * ROW + lane;
      tile(table + SECOND, 1, hd, 4, b + panel, products + to, ROW);
    }
  }
}

/**
 * out[lane, d] += sum over rows of left[row, lane] * from[row, d]. `weights` tells rows that no lane sees, 0 when all are
 * seen; `panels` is room for the rows.
 */
function addBlock(
  scratch: usize, left: usize, from: usize, rowBytes: usize, hd: i32, count: i32, lanesUsed: i32, weights: usize,
  panels: usize, out: usize,
): void {
  const width = (hd + PANEL - 1) / PANEL * PANEL, outBytes = <usize>width << 2;
  if (blas) {
    if (weights) copySeenRows(from, rowBytes, hd, count, weights, ROW, panels);
    const rows = weights ? panels : from, step = weights ? hd : <i32>(rowBytes >> 2);
    sgemm(1, 0, lanesUsed, hd, count, left, LANES, rows, step, 1.0, out, width);
    return;
  }
  packRows(from, rowBytes, hd, count, weights, panels);
  for (let i: usize = 0; i < 66; i++) store<u32>(scratch + (i << 2), <u32>(left + (i << 2)), COLUMNS);
  for (let d = 0; d < width; d += PANEL) {
    const panel = panels + <usize>(d / PANEL * count) * STEP;
    for (let i = 0; i < lanesUsed; i += TILE_ROWS) {
      const to = out + <usize>i * outBytes + (<usize>d << 2);
      tile(scratch + COLUMNS + (<usize>i << 2), 1, count, ROW, panel, scratch + TILE, STEP);
      place(scratch + TILE, to, outBytes, TILE_ROWS, PANEL, true);
    }
  }
}

/** Rows of one head from a block of results `[lane, width]`, times `factor`. */
function storeLanes(from: usize, width: i32, count: i32, hd: i32, factor: f32, to: usize, rowBytes: usize): void {
  const head = <usize>hd << 2;
  const f = f32x4.splat(factor);
  for (; count > 0; count--) {
    let d: usize = 0;
    for (; d + 16 <= head; d += 16) v128.store(to + d, f32x4.mul(v128.load(from + d), f));
    for (; d < head; d += 4) store<f32>(to + d, load<f32>(from + d) * factor);
    from += <usize>width << 2;
    to += rowBytes;
  }
}

/** Zeros in what tiles read beyond what a block writes, and in `bytes` bytes of results. */
function clear(scores: usize, products: usize, out: usize, bytes: usize): void {
  memory.fill(scores, 0, SCORE_BYTES);
  memory.fill(products, 0, SCORE_BYTES);
  memory.fill(out, 0, bytes);
}

export function attentionGradQuery(args: AttentionGradQuery, task: i32, scratch: usize): void {
  const T = args.T, D = args.D, A = args.A;
  const scale = args.scale, slope: f32 = args.slope * LOG2E;
  const hd = args.hd, hasSlope = args.hasSlope != 0;
  // Late queries see most: they go first.
  const tileIndex = (T + LANES - 1) / LANES - 1 - task / A, head = task % A;
  const q0 = tileIndex * LANES, queries = min(LANES, T - q0), panels = (queries + PANEL - 1) / PANEL;
  const column = <usize>(head * hd) << 2, rowBytes = <usize>D << 2;
  const k = args.k + column, v = args.v + column;
  const ranges = args.visible, stats = args.stats;
  const queryFrames = ranges + (<usize>T << 4), keyFrames = queryFrames + (<usize>T << 2);
  const width = (hd + PANEL - 1) / PANEL * PANEL;
  const q = scratch + BLOCKS, dy = q + (<usize>hd << 8), scores = dy + (<usize>hd << 8);
  const products = scores + SCORE_BYTES, keys = products + SCORE_BYTES;
  const out = keys + (<usize>(ROWS * width) << 2);

  packLanes(args.q + column + <usize>q0 * rowBytes, rowBytes, hd, queries, scale * LOG2E, q);
  packLanes(args.dy + column + <usize>q0 * rowBytes, rowBytes, hd, queries, 1.0, dy);
  clear(scores, products, out, <usize>(66 * width) << 2);
  let low = i32.MAX_VALUE, high = 0;
  for (let i = 0; i < LANES; i++) {
    const at = scratch + (<usize>i << 2);
    const present = i < queries;
    const stat = stats + (<usize>((q0 + i) * 2 * A + head) << 2);
    store<f32>(at, present ? load<f32>(stat) * LOG2E : <f32>0.0, LSE);
    store<f32>(at, present ? load<f32>(stat + (<usize>A << 2)) : <f32>0.0, DELTA);
    for (let r = 0; r < 4; r++) {
      const bound = present ? load<i32>(ranges + (<usize>((q0 + i) * 4 + r) << 2)) : 0;
      store<i32>(at + (<usize>r << 8), bound, RANGES);
    }
    for (let r: usize = 0; r < 1024; r += 512) {
      const from = load<i32>(at + r, RANGES), to = load<i32>(at + r, RANGES + 256);
      if (from < to) {
        low = min(low, from);
        high = max(high, to);
      }
    }
    const frame: f32 = hasSlope && present ? <f32>load<i32>(queryFrames + (<usize>(q0 + i) << 2)) : 0.0;
    store<f32>(at, frame, FRAMES);
  }

  for (let block = low / ROWS * ROWS; block < high; block += ROWS) {
    // The part of the block that any query sees, and whether every query sees all of it.
    let first = block + ROWS, end = block;
    for (let i = 0; i < queries; i++) {
      for (let r: usize = 0; r < 1024; r += 512) {
        const at = scratch + (<usize>i << 2) + r;
        const from = max(block, load<i32>(at, RANGES)), to = min(block + ROWS, load<i32>(at, RANGES + 256));
        if (from < to) {
          first = min(first, from);
          end = max(end, to);
        }
      }
    }
    if (first >= end) continue;
    let mixed = false;
    for (let i = 0; i < queries; i++) {
      const at = scratch + (<usize>i << 2);
      const near = load<i32>(at, RANGES) <= first && end <= load<i32>(at, RANGES + 256);
      const far = load<i32>(at, RANGES + 512) <= first && end <= load<i32>(at, RANGES + 768);
      if (!near && !far) mixed = true;
    }
    const count = end - first, at = <usize>first * rowBytes;
    scoreBlock(scratch, k + at, v + at, rowBytes, count, hd, panels, q, dy, scores, products);
    for (let i: usize = 0; i < <usize>panels * STEP; i += 16) {
      const lse = v128.load(scratch + i, LSE), delta = v128.load(scratch + i, DELTA);
      const frames = v128.load(scratch + i, FRAMES);
      const a = v128.load(scratch + i, RANGES), b = v128.load(scratch + i, RANGES + 256);
      const c = v128.load(scratch + i, RANGES + 512), d = v128.load(scratch + i, RANGES + 768);
      let s = scores + i, p = products + i;
      for (let key = first; key < end; key++) {
        let x = f32x4.sub(v128.load(s), lse);
        if (hasSlope) {
          const frame = f32x4.splat(<f32>load<i32>(keyFrames + (<usize>key << 2)));
          x = madd(f32x4.splat(slope), f32x4.sub(frame, frames), x);
        }
        let ds = f32x4.mul(exp2(x), f32x4.sub(v128.load(p), delta));
        if (mixed) {
          const n = i32x4.splat(key);
          const near = v128.and(i32x4.ge_s(n, a), i32x4.lt_s(n, b));
          ds = v128.and(ds, v128.or(near, v128.and(i32x4.ge_s(n, c), i32x4.lt_s(n, d))));
        }
        v128.store(s, ds);
        s += ROW;
        p += ROW;
      }
    }
    addBlock(scratch, scores, k + at, rowBytes, hd, count, queries, mixed ? scores : 0, keys, out);
  }
  storeLanes(out, width, queries, hd, scale, args.dq + column + <usize>q0 * rowBytes, rowBytes);
}

export function attentionGradKey(args: AttentionGradKey, task: i32, scratch: usize): void {
  const T = args.T, S = args.S, D = args.D, A = args.A;
  const scale = args.scale, slope: f32 = args.slope * LOG2E;
  const hd = args.hd, hasSlope = args.hasSlope != 0;
  const k0 = task / A * LANES, head = task % A;
  const keys = min(LANES, S - k0), k1 = k0 + keys, panels = (keys + PANEL - 1) / PANEL;
  const column = <usize>(head * hd) << 2, rowBytes = <usize>D << 2;
  const q = args.q + column, dy = args.dy + column;
  const ranges = args.visible, stats = args.stats;
  const queryFrames = ranges + (<usize>T << 4), keyFrames = queryFrames + (<usize>T << 2);
  const width = (hd + PANEL - 1) / PANEL * PANEL;
  const k = scratch + BLOCKS, v = k + (<usize>hd << 8), scores = v + (<usize>hd << 8);
  const products = scores + SCORE_BYTES, rows = products + SCORE_BYTES;
  const outBytes = <usize>(66 * width) << 2;
  const outKeys = rows + (<usize>(ROWS * width) << 2), outValues = outKeys + outBytes;

  packLanes(args.k + column + <usize>k0 * rowBytes, rowBytes, hd, keys, scale * LOG2E, k);
  packLanes(args.v + column + <usize>k0 * rowBytes, rowBytes, hd, keys, 1.0, v);
  clear(scores, products, outKeys, 2 * outBytes);
  if (hasSlope) {
    for (let i = 0; i < LANES; i++) {
      const frame: f32 = i < keys ? <f32>load<i32>(keyFrames + (<usize>(k0 + i) << 2)) : 0.0;
      store<f32>(scratch + (<usize>i << 2), frame, FRAMES);
    }
  }

  for (let block = 0; block < T; block += ROWS) {
    // The part of the block that sees any key of the tile, and whether all of it sees every key.
    let first = block + ROWS, end = block, mixed = false;
    for (let t = block; t < min(T, block + ROWS); t++) {
      const at = ranges + (<usize>t << 4);
      const near = max(k0, load<i32>(at)) < min(k1, load<i32>(at, 4));
      const far = max(k0, load<i32>(at, 8)) < min(k1, load<i32>(at, 12));
      if (near || far) {
        first = min(first, t);
        end = t + 1;
      }
    }
    if (first >= end) continue;
    for (let t = first; t < end; t++) {
      const at = ranges + (<usize>t << 4);
      const near = load<i32>(at) <= k0 && k1 <= load<i32>(at, 4);
      const far = load<i32>(at, 8) <= k0 && k1 <= load<i32>(at, 12);
      if (!near && !far) mixed = true;
    }
    const count = end - first, at = <usize>first * rowBytes;
    scoreBlock(scratch, q + at, dy + at, rowBytes, count, hd, panels, k, v, scores, products);
    let s = scores, p = products;
    for (let t = first; t < end; t++) {
      const stat = stats + (<usize>(t * 2 * A + head) << 2);
      const lse = f32x4.splat(load<f32>(stat) * LOG2E), delta = f32x4.splat(load<f32>(stat + (<usize>A << 2)));
      const range = ranges + (<usize>t << 4);
      const a = i32x4.splat(load<i32>(range)), b = i32x4.splat(load<i32>(range, 4));
      const c = i32x4.splat(load<i32>(range, 8)), d = i32x4.splat(load<i32>(range, 12));
      const frame = f32x4.splat(hasSlope ? <f32>load<i32>(queryFrames + (<usize>t << 2)) : <f32>0.0);
      let n = i32x4.add(i32x4.splat(k0), i32x4(0, 1, 2, 3));
      for (let i: usize = 0; i < <usize>panels * STEP; i += 16) {
        let x = f32x4.sub(v128.load(s + i), lse);
        if (hasSlope) x = madd(f32x4.splat(slope), f32x4.sub(v128.load(scratch + i, FRAMES), frame), x);
        let w = exp2(x), ds = f32x4.mul(w, f32x4.sub(v128.load(p + i), delta));
        if (mixed) {
          const near = v128.and(i32x4.ge_s(n, a), i32x4.lt_s(n, b));
          const seen = v128.or(near, v128.and(i32x4.ge_s(n, c), i32x4.lt_s(n, d)));
          w = v128.and(w, seen);
          ds = v128.and(ds, seen);
          n = i32x4.add(n, i32x4.splat(4));
        }
        v128.store(s + i, w);
        v128.store(p + i, ds);
      }
      s += ROW;
      p += ROW;
    }
    const seen: usize = mixed ? scores : 0;
    addBlock(scratch, scores, dy + at, rowBytes, hd, count, keys, seen, rows, outValues);
    addBlock(scratch, products, q + at, rowBytes, hd, count, keys, seen, rows, outKeys);
  }
  const to = column + <usize>k0 * rowBytes;
  storeLanes(outKeys, width, keys, hd, scale, args.dk + to, rowBytes);
  storeLanes(outValues, width, keys, hd, 1.0, args.dv + to, rowBytes);
}
