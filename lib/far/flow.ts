/**
 * Flow matching: noise levels of Euler sampling and of training, what is random about a training step, and the loss
 * (paper, section 3.1). Nothing here knows the model: a velocity is any function of noisy latents and timesteps.
 *
 * x_σ = (1 - σ) x + σ ε goes from the latents x at σ = 0 to noise ε at σ = 1, so its velocity is ε - x.
 *
 * @module
 */
import { add, axpby, copyStrided, frameLoss, mul } from "../ops.ts";
import { type Key, normal, streamOf, uniform } from "../random.ts";
import { scope, type Shape, sizeOf, Tensor } from "../tensor.ts";
import { CLEAN_TIMESTEP } from "./conditioning.ts";

const TRAIN_STEPS = 1000;

/** Noise levels and timesteps of one sampling run. */
export interface Schedule {
  /** `[K]` timesteps given to the model, f32(sigma · 1000). */
  readonly timesteps: Float32Array;
  /** `[K + 1]` noise levels; the last is 0. The one before is 0.001, not 1/K. */
  readonly sigmas: Float32Array;
}

/**
 * Noise levels of K Euler steps: 1000 … 1 in equal steps, divided by 1000, then 0.
 *
 * @throws {RangeError} If K is not a positive integer.
 */
export function eulerSchedule(steps: number): Schedule {
  if (!Number.isInteger(steps) || steps < 1) {
    throw new RangeError(`eulerSchedule: steps is ${steps}, expected a positive integer`);
  }
  const sigmas = new Float32Array(steps + 1);
  const step = steps === 1 ? 0 : (1 - TRAIN_STEPS) / (steps - 1);
  for (let i = 0; i < steps; i++) {
    const t = i === steps - 1 && steps > 1 ? 1 : TRAIN_STEPS + i * step;
    sigmas[i] = t / TRAIN_STEPS;
  }
  const timesteps = Float32Array.from(sigmas.subarray(0, steps), (s) => Math.fround(s * TRAIN_STEPS));
  return { timesteps, sigmas };
}

/** The step of x at Euler step i: Δσ = σ(i+1) - σ(i), in f32. x ← x + Δσ·v. */
export function eulerDelta(schedule: Schedule, i: number): number {
  return Math.fround(schedule.sigmas[i + 1] - schedule.sigmas[i]);
}

/**
 * An Euler step as weights of x and of the model's output. A velocity v: x ← x + Δσ v. Clean latents x̂, of which
 * v = (x - x̂)/σ: x ← (1 + Δσ/σ) x - Δσ/σ x̂; the last step, down to σ = 0, gives x̂ itself.
 *
 * @param prediction What the model's outputs are.
 */
export function eulerWeights(
  schedule: Schedule,
  i: number,
  prediction: "velocity" | "latents",
): readonly [x: number, output: number] {
  const delta = eulerDelta(schedule, i);
  if (prediction === "velocity") return [1, delta];
  const share = Math.fround(delta / schedule.sigmas[i]);
  return [1 + share, -share];
}

/** Training timesteps `[1000]`, index 0 the noisiest: f32(f32((1000 - i)/1000) · 1000). */
export function trainTimesteps(): Float32Array {
  return trainSigmas().map((s) => Math.fround(s * TRAIN_STEPS));
}

/** Training noise levels `[1000]`: f32((1000 - i)/1000). */
export function trainSigmas(): Float32Array {
  return Float32Array.from({ length: TRAIN_STEPS }, (_, i) => (TRAIN_STEPS - i) / TRAIN_STEPS);
}

/** Options of {@linkcode drawNoise}. */
export interface NoiseOptions {
  /** Density of the noise levels. Default `logit_normal`: the sigmoid of a standard normal number. */
  readonly weighting?: "logit_normal" | "uniform";
  /** Share of frames that are clean context (stochastic clean context; paper, section 3.2). Default 0.1, the paper's. */
  readonly cleanContextRatio?: number;
  /** Frames at the start of each clip that are always clean: long-term context (paper, section 3.3). Default 0. */
  readonly longTerm?: number;
  /** Frames at the end of each clip that the loss looks at. Default all. */
  readonly shortTerm?: number;
  /** Share of the levels that are the noisiest one, σ = 1, where sampling begins. Default 0, the paper's. */
  readonly pureNoiseRatio?: number;
  /** One noise level for all frames of a clip (the Video DiT baseline). Default false. */
  readonly levelPerClip?: boolean;
  /** `[B]` Clips whose clean frames are the first ones, at least one frame being noisy, as when a clip is predicted. */
  readonly cleanFirst?: readonly boolean[];
}

