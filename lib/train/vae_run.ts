/**
 * A whole training run of the autoencoder, in a folder (see loop.ts), and what its steps cost.
 *
 * @module
 */
import { openDryDevice } from "../../kernels/dry.ts";
import type { Device } from "../../kernels/device.ts";
import { decode, encode } from "../dcae/autoencoder.ts";
import { dcaeShapes } from "../dcae/config.ts";
import { discriminatorShapes } from "../dcae/discriminator.ts";
import type { FileTensor } from "../io/tensor_file.ts";
import { perceptualShapes } from "../metrics/perceptual.ts";
import { defaultValues, dtypeOf, type Params, splitBuffers, type WeightStorage } from "../params.ts";
import { disposeAll, scope, type Shape, Tensor, unscoped } from "../tensor.ts";
import type { SavedState } from "./checkpoint.ts";
import { initialParams, type InitMatch } from "./init.ts";
import { type LoopOptions, type Measured, type Picture, type RunEnd, runLoop } from "./loop.ts";
import type { TrainBatch } from "./objective.ts";
import type { BatchSource, StepReport } from "./trainer.ts";
import { adversarialStep, reconstructionStep, reconstructionTerms, type VaeObjective } from "./vae_loss.ts";
import { placed, readVae, VaeTrainer, type VaeTrainerConfig } from "./vae_trainer.ts";

/** Validation on frames that are not trained on, in evaluation mode. */
export interface VaeValidation {
  /** Steps between two validations. */
  readonly every: number;
  /** Held-out batches. */
  readonly batches: readonly TrainBatch[];
  /** Shows frames of the first batch and what became of them, `[N, 3, H, W]` in [-1, 1]; pictures come back by tag. */
  readonly show?: (
    frames: Float32Array,
    decoded: Float32Array,
    shape: Shape,
    step: number,
  ) => Promise<Readonly<Record<string, Picture>>>;
}

/** A run of the autoencoder. */
export interface VaeRunOptions extends LoopOptions {
  /** Configuration of the training. */
  readonly config: VaeTrainerConfig;
  /** Frames in [-1, 1] as `latents` of its batches, `[B, F, 3, H, W]`. */
  readonly source: BatchSource;
  /** Weights of VGG16 and its heads; the run owns them. Null where the configuration has no perceptual weight. */
  readonly perceptual: Params | null;
  /** Held-out frames. */
  readonly validation?: VaeValidation;
  /** Tensors to start a new run from. */
  readonly init?: ReadonlyMap<string, FileTensor>;
}

async function startVae(
  o: VaeRunOptions,
  from: SavedState | null,
): Promise<{ trainer: VaeTrainer; match?: InitMatch }> {
  const { device, config, source, perceptual } = o, shapes = dcaeShapes(config.model);
  if (from) {
    const saved = readVae(from, config.model, config.emaDecay !== null);
    const params = placed(device, shapes, saved.params);
    return { trainer: await VaeTrainer.start(device, params, perceptual, config, source, saved) };
  }
  const { params, match } = initialParams(device, shapes, config.seed, o.init, defaultValues);
  const trainer = await VaeTrainer.start(device, params, perceptual, config, source);
  return { trainer, ...(o.init ? { match } : {}) };
}

/**
 * Trains the autoencoder as {@linkcode runLoop} says.
 *
 * @throws {DivergedError} If too many steps in a row were not finite; the last checkpoint is untouched then.
 * @throws {FileFormatError} If the last checkpoint is damaged, or belongs to another run.
 */
export async function trainVaeRun(o: VaeRunOptions): Promise<RunEnd> {
  const { validation, config } = o, costs = new Map<string, number>();
  for (const adversarial of [false, true]) {
    const { shape } = await o.source.batch(0);
    const { flops } = await vaeStepCost({ ...config, checkpoint: false }, shape, adversarial);
    costs.set(`${adversarial}`, flops / (shape[0] * shape[1])); // a frame
  }
  return await runLoop(o, {
    config,
    open: (saved) => startVae(o, saved),
    save: (trainer, checkpoints, options) => trainer.save(checkpoints, options),
    flopsOf: ({ step, frames }: StepReport) => frames * costs.get(`${step >= config.discriminatorStart}`)!,
    ...(validation
      ? {
        validation: {
          every: validation.every,
          measure: (trainer: VaeTrainer, step: number) => measure(o, validation, trainer, step),
        },
      }
      : {}),
  });
}

