// Gradients of attention on the cpu device (contracts and references: attention.ts).
//
// Both gradients recompute scores block by block as the forward kernel does. One task is one head of 64 queries (or of
// 64 keys), which stand in the lanes; the other side comes in blocks of rows (cpu/heads.wasm.ts). Sums run over rows in
// ascending order, and a hidden pair adds 0 exactly.

import { AttentionGradKey, AttentionGradQuery, AttentionStats } from "./arguments";
import { blas } from "./cpu/blas.wasm";
import {
  addRows, blockBytes, blockRows, clearUnseen, copyRows, LANES, listRows, outBytes, packLanes, scoreAt, scoreRows,
  scoreStep, storeLanes,
} from "./cpu/heads.wasm";
import { PANEL } from "./cpu/pack.wasm";
import { exp2, lanes, madd, prefetch } from "./cpu/simd.wasm";

const LOG2E: f32 = 1.44269504;
/** The largest exponent that exp2 takes; weights are at most 1, or rounding has failed elsewhere. */
const LARGEST: f32 = 127.0;
/** Tokens of one task of attentionStats. */
const TOKENS: i32 = 16;

// Scratch: state of the lanes, addresses of both kinds of copied rows and of their channels, then blocks.
const LSE: usize = 0; // 64 floats, in exponents of 2
const DELTA: usize = 256; // 64 floats
const RANGES: usize = 512; // 4 times 64 words
const FRAMES: usize = 1536; // 64 floats
const FIRST_ROWS: usize = 1792; // 96 words
const SECOND_ROWS: usize = 2176; // 96 words
const FIRST_CHANNELS: usize = 2560; // hd words, whole groups of six
const SECOND_CHANNELS: usize = 4096; // the same
const BLOCKS: usize = 5632;

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

