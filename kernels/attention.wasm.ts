// Streaming softmax attention on the cpu device (contract and reference: attention.ts).
//
// One task is one head of 64 queries. Keys come in blocks of 96 that start at multiples of 96 in the key tensor, so the
// order of every sum depends on nothing but the query's own ranges: neither on its neighbours in the tile (a hidden key
// has the weight 0 exactly) nor on threads. Scores stand transposed, [key, query]: rows of K are then read in place as
// the left rows of a product, softmax needs no sum across lanes, and the weights of a query, one row of scores apart, are
// a left row of the product with V.

import { Attention } from "./arguments";
import { blas, sgemm } from "./cpu/blas.wasm";
import { TILE_ROWS, tile } from "./cpu/gemm.wasm";
import { anySees, copySeenRows, scaleRows, SCORE_ROW as ROW } from "./cpu/heads.wasm";
import { exp2, madd } from "./cpu/simd.wasm";

const QUERIES: i32 = 64;
const KEYS: i32 = 96;
const LOG2E: f32 = 1.44269504;
/** Start of a running maximum: finite, so that differences are never NaN. */
const LOWEST: f32 = -3.0e38;

// Scratch: running maximum, sum and decay of each query, its ranges and frame, addresses of key rows and of columns of
// weights, one register tile, then blocks.
const MAXIMUM: usize = 0; // 64 floats
const SUM: usize = 256; // 64 floats
const DECAY: usize = 512; // 64 floats, and 16 bytes that the last group of six reads
const RANGES: usize = 800; // 4 times 64 words
const FRAMES: usize = 1824; // 64 floats
const KEY_ROWS: usize = 2080; // 96 words
const WEIGHT_COLUMNS: usize = 2464; // 66 words
const TILE: usize = 2736; // 6 rows of 8 floats
const BLOCKS: usize = 2944;
/** 96 rows and what the last group of six queries reads past them. */
const SCORE_BYTES: usize = 96 * 256 + 64;

/** The query's softmax state after this block: all keys first ... end-1, scores to weights in place, 16 queries. */
function soften(
  scores: usize, first: i32, end: i32, state: usize, mixed: bool, keyFrames: usize, slope: f32,
): void {
  const hidden = f32x4.splat(-Infinity);
  const count = end - first;
  let m0 = v128.load(state + MAXIMUM), m1 = v128.load(state + MAXIMUM, 16);
  let m2 = v128.load(state + MAXIMUM, 32), m3 = v128.load(state + MAXIMUM, 48);
  const o0 = m0, o1 = m1, o2 = m2, o3 = m3;
  let at = scores;
  if (mixed || keyFrames) {
    for (let lane: usize = 0; lane < 64; lane += 16) {
      const frames = v128.load(state + FRAMES + lane);
      const a = v128.load(state + RANGES + lane), b = v128.load(state + RANGES + 256 + lane);
      const c = v128.load(state + RANGES + 512 + lane), d = v128.load(state + RANGES + 768 + lane);
      at = scores + lane;
      for (let key = first; key < end; key++) {
        let s = v128.load(at);
        if (keyFrames) {
          const frame = f32x4.splat(<f32>load<i32>(keyFrames + (<usize>key << 2)));
          s = madd(f32x4.splat(slope), f32x4.sub(frame, frames), s);
        }
        if (mixed) {
          const i = i32x4.splat(key);
          const near = v128.and(i32x4.ge_s(i, a), i32x4.lt_s(i, b));
          const seen = v128.or(near, v128.and(i32x4.ge_s(i, c), i32x4.lt_s(i, d)));
          s = v128.bitselect(s, hidden, seen);
        }
        v128.store(at, s);
        at += ROW;
      }
    }
  }
  at = scores;
  for (let k = count; k > 0; k--) {
    m0 = f32x4.pmax(m0, v128.load(at)); m1 = f32x4.pmax(m1, v128.load(at, 16));
    m2 = f32x4.pmax(m2, v128.load(at, 32)); m3 = f32x4.pmax(m3, v128.load(at, 48));
    at += ROW;
  }
  let s0 = f32x4.splat(0.0), s1 = s0, s2 = s0, s3 = s0;
  at = scores;
  for (let k = count; k > 0; k--) {
    const p0 = exp2(f32x4.sub(v128.load(at), m0)), p1 = exp2(f32x4.sub(v128.load(at, 16), m1));
    const p2 = exp2(f32x4.sub(v128.load(at, 32), m2)), p3 = exp2(f32x4.sub(v128.load(at, 48), m3));
    v128.store(at, p0); v128.store(at, p1, 16); v128.store(at, p2, 32); v128.store(at, p3, 48);
    s0 = f32x4.add(s0, p0); s1 = f32x4.add(s1, p1); s2 = f32x4.add(s2, p2); s3 = f32x4.add(s3, p3);
    at += ROW;
  }
  const d0 = exp2(f32x4.sub(o0, m0)), d1 = exp2(f32x4.sub(o1, m1));
  const d2 = exp2(f32x4.sub(o2, m2)), d3 = exp2(f32x4.sub(o3, m3));
  v128.store(state + DECAY, d0); v128.store(state + DECAY, d1, 16);
  v128.store(state + DECAY, d2, 32); v128.store(state + DECAY, d3, 48);
  v128.store(state + MAXIMUM, m0); v128.store(state + MAXIMUM, m1, 16);
  v128.store(state + MAXIMUM, m2, 32); v128.store(state + MAXIMUM, m3, 48);
  v128.store(state + SUM, madd(v128.load(state + SUM), d0, s0));
  v128.store(state + SUM, madd(v128.load(state + SUM, 16), d1, s1), 16);
  v128.store(state + SUM, madd(v128.load(state + SUM, 32), d2, s2), 32);
  v128.store(state + SUM, madd(v128.load(state + SUM, 48), d3, s3), 48);
}

