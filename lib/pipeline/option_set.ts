/**
 * The data sets of an option file, for work on their frames.
 *
 * @module
 */
import type { DataSet } from "../data/clip.ts";
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