export function attentionGradQuery(args: AttentionGradQuery, task: i32, scratch: usize): void {
  const T = args.T, D = args.D, A = args.A;
  const scale = args.scale, slope: f32 = args.slope * LOG2E;
  const hd = args.hd, hasSlope = args.hasSlope != 0;
  // Late queries see most: they go first.
  const tileIndex = (T + LANES - 1) / LANES - 1 - task / A, head = task % A, block = blockRows();
  const q0 = tileIndex * LANES, queries = min(LANES, T - q0), panels = (queries + PANEL - 1) / PANEL;
  const column = <usize>(head * hd) << 2, rowBytes = <usize>D << 2;
  const k = args.k + column, v = args.v + column;
  const ranges = args.visible, stats = args.stats;
  const queryFrames = ranges + (<usize>T << 4), keyFrames = queryFrames + (<usize>T << 2);
  const q = scratch + BLOCKS, dy = q + (<usize>hd << 8), scores = dy + (<usize>hd << 8);
  const products = scores + blockBytes(), out = products + blockBytes();
  const keyRows = out + outBytes(hd), valueRows = keyRows + (<usize>(block * hd) << 2);

  packLanes(args.q + column + <usize>q0 * rowBytes, rowBytes, hd, queries, scale * LOG2E, q);
  packLanes(args.dy + column + <usize>q0 * rowBytes, rowBytes, hd, queries, 1.0, dy);
  listRows(keyRows, hd, scratch + FIRST_ROWS, scratch + FIRST_CHANNELS);
  listRows(valueRows, hd, scratch + SECOND_ROWS, scratch + SECOND_CHANNELS);
  memory.fill(out, 0, outBytes(hd));
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

  for (let start = low / block * block; start < high; start += block) {
    // The part of the block that any query sees, and whether every query sees all of it.
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
    let mixed = false;
    for (let i = 0; i < queries; i++) {
      const at = scratch + (<usize>i << 2);
      const near = load<i32>(at, RANGES) <= first && end <= load<i32>(at, RANGES + 256);
      const far = load<i32>(at, RANGES + 512) <= first && end <= load<i32>(at, RANGES + 768);
      if (!near && !far) mixed = true;
    }
    const count = end - first, at = <usize>first * rowBytes, inPlace = blas && !mixed;
    prefetch(k + at, rowBytes, count, <usize>hd << 2, scores);
    prefetch(v + at, rowBytes, count, <usize>hd << 2, scores);
    if (!inPlace) {
      copyRows(k + at, rowBytes, hd, count, keyRows);
      copyRows(v + at, rowBytes, hd, count, valueRows);
    }
    const kept = inPlace ? k + at : keyRows, step = inPlace ? D : hd;
    scoreRows(kept, step, scratch + FIRST_ROWS, count, hd, panels, q, scores);
    scoreRows(inPlace ? v + at : valueRows, step, scratch + SECOND_ROWS, count, hd, panels, dy, products);
    for (let i: usize = 0; i < <usize>(panels * PANEL) << 2; i += 16) {
      const lse = v128.load(scratch + i, LSE), delta = v128.load(scratch + i, DELTA);
      const frames = v128.load(scratch + i, FRAMES);
      const a = v128.load(scratch + i, RANGES), b = v128.load(scratch + i, RANGES + 256);
      const c = v128.load(scratch + i, RANGES + 512), d = v128.load(scratch + i, RANGES + 768);
      let s = scores + scoreAt(i), p = products + scoreAt(i);
      for (let key = first; key < end; key++) {
        let x = f32x4.sub(v128.load(s), lse);
        if (hasSlope) {
          const frame = f32x4.splat(<f32>load<i32>(keyFrames + (<usize>key << 2)));
          x = madd(f32x4.splat(slope), f32x4.sub(frame, frames), x);
        }
        let ds = f32x4.mul(exp2(f32x4.pmin(x, f32x4.splat(LARGEST))), f32x4.sub(v128.load(p), delta));
        if (mixed) {
          const n = i32x4.splat(key);
          const near = v128.and(i32x4.ge_s(n, a), i32x4.lt_s(n, b));
          ds = v128.and(ds, v128.or(near, v128.and(i32x4.ge_s(n, c), i32x4.lt_s(n, d))));
        }
        v128.store(s, ds);
        s += scoreStep();
        p += scoreStep();
      }
    }
    if (mixed) clearUnseen(keyRows, hd, count, scores, panels);
    addRows(kept, step, scratch + FIRST_CHANNELS, count, hd, panels, scores, out);
  }
  storeLanes(out, hd, queries, scale, args.dq + column + <usize>q0 * rowBytes, rowBytes);
}