/**
 * Rows of V as panels `[hd / 8, count, 8]`. Rows that nobody sees (their weights, `rowBytes` a key, are all zero) may
 * hold anything and become zeros; `weights` is 0 where every query sees every key.
 */
function packValues(v: usize, step: usize, hd: i32, count: i32, weights: usize, rowBytes: usize, to: usize): void {
  const panelBytes = <usize>count << 5;
  for (let k = 0; k < count; k++) {
    const seen = !weights || anySees(weights + <usize>k * ROW, rowBytes);
    let out = to + (<usize>k << 5);
    for (let d = 0; d < hd; d += 8) {
      const from = v + (<usize>d << 2);
      if (seen && d + 8 <= hd) {
        v128.store(out, v128.load(from));
        v128.store(out, v128.load(from, 16), 16);
      } else {
        for (let j = 0; j < 8; j++) {
          const x: f32 = seen && d + j < hd ? load<f32>(from + (<usize>j << 2)) : 0.0;
          store<f32>(out + (<usize>j << 2), x);
        }
      }
      out += panelBytes;
    }
    v += step;
  }
}

/** out[r] *= decay[r], `count` rows of `bytes` bytes. */
function decayRows(out: usize, bytes: usize, count: i32, decay: usize): void {
  for (; count > 0; count--) {
    const d = v128.load_splat<f32>(decay);
    for (let i: usize = 0; i < bytes; i += 16) v128.store(out + i, f32x4.mul(v128.load(out + i), d));
    out += bytes;
    decay += 4;
  }
}

/** out[r] = out[r] * decay[r] + tile[r], 6 rows of 8 columns, `stride` bytes apart in `out`. */
@inline
function merge(out: usize, stride: usize, decay: usize, tile: usize): void {
  for (let r = 0; r < TILE_ROWS; r++) {
    const d = v128.load_splat<f32>(decay);
    v128.store(out, madd(v128.load(out), d, v128.load(tile)));
    v128.store(out, madd(v128.load(out, 16), d, v128.load(tile, 16)), 16);
    out += stride;
    decay += 4;
    tile += 32;
  }
}

