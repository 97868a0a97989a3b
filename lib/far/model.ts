/**
 * FAR and FAR-Long as functions of parameters and a clip, without a cache (training and plain evaluation).
 *
 * @module
 */
import { linear } from "../ops.ts";
import { layerOf, param, type Params } from "../params.ts";
import { Tensor } from "../tensor.ts";
import { ConditionRows, modulationOf } from "./conditioning.ts";
import type { FarConfig } from "./config.ts";
import { type CallPlan, keyFrames, type Layout, layoutOf, storeRows, tokensPerFrame } from "./layout.ts";
import { packFrames, unpackFrames } from "./patchify.ts";
import { embedTokens, transformer, uploadLayout } from "./transformer.ts";

/** A batch of clips with one timestep a frame. */
export interface FarInput {
  /** `[B, F, C, H, W]` noisy (and clean context) latents. */
  readonly latents: Tensor;
  /** `[B, F]` timesteps 0 … 1000, -1 for clean frames; or `[B]`, one for all frames of a clip. */
  readonly timesteps: ArrayLike<number>;
  /** `[B, F]` actions, or the null index `classes`. */
  readonly actions?: ArrayLike<number>;
  /** `[B]` labels, or the null index. */
  readonly label?: ArrayLike<number>;
}

/** Index of the null condition. */
export const nullCondition = (config: FarConfig): number => config.condition?.classes ?? 0;

/**
 * The condition index of each frame, `[B, F]`.
 *
 * @throws {RangeError} If conditions are missing, too few, or out of range.
 */
export function frameConditions(
  config: FarConfig,
  B: number,
  F: number,
  input: { readonly actions?: ArrayLike<number>; readonly label?: ArrayLike<number> },
): Int32Array {
  const out = new Int32Array(B * F);
  if (!config.condition) return out;
  const { type, classes } = config.condition, values = type === "action" ? input.actions : input.label;
  const expected = type === "action" ? B * F : B;
  if (!values || values.length !== expected) {
    throw new RangeError(
      `far: ${type} has ${values?.length ?? "no"} values, expected ${expected} (B=${B}, F=${F})`,
    );
  }
  for (let i = 0; i < B * F; i++) {
    const value = values[type === "action" ? i : Math.floor(i / F)];
    if (!Number.isInteger(value) || value < 0 || value > classes) {
      throw new RangeError(`far: ${type} is ${value}, expected 0 to ${classes - 1} (or ${classes} for none)`);
    }
    out[i] = value;
  }
  return out;
}

/** Modulation row of every token: distant frames have twice their timestep, as trained (-2 when clean). */
export function tokenRows(
  layout: Layout,
  F: number,
  timesteps: ArrayLike<number>,
  conditions: ArrayLike<number>,
  rows: ConditionRows,
): Int32Array {
  const out = new Int32Array(layout.tokens);
  for (const part of layout.parts) {
    for (let t = part.row; t < part.row + part.count; t++) {
      const i = layout.clip[t] * F + layout.frame[t];
      out[t] = rows.row(part.kind === "context" ? 2 * timesteps[i] : timesteps[i], conditions[i]);
    }
  }
  return out;
}

/** The plan of a call that computes all frames at once, with a key store of exactly its tokens. */
export function wholeClipPlan(config: FarConfig, B: number, F: number, H: number, W: number): CallPlan {
  const windowStart = config.long ? Math.max(0, F - config.window) : 0;
  const { near, distant } = tokensPerFrame(config, H, W);
  return {
    clips: B,
    height: H,
    width: W,
    context: [0, windowStart],
    window: [windowStart, F],
    windowStart,
    l2Rows: windowStart * distant,
    l1Rows: (F - windowStart) * near,
  };
}

