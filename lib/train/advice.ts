/**
 * Warnings about mistakes that cost a night of training: latents on the wrong scale, averages slower than the run.
 *
 * @module
 */
import type { TrainBatch } from "./far_loss.ts";

/** Clips whose latents are measured. */
export const MEASURED_CLIPS = 4;

/** Root mean squares of latents within this factor of 1 give no warning. */
const TOLERANCE = 2;

/**
 * A warning about latents whose root mean square is far from 1, which flow matching assumes (its loss starts near 1 plus the mean
 * square); null where it is near.
 *
 * @param batches Scaled latents.
 * @param factor The autoencoder's scaling factor.
 */
export function scaleAdvice(batches: readonly Pick<TrainBatch, "latents">[], factor: number): string | null {
  let sum = 0, count = 0;
  for (const { latents } of batches) {
    for (const value of latents) sum += value * value;
    count += latents.length;
  }
  const size = Math.sqrt(sum / count);
  if (size >= 1 / TOLERANCE && size <= TOLERANCE) return null;
  const fit = size > 0 && Number.isFinite(size) ? `${Number((factor / size).toPrecision(3))}` : "another";
  return `scaled latents have a root mean square of ${Number(size.toPrecision(3))}, expected about 1: the ` +
    `autoencoder's scaling_factor is ${factor}, these clips need ${fit}`;
}

/** Share of the initial weights in an average above which the raw weights are the better choice. */
const INITIAL_SHARE = 0.01;

/**
 * A line about which file of the last checkpoint to use.
 *
 * @param decay Of the averages; null keeps none.
 * @param updates Updates that they have followed.
 */
export function weightsAdvice(checkpoint: string, decay: number | null, updates: number): string {
  if (decay === null) return `weights: ${checkpoint}/model.safetensors`;
  const initial = decay ** updates;
  if (initial <= INITIAL_SHARE) return `weights: ${checkpoint}/ema.safetensors (averaged)`;
  const horizon = decay < 1 ? `${Math.round(1 / (1 - decay))} steps` : "infinitely many steps";
  return `weights: ${checkpoint}/model.safetensors (ema.safetensors still holds ${
    Math.max(1, Math.round(100 * initial))
  } % ` +
    `of the initial weights: train.ema_decay ${decay} averages over ${horizon}, the run had ${updates})`;
}
