/**
 * The tokens that a call of the transformer computes, and the places of their keys and values.
 *
 * Everything here is plain arithmetic on the host. Tokens come part by part: those of the long-term frames of all clips
 * first, then those of the short-term frames; inside a part clip by clip, frame by frame, row by row. Keys and values of
 * short-term frames fill the first rows of the store (level L1 of the cache), those of long-term frames the rest (L2):
 *
 *     row:   0 … B·shortTermRows-1     B·shortTermRows … B·(shortTermRows + longTermRows)-1
 *            clip 0 | clip 1 | …       clip 0 | clip 1 | …
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { type Mask, placeMask } from "../ops.ts";
import { Tensor } from "../tensor.ts";
import type { FarConfig } from "./config.ts";
import { frameCausalMask, type KeyRows, maskOfQueries } from "./mask.ts";
import { type FrameRange, tokenGrid } from "./patchify.ts";
import { ropeTable } from "./rope.ts";

/** Frames of a call, and the shape of the store of their keys and values. */
export interface CallPlan {
  /** Clips B (doubled under guidance). */
  readonly clips: number;
  /** Latent height H. */
  readonly height: number;
  /** Latent width W. */
  readonly width: number;
  /** Long-term frames whose tokens are computed. */
  readonly longTerm: FrameRange;
  /** Short-term frames whose tokens are computed (absolute frame numbers); the last one is the newest frame. */
  readonly shortTerm: FrameRange;
  /** First short-term frame, which is the number of long-term frames. */
  readonly shortTermStart: number;
  /** Key rows of a clip's long-term frames. */
  readonly longTermRows: number;
  /** Key rows of a clip's short-term frames. */
  readonly shortTermRows: number;
  /** Full attention instead of the frame-causal mask (the Video DiT baseline). */
  readonly full?: boolean;
}

/** The two kinds of context: long-term frames have large patches and projections of their own (FAR-Long). */
export type ContextKind = "longTerm" | "shortTerm";

/** Consecutive tokens of one kind. */
export interface Part {
  /** Kind of frames. */
  readonly kind: ContextKind;
  /** First token. */
  readonly row: number;
  /** Number of tokens, all clips. */
  readonly count: number;
  /** Frames that it covers. */
  readonly frames: FrameRange;
  /** Tokens N of a frame. */
  readonly perFrame: number;
}

/** Host arrays of a call, one entry (or row) per token. */
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
  /** Visible rows of the key store, for each token. */
  readonly mask: Mask;
  /** `[T, headDim]`: cosines of each token's rotary angles, then their sines. */
  readonly angles: Float32Array;
}

/** Number of long-term frames among `frames`: those before the short-term window. */
export const longTermFrames = (config: FarConfig, frames: number): number =>
  config.long ? Math.max(0, frames - config.window) : 0;

/** Patch size of a kind of frames. */
export const patchOf = (config: FarConfig, kind: ContextKind): number =>
  kind === "longTerm" ? config.longTermPatchSize : config.patchSize;

/** Tokens of a short-term and of a long-term frame. */
export function tokensPerFrame(
  config: FarConfig,
  height: number,
  width: number,
): { readonly shortTerm: number; readonly longTerm: number } {
  const count = (patch: number) => {
    const { h, w } = tokenGrid(height, width, patch);
    return h * w;
  };
  return {
    shortTerm: count(config.patchSize),
    longTerm: config.long ? count(config.longTermPatchSize) : 0,
  };
}

/** Rows S of a key store. */
export const storeRows = (plan: CallPlan): number => plan.clips * (plan.longTermRows + plan.shortTermRows);

/** The plan of a call that computes all frames at once, with a key store of exactly its tokens. */
export function wholeClipPlan(config: FarConfig, B: number, F: number, H: number, W: number): CallPlan {
  const start = longTermFrames(config, F), tokens = tokensPerFrame(config, H, W);
  return {
    clips: B,
    height: H,
    width: W,
    longTerm: [0, start],
    shortTerm: [start, F],
    shortTermStart: start,
    longTermRows: start * tokens.longTerm,
    shortTermRows: (F - start) * tokens.shortTerm,
  };
}

