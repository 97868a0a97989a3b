/**
 * The loss of FAR on a batch, with all its random draws: flow matching with a noise level for each frame, stochastic clean
 * context, long short-term context (paper, sections 3.1 to 3.3); and, not in the paper, clean context from the model's own
 * roll-outs, as it will be in prediction (scheduled sampling, arXiv 1506.03099, with roll-outs made beforehand as in DAgger,
 * arXiv 1011.0686).
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { FarConfig } from "../far/config.ts";
import { type Conditions, nullCondition } from "../far/conditioning.ts";
import { drawNoise, flowMatchingLoss, latentLoss, type NoiseDraw } from "../far/flow.ts";
import { far } from "../far/transformer.ts";
import type { Params } from "../params.ts";
import { type Key, streamOf, uniform } from "../random.ts";
import { Tensor } from "../tensor.ts";

/** Distribution of noise levels and clean frames. */
export interface FarObjectiveConfig {
  /** Share of frames that are given clean at timestep -1 and left out of the loss. The paper uses 0.1. */
  readonly cleanContextRatio: number;
  /** Density of the noise levels. */
  readonly weighting: "logit_normal" | "uniform";
  /** `base`: every frame is drawn. `long_context`: frames before the short-term window are always clean (long-term context). */
  readonly trainingType: "base" | "long_context";
  /** Probability that a condition is replaced by the null condition. The authors use 0.1. */
  readonly conditionDropout: number;
  /** Share of the noisy frames that are pure noise, the level at which sampling begins; 0 unless given. */
  readonly pureNoiseRatio?: number;
  /** The paper's Video DiT baseline: one noise level for all frames and full attention. */
  readonly videoDiT?: boolean;
  /**
   * Probability that a clip with a roll-out takes its clean frames from it; 0 unless given. Such a clip is cut from its
   * first frame on.
   */
  readonly rolloutRatio?: number;
  /**
   * Clean frames in the window of such a clip. `first` (unless given): the first ones, the others being noisy, as at a step
   * of a prediction. `random`: any, as in other clips.
   */
  readonly rolloutClean?: "first" | "random";
}

/** A batch of clips. */
export interface TrainBatch {
  /** `[B, F, C, H, W]` latents, multiplied by the autoencoder's scaling factor. */
  readonly latents: Float32Array;
  /** Roll-outs of clips, `[B]` of `[F, C, H, W]` in the latents' scale: what their clean frames are taken from. */
  readonly history?: readonly (Float32Array | null)[];
  /** B, F, C, H, W. */
  readonly shape: readonly [number, number, number, number, number];
  /** `[B, F]`. */
  readonly actions?: ArrayLike<number>;
  /** `[B]`. */
  readonly label?: ArrayLike<number>;
  /** `[B, F, 3]` camera poses, where they are known: training does not read them, {@linkcode memoryCase} does. */
  readonly poses?: Int32Array;
}

/**
 * The stretch of a clip that a long-context step trains on: the number of frames is drawn from `window` to one less than
 * all (the authors' upper bound is exclusive), then the first frame. Clips no longer than the window are taken whole.
 */
export function drawStretch(
  total: number,
  window: number,
  key: Key,
): { readonly start: number; readonly count: number } {
  if (total <= window) return { start: 0, count: total };
  const [n, s] = uniform(streamOf(key, "stretch"), 2);
  const count = window + Math.floor(n * (total - window));
  return { start: Math.floor(s * (total - count + 1)), count };
}

/** The batch with the roll-outs that a step uses, each with the probability of the objective. */
export function drawRollouts(
  { rolloutRatio = 0 }: FarObjectiveConfig,
  batch: TrainBatch,
  key: Key,
): TrainBatch {
  const { history, ...plain } = batch;
  if (history === undefined || rolloutRatio === 0) return plain;
  const chance = uniform(streamOf(key, "roll-outs"), history.length);
  return { ...plain, history: history.map((made, b) => chance[b] < rolloutRatio ? made : null) };
}

