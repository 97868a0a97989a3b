/**
 * The training loop: draw, loss, gradients, clipping, AdamW, EMA. One wait for the device per step.
 *
 * All randomness is a function of the seed and the number of the batch, so a run that stops and resumes computes the
 * same bits as one that did not stop.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { LARGEST_HALF } from "../../kernels/half.ts";
import { valueAndGrad } from "../autograd.ts";
import type { FarConfig } from "../far/config.ts";
import { concat } from "../ops.ts";
import type { Params, WeightStorage } from "../params.ts";
import { disposeAll, scope, type Tensor, unscoped } from "../tensor.ts";
import { AdamW, type AdamWOptions, clipFactor, Ema, normsOf, squareSums } from "./adamw.ts";
import { Ahead, tick } from "./ahead.ts";
import { storeWeights } from "./half.ts";
import { farLoss, type LossInput, type ObjectiveConfig, prepareBatch, type TrainBatch } from "./objective.ts";
import { rateFactor, type RateSchedule } from "./rate.ts";

/** Source of batches. Batch number `position` is always the same one, so only a position is saved. */
export interface BatchSource {
  /** The batch at a position, 0 first. Called once ahead of the device's work. */
  batch(position: number): Promise<TrainBatch>;
}

/** Configuration of a training run. */
export interface TrainerConfig extends AdamWOptions, WeightStorage, RateSchedule {
  /** The model. */
  readonly model: FarConfig;
  /** Noise, clean context, dropout. */
  readonly objective: ObjectiveConfig;
  /** Learning rate after the warm-up, before it falls. */
  readonly lr: number;
  /** Gradients are scaled down to this L2 norm; null leaves them alone. */
  readonly maxGradNorm: number | null;
  /** Decay of the averaged weights; null keeps none. */
  readonly emaDecay: number | null;
  /** Batches per step: their mean loss is differentiated. */
  readonly accumulate: number;
  /** Recompute each block in the backward pass instead of keeping its activations. */
  readonly checkpoint: boolean;
  /** Seed of everything random. */
  readonly seed: number;
  /** The run stops after this many consecutive steps whose loss or gradient is not finite. */
  readonly nonFiniteLimit: number;
}

/** Report of a training step. */
export interface StepReport {
  /** Number of the step, 0 first. */
  readonly step: number;
  /** Mean loss of its batches. */
  readonly loss: number;
  /** Terms of the loss by name, where there are several. */
  readonly terms?: Readonly<Record<string, number>>;
  /** L2 norm of all gradients before clipping. */
  readonly gradientNorm: number;
  /** Learning rate that was used. */
  readonly lr: number;
  /** Clips and frames of its batches, all of them together. */
  readonly clips: number;
  /** See `clips`. */
  readonly frames: number;
  /** Shape of each batch. */
  readonly shapes: readonly TrainBatch["shape"][];
  /** Why the step changed nothing: what was not finite. */
  readonly skipped?: string;
}

/** Too many consecutive losses or gradients were not finite, or a weight exceeded the range of its storage type. */
export class DivergedError extends Error {
  /** For `catch`. */
  override readonly name = "DivergedError";
}

/** State of a run between two steps besides its tensors. */
export interface TrainerState {
  /** Steps done, skipped ones included. */
  readonly step: number;
  /** Updates of the optimiser. */
  readonly updates: number;
  /** Consecutive skipped steps. */
  readonly skippedInRow: number;
  /** Updates of the discriminator, in the autoencoder's training. */
  readonly criticUpdates?: number;
}

/** Saved tensors to resume from. */
export interface SavedTensors {
  /** First moments. */
  readonly m: Record<string, Float32Array>;
  /** Second moments. */
  readonly v: Record<string, Float32Array>;
  /** Averaged weights. */
  readonly ema?: Record<string, Float32Array>;
}

