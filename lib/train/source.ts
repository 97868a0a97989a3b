/**
 * A data set as batches for training.
 *
 * @module
 */
import { type Batch, batches, type BatchOptions } from "../data/batches.ts";
import type { DataSet } from "../data/clip.ts";
import type { TrainBatch } from "./objective.ts";
import type { BatchSource } from "./trainer.ts";

/** factor · v + add of every value: a loop, because `map` with a function takes three to six times as long (2026-11-21, Xeon). */
function scaled(values: Float32Array, factor: number, add = 0): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = values[i] * factor + add;
  return out;
}

/** Brings a batch to what the model works on: scaled latents, or colours from -1 to 1. */
export type Finish = (batch: Batch) => TrainBatch | Promise<TrainBatch>;

/** For a model that works on pixels: colours from 0 … 1 to -1 … 1. */
export const finishPixels: Finish = ({ data, shape, actions, label }) => ({
  latents: scaled(data, 2, -1),
  shape,
  actions,
  label,
});

/** For latents that were encoded before: multiplied by the autoencoder's scaling factor. */
export const finishLatents =
  (scalingFactor: number): Finish => ({ data, history, shape, actions, label }) => ({
    latents: scaled(data, scalingFactor),
    ...(history ? { history: history.map((made) => made && scaled(made, scalingFactor)) } : {}),
    shape,
    actions,
    label,
  });

/** Batches of a data set by position; in order they come from a reader that works ahead. */
export class DataSource implements BatchSource {
  readonly #set: DataSet;
  readonly #options: Omit<BatchOptions, "position">;
  readonly #finish: Finish;
  #running: AsyncGenerator<Batch, void> | undefined;
  #next = -1;

  /** @param finish What the model needs of a batch. */
  constructor(set: DataSet, options: Omit<BatchOptions, "position">, finish: Finish) {
    this.#set = set;
    this.#options = options;
    this.#finish = finish;
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
    if (value) return await this.#finish(value);
    this.#next = -1;
    throw new RangeError(`${this.#set.name}: has no batch ${position}`);
  }
}
