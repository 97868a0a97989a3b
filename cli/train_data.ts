/**
 * The data sets of an option file, as training takes batches from them.
 *
 * @module
 */
import type { BatchOptions } from "../lib/data/batches.ts";
import type { DataSet } from "../lib/data/clip.ts";
import { dataSetOf } from "../lib/data/options.ts";
import type { DatasetOptions } from "../lib/train/options.ts";

/** A data set and how batches are taken from it. */
export interface OpenData {
  readonly set: DataSet;
  readonly options: Omit<BatchOptions, "position">;
}

/**
 * Opens a data set of an option file.
 *
 * @param at Its path in the options, for messages.
 * @param seed Seed of the order; `data_cfg.seed` names the data set's own family where it has one.
 * @throws {RangeError} If the type is unknown or an option does not fit.
 * @throws {FileAccessError} If files cannot be read.
 */
export function openData(given: DatasetOptions, at: string, seed: number): OpenData {
  const { set, options } = dataSetOf({ ...given }, at);
  const batch = options.split === "validation" ? Math.min(options.batch, set.length) : options.batch;
  return { set, options: { ...options, batch, seed } };
}
