/**
 * Training of FAR as an objective, and its validation loss.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { type FarConfig, farShapes } from "../far/config.ts";
import type { Params } from "../params.ts";
import { scope, unscoped } from "../tensor.ts";
import { stepCost } from "./cost.ts";
import {
  farLoss,
  type FarObjectiveConfig,
  type LossInput,
  prepareBatch,
  type TrainBatch,
} from "./far_loss.ts";
import { freshValues } from "./init.ts";
import { lossObjective, type Objective } from "./objective.ts";
import type { BatchSource } from "./source.ts";
import type { TrainerConfig } from "./trainer.ts";

/** Configuration of FAR's training. */
export interface FarTrainingConfig extends TrainerConfig {
  /** The model. */
  readonly model: FarConfig;
  /** Noise, clean context, dropout of conditions. */
  readonly objective: FarObjectiveConfig;
  /** Recompute each block in the backward pass instead of keeping its activations. */
  readonly checkpoint: boolean;
}

/**
 * The flow-matching objective of FAR on the batches of a source.
 *
 * @example
 * ```ts
 * import { farConfig, openDevice, train } from "../../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const model = farConfig("FAR", {
 *   num_layers: 1, num_attention_heads: 1, attention_head_dim: 16, axes_dims_rope: [4, 6, 6], in_channels: 2, out_channels: 2,
 * });
 * const batch = { latents: new Float32Array(2 * 2 * 4).fill(0.5), shape: [1, 2, 2, 2, 2] as const };
 * const config = {
 *   model,
 *   objective: { cleanContextRatio: 0.1, weighting: "logit_normal", trainingType: "base", conditionDropout: 0.1 },
 *   lr: 1e-3, warmup: 0, maxGradNorm: 1, emaDecay: null, accumulate: 1, checkpoint: false, seed: 0, nonFiniteLimit: 3,
 * } as const;
 * const objective = train.farObjective(device, config, { batch: () => Promise.resolve(batch) });
 * const trainer = await train.Trainer.start(device, objective, config);
 * const { loss } = await trainer.step();
 * console.assert(loss > 0 && trainer.state.step === 1);
 * trainer.dispose();
 * device.close();
 * ```
 */
export function farObjective(
  device: Device,
  config: FarTrainingConfig,
  source: BatchSource,
): Objective<LossInput> {
  const { model, checkpoint, objective: { videoDiT } } = config, known = new Map<string, number>();
  return lossObjective({
    shapes: farShapes(model),
    initial: freshValues,
    batch: async (position) => prepareBatch(config, await source.batch(position), position),
    loss: (params, input) => farLoss(params, device, { ...input, checkpoint }),
    flops(shape) {
      const key = shape.join();
      const flops = known.get(key) ?? stepCost(model, shape as TrainBatch["shape"], { full: videoDiT }).flops;
      known.set(key, flops);
      return flops;
    },
  });
}

/** Validation draws noise of its own, the same at every validation. */
export const VALIDATION_SEED = 0x5eed;

/** Mean loss over held-out batches, each with the same noise at every call. */
export async function farValidationLoss(
  device: Device,
  params: Params,
  config: FarTrainingConfig,
  batches: readonly TrainBatch[],
): Promise<number> {
  let sum = 0;
  for (const [i, batch] of batches.entries()) {
    const input = prepareBatch({ ...config, seed: VALIDATION_SEED }, batch, i);
    const loss = unscoped(() => scope(() => farLoss(params, device, input)));
    sum += (await loss.read()).reduce((a, b) => a + b, 0);
    loss.dispose();
  }
  return sum / batches.length;
}
