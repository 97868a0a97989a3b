/**
 * Data sets of an option file for training.
 *
 * @module
 */
import type { BatchOptions } from "../data/batches.ts";
import type { DataSet } from "../data/clip.ts";
import { dataSetOf } from "../data/options.ts";
import type { TrainBatch } from "../train/far_loss.ts";
import type { DatasetOptions, TrainOptions } from "../train/options.ts";
import { DataSource, type ToModelInput } from "../train/source.ts";

/** A data set and how it is cut into batches. */
export interface OpenData {
  readonly set: DataSet;
  readonly options: Omit<BatchOptions, "position">;
  /** A warning if the set has fewer clips than were asked for. */
  readonly warning?: string;
}

/** The first clips of a set. */
const firstClips = (set: DataSet, length: number): DataSet => ({ ...set, length });

/**
 * Opens a data set of an option file.
 *
 * @param at Its path in the options, for messages.
 * @param seed Seed of the order; `data_cfg.seed` names the data set's own family where it has one.
 * @throws {RangeError} If the type is unknown or an option does not fit.
 * @throws {FileAccessError} If files cannot be read.
 */
export function openData(given: DatasetOptions, at: string, seed: number): OpenData {
  const { set: all, options } = dataSetOf({ ...given }, at), samples = given.num_sample ?? all.length;
  const set = samples < all.length ? firstClips(all, samples) : all;
  const warning = samples > all.length
    ? `${at}.num_sample is ${samples}, ${all.name} has ${all.length} clips: all are used`
    : undefined;
  const batch = options.split === "validation" ? Math.min(options.batch, set.length) : options.batch;
  return { set, options: { ...options, batch, seed }, warning };
}

/** Opens the held-out clips of an option file, or null where it has none. */
export function openHeldOut({ datasets: { sample }, manual_seed }: TrainOptions): OpenData | null {
  return sample && openData({ ...sample, split: "validation" }, "datasets.sample", manual_seed);
}

/**
 * The first batches of a held-out set, read once.
 *
 * @param most Number of batches, where the set has as many.
 */
export async function heldOutBatches(
  { set, options }: OpenData,
  most: number,
  toModelInput: ToModelInput,
): Promise<TrainBatch[]> {
  const source = new DataSource(set, options, toModelInput), batches: TrainBatch[] = [];
  const count = Math.min(most, Math.ceil(set.length / options.batch));
  for (let i = 0; i < count; i++) batches.push(await source.batch(i));
  return batches;
}
