/**
 * The transformer of FAR and FAR-Long, from latents to velocity. Read it from top to bottom:
 *
 *     far          a batch of clips, all frames at once: training and plain evaluation
 *     velocity     any call: all frames or some of them, with or without a key-value store (training and sampling)
 *     embedTokens  latents to tokens
 *     block        attention and MLP, both modulated by timestep and condition (adaLN with gates)
 *     project      hidden states to the velocity of each frame
 *
 * Letters: B clips, F frames, C, H and W of latents, p patch size, N tokens per frame, T tokens of the call, S rows of
 * keys, D channels, R rows of modulation.
 *
 * @module
 */
import { checkpoint } from "../autograd.ts";
import { attention, concat, copyStrided, gateAdd, linear, linearQkv, normModulate, rotary } from "../ops.ts";
import { layerOf, param, type Params } from "../params.ts";
import { scope, Tensor } from "../tensor.ts";
import type { KeyStore } from "./cache.ts";
import { conditionCalls, type Conditioning, type Conditions, frameConditions } from "./conditioning.ts";
import { type FarConfig, widthOf } from "./config.ts";
import { type Call, type Output, patchOf, prepareCall, storeRows, wholeClipPlan } from "./layout.ts";
import { patchify, unpatchify } from "./patchify.ts";

/** A batch of clips with one timestep per frame. */
export interface FarInput extends Conditions {
  /** `[B, F, C, H, W]` noisy (and clean context) latents. */
  readonly latents: Tensor;
  /** `[B, F]` timesteps 0 … 1000, -1 for clean frames; or `[B]`, one for all frames of a clip. */
  readonly timesteps: ArrayLike<number>;
}

/** Settings of {@linkcode far}. */
export interface FarOptions {
  /** Frames whose velocity is returned. Default all. */
  readonly output?: Output;
  /** Under a gradient, compute each block again instead of keeping its activations. Default false. */
  readonly checkpoint?: boolean;
  /** Attention over all frames instead of the frame-causal mask (the Video DiT baseline). Default false. */
  readonly full?: boolean;
}

/**
 * Predicted velocity of every frame, `[B, F, C, H, W]`, or of the last, `[B, 1, C, H, W]` (paper, sections 3.1 to 3.3).
 *
 * @throws {RangeError} If shapes, timesteps or conditions do not fit the configuration.
 */
export function far(params: Params, config: FarConfig, input: FarInput, options: FarOptions = {}): Tensor {
  const { latents } = input, { device } = latents, { output = "all", checkpoint, full } = options;
  const [B, F, C, H, W] = latents.shape;
  if (latents.shape.length !== 5 || C !== config.inChannels) {
    throw new RangeError(
      `far: latents have shape [${latents.shape}], expected [B, F, C=${config.inChannels}, H, W]`,
    );
  }
  const given = input.timesteps, perFrame = given.length === B * F;
  if (!perFrame && given.length !== B) {
    throw new RangeError(`far: found ${given.length} timesteps, expected ${B * F} (or ${B})`);
  }
  const timesteps = Array.from({ length: B * F }, (_, i) => given[perFrame ? i : Math.floor(i / F)]);
  const inputs = { frames: F, timesteps, conditions: frameConditions(config, B, F, input) };
  const call = prepareCall(device, config, { ...wholeClipPlan(config, B, F, H, W), full }, output);
  const [conditioning] = conditionCalls(device, params, config, [{ call, inputs }]);
  return velocity(params, config, call, { latents, conditioning, checkpoint });
}

/** Input of {@linkcode velocity}. */
export interface VelocityInput {
  /** `[B, F, C, H, W]`: every frame of the clip, of which the call computes some. */
  readonly latents: Tensor;
  /** Modulation of the call's tokens. */
  readonly conditioning: Conditioning;
  /** Store of keys and values between calls; without it they last for one block. */
  readonly store?: KeyStore;
  /** See {@linkcode FarOptions}. */
  readonly checkpoint?: boolean;
  /** Sees the rotated queries `[T, D]` and keys `[S, D]` of each block, before the last block drops those of other frames. */
  readonly onAttention?: (q: Tensor, k: Tensor) => void;
}

/** Velocity of the frames that a call returns: `[clips, frames, C, H, W]`. */
export function velocity(params: Params, config: FarConfig, call: Call, input: VelocityInput): Tensor {
  const { modulation, rows, lastRows } = input.conditioning;
  let x = embedTokens(params, config, call, input.latents); // [T, D]
  for (let i = 0; i < config.layers; i++) {
    const before = x, compute = () => block(params, config, call, input, i, before);
    x = input.checkpoint ? checkpoint(compute, [before, call, input.conditioning]) : scope(compute);
  } // [T, D], or [B·N, D] of the last frame
  x = normModulate(x, modulation.output, lastRows ?? rows, { shift: widthOf(config), scale: 0 });
  return project(params, config, call, x);
}

/** Patches of the call's frames, projected: `[T, D]`. Long-term frames have larger patches and their own projection. */
function embedTokens(params: Params, config: FarConfig, call: Call, latents: Tensor): Tensor {
  const { layout: { tokens, parts }, plan: { clips } } = call;
  const x = Tensor.empty(latents.device, [tokens, widthOf(config)]);
  for (const { kind, row, count, frames } of parts) {
    const { w, bias } = layerOf(params, kind === "longTerm" ? "context_embedder" : "x_embedder");
    const patches = patchify(latents, patchOf(config, kind), { frames, clips }); // [count, C·p²]
    linear(patches, w, { bias, rows: { y: row, count }, out: x });
  }
  return x;
}

