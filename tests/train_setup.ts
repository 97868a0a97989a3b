/**
 * What tests of training share: tiny models, made-up clips, a trainer in one line.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { type FarConfig, farConfig } from "../lib/far/config.ts";
import { normal, streamOf } from "../lib/random.ts";
import type { LossInput, TrainBatch } from "../lib/train/far_loss.ts";
import { farObjective, type FarTrainingConfig } from "../lib/train/far_objective.ts";
import type { TrainInput } from "../lib/train/objective.ts";
import type { BatchSource } from "../lib/train/source.ts";
import { Trainer, type TrainerStart } from "../lib/train/trainer.ts";

/** Two blocks of 16 channels on 4x4 latents. */
export const TINY = {
  num_layers: 2,
  num_attention_heads: 1,
  attention_head_dim: 16,
  axes_dims_rope: [4, 6, 6],
  in_channels: 2,
  out_channels: 2,
};

/** A trainer's configuration around a model; everything small and on. */
export function tinyConfig(
  model: FarConfig = farConfig("FAR", TINY),
  more: Partial<FarTrainingConfig> = {},
): FarTrainingConfig {
  return {
    model,
    objective: {
      cleanContextRatio: 0.1,
      weighting: "logit_normal",
      trainingType: "base",
      conditionDropout: 0.1,
    },
    lr: 1e-2,
    warmup: 2,
    maxGradNorm: 1,
    emaDecay: 0.9,
    accumulate: 1,
    checkpoint: false,
    seed: 3,
    nonFiniteLimit: 3,
    ...more,
  };
}

/** Different clips at every position, with an action per frame. */
export function madeUp(config: FarConfig, shape: TrainBatch["shape"]): BatchSource {
  return {
    batch(position) {
      const key = streamOf(11, `made-up batch ${position}`), [B, F] = shape;
      const classes = config.condition?.classes ?? 1;
      return Promise.resolve({
        latents: normal(key, shape.reduce((a, b) => a * b, 1)),
        shape,
        actions: Int32Array.from({ length: B * F }, (_, i) => (position + i) % classes),
        label: Int32Array.from({ length: B }, (_, i) => (position + i) % classes),
      });
    },
  };
}

/** A trainer of FAR, from fresh weights unless others are given. */
export async function tinyTrainer(
  device: Device,
  config: FarTrainingConfig,
  source: BatchSource,
  from: TrainerStart = {},
): Promise<Trainer<LossInput>> {
  return await Trainer.start(device, farObjective(device, config, source), config, from);
}

/** All values of a parameter record, to compare bits. */
export async function valuesOf<Input extends TrainInput>(
  trainer: Trainer<Input>,
): Promise<Record<string, number[]>> {
  const out: Record<string, number[]> = {};
  for (const [name, t] of Object.entries(trainer.params)) {
    out[name] = [...await t.read()];
    out[`m ${name}`] = [...await trainer.optimizer.m.read(name)];
    out[`v ${name}`] = [...await trainer.optimizer.v.read(name)];
    if (trainer.optimizer.masters.has(name)) {
      out[`master ${name}`] = [...await trainer.optimizer.masters.read(name)];
    }
    if (trainer.ema) out[`ema ${name}`] = [...await trainer.ema.shadow.read(name)];
  }
  return out;
}
