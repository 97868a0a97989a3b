/**
 * A data set as batches for training.
 *
 * @module
 */
import { type Batch, batches, type BatchOptions } from "../data/batches.ts";
import type { DataSet } from "../data/clip.ts";
import type { TrainBatch } from "./far_loss.ts";

/** Source of batches. Batch number `position` is always the same one, so only a position is saved. */
export interface BatchSource {
  /** The batch at a position, 0 first. Called once ahead of the device's work. */
  batch(position: number): Promise<TrainBatch>;
}

/** factor · v + add of every value: a loop, because `map` with a function takes three to six times as long (2026-11-21, Xeon). */
function scaled(values: Float32Array, factor: number, add = 0): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = values[i] * factor + add;
  return out;
}

/** Converts a batch to the input of a model: scaled latents, or colours from -1 to 1. */
export type ToModelInput = (batch: Batch) => TrainBatch | Promise<TrainBatch>;

/** For a model of pixels: colours from 0 … 1 to -1 … 1. */
export const pixelsToInput: ToModelInput = ({ data, shape, actions, label, poses }) => ({
  latents: scaled(data, 2, -1),
  shape,
  actions,
  label,
  poses,
});

/** For encoded latents: multiplies them by the autoencoder's scaling factor. */
export const latentsToInput =
  (scalingFactor: number): ToModelInput => ({ data, history, shape, actions, label, poses }) => ({
    latents: scaled(data, scalingFactor),
    ...(history ? { history: history.map((made) => made && scaled(made, scalingFactor)) } : {}),
    shape,
    actions,
    label,
    poses,
  });

/** Batches of a data set by position; in ascending order a reader prefetches them. */
export class DataSource implements BatchSource {
  readonly #set: DataSet;
  readonly #options: Omit<BatchOptions, "position">;
  readonly #toModelInput: ToModelInput;
  #running: AsyncGenerator<Batch, void> | undefined;
  #next = -1;

  /** @param toModelInput Converts batches to the input of the model. */
  constructor(set: DataSet, options: Omit<BatchOptions, "position">, toModelInput: ToModelInput) {
    this.#set = set;
    this.#options = options;
    this.#toModelInput = toModelInput;
  }

  /**
   * The batch at a position.
   *
   * @throws {RangeError} If validation has no more batches.
   */
  async batch(position: number): Promise<TrainBatch> {
    if (position !== this.#next) this.#running = batches(this.#set, { ...this.#options, position });
    this.#next = position + 1;
    const { value } = await this.#running!.next();
    if (value) return await this.#toModelInput(value);
    this.#next = -1;
    throw new RangeError(`${this.#set.name}: has no batch ${position}`);
  }
}
