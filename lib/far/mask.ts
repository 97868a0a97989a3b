/**
 * The frame-causal mask: a token sees all tokens of its own frame and of earlier frames (paper, section 3.1), long-term
 * frames included (section 3.3).
 *
 * Tokens are ordered by frame, so that what a token sees of each kind of context is one range of rows. A mask is those
 * ranges; attention reads them and skips what nobody sees.
 *
 * @module
 */
import { showing } from "../display/showing.ts";
import { maskBundle } from "../display/values.ts";
import type { Mask } from "../ops.ts";
import type { FrameRange } from "./patchify.ts";

/** Rows of the keys that belong to one kind of context. */
export interface KeyRows {
  /** First row of clip 0. */
  readonly start: number;
  /** Rows from one clip to the next. */
  readonly perClip: number;
}

/** Options of {@linkcode frameCausalMask}. */
export interface MaskOptions {
  /** Short-term frames. */
  readonly frames: number;
  /** Tokens N of a short-term frame. */
  readonly tokens: number;
  /** Long-term frames, which come before the short-term ones and have fewer tokens. Default none. */
  readonly longTerm?: { readonly frames: number; readonly tokens: number };
  /** Clips B; none sees another. Default 1. */
  readonly clips?: number;
  /** Frames that ask, numbered from the first long-term one. Default all. */
  readonly queries?: { readonly longTerm: FrameRange; readonly shortTerm: FrameRange };
  /** Rows of the keys. Default: in the order of the queries when all frames ask. */
  readonly keys?: { readonly rows: number; readonly longTerm: KeyRows; readonly shortTerm: KeyRows };
  /** Every token sees all frames of its kind, the future too: the Video DiT baseline. Default false. */
  readonly full?: boolean;
  /** Temporal decay: slope · (key frame - query frame) is added to the scores. The shipped models use 0, the default. */
  readonly slope?: number;
}

/**
 * The frame-causal mask, for `ops.attention`. A notebook shows it as a picture of queries by keys.
 *
 * Queries: the tokens of the long-term frames of all clips, then those of the short-term frames; of each kind clip by
 * clip, frame by frame. Long-term tokens see long-term frames only.
 *
 * @example
 * ```ts
 * import { frameCausalMask } from "../../mod.ts";
 * const { ranges } = frameCausalMask({ frames: 2, tokens: 3, longTerm: { frames: 1, tokens: 1 } });
 * // Token 0 is the long-term frame, tokens 1 to 3 the first short-term one: they see [1, 4) and [0, 1).
 * console.assert(ranges.subarray(4, 8).join() === "1,4,0,1");
 * ```
 */
export function frameCausalMask(options: MaskOptions): Mask {
  const { frames, tokens, longTerm = { frames: 0, tokens: 0 }, clips = 1, full = false, slope = 0 } = options;
  const start = longTerm.frames, own = { longTerm: start * longTerm.tokens, shortTerm: frames * tokens };
  const queries = options.queries ?? { longTerm: [0, start], shortTerm: [start, start + frames] };
  const keys = options.keys ?? {
    rows: clips * (own.longTerm + own.shortTerm),
    longTerm: { start: 0, perClip: own.longTerm },
    shortTerm: { start: clips * own.longTerm, perClip: own.shortTerm },
  };
  const rowsOf = ({ start, perClip }: KeyRows, clip: number, count: number) => {
    const first = start + clip * perClip;
    return [first, first + count];
  };
  const asking = ({ longTerm: [a, b], shortTerm: [c, d] }: typeof queries) =>
    (b - a) * longTerm.tokens + (d - c) * tokens;
  const T = clips * asking(queries), ranges = new Int32Array(4 * T), queryFrames = new Int32Array(T);
  let t = 0, visible = 0;
  const ask = (count: number, frame: number, range: readonly number[]) => {
    for (let i = 0; i < count; i++) {
      ranges.set(range, 4 * t);
      queryFrames[t++] = frame;
    }
    visible += count * (range[1] - range[0] + range[3] - range[2]);
  };
  for (let b = 0; b < clips; b++) {
    for (let f = queries.longTerm[0]; f < queries.longTerm[1]; f++) {
      const seen = (full ? start : f + 1) * longTerm.tokens;
      ask(longTerm.tokens, f, [0, 0, ...rowsOf(keys.longTerm, b, seen)]);
    }
  }
  for (let b = 0; b < clips; b++) {
    for (let f = queries.shortTerm[0]; f < queries.shortTerm[1]; f++) {
      const seen = (full ? frames : f - start + 1) * tokens;
      ask(tokens, f, [...rowsOf(keys.shortTerm, b, seen), ...rowsOf(keys.longTerm, b, own.longTerm)]);
    }
  }
  const mask = { ranges, keys: keys.rows, visible: visible / T };
  if (slope === 0) return showing(mask, maskBundle);
  const keyFrames = new Int32Array(keys.rows);
  for (let b = 0; b < clips; b++) {
    const fill = (rows: KeyRows, count: number, first: number, perFrame: number) => {
      for (let i = 0; i < count; i++) {
        keyFrames[rows.start + b * rows.perClip + i] = first + Math.floor(i / perFrame);
      }
    };
    fill(keys.longTerm, own.longTerm, 0, longTerm.tokens);
    fill(keys.shortTerm, own.shortTerm, start, tokens);
  }
  return showing({ ...mask, decay: { slope, queryFrames, keyFrames } }, maskBundle);
}

/** The mask of some of a mask's queries. */
export function maskOfQueries(mask: Mask, queries: Int32Array): Mask {
  const { ranges, decay } = mask, picked = new Int32Array(4 * queries.length);
  queries.forEach((t, i) => picked.set(ranges.subarray(4 * t, 4 * t + 4), 4 * i));
  return {
    ranges: picked,
    keys: mask.keys,
    visible: picked.reduce((sum, row, i) => sum + (i % 2 ? row : -row), 0) / queries.length,
    ...(decay ? { decay: { ...decay, queryFrames: queries.map((t) => decay.queryFrames[t]) } } : {}),
  };
}