/** Names of a block's projections for one kind of tokens. */
const PROJECTIONS = {
  shortTerm: { qkv: ["to_q", "to_k", "to_v"], norms: ["norm_q", "norm_k"], out: "to_out.0" },
  longTerm: {
    qkv: ["add_q_proj", "add_k_proj", "add_v_proj"],
    norms: ["norm_added_q", "norm_added_k"],
    out: "to_add_out",
  },
} as const;

/**
 * Block i (pre-norm): x ← x + gate · attention(norm(x)); x ← x + gate · MLP(norm(x)). `[T, D]` to `[T, D]`; the last block
 * of a call that returns one frame computes only that frame's tokens from the attention on, `[B·N, D]`.
 */
function block(
  params: Params,
  config: FarConfig,
  call: Call,
  input: VelocityInput,
  i: number,
  tokens: Tensor,
): Tensor {
  const D = widthOf(config), T = tokens.shape[0], name = `transformer_blocks.${i}`, { device } = tokens;
  const { conditioning, store } = input, { layout, plan } = call, last = i === config.layers - 1;
  const { attention: mod1, mlp: mod2 } = conditioning.modulation.blocks[i]; // [R, 3D]: shift, scale, gate
  let x = tokens, { rows } = conditioning, { parts } = layout, { mask } = call;

  const h = normModulate(x, mod1, rows, { shift: 0, scale: D }); // [T, D]
  const qkv = Tensor.empty(device, [T, 3 * D]);
  let q = Tensor.empty(device, [T, D]);
  const k = store?.k[i] ?? Tensor.empty(device, [storeRows(plan), D]); // [S, D]
  const v = store?.v[i] ?? Tensor.empty(device, [storeRows(plan), D]); // [S, D]
  for (const { kind, row: start, count } of parts) {
    const names = PROJECTIONS[kind];
    const [wq, wk, wv] = names.qkv.map((n) => layerOf(params, `${name}.attn.${n}`));
    linearQkv(h, [wq.w, wk.w, wv.w], [wq.bias, wk.bias, wv.bias], { start, count }, qkv);
    const [normQ, normK] = names.norms.map((n) => param(params, `${name}.attn.${n}.weight`));
    rotary(qkv, normQ, normK, { angles: call.angles, dest: call.dest, q, k, v }, { start, count });
  }
  input.onAttention?.(q, k);
  if (last && call.last) {
    // Keys and values of all tokens are in their rows; from here on only the last frame is wanted.
    [x, q] = [x, q].map((t) => lastFrameRows(t, call)); // [B·N, D]
    rows = conditioning.lastRows!;
    mask = call.last.mask;
    const part = parts.at(-1)!;
    parts = [{ ...part, row: 0, count: plan.clips * part.perFrame }];
  }
  const attended = attention(q, k, v, config.headDim, mask); // [T, D]
  const gate = { modulation: mod1, rows, col: 2 * D }, after = Tensor.empty(device, x.shape);
  for (const { kind, row, count } of parts) {
    if (kind === "longTerm" && last) {
      gateAdd(attended, gate, x, { start: row, count }, after); // this block has no to_add_out
    } else {
      const { w, bias } = layerOf(params, `${name}.attn.${PROJECTIONS[kind].out}`);
      linear(attended, w, { bias, gate, residual: x, rows: { x: row, y: row, count }, out: after });
    }
  }

  const up = layerOf(params, `${name}.mlp.net.0.proj`), down = layerOf(params, `${name}.mlp.net.2`);
  const h2 = normModulate(after, mod2, rows, { shift: 0, scale: D }); // [T, D]
  const wide = linear(h2, up.w, { bias: up.bias, act: "gelu" }); // [T, 4D]
  return linear(wide, down.w, { bias: down.bias, gate: { ...gate, modulation: mod2 }, residual: after });
}

/** The last frame's rows of `[T, D]`: `[B·N, D]`. */
function lastFrameRows(x: Tensor, call: Call): Tensor {
  const { row, count, perFrame: N } = call.layout.parts.at(-1)!, { clips } = call.plan;
  const D = x.shape[1], clipRows = count / clips, y = Tensor.empty(x.device, [clips * N, D]);
  copyStrided(x, y, {
    sizes: [clips, N * D],
    from: [clipRows * D, 1],
    to: [N * D, 1],
    fromAt: (row + clipRows - N) * D,
  });
  return y;
}

/** Hidden states to velocities: `[T, D]` to `[clips, frames, C, H, W]`, or `[B·N, D]` to `[clips, 1, C, H, W]`. */
function project(params: Params, config: FarConfig, call: Call, hidden: Tensor): Tensor {
  const { plan: { clips: B, height: H, width: W }, layout: { parts } } = call;
  const { w, bias } = layerOf(params, "proj_out");
  if (call.output === "last") {
    return unpatchify(linear(hidden, w, { bias }), config.patchSize, { B, F: 1, H, W });
  }
  const velocities = parts.map(({ kind, row, count, frames: [from, to] }) => {
    const layer = kind === "longTerm" ? layerOf(params, "context_proj_out") : { w, bias };
    const patches = linear(hidden, layer.w, { bias: layer.bias, rows: { x: row, count } }); // [count, C·p²]
    return unpatchify(patches, patchOf(config, kind), { B, F: to - from, H, W });
  });
  return velocities.length === 1 ? velocities[0] : concat(velocities, 1);
}