/**
 * Trains a model.
 *
 * @example
 * ```ts
 * import { farConfig, farShapes, openDevice, train } from "../../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const model = farConfig("FAR", {
 *   num_layers: 1, num_attention_heads: 1, attention_head_dim: 16, axes_dims_rope: [4, 6, 6], in_channels: 2, out_channels: 2,
 * });
 * const batch = { latents: new Float32Array(2 * 2 * 4).fill(0.5), shape: [1, 2, 2, 2, 2] as const };
 * const trainer = await train.Trainer.start(device, train.initialParams(device, farShapes(model), 0).params, {
 *   model,
 *   objective: { cleanContextRatio: 0.1, weighting: "logit_normal", trainingType: "base", conditionDropout: 0.1 },
 *   lr: 1e-3, warmup: 0, maxGradNorm: 1, emaDecay: null, accumulate: 1, checkpoint: false, seed: 0, nonFiniteLimit: 3,
 * }, { batch: () => Promise.resolve(batch) });
 * const { loss } = await trainer.step();
 * console.assert(loss > 0 && trainer.state.step === 1);
 * trainer.dispose();
 * device.close();
 * ```
 */
export class Trainer {
  /** Where it trains. */
  readonly device: Device;
  /** How. */
  readonly config: TrainerConfig;
  /** The weights as they are computed with, updated in place. */
  readonly params: Params;
  /** First and second moments. */
  readonly optimizer: AdamW;
  /** Averaged weights, if any. */
  readonly ema: Ema | null;
  readonly #batches: Ahead<LossInput>;
  #step: number;
  #skippedInRow: number;

