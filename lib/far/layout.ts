/**
 * Which tokens a call of the transformer computes, what each one sees, and where its keys and values lie.
 *
 * Everything here is plain arithmetic on the host. Tokens come part by part: those of distant (context) frames of all
 * clips first, then those of the short-term window; inside a part clip by clip, frame by frame, row by row. Keys and
 * values of the window fill the L1 rows of the store, those of distant frames the L2 rows:
 *
 *     row:   0 … B·l1Rows-1            B·l1Rows … B·(l1Rows + l2Rows)-1
 *            clip 0 | clip 1 | …       clip 0 | clip 1 | …
 *
 * @module
 */
import type { FarConfig } from "./config.ts";
import { ropeTable } from "./rope.ts";
import { tokenGrid } from "./patchify.ts";

/** Half-open range of frames. */
export type FrameRange = readonly [number, number];

/** Which frames a call encodes, and the shape of the store that holds their keys and values. */
export interface CallPlan {
  /** Clips B (doubled under guidance). */
  readonly clips: number;
  /** Latent height H. */
  readonly height: number;
  /** Latent width W. */
  readonly width: number;
  /** Distant frames whose tokens are computed. */
  readonly context: FrameRange;
  /** Window frames whose tokens are computed (absolute frame numbers). */
  readonly window: FrameRange;
  /** Absolute frame in slot 0 of the window, which is the number of distant frames. */
  readonly windowStart: number;
  /** Key rows that a clip has in L2. */
  readonly l2Rows: number;
  /** Key rows that a clip has in L1. */
  readonly l1Rows: number;
  /** Full attention over all frames instead of the frame-causal mask (the Video DiT baseline). */
  readonly full?: boolean;
}

/** Consecutive tokens of one kind. */
export interface Part {
  /** Distant or near frames. */
  readonly kind: "context" | "window";
  /** First token. */
  readonly row: number;
  /** Number of tokens, all clips. */
  readonly count: number;
  /** Frames that it covers. */
  readonly frames: FrameRange;
  /** Tokens of a frame. */
  readonly perFrame: number;
}

/** Host arrays of a call, one entry (or row) a token. */
export interface Layout {
  /** Tokens T. */
  readonly tokens: number;
  /** Parts in token order. */
  readonly parts: readonly Part[];
  /** Clip of each token. */
  readonly clip: Int32Array;
  /** Absolute frame of each token. */
  readonly frame: Int32Array;
  /** Row of the key store that the token's key and value go to. */
  readonly dest: Int32Array;
  /** `[T, 4]` rows of the key store that the token sees: `[l1 from, l1 to, l2 from, l2 to]`. */
  readonly ranges: Int32Array;
  /** Mean number of visible keys. */
  readonly keys: number;
  /** `[T, headDim/2]` rotary angles. */
  readonly cos: Float32Array;
  /** See `cos`. */
  readonly sin: Float32Array;
}

/** Tokens of a window frame and of a distant frame. */
export function tokensPerFrame(
  config: FarConfig,
  height: number,
  width: number,
): { near: number; distant: number } {
  const near = tokenGrid(height, width, config.patchSize);
  if (!config.long) return { near: near.h * near.w, distant: 0 };
  const distant = tokenGrid(height, width, config.contextPatchSize);
  return { near: near.h * near.w, distant: distant.h * distant.w };
}

/** Rows of a key store. */
export const storeRows = (plan: CallPlan): number => plan.clips * (plan.l2Rows + plan.l1Rows);