/** Mean loss of held-out batches in evaluation mode; the frames of the first one are handed to `see`. */
async function validationLoss(
  device: Device,
  params: Params,
  objective: VaeObjective,
  batches: readonly TrainBatch[],
  see?: (frames: Float32Array, decoded: Float32Array, shape: Shape) => Promise<void>,
): Promise<number> {
  let loss = 0;
  for (const [i, { latents, shape: [B, F, C, H, W] }] of batches.entries()) {
    const shape = [B * F, C, H, W];
    const [y, terms] = unscoped(() =>
      scope(() => {
        const x = Tensor.from(device, latents, shape);
        const y = decode(params, objective.config, encode(params, objective.config, x));
        return [y, reconstructionTerms(objective, y, x)];
      })
    );
    loss += (await terms.read()).reduce((a, b) => a + b, 0) / batches.length;
    if (i === 0) await see?.(latents, await y.read(), shape);
    disposeAll([y, terms]);
  }
  return loss;
}

async function measure(
  { device }: VaeRunOptions,
  { batches, show }: VaeValidation,
  trainer: VaeTrainer,
  step: number,
): Promise<Measured> {
  if (batches.length === 0) return { losses: {} };
  const objective = trainer.objective, averaged = await trainer.ema?.params();
  const losses: Record<string, number> = {};
  let pictures: Readonly<Record<string, Picture>> = {};
  const see = async (x: Float32Array, y: Float32Array, shape: Shape) => {
    pictures = await show?.(x, y, shape, step) ?? {};
  };
  try {
    const own = averaged ? undefined : see;
    losses.validation_loss = await validationLoss(device, trainer.params, objective, batches, own);
    if (averaged) {
      const params = { ...trainer.params, ...averaged };
      losses.validation_loss_ema = await validationLoss(device, params, objective, batches, see);
    }
    return { losses, pictures };
  } finally {
    disposeAll(averaged);
  }
}

/**
 * Counts a step on a device that computes nothing.
 *
 * @param shape B, F, 3, H, W of the batch.
 * @param adversarial A step with the discriminator.
 * @returns Floating-point operations of loss and gradients, and the largest amount of device memory at once: weights, gradients and
 * activations, the networks that judge included.
 */
export async function vaeStepCost(
  config: VaeTrainerConfig,
  [B, F, C, H, W]: TrainBatch["shape"],
  adversarial: boolean,
): Promise<{ readonly flops: number; readonly peakBytes: number }> {
  const device = openDryDevice();
  const empty = (shapes: Readonly<Record<string, Shape>>, storage: WeightStorage = {}) =>
    unscoped(() =>
      Object.fromEntries(
        Object.entries(shapes).map(([name, s]) => [name, Tensor.empty(device, s, dtypeOf(name, s, storage))]),
      )
    );
  const autoencoder = splitBuffers(empty(dcaeShapes(config.model), config));
  const critic = splitBuffers(empty(discriminatorShapes(), config));
  const objective: VaeObjective = {
    config: config.model,
    perceptual: config.perceptualWeight === null
      ? null
      : { weights: empty(perceptualShapes("vgg")), weight: config.perceptualWeight },
    discriminatorWeight: config.discriminatorWeight,
    checkpoint: config.checkpoint,
  };
  using x = unscoped(() => Tensor.empty(device, [B * F, C, H, W]));
  await (adversarial
    ? adversarialStep(objective, autoencoder, critic, x)
    : reconstructionStep(objective, autoencoder.params, autoencoder.buffers, x));
  return {
    flops: Object.values(device.cost.flops).reduce((a, b) => a + b, 0),
    peakBytes: device.stats.peakBytes,
  };
}