/** Random draws of a training step. */
export interface NoiseDraw {
  /** `[B, F, C, H, W]` standard normal; zero for long-term frames, which are always clean. */
  readonly noise: Float32Array;
  /** `[B, F]` noise levels σ; 0 for clean frames. */
  readonly sigmas: Float32Array;
  /** `[B, F]` timesteps, 1000 σ; -1 for clean frames. */
  readonly timesteps: Float32Array;
  /** `[B, F]` weight of each frame's mean squared error in the loss; 0 for clean frames. */
  readonly weights: Float32Array;
}

/**
 * Draws noise, noise levels and clean frames of a batch (paper, sections 3.1 to 3.3).
 *
 * Everything is a function of the key, made on the host: the same bits on every device.
 *
 * @param shape `[B, F, C, H, W]` of the latents.
 * @param key From `streamOf`.
 *
 * @example
 * ```ts
 * import { drawNoise, streamOf } from "../../mod.ts";
 * const { sigmas, timesteps } = drawNoise([2, 8, 4, 4, 4], streamOf(0, "step 0"), { cleanContextRatio: 0.5 });
 * console.assert(timesteps.every((t, i) => t === -1 ? sigmas[i] === 0 : sigmas[i] > 0));
 * ```
 */
export function drawNoise(shape: Shape, key: Key, options: NoiseOptions = {}): NoiseDraw {
  const { weighting = "logit_normal", cleanContextRatio = 0.1, longTerm = 0, levelPerClip = false } = options;
  const [B, F] = shape, frames = B * F, count = sizeOf(shape), per = count / frames;
  const levels = levelPerClip ? B : frames, density = streamOf(key, "density");
  const drawn = weighting === "uniform"
    ? Float32Array.from(uniform(density, levels))
    : normal(density, levels).map((n) => 1 / (1 + Math.exp(-n)));
  const { pureNoiseRatio: pure = 0 } = options;
  if (pure > 0) uniform(streamOf(key, "pure noise"), levels).forEach((c, i) => c < pure && (drawn[i] = 0));
  const u = Float32Array.from({ length: frames }, (_, i) => drawn[levelPerClip ? Math.floor(i / F) : i]);

  const chance = uniform(streamOf(key, "clean context"), frames);
  const clean = Uint8Array.from(chance, (c, i) => i % F < longTerm || c < cleanContextRatio ? 1 : 0);
  options.cleanFirst?.forEach((first, b) => {
    if (!first) return;
    const noisy = longTerm + Math.floor(chance[b * F] * (F - longTerm)); // at least the last frame is noisy
    clean.fill(1, b * F, b * F + noisy).fill(0, b * F + noisy, (b + 1) * F);
  });

  // Long-term frames are clean: their noise would be most of what a long step draws, for nothing.
  const noise = new Float32Array(count), stream = streamOf(key, "noise");
  for (let b = 0; b < B; b++) {
    const from = (b * F + longTerm) * per;
    noise.set(normal(stream, (F - longTerm) * per, from), from);
  }
  return noiseDraw(shape, { noise, u, clean }, options.shortTerm);
}

/**
 * A draw from given numbers: u in [0, 1) is index floor(1000 u) of the training levels, 0 the noisiest. A clip's noisy
 * frames have the same weight in the loss; a clip without one contributes nothing but still counts, as in the authors' code.
 *
 * @param given `noise` `[B, F, C, H, W]`; `u` `[B, F]`; `clean` `[B, F]`, 1 for clean frames.
 * @param shortTerm Frames at the end of each clip that the loss looks at. Default all.
 */
export function noiseDraw(
  [B, F]: Shape,
  given: { readonly noise: Float32Array; readonly u: Float32Array; readonly clean: ArrayLike<number> },
  shortTerm: number = F,
): NoiseDraw {
  const { noise, u, clean } = given, levels = trainSigmas(), steps = trainTimesteps();
  const sigmas = new Float32Array(B * F),
    timesteps = new Float32Array(B * F),
    weights = new Float32Array(B * F);
  for (let b = 0; b < B; b++) {
    const counts = (f: number) => f >= F - shortTerm && !clean[b * F + f];
    let noisy = 0;
    for (let f = 0; f < F; f++) noisy += counts(f) ? 1 : 0;
    for (let f = 0; f < F; f++) {
      const i = b * F + f, index = Math.min(TRAIN_STEPS - 1, Math.floor(Math.fround(u[i] * TRAIN_STEPS)));
      sigmas[i] = clean[i] ? 0 : levels[index];
      timesteps[i] = clean[i] ? CLEAN_TIMESTEP : steps[index];
      weights[i] = counts(f) ? 1 / ((noisy + 1e-9) * B) : 0;
    }
  }
  return { noise, sigmas, timesteps, weights };
}

