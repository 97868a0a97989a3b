/**
 * Cost of training steps, counted by running the same code on a device that computes nothing.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { type DryDevice, openDryDevice } from "../../kernels/dry.ts";
import { valueAndGrad } from "../autograd.ts";
import { type FarConfig, farShapes } from "../far/config.ts";
import { nullCondition } from "../far/conditioning.ts";
import { type DcaeConfig, dcaeShapes } from "../dcae/config.ts";
import { discriminatorShapes } from "../dcae/discriminator.ts";
import { perceptualShapes } from "../metrics/perceptual.ts";
import { dtypeOf, type Params, splitBuffers, type WeightStorage } from "../params.ts";
import { disposeAll, scope, type Shape, sizeOf, Tensor, unscoped } from "../tensor.ts";
import { farLoss, type TrainBatch } from "./far_loss.ts";
import { adversarialStep, reconstructionStep, type VaeLossOptions } from "./vae_loss.ts";

/** Parameters without values. */
const emptyParams = (
  device: Device,
  shapes: Readonly<Record<string, Shape>>,
  storage: WeightStorage = {},
): Params =>
  unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, s]) => [name, Tensor.empty(device, s, dtypeOf(name, s, storage))]),
    )
  );

const flopsOf = (device: DryDevice): number => Object.values(device.cost.flops).reduce((a, b) => a + b, 0);

/** Cost of the loss and gradients of one batch; the optimizer adds some ten operations per parameter. */
export interface StepCost {
  /** Floating-point operations, recomputed blocks included. */
  readonly flops: number;
  /** Largest amount of device memory at once, parameters and gradients included. */
  readonly peakBytes: number;
  /** Bytes of the parameters as stored. */
  readonly parameterBytes: number;
  /** Bytes of the peak that are neither parameters nor their gradients. */
  readonly activationBytes: number;
}

/**
 * Counts a step of FAR.
 *
 * @param shape B, F, C, H, W of the batch.
 * @param options `checkpoint`: blocks are recomputed in the backward pass. `full`: full attention (Video DiT). `dtype`: storage
 * of the matrices.
 *
 * @example
 * ```ts
 * import { farConfig } from "../far/config.ts";
 * import { stepCost } from "./cost.ts";
 * const model = farConfig("FAR_B"), shape = [1, 2, 32, 8, 8] as const;
 * const kept = stepCost(model, shape), again = stepCost(model, shape, { checkpoint: true });
 * console.assert(again.flops > kept.flops && again.activationBytes < kept.activationBytes);
 * ```
 */
export function stepCost(
  model: FarConfig,
  shape: TrainBatch["shape"],
  options: WeightStorage & { readonly checkpoint?: boolean; readonly full?: boolean } = {},
): StepCost {
  const device = openDryDevice(), [B, F] = shape, shapes = farShapes(model);
  const params = emptyParams(device, shapes, options);
  const parameterBytes = device.stats.liveBytes;
  // Gradients that exist from the start: otherwise those that come after the peak would count as missing activations.
  const into = emptyParams(device, shapes);
  const gradientBytes = device.stats.liveBytes - parameterBytes;
  const none = nullCondition(model), empty = new Float32Array(sizeOf(shape));
  const input = {
    config: model,
    shape,
    latents: empty,
    draw: {
      noise: empty,
      sigmas: new Float32Array(B * F),
      // Different timesteps, as in training: each one has a row of modulations.
      timesteps: Float32Array.from({ length: B * F }, (_, i) => i),
      weights: new Float32Array(B * F),
    },
    conditions: model.condition?.type === "action"
      ? { actions: new Int32Array(B * F).fill(none) }
      : model.condition
      ? { label: new Int32Array(B).fill(none) }
      : {},
    ...options,
  };
  const { value, grads } = scope(() =>
    valueAndGrad((p: Params) => farLoss(p, device, input), { into })(params)
  );
  disposeAll([value, grads, params]);
  return {
    flops: flopsOf(device),
    peakBytes: device.stats.peakBytes,
    parameterBytes,
    activationBytes: device.stats.peakBytes - parameterBytes - gradientBytes,
  };
}

/**
 * Counts a step of the autoencoder.
 *
 * @param shape B, F, 3, H, W of the batch.
 * @param adversarial Whether the discriminator has started.
 * @returns Floating-point operations of loss and gradients, and the largest amount of device memory at once: weights,
 * gradients and activations, the discriminator and VGG16 included.
 */
export async function vaeStepCost(
  config: WeightStorage & Omit<VaeLossOptions, "config" | "perceptual"> & {
    readonly model: DcaeConfig;
    readonly perceptualWeight: number | null;
  },
  [B, F, C, H, W]: TrainBatch["shape"],
  adversarial: boolean,
): Promise<Pick<StepCost, "flops" | "peakBytes">> {
  const { model, perceptualWeight: weight, discriminatorWeight, checkpoint } = config,
    device = openDryDevice();
  const autoencoder = splitBuffers(emptyParams(device, dcaeShapes(model), config));
  const discriminator = splitBuffers(emptyParams(device, discriminatorShapes(), config));
  const perceptual = weight === null
    ? null
    : { weights: emptyParams(device, perceptualShapes("vgg")), weight };
  const loss: VaeLossOptions = { config: model, perceptual, discriminatorWeight, checkpoint };
  using x = unscoped(() => Tensor.empty(device, [B * F, C, H, W])); // [B·F, 3, H, W]
  await (adversarial
    ? adversarialStep(loss, autoencoder, discriminator, x)
    : reconstructionStep(loss, autoencoder.params, autoencoder.buffers, x));
  return { flops: flopsOf(device), peakBytes: device.stats.peakBytes };
}
