/**
 * Training of the autoencoder as an objective: L1 and LPIPS, from a given step a PatchGAN discriminator against the decoder
 * (the authors' DC-AE trainer); and its validation.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { decode, encode } from "../dcae/autoencoder.ts";
import { type DcaeConfig, dcaeShapes } from "../dcae/config.ts";
import { discriminatorShapes, discriminatorValues } from "../dcae/discriminator.ts";
import { defaultValues, type Params } from "../params.ts";
import { disposeAll, scope, type Shape, Tensor, unscoped } from "../tensor.ts";
import type { AdamWOptions } from "./adamw.ts";
import { vaeStepCost } from "./cost.ts";
import type { TrainBatch } from "./far_loss.ts";
import type { Objective } from "./objective.ts";
import type { BatchSource } from "./source.ts";
import type { TrainerConfig } from "./trainer.ts";
import { adversarialStep, reconstructionStep, reconstructionTerms, type VaeLossOptions } from "./vae_loss.ts";

/** Configuration of the autoencoder's training. */
export interface VaeTrainingConfig extends TrainerConfig {
  /** The autoencoder. */
  readonly model: DcaeConfig;
  /** Optimizer of the discriminator. */
  readonly discriminator: AdamWOptions & { readonly lr: number };
  /** Factor of LPIPS; null trains without it. */
  readonly perceptualWeight: number | null;
  /** Factor of the adversarial loss, before the adaptive weight. */
  readonly discriminatorWeight: number;
  /** First step with the discriminator; the encoder is frozen from then on. */
  readonly discriminatorStart: number;
  /** Recompute each block in the backward pass instead of keeping its activations. */
  readonly checkpoint: boolean;
}

/**
 * The loss that a configuration describes.
 *
 * @param perceptual Weights of VGG16 and its heads, from `loadPerceptual`; null where the configuration has no LPIPS.
 * @throws {Error} If the configuration has LPIPS and there are no weights.
 */
export function vaeLossOptions(
  { model, perceptualWeight, discriminatorWeight, checkpoint }: VaeTrainingConfig,
  perceptual: Params | null,
): VaeLossOptions {
  if (perceptualWeight !== null && !perceptual) {
    throw new Error(
      "vaeObjective: perceptualWeight is set and the weights of VGG16 are missing: give them, or set it to null",
    );
  }
  return {
    config: model,
    perceptual: perceptual && perceptualWeight !== null
      ? { weights: perceptual, weight: perceptualWeight }
      : null,
    discriminatorWeight,
    checkpoint,
  };
}

/**
 * The objective of the autoencoder: networks `model` and `discriminator`.
 *
 * @param source Frames in [-1, 1] as `latents` of its batches, `[B, F, 3, H, W]`.
 * @param perceptual Weights of VGG16 and its heads, from `loadPerceptual`, which the objective owns from now on. Null where
 * the configuration has no LPIPS.
 * @throws {Error} If the configuration has LPIPS and there are no weights.
 */
export function vaeObjective(
  device: Device,
  config: VaeTrainingConfig,
  source: BatchSource,
  perceptual: Params | null,
): Objective<TrainBatch> {
  const loss = vaeLossOptions(config, perceptual), known = new Map<string, number>();
  const isAdversarial = (step: number) => step >= config.discriminatorStart;
  return {
    networks: {
      model: { shapes: dcaeShapes(config.model), initial: defaultValues },
      discriminator: {
        shapes: discriminatorShapes(),
        initial: discriminatorValues,
        optimizer: config.discriminator,
      },
    },
    batch: (position) => source.batch(position),
    async gradients({ model, discriminator }, { latents, shape: [B, F, C, H, W] }, { step, scale, into }) {
      using x = unscoped(() => Tensor.from(device, latents, [B * F, C, H, W])); // [B·F, 3, H, W]
      const sums = { scale, into: into && { grads: into.model, discriminator: into.discriminator } };
      const { losses, grads, running, discriminator: judged } = isAdversarial(step)
        ? await adversarialStep(loss, model, discriminator, x, sums)
        : await reconstructionStep(loss, model.params, model.buffers, x, sums);
      return {
        loss: losses.reconstruction + (config.perceptualWeight ?? 0) * losses.perceptual + losses.generator,
        terms: losses,
        grads: { model: grads, ...(judged ? { discriminator: judged.grads } : {}) },
        buffers: { model: running, ...(judged ? { discriminator: judged.running } : {}) },
      };
    },
    async flops(shape, step) {
      const adversarial = isAdversarial(step), key = `${shape} ${adversarial}`;
      const counted = known.get(key) ??
        (await vaeStepCost({ ...config, checkpoint: false }, shape as TrainBatch["shape"], adversarial))
          .flops;
      known.set(key, counted);
      return counted;
    },
    dispose: () => disposeAll(perceptual),
  };
}

/** Largest device memory of a step in bytes, over all stages of a run of so many steps. */
export async function vaePeakBytes(
  config: VaeTrainingConfig,
  shape: TrainBatch["shape"],
  steps: number,
): Promise<number> {
  const stages = [
    ...(config.discriminatorStart > 0 ? [false] : []),
    ...(config.discriminatorStart < steps ? [true] : []),
  ];
  const costs = await Promise.all(stages.map((adversarial) => vaeStepCost(config, shape, adversarial)));
  return Math.max(...costs.map((cost) => cost.peakBytes));
}

/** A batch of frames with their reconstructions, in [-1, 1]. */
export interface Reconstruction {
  /** `[B·F, 3, H, W]`. */
  readonly frames: Float32Array;
  /** The same frames, encoded and decoded. */
  readonly decoded: Float32Array;
  /** B·F, 3, H, W. */
  readonly shape: Shape;
  /** L1 plus weighted LPIPS. */
  readonly loss: number;
}

/** Encodes and decodes a batch in evaluation mode, and measures the loss without its adversarial term. */
export async function reconstruct(
  device: Device,
  params: Params,
  loss: VaeLossOptions,
  { latents, shape: [B, F, C, H, W] }: TrainBatch,
): Promise<Reconstruction> {
  const shape = [B * F, C, H, W];
  const [y, terms] = unscoped(() =>
    scope(() => {
      const x = Tensor.from(device, latents, shape); // [B·F, 3, H, W]
      const y = decode(params, loss.config, encode(params, loss.config, x));
      return [y, reconstructionTerms(loss, y, x)];
    })
  );
  const sum = (await terms.read()).reduce((a, b) => a + b, 0), decoded = await y.read();
  disposeAll([y, terms]);
  return { frames: latents, decoded, shape, loss: sum };
}

/** Mean loss of held-out batches in evaluation mode, without its adversarial term. */
export async function vaeValidationLoss(
  device: Device,
  params: Params,
  loss: VaeLossOptions,
  batches: readonly TrainBatch[],
): Promise<number> {
  let mean = 0;
  for (const batch of batches) mean += (await reconstruct(device, params, loss, batch)).loss / batches.length;
  return mean;
}
