// Streaming softmax attention on the cpu device (contract and reference: attention.ts).
//
// One task is one head of 64 queries, which stand in the lanes; keys come in blocks (cpu/heads.wasm.ts) that start at
// multiples of their size in the key tensor, so the order of every sum depends on nothing but the query's own ranges:
// neither on its neighbours in the tile (a hidden key has the weight 0 exactly) nor on threads. Lanes make softmax a matter
// of whole vectors: its sums need none across lanes.

import { Attention } from "./arguments";
import { blas } from "./cpu/blas.wasm";
import {
  addRows, blockBytes, blockRows, clearUnseen, copyRows, LANE_BYTES, LANES, listRows, outBytes, packLanes, scoreAt,
  scoreRows, scoreStep, storeLanes,
} from "./cpu/heads.wasm";
import { PANEL } from "./cpu/pack.wasm";
import { exp2, madd, prefetch } from "./cpu/simd.wasm";

const LOG2E: f32 = 1.44269504;
/** Start of a running maximum: finite, so that differences are never NaN. */
const LOWEST: f32 = -3.0e38;

// Scratch: running maximum, sum and decay of each query, its ranges and frame, addresses of copied rows and of their
// channels, then blocks.
const MAXIMUM: usize = 0; // 64 floats
const SUM: usize = 256; // 64 floats
const DECAY: usize = 512; // 64 floats
const RANGES: usize = 768; // 4 times 64 words
const FRAMES: usize = 1792; // 64 floats
const ROW_TABLE: usize = 2048; // 96 words
const CHANNEL_TABLE: usize = 2432; // hd words, whole groups of six
const BLOCKS: usize = 4096;

/**
 * Adds the temporal decay to the scores of keys first ... end-1, hides what a query does not see, and returns the maximum
 * with `m`: 4 queries.
 */
function hide(
  scores: usize, first: i32, end: i32, state: usize, keyFrames: usize, slope: f32, mixed: bool, m: v128,
): v128 {
  const hidden = f32x4.splat(-Infinity), step = scoreStep();
  const frames = v128.load(state, FRAMES), s4 = f32x4.splat(slope);
  const a = v128.load(state, RANGES), b = v128.load(state, RANGES + 256);
  const c = v128.load(state, RANGES + 512), d = v128.load(state, RANGES + 768);
  for (let key = first; key < end; key++) {
    let s = v128.load(scores);
    if (keyFrames) {
      const frame = f32x4.splat(<f32>load<i32>(keyFrames + (<usize>key << 2)));
      s = madd(s4, f32x4.sub(frame, frames), s);
    }
    if (mixed) {
      const i = i32x4.splat(key);
      const near = v128.and(i32x4.ge_s(i, a), i32x4.lt_s(i, b));
      s = v128.bitselect(s, hidden, v128.or(near, v128.and(i32x4.ge_s(i, c), i32x4.lt_s(i, d))));
    }
    v128.store(scores, s);
    m = f32x4.pmax(m, s);
    scores += step;
  }
  return m;
}

/**
 * The softmax state of 8 queries after this block: all keys first ... end-1, of which every query sees low ... high-1;
 * scores become weights in place.
 */
function soften(
  scores: usize, first: i32, end: i32, low: i32, high: i32, state: usize, keyFrames: usize, slope: f32,
): void {
  const step = scoreStep();
  const o0 = v128.load(state, MAXIMUM), o1 = v128.load(state, MAXIMUM + 16);
  let m0 = o0, m1 = o1;
  if (keyFrames) {
    const mixed = low != first || high != end;
    m0 = hide(scores, first, end, state, keyFrames, slope, mixed, m0);
    m1 = hide(scores + 16, first, end, state + 16, keyFrames, slope, mixed, m1);
  } else {
    if (first < low) {
      m0 = hide(scores, first, low, state, 0, 0.0, true, m0);
      m1 = hide(scores + 16, first, low, state + 16, 0, 0.0, true, m1);
    }
    let at = scores + <usize>(low - first) * step;
    for (let k = high - low; k > 0; k--) {
      m0 = f32x4.pmax(m0, v128.load(at));
      m1 = f32x4.pmax(m1, v128.load(at, 16));
      at += step;
    }
    if (high < end) {
      m0 = hide(at, high, end, state, 0, 0.0, true, m0);
      m1 = hide(at + 16, high, end, state + 16, 0, 0.0, true, m1);
    }
  }
  let s0 = f32x4.splat(0.0), s1 = s0;
  for (let k = end - first; k > 0; k--) {
    const p0 = exp2(f32x4.sub(v128.load(scores), m0)), p1 = exp2(f32x4.sub(v128.load(scores, 16), m1));
    v128.store(scores, p0);
    v128.store(scores, p1, 16);
    s0 = f32x4.add(s0, p0);
    s1 = f32x4.add(s1, p1);
    scores += step;
  }
  const d0 = exp2(f32x4.sub(o0, m0)), d1 = exp2(f32x4.sub(o1, m1));
  v128.store(state, d0, DECAY);
  v128.store(state, d1, DECAY + 16);
  v128.store(state, m0, MAXIMUM);
  v128.store(state, m1, MAXIMUM + 16);
  v128.store(state, madd(v128.load(state, SUM), d0, s0), SUM);
  v128.store(state, madd(v128.load(state, SUM + 16), d1, s1), SUM + 16);
}

/** out[d, lane] *= decay[lane], `bytes` bytes of lanes. */
function decayLanes(out: usize, hd: i32, bytes: usize, decay: usize): void {
  for (; hd > 0; hd--) {
    for (let i: usize = 0; i < bytes; i += 16) {
      v128.store(out + i, f32x4.mul(v128.load(out + i), v128.load(decay + i)));
    }
    out += LANE_BYTES;
  }
}