/**
 * Predicted velocity of every frame (or the last), `[B, F, C, H, W]` (paper, sections 3.1 to 3.3).
 *
 * Distant frames of FAR-Long go through `context_proj_out`. With `last`, the result is `[B, 1, C, H, W]`.
 *
 * @param options `checkpoint`: under a gradient, compute each block again instead of keeping its activations. `full`:
 * attention over all frames instead of the frame-causal mask (the Video DiT baseline).
 *
 * @throws {RangeError} If shapes, timesteps or conditions do not fit the configuration.
 */
export function far(
  params: Params,
  config: FarConfig,
  input: FarInput,
  frames: "all" | "last" = "all",
  options: { readonly checkpoint?: boolean; readonly full?: boolean } = {},
): Tensor {
  const { latents } = input, device = latents.device;
  const [B, F, C, H, W] = latents.shape;
  if (latents.shape.length !== 5 || C !== config.inChannels) {
    throw new RangeError(
      `far: latents have shape [${latents.shape}], expected [B, F, C=${config.inChannels}, H, W]`,
    );
  }
  if (input.timesteps.length !== B * F && input.timesteps.length !== B) {
    throw new RangeError(`far: found ${input.timesteps.length} timesteps, expected ${B * F} (or ${B})`);
  }
  const perFrame = input.timesteps.length === B * F;
  const timesteps = Array.from(
    { length: B * F },
    (_, i) => input.timesteps[perFrame ? i : Math.floor(i / F)],
  );
  const plan = { ...wholeClipPlan(config, B, F, H, W), full: options.full }, layout = layoutOf(config, plan);
  const table = new ConditionRows();
  const rows = tokenRows(layout, F, timesteps, frameConditions(config, B, F, input), table);

  const patches = Object.fromEntries(layout.parts.map((part) => {
    const patch = part.kind === "context" ? config.contextPatchSize : config.patchSize;
    const out = Tensor.empty(device, [part.count, C * patch * patch]), [from, to] = part.frames;
    packFrames(latents, { from, to, patch, out, row: 0, clipRows: part.count / B, clips: B });
    return [part.kind, out];
  }));
  const hidden = transformer(params, config, embedTokens(params, config, layout, patches), {
    layout: uploadLayout(device, config, layout, frames, keyFrames(config, plan)),
    modulation: modulationOf(device, params, config, table),
    rows: Tensor.from(device, rows),
    keyRows: storeRows(plan),
    checkpoint: options.checkpoint,
    clips: B,
    frames,
  }); // [T, D] or [B·N, D]
  return frames === "last"
    ? lastVelocity(params, config, hidden, B, H, W)
    : allVelocities(params, config, hidden, layout, latents);
}

/** Velocity of one frame from its hidden states: `[B·N, D]` to `[B, 1, C, H, W]`. */
export function lastVelocity(
  params: Params,
  config: FarConfig,
  hidden: Tensor,
  B: number,
  H: number,
  W: number,
): Tensor {
  const { w, bias } = layerOf(params, "proj_out"), patch = config.patchSize;
  const tokens = linear(hidden, w, { bias }); // [B·N, C·p²]
  const out = Tensor.empty(hidden.device, [B, 1, config.outChannels, H, W]);
  unpackFrames(tokens, { out, frame: 0, frames: 1, patch, row: 0, clipRows: hidden.shape[0] / B });
  return out;
}

function allVelocities(
  params: Params,
  config: FarConfig,
  hidden: Tensor,
  layout: Layout,
  latents: Tensor,
): Tensor {
  const [B, F, , H, W] = latents.shape;
  const out = Tensor.empty(hidden.device, [B, F, config.outChannels, H, W]);
  for (const part of layout.parts) {
    const far = part.kind === "context", patch = far ? config.contextPatchSize : config.patchSize;
    const name = far ? "context_proj_out" : "proj_out", w = param(params, `${name}.weight`);
    const rows = { x: part.row, count: part.count };
    const tokens = linear(hidden, w, { bias: param(params, `${name}.bias`), rows }); // [part tokens, C·p²]
    const [from, to] = part.frames;
    unpackFrames(tokens, { out, frame: from, frames: to - from, patch, row: 0, clipRows: part.count / B });
  }
  return out;
}
