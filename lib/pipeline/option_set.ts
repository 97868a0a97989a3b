/**
 * The data sets of an option file, for work on their frames or latents.
 *
 * @module
 */
import type { DataSet } from "../data/clip.ts";
import { latentSet } from "../data/latents.ts";
import { dataSetOf } from "../data/options.ts";
import { sourcesOf } from "../data/stamp.ts";
import { readOptions } from "../train/options.ts";
import { ChoiceError } from "./choice.ts";

/** A data set with frames. */
export interface FrameSet {
  /** The clips. */
  readonly set: DataSet;
  /** Frames from one to the next, where the file says. */
  readonly interval: number;
  /** The folder or list that it is read from, and the files of its clips. */
  readonly sources: readonly string[];
}

/**
 * Opens a data set of an option file.
 *
 * @param file The option file (YAML).
 * @param part Which of its two.
 * @param sets `path=value` on top of the file.
 * @throws {ChoiceError} If there is none, or it holds latents.
 */
export function openFrameSet(file: string, part: "train" | "sample", sets: readonly string[] = []): FrameSet {
  const block = readOptions(file, sets).datasets[part];
  if (block === null) throw new ChoiceError(`${file}: has no datasets.${part}`);
  const { set, options } = dataSetOf({ ...block }, `${file}: datasets.${part}`);
  if (set.holds === "latents") throw new ChoiceError(`${file}: ${set.name} holds latents, expected frames`);
  return { set, interval: options.interval ?? 1, sources: sourcesOf(block, set) };
}

/**
 * Opens latents: a folder that `encode` wrote, or the training set of an option file.
 *
 * @param what The folder, or the option file (yml).
 * @param sets `path=value` on top of the file.
 * @throws {ChoiceError} If the file's set holds frames, or values are given with a folder.
 */
export function openLatentSet(what: string, sets: readonly string[] = []): DataSet {
  if (!/\.ya?ml$/i.test(what)) {
    if (sets.length === 0) return latentSet(what);
    throw new ChoiceError(`{set}: goes with an option file, found the folder ${what}`);
  }
  const { set } = dataSetOf({ ...readOptions(what, sets).datasets.train }, `${what}: datasets.train`);
  if (set.holds === "latents") return set;
  throw new ChoiceError(`${what}: ${set.name} holds frames, expected latents`);
}
