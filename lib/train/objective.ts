/**
 * The training objective: flow matching with a noise level for each frame, stochastic clean context, long short-term
 * context (paper, sections 3.1 to 3.3); and, not in the paper, clean context that the model has made itself, as it will be
 * when it predicts (scheduled sampling, arXiv 1506.03099, with roll-outs made beforehand as in DAgger, arXiv 1011.0686).
 *
 * Noise is drawn and mixed on the host in f32, so that a step is the same bits on every device.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { FarConfig } from "../far/config.ts";
import { trainSigmas, trainTimesteps } from "../far/flow.ts";
import { far, nullCondition } from "../far/model.ts";
import { CLEAN_TIMESTEP } from "../far/timestep.ts";
import { frameLoss } from "../ops.ts";
import type { Params } from "../params.ts";
import { normal, streamOf, uniform } from "../random.ts";
import { Tensor } from "../tensor.ts";

/** How noise levels and clean frames are drawn. */
export interface ObjectiveConfig {
  /** Share of frames that are given clean at timestep -1 and left out of the loss. The paper uses 0.1. */
  readonly cleanContextRatio: number;
  /** Density of the noise levels. */
  readonly weighting: "logit_normal" | "uniform";
  /** `base`: every frame is drawn. `long_context`: frames before the window are always clean. */
  readonly trainingType: "base" | "long_context";
  /** Probability that a condition is replaced by the null condition. The authors use 0.1. */
  readonly conditionDropout: number;
  /** The paper's Video DiT baseline: one noise level for all frames and full attention. */
  readonly videoDiT?: boolean;
  /**
   * Probability that a clip with a roll-out takes its clean frames from it; 0 unless given. Such a clip is cut from its
   * first frame on, and of its window the first frames are clean and the others noisy, as at a step of a prediction.
   */
  readonly rolloutRatio?: number;
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
}

/**
 * The stretch of a clip that a long-context step trains on: the number of frames is drawn from `window` to one less than
 * all (the authors' upper bound is exclusive), then the first frame. Clips no longer than the window are taken whole.
 */
export function drawStretch(
  total: number,
  window: number,
  seed: number,
  step: number,
): { readonly start: number; readonly count: number } {
  if (total <= window) return { start: 0, count: total };
  const [n, s] = uniform(streamOf(seed, `stretch of step ${step}`), 2);
  const count = window + Math.floor(n * (total - window));
  return { start: Math.floor(s * (total - count + 1)), count };
}

/** The batch with the roll-outs that a step uses, each with the probability of the objective. */
export function drawRollouts(
  { rolloutRatio = 0 }: ObjectiveConfig,
  batch: TrainBatch,
  seed: number,
  step: number,
): TrainBatch {
  const { history, ...plain } = batch;
  if (history === undefined || rolloutRatio === 0) return plain;
  const chance = uniform(streamOf(seed, `roll-outs of step ${step}`), history.length);
  return { ...plain, history: history.map((made, b) => chance[b] < rolloutRatio ? made : null) };
}

/** Frames `start … start+count-1` of every clip of a batch; of one with a roll-out, which begins with the true context, 0 … count-1. */
export function cutFrames(batch: TrainBatch, start: number, count: number): TrainBatch {
  const { shape: [B, F, C, H, W], latents, history, actions } = batch, per = C * H * W;
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
  };
}

/** What is random about a step. */
export interface NoiseDraw {
  /** `[B, F, C, H, W]` standard normal; zero where long-context training gives distant frames, which are always clean. */
  readonly noise: Float32Array;
  /** `[B, F]` densities in [0, 1); index floor(1000 u) of the noise levels, 0 the noisiest. */
  readonly u: Float32Array;
  /** `[B, F]` 1 where a frame is clean context. */
  readonly clean: Uint8Array;
  /** `[B, F]` (actions) or `[B]` (labels): 1 where the condition is dropped. */
  readonly dropped: Uint8Array;
}

/** Draws one step's randomness from a seed and a step number. */
export function drawNoise(
  config: FarConfig,
  objective: ObjectiveConfig,
  batch: TrainBatch,
  seed: number,
  step: number,
): NoiseDraw {
  const [B, F] = batch.shape, frames = B * F, count = batch.latents.length;
  const key = (purpose: string) => streamOf(seed, `${purpose} of step ${step}`);
  const levels = objective.videoDiT ? B : frames;
  const drawn = objective.weighting === "uniform"
    ? Float32Array.from(uniform(key("density"), levels))
    : normal(key("density"), levels).map((n) => 1 / (1 + Math.exp(-n)));
  const u = objective.videoDiT
    ? Float32Array.from({ length: frames }, (_, i) => drawn[Math.floor(i / F)])
    : drawn;
  const chance = uniform(key("clean context"), frames);
  const distant = objective.trainingType === "long_context" ? Math.max(0, F - config.window) : 0;
  const clean = Uint8Array.from(chance, (c, i) => i % F < distant || c < objective.cleanContextRatio ? 1 : 0);
  batch.history?.forEach((made, b) => {
    if (made === null) return;
    const noisy = distant + Math.floor(chance[b * F] * (F - distant)); // at least the last frame is noisy
    clean.fill(1, b * F, b * F + noisy).fill(0, b * F + noisy, (b + 1) * F);
  });
  const conditions = config.condition?.type === "label" ? B : frames;
  const dropped = Uint8Array.from(
    uniform(key("dropout"), conditions),
    (c) => c < objective.conditionDropout ? 1 : 0,
  );
  // Distant frames are clean: their noise would be most of what a long step draws, for nothing.
  const noise = new Float32Array(count), per = count / frames, stream = key("noise");
  for (let b = 0; b < B; b++) {
    const from = (b * F + distant) * per;
    noise.set(normal(stream, (F - distant) * per, from), from);
  }
  return { noise, u, clean, dropped };
}