export function attention(args: Attention, task: i32, scratch: usize): void {
  const T = args.T, D = args.D, A = args.A, hd = args.hd;
  const slope: f32 = args.slope * LOG2E;
  const hasSlope = args.hasSlope, hasLse = args.hasLse;
  const q0 = task / A * LANES, queries = min(LANES, T - q0), panels = (queries + PANEL - 1) / PANEL;
  const column = <usize>(task % A * hd) << 2, rowBytes = <usize>D << 2, laneBytes = <usize>(panels * PANEL) << 2;
  const k = args.k + column, v = args.v + column;
  const ranges = args.visible;
  const queryFrames = ranges + (<usize>T << 4), keyFrames = hasSlope ? queryFrames + (<usize>T << 2) : 0;
  const block = blockRows();
  const q = scratch + BLOCKS, scores = q + (<usize>hd << 8), out = scores + blockBytes(), rows = out + outBytes(hd);

  // Queries, scaled so that scores are exponents of 2.
  packLanes(args.q + column + <usize>q0 * rowBytes, rowBytes, hd, queries, args.scale * LOG2E, q);
  listRows(rows, hd, scratch + ROW_TABLE, scratch + CHANNEL_TABLE);
  memory.fill(out, 0, outBytes(hd));
  // State; the queries' ranges, one word of all queries after the other. Absent queries see nothing. Every query sees the
  // keys a ... b-1 by its first range, and c ... d-1 by its second.
  let low = i32.MAX_VALUE, high = 0;
  let a = 0, b = i32.MAX_VALUE, c = 0, d = i32.MAX_VALUE;
  for (let i = 0; i < panels * PANEL; i++) {
    const at = scratch + (<usize>i << 2), range = ranges + (<usize>(q0 + i) << 4);
    store<f32>(at, LOWEST, MAXIMUM);
    store<f32>(at, 0.0, SUM);
    for (let r: usize = 0; r < 4; r++) store<i32>(at + (r << 8), i < queries ? load<i32>(range + (r << 2)) : 0, RANGES);
    store<f32>(at, hasSlope && i < queries ? <f32>load<i32>(queryFrames + (<usize>(q0 + i) << 2)) : <f32>0.0, FRAMES);
    if (i >= queries) continue;
    a = max(a, load<i32>(range));
    b = min(b, load<i32>(range, 4));
    c = max(c, load<i32>(range, 8));
    d = min(d, load<i32>(range, 12));
    for (let r: usize = 0; r < 16; r += 8) {
      const from = load<i32>(range + r), to = load<i32>(range + r, 4);
      if (from < to) {
        low = min(low, from);
        high = max(high, to);
      }
    }
  }

  for (let start = low / block * block; start < high; start += block) {
    // The part of the block that any query sees.
    let first = start + block, end = start;
    for (let i = 0; i < queries; i++) {
      for (let r: usize = 0; r < 1024; r += 512) {
        const at = scratch + (<usize>i << 2) + r;
        const from = max(start, load<i32>(at, RANGES)), to = min(start + block, load<i32>(at, RANGES + 256));
        if (from < to) {
          first = min(first, from);
          end = max(end, to);
        }
      }
    }
    if (first >= end) continue;
    // The part that every query sees, if it is in one piece.
    let from = max(first, a), to = min(end, b);
    if (to - from < min(end, d) - max(first, c)) {
      from = max(first, c);
      to = min(end, d);
    }
    if (from >= to) from = to = first;
    const mixed = from != first || to != end, count = end - first, at = <usize>first * rowBytes;
    prefetch(k + at, rowBytes, count, <usize>hd << 2, scores);
    prefetch(v + at, rowBytes, count, <usize>hd << 2, scores);
    let source = k + at, step = D;
    if (!blas) {
      copyRows(source, rowBytes, hd, count, rows);
      source = rows;
      step = hd;
    }
    scoreRows(source, step, scratch + ROW_TABLE, count, hd, panels, q, scores);
    for (let i: usize = 0; i < laneBytes; i += <usize>PANEL << 2) {
      soften(scores + scoreAt(i), first, end, from, to, scratch + i, keyFrames, slope);
    }
    source = v + at;
    if (!blas || mixed) {
      copyRows(source, rowBytes, hd, count, rows);
      if (mixed) clearUnseen(rows, hd, count, scores, panels);
      source = rows;
      step = hd;
    }
    decayLanes(out, hd, laneBytes, scratch + DECAY);
    addRows(source, step, scratch + CHANNEL_TABLE, count, hd, panels, scores, out);
  }

  for (let i: usize = 0; i < laneBytes; i += 16) {
    const sum = v128.load(scratch + i, SUM);
    for (let j: usize = 0; j < <usize>hd; j++) {
      const to = out + j * LANE_BYTES + i;
      v128.store(to, f32x4.div(v128.load(to), sum));
    }
  }
  storeLanes(out, hd, queries, 1.0, args.y + column + <usize>q0 * rowBytes, rowBytes);
  if (!hasLse) return;
  for (let i = 0; i < queries; i++) {
    const at = scratch + (<usize>i << 2), sum = load<f32>(at, SUM);
    const value = <f64>load<f32>(at, MAXIMUM) * 0.6931471805599453 + NativeMath.log(<f64>sum);
    store<f32>(args.lse + (<usize>((q0 + i) * A + task % A) << 2), <f32>value);
  }
}