/** Lays out the tokens of a call. */
export function layoutOf(config: FarConfig, plan: CallPlan): Layout {
  const perFrame = tokensPerFrame(config, plan.height, plan.width), { clips, shortTermStart } = plan;
  const keys: Record<ContextKind, KeyRows> = {
    longTerm: { start: clips * plan.shortTermRows, perClip: plan.longTermRows },
    shortTerm: { start: 0, perClip: plan.shortTermRows },
  };
  const parts: Part[] = [];
  let tokens = 0;
  for (const kind of ["longTerm", "shortTerm"] as const) {
    const frames = plan[kind], count = clips * Math.max(0, frames[1] - frames[0]) * perFrame[kind];
    if (count > 0) parts.push({ kind, row: tokens, count, frames, perFrame: perFrame[kind] });
    tokens += count;
  }
  const clip = new Int32Array(tokens), frame = new Int32Array(tokens), dest = new Int32Array(tokens);
  const ids = new Int32Array(3 * tokens); // (frame, row, column)
  for (const { kind, row, frames: [from, to], perFrame: N } of parts) {
    const patch = patchOf(config, kind), columns = plan.width / patch;
    const step = patch / config.patchSize; // a long-term token stands at the top-left short-term token that it covers
    const first = kind === "longTerm" ? 0 : shortTermStart;
    let t = row;
    for (let b = 0; b < clips; b++) {
      for (let f = from; f < to; f++) {
        for (let i = 0; i < N; i++, t++) {
          clip[t] = b;
          frame[t] = f;
          dest[t] = keys[kind].start + b * keys[kind].perClip + (f - first) * N + i;
          ids.set([f, Math.floor(i / columns) * step, (i % columns) * step], 3 * t);
        }
      }
    }
  }
  const mask = frameCausalMask({
    frames: plan.shortTerm[1] - shortTermStart,
    tokens: perFrame.shortTerm,
    longTerm: { frames: shortTermStart, tokens: perFrame.longTerm },
    clips,
    queries: { longTerm: plan.longTerm, shortTerm: plan.shortTerm },
    keys: { rows: storeRows(plan), ...keys },
    full: plan.full,
    slope: config.slopeScale,
  });
  const { cos, sin } = ropeTable(ids, config.ropeAxes), half = config.headDim / 2;
  const angles = new Float32Array(2 * tokens * half);
  for (let t = 0; t < tokens; t++) {
    angles.set(cos.subarray(t * half, (t + 1) * half), 2 * t * half);
    angles.set(sin.subarray(t * half, (t + 1) * half), (2 * t + 1) * half);
  }
  return { tokens, parts, clip, frame, dest, mask, angles };
}

/** Tokens of the last frame, clip by clip: `[B·N]` indices. */
export function lastFrameTokens(layout: Layout): Int32Array {
  const { row, count, frames: [from, to], perFrame } = layout.parts.at(-1)!;
  return Int32Array.from({ length: count / (to - from) }, (_, i) => {
    const clip = Math.floor(i / perFrame);
    return row + ((clip + 1) * (to - from) - 1) * perFrame + i % perFrame;
  }); // [B·N]
}

/** Frames whose velocity a call returns: all that it computes, or the last one, for sampling. */
export type Output = "all" | "last";

/** A call on a device: everything that does not depend on the values of the latents. */
export interface Call {
  /** Plan of the computation. */
  readonly plan: CallPlan;
  /** Its tokens. */
  readonly layout: Layout;
  /** Frames whose outputs are returned. */
  readonly output: Output;
  /** `[T, headDim]` as in the layout. */
  readonly angles: Tensor;
  /** `[T]` as in the layout. */
  readonly dest: Tensor;
  /** Attention mask of the tokens. */
  readonly mask: Mask;
  /** The tokens of the last frame `[B·N]` and what they see, where the last block computes no others. */
  readonly last?: { readonly tokens: Int32Array; readonly mask: Mask };
}

/** Lays out a call and uploads it. */
export function prepareCall(device: Device, config: FarConfig, plan: CallPlan, output: Output): Call {
  const layout = layoutOf(config, plan), T = layout.tokens, tokens = lastFrameTokens(layout);
  return {
    plan,
    layout,
    output,
    angles: Tensor.from(device, layout.angles, [T, config.headDim]),
    dest: Tensor.from(device, layout.dest),
    mask: placeMask(device, layout.mask),
    ...(output === "last" && tokens.length < T
      ? { last: { tokens, mask: placeMask(device, maskOfQueries(layout.mask, tokens)) } }
      : {}),
  };
}