/** Lays out the tokens of a call. */
export function layoutOf(config: FarConfig, plan: CallPlan): Layout {
  const { near, distant } = tokensPerFrame(config, plan.height, plan.width);
  const parts: Part[] = [];
  let tokens = 0;
  for (
    const [kind, frames, perFrame] of [["context", plan.context, distant], [
      "window",
      plan.window,
      near,
    ]] as const
  ) {
    const count = plan.clips * Math.max(0, frames[1] - frames[0]) * perFrame;
    if (count > 0) parts.push({ kind, row: tokens, count, frames, perFrame });
    tokens += count;
  }
  const clip = new Int32Array(tokens), frame = new Int32Array(tokens), dest = new Int32Array(tokens);
  const ranges = new Int32Array(4 * tokens), ids = new Int32Array(3 * tokens);
  const l2Start = plan.clips * plan.l1Rows;
  let keys = 0;
  for (const part of parts) {
    const far = part.kind === "context", patch = far ? config.contextPatchSize : config.patchSize;
    const step = patch / config.patchSize, columns = plan.width / patch; // ids of distant tokens: their top-left corner
    let t = part.row;
    for (let b = 0; b < plan.clips; b++) {
      const l1 = b * plan.l1Rows, l2 = l2Start + b * plan.l2Rows;
      for (let f = part.frames[0]; f < part.frames[1]; f++) {
        const slot = far ? f : f - plan.windowStart;
        for (let i = 0; i < part.perFrame; i++, t++) {
          clip[t] = b;
          frame[t] = f;
          dest[t] = (far ? l2 : l1) + slot * part.perFrame + i;
          const seen = plan.full ? part.frames[1] - (far ? 0 : plan.windowStart) : slot + 1;
          const range = far
            ? [0, 0, l2, l2 + seen * part.perFrame]
            : [l1, l1 + seen * part.perFrame, l2, l2 + plan.windowStart * distant];
          ranges.set(range, 4 * t);
          keys += range[1] - range[0] + range[3] - range[2];
          ids.set([f, Math.floor(i / columns) * step, (i % columns) * step], 3 * t);
        }
      }
    }
  }
  return {
    tokens,
    parts,
    clip,
    frame,
    dest,
    ranges,
    keys: keys / tokens,
    ...ropeTable(ids, config.ropeAxes),
  };
}

/** Indices of the last frame's tokens, clip by clip. */
export function lastFrameTokens(layout: Layout): Int32Array {
  const { row, count, frames: [from, to], perFrame } = layout.parts.at(-1)!;
  return Int32Array.from({ length: count / (to - from) }, (_, i) => {
    const clip = Math.floor(i / perFrame);
    return row + ((clip + 1) * (to - from) - 1) * perFrame + i % perFrame;
  }); // [B·N]
}

/**
 * What attention reads of the tokens that ask: their ranges and, for a temporal decay, their frames and those of the
 * keys.
 *
 * @param frames Absolute frame of every row of the key store, for a temporal decay only.
 * @param asking Indices of the tokens; default all.
 */
export function visibleTable(layout: Layout, frames?: Int32Array, asking?: Int32Array): Int32Array {
  const T = asking?.length ?? layout.tokens, table = new Int32Array(4 * T + (frames ? T + frames.length : 0));
  for (let i = 0; i < T; i++) {
    const t = asking?.[i] ?? i;
    table.set(layout.ranges.subarray(4 * t, 4 * t + 4), 4 * i);
    if (frames) table[4 * T + i] = layout.frame[t];
  }
  if (frames) table.set(frames, 5 * T);
  return table;
}

/** Absolute frame of every row of the key store, for the temporal decay. */
export function keyFrames(config: FarConfig, plan: CallPlan): Int32Array {
  const { near, distant } = tokensPerFrame(config, plan.height, plan.width);
  const l1 = plan.clips * plan.l1Rows;
  return Int32Array.from(
    { length: storeRows(plan) },
    (_, row) =>
      row < l1
        ? plan.windowStart + Math.floor((row % plan.l1Rows) / near)
        : Math.floor(((row - l1) % plan.l2Rows) / distant),
  );
}

/**
 * The additive frame-causal mask of a layout against a key store, `[T, S]`: 0 (or the decay) where a token sees a key,
 * -Infinity elsewhere. Only for tests and drawings; attention reads ranges and never makes this.
 */
export function frameCausalMask(config: FarConfig, plan: CallPlan): Float32Array {
  const { tokens, ranges, frame } = layoutOf(config, plan),
    S = storeRows(plan),
    frames = keyFrames(config, plan);
  const mask = new Float32Array(tokens * S).fill(-Infinity);
  for (let t = 0; t < tokens; t++) {
    for (const r of [0, 2]) {
      for (let s = ranges[4 * t + r]; s < ranges[4 * t + r + 1]; s++) {
        mask[t * S + s] = config.slopeScale * (frames[s] - frame[t]) + 0;
      }
    }
  }
  return mask;
}