  private constructor(
    device: Device,
    params: Params,
    config: TrainerConfig,
    source: BatchSource,
    optimizer: AdamW,
    ema: Ema | null,
    state: TrainerState,
  ) {
    this.device = device;
    this.params = params;
    this.config = config;
    this.#batches = new Ahead(async (position) =>
      prepareBatch(config, await source.batch(position), position)
    );
    this.optimizer = optimizer;
    this.ema = ema;
    this.#step = state.step;
    this.#skippedInRow = state.skippedInRow;
  }

  /**
   * Starts a run, or resumes a saved one.
   *
   * @param weights The weights, f32; the trainer owns them from now on.
   * @param saved State and tensors of a checkpoint of the same run.
   * @throws {RangeError} If matrices are to be stored as f16, which holds at most 65504, and one of them holds more.
   */
  static async start(
    device: Device,
    weights: Params,
    config: TrainerConfig,
    source: BatchSource,
    saved?: { readonly state: TrainerState; readonly tensors: SavedTensors },
  ): Promise<Trainer> {
    const state = saved?.state ?? { step: 0, updates: 0, skippedInRow: 0 };
    const { params, masters } = await storeWeights(weights, config);
    const optimizer = new AdamW(
      params,
      config,
      saved && { steps: state.updates, ...saved.tensors },
      masters,
    );
    const ema = config.emaDecay === null
      ? null
      : await Ema.start(params, config.emaDecay, saved?.tensors.ema, optimizer);
    return new Trainer(device, params, config, source, optimizer, ema, state);
  }

  /** State to save beside the tensors. */
  get state(): TrainerState {
    return { step: this.#step, updates: this.optimizer.steps, skippedInRow: this.#skippedInRow };
  }

  /** Learning rate of the next step. */
  get lr(): number {
    return this.config.lr * rateFactor(this.#step, this.config);
  }

  /**
   * One step. When the loss or a gradient is not finite, nothing is changed and the report says what it was.
   *
   * @throws {DivergedError} After `nonFiniteLimit` such steps in a row: what was not finite. When a weight that is stored as
   * f16 has outgrown it: which.
   */
  async step(): Promise<StepReport> {
    const { config, device, optimizer } = this, { accumulate } = config, lr = this.lr;
    const losses: Tensor[] = [], shapes: TrainBatch["shape"][] = [];
    let grads: Params | undefined;
    for (let i = 0; i < accumulate; i++) {
      const position = this.#step * accumulate + i,
        input = await this.#batches.take(position, i < accumulate - 1);
      const { value, grads: sum } = unscoped(() =>
        valueAndGrad(
          (p: Params) => farLoss(p, device, { ...input, checkpoint: config.checkpoint }),
          { scale: 1 / accumulate, into: grads },
        )(this.params)
      );
      grads = sum;
      losses.push(value);
      shapes.push(input.shape);
      // The cpu device computes in this thread: let timers, signals and other work in.
      if (device.info.name === "cpu") await tick();
    }
    const sums = unscoped(() => squareSums(grads!));
    const sizes = optimizer.sizes ? [optimizer.sizes] : [];
    const all = unscoped(() => scope(() => concat([...losses, sums.partial, ...sizes], 0)));
    device.flush();
    this.#batches.start((this.#step + 1) * accumulate);
    const values = await all.read();
    const count = losses.reduce((n, t) => n + t.size, 0);
    const loss = values.subarray(0, count).reduce((a, b) => a + b, 0) / accumulate;
    const norms = normsOf(sums, values.subarray(count));
    const gradientNorm = Math.hypot(...norms.values());
    const beyond = optimizer.beyondHalf(values.subarray(count + sums.partial.size));
    disposeAll([losses, sums.partial, all, ...(beyond ? [grads] : [])]);
    stopBeyondHalf(this.#step, beyond);

    const skipped = notFinite(loss, norms);
    if (skipped === undefined) {
      const scale = config.maxGradNorm === null ? 1 : clipFactor(gradientNorm, config.maxGradNorm);
      await optimizer.step(this.params, grads!, lr, scale);
      await this.ema?.update(this.params, optimizer);
    }
    disposeAll(grads);
    if (device.info.name === "cpu") await tick();
    this.#skippedInRow = skipped === undefined ? 0 : this.#skippedInRow + 1;
    const step = this.#step++;
    stopWhenDiverged(step, skipped, this.#skippedInRow, config.nonFiniteLimit);
    const clips = shapes.reduce((n, [B]) => n + B, 0), frames = shapes.reduce((n, [B, F]) => n + B * F, 0);
    return { step, loss, gradientNorm, lr, clips, frames, shapes, ...(skipped ? { skipped } : {}) };
  }

  /** Gives all tensors back, the weights too. */
  dispose(): void {
    this.optimizer.dispose();
    this.ema?.dispose();
    disposeAll(this.params);
  }
}

/** Stops a run after too many consecutive skipped steps. */
export function stopWhenDiverged(
  step: number,
  skipped: string | undefined,
  inRow: number,
  limit: number,
): void {
  if (inRow < limit) return;
  throw new DivergedError(
    `training: ${skipped} at step ${step}, the ${inRow}th step in a row that was not finite: ` +
      "lower the learning rate, or go back to a checkpoint",
  );
}

/** Stops a run before a step when a weight has outgrown f16, in which it is stored. */
export function stopBeyondHalf(step: number, beyond: string | undefined): void {
  if (beyond === undefined) return;
  throw new DivergedError(
    `training: ${beyond} before step ${step}, expected at most ${LARGEST_HALF} for weights stored as f16: lower the ` +
      "learning rate, or continue with mixed_precision no",
  );
}

/** Names of what is not finite. */
export function notFinite(loss: number, norms: ReadonlyMap<string, number>): string | undefined {
  const bad = [...norms].filter(([, norm]) => !Number.isFinite(norm)).map(([name]) => name);
  const more = bad.length > 3 ? ` and ${bad.length - 3} more` : "";
  if (!Number.isFinite(loss)) {
    return `the loss is ${loss}${
      bad.length > 0 ? ` (gradients of ${bad.slice(0, 3).join(", ")}${more} too)` : ""
    }`;
  }
  return bad.length > 0 ? `the gradient of ${bad.slice(0, 3).join(", ")}${more} is not finite` : undefined;
}
