/**
 * Where a frame looks: the attention of the last frame's tokens, added up over the tokens of every frame.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { showing } from "../display/showing.ts";
import { attentionBundle } from "../display/attention.ts";
import { attention } from "../ops.ts";
import type { Params } from "../params.ts";
import { scope, Tensor, unscoped } from "../tensor.ts";
import { conditionCalls, frameConditions } from "./conditioning.ts";
import { type FarConfig, widthOf } from "./config.ts";
import { type Call, lastFrameTokens, prepareCall, storeRows, wholeClipPlan } from "./layout.ts";
import { type FarInput, velocity } from "./transformer.ts";

/** Attention of the last frame over all frames of a clip. A notebook shows it as a picture of blocks by frames. */
export interface AttentionMap {
  /** Blocks L. */
  readonly layers: number;
  /** Heads A of each. */
  readonly heads: number;
  /** Frames F, the last one included. */
  readonly frames: number;
  /** `[L, A, F]`, mean over the last frame's tokens; every head's shares add up to 1. */
  readonly shares: Float32Array;
}

/**
 * The share of the last frame's attention that each frame gets, in every head of every block (paper, section 3.1).
 *
 * It is the attention of the model itself, with one channel per frame in place of the values.
 *
 * @param model The transformer.
 * @param input One clip, `[1, F, C, H, W]`; with timesteps of -1 for all frames but the last, it is the first Euler step of
 * predicting that frame.
 * @throws {RangeError} If there are several clips, or shapes do not fit the model.
 *
 * @example
 * ```ts
 * import { attentionMap, farConfig, farShapes, openDevice, randomParams, Tensor } from "../../mod.ts";
 * const { device } = await openDevice({ device: "cpu", threads: 1 });
 * const config = farConfig("FAR_B", { num_layers: 2, in_channels: 4, out_channels: 4 });
 * const latents = Tensor.from(device, new Float32Array(3 * 4 * 4 * 4), [1, 3, 4, 4, 4]);
 * const model = { device, config, params: randomParams(device, farShapes(config), 0) };
 * const { shares } = await attentionMap(model, { latents, timesteps: [-1, -1, 1000] });
 * console.assert(shares.length === 2 * 12 * 3); // 2 blocks, 12 heads, 3 frames
 * device.close();
 * ```
 */
export async function attentionMap(
  { device, params, config }: {
    readonly device: Device;
    readonly params: Params;
    readonly config: FarConfig;
  },
  input: FarInput,
): Promise<AttentionMap> {
  const { latents } = input, [B, F, , H, W] = latents.shape, { headDim, layers } = config;
  if (B !== 1) throw new RangeError(`attentionMap: latents hold ${B} clips, expected 1`);
  const heads = widthOf(config) / headDim, seen: Tensor[][] = [];
  const layout = scope(() => {
    const call = prepareCall(device, config, wholeClipPlan(config, 1, F, H, W), "all");
    const timesteps = Array.from(
      { length: F },
      (_, f) => input.timesteps[input.timesteps.length === F ? f : 0],
    );
    const inputs = { frames: F, timesteps, conditions: frameConditions(config, 1, F, input) };
    const [conditioning] = conditionCalls(device, params, config, [{ call, inputs }]);
    const indicators = Array.from(
      { length: Math.ceil(F / headDim) },
      (_, i) => indicator(device, config, call, i * headDim),
    );
    const onAttention = (q: Tensor, k: Tensor) =>
      void seen.push(
        indicators.map((v) => unscoped(() => scope(() => attention(q, k, v, headDim, call.mask)))),
      );
    velocity(params, config, call, { latents, conditioning, onAttention });
    return call.layout;
  });
  const tokens = lastFrameTokens(layout), shares = new Float32Array(layers * heads * F);
  for (const [layer, parts] of seen.entries()) {
    for (const [part, tensor] of parts.entries()) {
      const values = await tensor.read(); // [T, A · headDim]
      tensor.dispose();
      for (let a = 0; a < heads; a++) {
        for (let c = 0; c < headDim && part * headDim + c < F; c++) {
          let sum = 0;
          for (const t of tokens) sum += values[(t * heads + a) * headDim + c];
          shares[(layer * heads + a) * F + part * headDim + c] = sum / tokens.length;
        }
      }
    }
  }
  return showing({ layers, heads, frames: F, shares }, attentionBundle);
}

/** Values of which channel c of each head is 1 for the keys of frame `first + c`, `[S, D]`. */
function indicator(device: Device, config: FarConfig, { layout, plan }: Call, first: number): Tensor {
  const D = widthOf(config),
    { headDim } = config,
    rows = storeRows(plan),
    values = new Float32Array(rows * D);
  for (let t = 0; t < layout.tokens; t++) {
    const c = layout.frame[t] - first;
    if (c < 0 || c >= headDim) continue;
    for (let at = layout.dest[t] * D + c, end = (layout.dest[t] + 1) * D; at < end; at += headDim) {
      values[at] = 1;
    }
  }
  return Tensor.from(device, values, [rows, D]);
}