export function attention(args: Attention, task: i32, scratch: usize): void {
  const T = args.T, D = args.D, A = args.A;
  const scale = args.scale, slope: f32 = args.slope * LOG2E;
  const hd = args.hd, hasSlope = args.hasSlope, hasLse = args.hasLse;
  const q0 = task / A * QUERIES, queries = min(QUERIES, T - q0), lanes = (queries + 15) & ~15;
  const column = <usize>(task % A * hd) << 2, rowBytes = <usize>D << 2;
  const q = args.q + column, k = args.k + column, v = args.v + column;
  const ranges = args.visible;
  const queryFrames = ranges + (<usize>T << 4), keyFrames = hasSlope ? queryFrames + (<usize>T << 2) : 0;
  const width = (hd + 7) & ~7, outBytes = <usize>width << 2;
  const queryPanels = scratch + BLOCKS;
  const scores = queryPanels + (<usize>hd << 8);
  const values = scores + SCORE_BYTES;
  const out = values + (<usize>(KEYS * width) << 2);

  // Queries, scaled so that scores are exponents of 2, as panels [hd, 8]; rows for a BLAS.
  const factor: f32 = scale * LOG2E;
  if (blas) scaleRows(q + <usize>q0 * rowBytes, rowBytes, hd, queries, lanes, factor, queryPanels);
  else for (let i = 0; i < lanes; i++) {
    const from = q + <usize>(q0 + i) * rowBytes;
    let to = queryPanels + <usize>(i >> 3) * (<usize>hd << 5) + (<usize>(i & 7) << 2);
    for (let d = 0; d < hd; d++) {
      store<f32>(to, i < queries ? load<f32>(from + (<usize>d << 2)) * factor : 0.0);
      to += 32;
    }
  }
  // State; the queries' ranges, one word of all queries after the other. Absent queries see nothing.
  let low = i32.MAX_VALUE, high = 0, same = true;
  for (let i = 0; i < QUERIES; i++) {
    const at = scratch + (<usize>i << 2);
    store<f32>(at, LOWEST, MAXIMUM);
    store<f32>(at, 0.0, SUM);
    for (let r = 0; r < 4; r++) {
      let bound = 0;
      if (i < queries) {
        bound = load<i32>(ranges + (<usize>((q0 + i) * 4 + r) << 2));
        if (bound != load<i32>(ranges + (<usize>(q0 * 4 + r) << 2))) same = false;
      }
      store<i32>(at + (<usize>r << 8), bound, RANGES);
    }
    for (let r: usize = 0; r < 1024; r += 512) {
      const from = load<i32>(at + r, RANGES), to = load<i32>(at + r, RANGES + 256);
      if (from < to) {
        low = min(low, from);
        high = max(high, to);
      }
    }
    const frame: f32 = hasSlope && i < queries ? <f32>load<i32>(queryFrames + (<usize>(q0 + i) << 2)) : 0.0;
    store<f32>(at, frame, FRAMES);
  }
  v128.store(scratch + DECAY, f32x4.splat(0.0), 256);
  memory.fill(out, 0, 66 * outBytes);
  for (let i: usize = 0; i < 66; i++) store<u32>(scratch + (i << 2), <u32>(scores + (i << 2)), WEIGHT_COLUMNS);

  const distinct = same ? 1 : queries;
  for (let block = low / KEYS * KEYS; block < high; block += KEYS) {
    // The part of the block that any query sees, and whether every query sees all of it.
    let first = block + KEYS, end = block;
    for (let i = 0; i < distinct; i++) {
      for (let r: usize = 0; r < 1024; r += 512) {
        const at = scratch + (<usize>i << 2) + r;
        const from = max(block, load<i32>(at, RANGES)), to = min(block + KEYS, load<i32>(at, RANGES + 256));
        if (from < to) {
          first = min(first, from);
          end = max(end, to);
        }
      }
    }
    if (first >= end) continue;
    let mixed = false;
    for (let i = 0; i < distinct; i++) {
      const at = scratch + (<usize>i << 2);
      const near = load<i32>(at, RANGES) <= first && end <= load<i32>(at, RANGES + 256);
      const far = load<i32>(at, RANGES + 512) <= first && end <= load<i32>(at, RANGES + 768);
      if (!near && !far) mixed = true;
    }
    const count = end - first;
    if (blas) sgemm(0, 1, count, lanes, hd, k + <usize>first * rowBytes, D, queryPanels, hd, 0.0, scores, QUERIES);
    else for (let i = 0; i < count; i += TILE_ROWS) {
      for (let r = i; r < i + TILE_ROWS; r++) {
        store<u32>(scratch + (<usize>r << 2), <u32>(k + <usize>min(first + r, end - 1) * rowBytes), KEY_ROWS);
      }
      const rows = scratch + KEY_ROWS + (<usize>i << 2), to = scores + <usize>i * ROW;
      for (let j = 0; j < lanes; j += 8) {
        tile(rows, 1, hd, 4, queryPanels + (<usize>(j * hd) << 2), to + (<usize>j << 2), ROW);
      }
    }
    for (let j = 0; j < lanes; j += 16) {
      const at = <usize>j << 2;
      soften(scores + at, first, end, scratch + at, mixed, keyFrames, slope);
    }
    if (blas) {
      let rows = v + <usize>first * rowBytes, step = D;
      if (mixed) {
        copySeenRows(rows, rowBytes, hd, count, scores, <usize>lanes << 2, values);
        rows = values;
        step = hd;
      }
      decayRows(out, outBytes, queries, scratch + DECAY);
      sgemm(1, 0, queries, hd, count, scores, QUERIES, rows, step, 1.0, out, width);
      continue;
    }
    packValues(v + <usize>first * rowBytes, rowBytes, hd, count, mixed ? scores : 0, <usize>lanes << 2, values);
    for (let i = 0; i < queries; i += TILE_ROWS) {
      const at = <usize>i << 2, to = out + <usize>i * outBytes;
      for (let d = 0; d < width; d += 8) {
        const panel = values + (<usize>(d * count) << 2);
        tile(scratch + WEIGHT_COLUMNS + at, 1, count, ROW, panel, scratch + TILE, 32);
        merge(to + (<usize>d << 2), outBytes, scratch + DECAY + at, scratch + TILE);
      }
    }
  }

  const y = args.y + column, lse = args.lse;
  for (let i = 0; i < queries; i++) {
    const at = scratch + (<usize>i << 2);
    const sum = load<f32>(at, SUM);
    const from = out + <usize>i * outBytes, to = y + <usize>(q0 + i) * rowBytes;
    let d: usize = 0;
    for (; d + 16 <= <usize>hd << 2; d += 16) {
      v128.store(to + d, f32x4.div(v128.load(from + d), f32x4.splat(sum)));
    }
    for (; d < <usize>hd << 2; d += 4) store<f32>(to + d, load<f32>(from + d) / sum);
    if (hasLse) {
      const value = <f64>load<f32>(at, MAXIMUM) * 0.6931471805599453 + NativeMath.log(<f64>sum);
      store<f32>(lse + (<usize>((q0 + i) * A + task % A) << 2), <f32>value);
    }
  }
}
