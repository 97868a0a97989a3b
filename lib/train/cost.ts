/**
 * What a training step costs, counted by running the very same code on a device that computes nothing.
 *
 * @module
 */
import { openDryDevice } from "../../kernels/dry.ts";
import { valueAndGrad } from "../autograd.ts";
import { type FarConfig, farShapes } from "../far/config.ts";
import { nullCondition } from "../far/conditioning.ts";
import { dtypeOf, type Params, type WeightStorage } from "../params.ts";
import { disposeAll, scope, sizeOf, Tensor, unscoped } from "../tensor.ts";
import { farLoss, type TrainBatch } from "./objective.ts";

/** Cost of the loss and gradients of one batch; the optimiser's share is some ten operations a parameter. */
export interface StepCost {
  /** Floating-point operations, recomputed blocks included. */
  readonly flops: number;
  /** Largest amount of device memory at once, parameters and gradients included. */
  readonly peakBytes: number;
  /** Parameters, as they are stored. */
  readonly parameterBytes: number;
  /** The part of it that is neither parameters nor their gradients. */
  readonly activationBytes: number;
}

/**
 * Counts a step.
 *
 * @param shape B, F, C, H, W of the batch.
 * @param options `checkpoint`: blocks are computed again on the way back. `full`: full attention (Video DiT). `dtype`: storage
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
  const params: Params = unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, s]) => [name, Tensor.empty(device, s, dtypeOf(name, s, options))]),
    )
  );
  const parameterBytes = device.stats.liveBytes;
  // Gradients that exist from the start: otherwise those that come after the peak would count as missing activations.
  const into = unscoped(() =>
    Object.fromEntries(Object.entries(shapes).map(([name, s]) => [name, Tensor.empty(device, s)]))
  );
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
    flops: Object.values(device.cost.flops).reduce((a, b) => a + b, 0),
    peakBytes: device.stats.peakBytes,
    parameterBytes,
    activationBytes: device.stats.peakBytes - parameterBytes - gradientBytes,
  };
}