export function attentionGradKey(args: AttentionGradKey, task: i32, scratch: usize): void {
  const T = args.T, S = args.S, D = args.D, A = args.A;
  const scale = args.scale, slope: f32 = args.slope * LOG2E;
  const hd = args.hd, hasSlope = args.hasSlope != 0;
  const k0 = task / A * LANES, head = task % A, block = blockRows();
  const keys = min(LANES, S - k0), k1 = k0 + keys, panels = (keys + PANEL - 1) / PANEL;
  const column = <usize>(head * hd) << 2, rowBytes = <usize>D << 2;
  const q = args.q + column, dy = args.dy + column;
  const ranges = args.visible, stats = args.stats;
  const queryFrames = ranges + (<usize>T << 4), keyFrames = queryFrames + (<usize>T << 2);
  const k = scratch + BLOCKS, v = k + (<usize>hd << 8), scores = v + (<usize>hd << 8);
  const products = scores + blockBytes(), outKeys = products + blockBytes(), outValues = outKeys + outBytes(hd);
  const queryRows = outValues + outBytes(hd), upRows = queryRows + (<usize>(block * hd) << 2);

  packLanes(args.k + column + <usize>k0 * rowBytes, rowBytes, hd, keys, scale * LOG2E, k);
  packLanes(args.v + column + <usize>k0 * rowBytes, rowBytes, hd, keys, 1.0, v);
  listRows(queryRows, hd, scratch + FIRST_ROWS, scratch + FIRST_CHANNELS);
  listRows(upRows, hd, scratch + SECOND_ROWS, scratch + SECOND_CHANNELS);
  memory.fill(outKeys, 0, 2 * outBytes(hd));
  if (hasSlope) {
    for (let i = 0; i < LANES; i++) {
      const frame: f32 = i < keys ? <f32>load<i32>(keyFrames + (<usize>(k0 + i) << 2)) : 0.0;
      store<f32>(scratch + (<usize>i << 2), frame, FRAMES);
    }
  }

  for (let start = 0; start < T; start += block) {
    // The part of the block that sees any key of the tile, and whether all of it sees every key.
    let first = start + block, end = start, mixed = false;
    for (let t = start; t < min(T, start + block); t++) {
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
    const count = end - first, at = <usize>first * rowBytes, inPlace = blas && !mixed;
    prefetch(q + at, rowBytes, count, <usize>hd << 2, scores);
    prefetch(dy + at, rowBytes, count, <usize>hd << 2, scores);
    if (!inPlace) {
      copyRows(q + at, rowBytes, hd, count, queryRows);
      copyRows(dy + at, rowBytes, hd, count, upRows);
    }
    const queries = inPlace ? q + at : queryRows, ups = inPlace ? dy + at : upRows, step = inPlace ? D : hd;
    scoreRows(queries, step, scratch + FIRST_ROWS, count, hd, panels, k, scores);
    scoreRows(ups, step, scratch + SECOND_ROWS, count, hd, panels, v, products);
    let s = scores, p = products;
    for (let t = first; t < end; t++) {
      const stat = stats + (<usize>(t * 2 * A + head) << 2);
      const lse = f32x4.splat(load<f32>(stat) * LOG2E), delta = f32x4.splat(load<f32>(stat + (<usize>A << 2)));
      const range = ranges + (<usize>t << 4);
      const a = i32x4.splat(load<i32>(range)), b = i32x4.splat(load<i32>(range, 4));
      const c = i32x4.splat(load<i32>(range, 8)), d = i32x4.splat(load<i32>(range, 12));
      const frame = f32x4.splat(hasSlope ? <f32>load<i32>(queryFrames + (<usize>t << 2)) : <f32>0.0);
      let n = i32x4.add(i32x4.splat(k0), i32x4(0, 1, 2, 3));
      for (let i: usize = 0; i < <usize>(panels * PANEL) << 2; i += 16) {
        const lane = scoreAt(i);
        let x = f32x4.sub(v128.load(s + lane), lse);
        if (hasSlope) x = madd(f32x4.splat(slope), f32x4.sub(v128.load(scratch + i, FRAMES), frame), x);
        let w = exp2(f32x4.pmin(x, f32x4.splat(LARGEST))), ds = f32x4.mul(w, f32x4.sub(v128.load(p + lane), delta));
        if (mixed) {
          const near = v128.and(i32x4.ge_s(n, a), i32x4.lt_s(n, b));
          const seen = v128.or(near, v128.and(i32x4.ge_s(n, c), i32x4.lt_s(n, d)));
          w = v128.and(w, seen);
          ds = v128.and(ds, seen);
          n = i32x4.add(n, i32x4.splat(4));
        }
        v128.store(s + lane, w);
        v128.store(p + lane, ds);
      }
      s += scoreStep();
      p += scoreStep();
    }
    if (mixed) {
      clearUnseen(queryRows, hd, count, scores, panels);
      clearUnseen(upRows, hd, count, scores, panels);
    }
    addRows(ups, step, scratch + SECOND_CHANNELS, count, hd, panels, scores, outValues);
    addRows(queries, step, scratch + FIRST_CHANNELS, count, hd, panels, products, outKeys);
  }
  const to = column + <usize>k0 * rowBytes;
  storeLanes(outKeys, hd, keys, scale, args.dk + to, rowBytes);
  storeLanes(outValues, hd, keys, 1.0, args.dv + to, rowBytes);
}