/** A batch with its noise mixed in, on the host. */
export interface NoisyBatch {
  /** `[B, F, C, H, W]` (1-σ) x + σ ε; clean frames untouched, or from the roll-out. */
  readonly noisy: Float32Array;
  /** `[B, F, C, H, W]` ε - x. */
  readonly target: Float32Array;
  /** `[B, F]` -1 for clean frames. */
  readonly timesteps: Float32Array;
  /** `[B, F]` weight of each frame's mean squared error in the loss. */
  readonly weights: Float32Array;
}

/**
 * Mixes noise into a batch and weighs its frames: the loss is the mean over clips of the mean over a clip's noisy frames
 * of the window. A clip without one contributes nothing but still counts, as in the authors' code.
 */
export function mixNoise(config: FarConfig, batch: TrainBatch, draw: NoiseDraw): NoisyBatch {
  const { latents, history, shape: [B, F] } = batch, per = latents.length / (B * F);
  const sigmas = trainSigmas(), steps = trainTimesteps();
  const noisy = new Float32Array(latents.length), target = new Float32Array(latents.length);
  const timesteps = new Float32Array(B * F), weights = new Float32Array(B * F);
  for (let b = 0; b < B; b++) {
    const counted = (f: number) => f >= F - config.window && !draw.clean[b * F + f];
    let count = 0;
    for (let f = 0; f < F; f++) count += counted(f) ? 1 : 0;
    for (let f = 0; f < F; f++) {
      const frame = b * F + f, index = Math.min(999, Math.floor(Math.fround(draw.u[frame] * 1000)));
      const clean = draw.clean[frame] === 1, sigma = clean ? 0 : sigmas[index], keep = Math.fround(1 - sigma);
      timesteps[frame] = clean ? CLEAN_TIMESTEP : steps[index];
      weights[frame] = counted(f) ? 1 / ((count + 1e-9) * B) : 0;
      const given = clean && history?.[b];
      if (given) noisy.set(given.subarray(f * per, (f + 1) * per), frame * per);
      for (let i = frame * per; i < (frame + 1) * per; i++) {
        if (!given) {
          noisy[i] = clean ? latents[i] : Math.fround(sigma * draw.noise[i]) + Math.fround(keep * latents[i]);
        }
        target[i] = draw.noise[i] - latents[i];
      }
    }
  }
  return { noisy, target, timesteps, weights };
}

/** A batch's conditions after dropout. */
export function droppedConditions(
  config: FarConfig,
  batch: TrainBatch,
  draw: NoiseDraw,
): Pick<TrainBatch, "actions" | "label"> {
  if (!config.condition) return {};
  const none = nullCondition(config), type = config.condition.type;
  const values = type === "action" ? batch.actions : batch.label;
  if (!values) throw new RangeError(`training: the model is conditioned on ${type}s, found a batch without`);
  const kept = Int32Array.from({ length: values.length }, (_, i) => draw.dropped[i] ? none : values[i]);
  return type === "action" ? { actions: kept } : { label: kept };
}

/** What {@linkcode flowMatchingLoss} computes on. */
export interface LossInput {
  /** The model. */
  readonly config: FarConfig;
  /** B, F, C, H, W. */
  readonly shape: TrainBatch["shape"];
  /** Noisy latents and what they are compared with. */
  readonly mixed: NoisyBatch;
  /** Conditions after dropout. */
  readonly conditions: Pick<TrainBatch, "actions" | "label">;
  /** Compute blocks again on the way back instead of keeping their activations. */
  readonly checkpoint?: boolean;
  /** Full attention (the Video DiT baseline). */
  readonly full?: boolean;
  /** Sees the predicted velocity `[B, F, C, H, W]`. */
  readonly onPrediction?: (velocity: Tensor) => void;
}

/** Flow-matching loss: each frame's share `[B·F]`, whose sum is the loss (paper, section 3.1). */
export function flowMatchingLoss(params: Params, device: Device, input: LossInput): Tensor {
  const { config, shape, mixed, conditions, checkpoint, full } = input, [B, F] = shape;
  const latents = Tensor.from(device, mixed.noisy, shape);
  const velocity = far(params, config, { latents, timesteps: mixed.timesteps, ...conditions }, "all", {
    checkpoint,
    full,
  });
  input.onPrediction?.(velocity);
  const flat = [B * F, velocity.size / (B * F)];
  const target = Tensor.from(device, mixed.target, flat);
  return frameLoss(velocity.reshape(flat), target, Tensor.from(device, mixed.weights));
}