/** One number per frame for each of its elements: `[B, F]` values to `[B, F, C, H, W]`. */
function perFrame(like: Tensor, values: Float32Array): Tensor {
  const out = Tensor.empty(like.device, like.shape), per = like.size / values.length;
  const sizes = [values.length, per];
  copyStrided(Tensor.from(like.device, values), out, { sizes, from: [1, 0], to: [per, 1] });
  return out;
}

/** The latents with a draw's noise mixed in, x_σ = σ ε + (1 - σ) x; clean frames stay. All are `[B, F, C, H, W]`. */
export function mixNoise(latents: Tensor, draw: NoiseDraw): Tensor {
  // Products and sum are rounded one by one, so that no device fuses them: the same bits everywhere.
  return scope(() => {
    const noise = Tensor.from(latents.device, draw.noise, latents.shape);
    const keep = draw.sigmas.map((s) => 1 - s);
    return add(mul(noise, perFrame(latents, draw.sigmas)), mul(latents, perFrame(latents, keep)));
  });
}

/** The velocity that a model learns to predict: ε - x, `[B, F, C, H, W]`. */
export function velocityTarget(latents: Tensor, draw: NoiseDraw): Tensor {
  return scope(() => axpby(Tensor.from(latents.device, draw.noise, latents.shape), latents, 1, -1));
}

/** A model: noisy latents `[B, F, C, H, W]` and timesteps `[B, F]` to the predicted velocity of every frame. */
export type Velocity = (noisy: Tensor, timesteps: Float32Array) => Tensor;

/**
 * Flow-matching loss of the next-frame objective (paper, section 3.1).
 *
 * Each frame has its own noise level. Clean frames come at timestep -1 and are left out of the mean, so the model learns
 * to use clean history without being asked to predict it.
 *
 * @param velocity The model.
 * @param latents `[B, F, C, H, W]`, scaled as the autoencoder's latents.
 * @param draw From {@linkcode drawNoise}.
 * @returns `[B·F]` each frame's share. Their sum is the loss: the mean over clips of the mean squared error over a clip's
 * noisy frames.
 *
 * @example
 * ```ts
 * import { drawNoise, flowMatchingLoss, openDevice, ops, streamOf, Tensor, valueAndGrad } from "../../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const latents = Tensor.from(device, new Float32Array(64).fill(0.5), [1, 4, 1, 4, 4]);
 * const draw = drawNoise(latents.shape, streamOf(0, "step 0"));
 * // A model of one parameter: the velocity is a multiple of the noisy latents.
 * const { value } = valueAndGrad((p: { w: Tensor }) =>
 *   flowMatchingLoss((noisy) => ops.linear(noisy.reshape([64, 1]), p.w).reshape(noisy.shape), latents, draw)
 * )({ w: Tensor.from(device, Float32Array.of(0.5), [1, 1]) });
 * console.assert((await value.read()).every((share) => share >= 0));
 * device.close();
 * ```
 */
export function flowMatchingLoss(velocity: Velocity, latents: Tensor, draw: NoiseDraw): Tensor {
  const prediction = velocity(mixNoise(latents, draw), draw.timesteps); // [B, F, C, H, W]
  return squaredError(prediction, velocityTarget(latents, draw), draw);
}

/**
 * The loss of a model that predicts the clean latents: as {@linkcode flowMatchingLoss}, of which it is σ² times the share of
 * each frame.
 *
 * @param predicted The model: noisy latents `[B, F, C, H, W]` and timesteps `[B, F]` to the clean latents of every frame.
 * @param latents `[B, F, C, H, W]`.
 * @param draw From {@linkcode drawNoise}.
 * @returns `[B·F]` each frame's share, whose sum is the loss.
 */
export function latentLoss(predicted: Velocity, latents: Tensor, draw: NoiseDraw): Tensor {
  return squaredError(predicted(mixNoise(latents, draw), draw.timesteps), latents, draw);
}

/** Each frame's share of the loss, `[B·F]`. */
function squaredError(prediction: Tensor, target: Tensor, { weights }: NoiseDraw): Tensor {
  const frames = weights.length, flat = [frames, target.size / frames];
  return frameLoss(prediction.reshape(flat), target.reshape(flat), Tensor.from(target.device, weights)); // [B·F]
}