/** Frames `start … start+count-1` of every clip of a batch; of one with a roll-out, which begins with the true context, 0 … count-1. */
export function cutFrames(batch: TrainBatch, start: number, count: number): TrainBatch {
  const { shape: [B, F, C, H, W], latents, history, actions, poses } = batch, per = C * H * W;
  if (start === 0 && count === F) return batch;
  const starts = Array.from({ length: B }, (_, b) => history?.[b] ? 0 : start);
  const cut = new Float32Array(B * count * per);
  for (const [b, first] of starts.entries()) {
    const from = (b * F + first) * per;
    cut.set(latents.subarray(from, from + count * per), b * count * per);
  }
  const at = (i: number) => Math.floor(i / count) * F + starts[Math.floor(i / count)] + i % count;
  return {
    ...batch,
    latents: cut,
    ...(history ? { history: history.map((made) => made && made.subarray(0, count * per)) } : {}),
    shape: [B, count, C, H, W],
    ...(actions ? { actions: Int32Array.from({ length: B * count }, (_, i) => actions[at(i)]) } : {}),
    ...(poses
      ? {
        poses: Int32Array.from({ length: 3 * B * count }, (_, i) => poses[3 * at(Math.floor(i / 3)) + i % 3]),
      }
      : {}),
  };
}

/** A batch's conditions after dropout: each one becomes the null condition with the given probability. */
export function dropConditions(
  config: FarConfig,
  batch: TrainBatch,
  key: Key,
  probability: number,
): Conditions {
  if (!config.condition) return {};
  const none = nullCondition(config), type = config.condition.type;
  const values = type === "action" ? batch.actions : batch.label;
  if (!values) throw new RangeError(`training: the model is conditioned on ${type}s, found a batch without`);
  const chance = uniform(streamOf(key, "dropout"), values.length);
  const kept = Int32Array.from(chance, (c, i) => c < probability ? none : values[i]);
  return type === "action" ? { actions: kept } : { label: kept };
}

/** Input of {@linkcode farLoss}: a batch with all random draws. */
export interface LossInput {
  /** The model. */
  readonly config: FarConfig;
  /** B, F, C, H, W. */
  readonly shape: TrainBatch["shape"];
  /** `[B, F, C, H, W]`; the clean frames of a clip with a roll-out are those of the roll-out. */
  readonly latents: Float32Array;
  /** Noise, noise levels and clean frames. */
  readonly draw: NoiseDraw;
  /** Conditions after dropout. */
  readonly conditions: Conditions;
  /** Compute blocks again on the way back instead of keeping their activations. */
  readonly checkpoint?: boolean;
  /** Full attention (the Video DiT baseline). */
  readonly full?: boolean;
}

/** A batch with its stretch cut, its noise drawn and its conditions dropped: a function of the seed and the position. */
export function prepareBatch(
  config: { readonly model: FarConfig; readonly objective: FarObjectiveConfig; readonly seed: number },
  given: TrainBatch,
  position: number,
): LossInput {
  const { model, objective, seed } = config, key = streamOf(seed, `step ${position}`);
  const long = objective.trainingType === "long_context";
  let batch = drawRollouts(objective, given, key);
  if (long) {
    const { start, count } = drawStretch(given.shape[1], model.window, key);
    batch = cutFrames(batch, start, count);
  }
  const { shape, history } = batch, F = shape[1];
  const draw = drawNoise(shape, key, {
    weighting: objective.weighting,
    cleanContextRatio: objective.cleanContextRatio,
    pureNoiseRatio: objective.pureNoiseRatio,
    longTerm: long ? Math.max(0, F - model.window) : 0,
    shortTerm: model.window,
    levelPerClip: objective.videoDiT,
    cleanFirst: objective.rolloutClean === "random" ? undefined : history?.map((made) => made !== null),
  });
  return {
    config: model,
    shape,
    latents: withHistory(batch, draw),
    draw,
    conditions: dropConditions(model, batch, key, objective.conditionDropout),
    full: objective.videoDiT,
  };
}

/** A batch's latents with the clean frames of its roll-outs in place of the true ones. */
function withHistory({ latents, history, shape: [B, F] }: TrainBatch, { sigmas }: NoiseDraw): Float32Array {
  if (!history?.some((made) => made !== null)) return latents;
  const out = latents.slice(), per = out.length / (B * F);
  for (const [b, made] of history.entries()) {
    for (let f = 0; made && f < F; f++) {
      if (sigmas[b * F + f] === 0) out.set(made.subarray(f * per, (f + 1) * per), (b * F + f) * per);
    }
  }
  return out;
}

/** Loss of FAR on a prepared batch: each frame's share `[B·F]`, whose sum is the loss. */
export function farLoss(params: Params, device: Device, input: LossInput): Tensor {
  const { config, conditions, checkpoint, full } = input;
  const loss = config.prediction === "velocity" ? flowMatchingLoss : latentLoss;
  return loss(
    (latents, timesteps) => far(params, config, { latents, timesteps, ...conditions }, { checkpoint, full }),
    Tensor.from(device, input.latents, input.shape),
    input.draw,
  );
}
