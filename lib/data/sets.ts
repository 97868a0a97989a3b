/**
 * The paper's data sets, read from the authors' lists: UCF-101, BAIR, Minecraft, DMLab, as frames or latents.
 *
 * @module
 */
import { streamOf } from "../random.ts";
import type { DataSet } from "./clip.ts";
import { RandomStream } from "./random_stream.ts";
import { itemSet, latentItem, npzItem, videoItem } from "./items.ts";
import { type ListEntry, readList } from "./lists.ts";

/** The part of a data set to read, and how. */
export interface PaperSetOptions {
  /** The list file, e.g. `datasets/dmlab/dmlab_train.json`. */
  readonly list: string;
  /** `training` takes all clips; `validation` those of the protocol. */
  readonly split: "training" | "validation";
  /** Read pre-computed latents instead of frames. */
  readonly latents?: boolean;
  /** Rows and columns of frames, for UCF-101, where they are cut out of larger ones. */
  readonly resolution?: number;
  /** Choice of the clips in UCF-101's validation. */
  readonly evaluation?: "MCVD" | "Latte";
  /** Clips of validation; all when absent. */
  readonly samples?: number;
  /** Seed of Latte's choice; 0 unless given. */
  readonly seed?: number;
}

/** Classes of UCF-101. */
export const UCF101_CLASSES = 101;

/** The first so many clips, as the authors' validation takes; all of them must be there. */
function firstOf(list: string, entries: ListEntry[], samples: number | undefined): ListEntry[] {
  if (samples === undefined) return entries;
  if (samples > entries.length) {
    throw new RangeError(`${list}: expected at least ${samples} clips (num_sample), found ${entries.length}`);
  }
  return entries.slice(0, samples);
}

/**
 * As many clips of each class, in random order (Latte's protocol for FVD). The authors draw with Python's generator, which
 * is not repeated here: the clips of a seed are others than theirs, their number and distribution are the same.
 */
function balanced(list: string, entries: readonly ListEntry[], samples: number, seed: number): ListEntry[] {
  const draws = new RandomStream(streamOf(seed, "Latte")),
    byClass = Map.groupBy(entries, ({ label }) => label!);
  const each = Math.ceil(samples / byClass.size);
  const chosen = [...byClass].flatMap(([label, members]) => {
    if (members.length < each) {
      throw new RangeError(
        `${list}: expected at least ${each} clips of class ${label}, found ${members.length}`,
      );
    }
    return draws.shuffled(members).slice(0, each);
  });
  return draws.shuffled(chosen).slice(0, samples);
}

/**
 * UCF-101: videos with a class each. Frames are scaled so that the shorter side fits and cut at random (training) or in the
 * middle. `MCVD` takes every tenth clip of the list, then the first `samples`; `Latte` as many of each class, at random.
 * Clips shorter than asked are filled up with black frames.
 *
 * @param options Which part.
 * @throws {FileFormatError} If the list is damaged or its clips are not there.
 * @throws {RangeError} If there are fewer clips than the protocol takes.
 */
export function ucf101(options: PaperSetOptions): DataSet {
  const { list, split, evaluation, samples, seed = 0, resolution } = options;
  if (options.latents) {
    throw new RangeError("ucf101: latents are not read from lists, as in the authors' code");
  }
  let entries = readList(list, ["video_path", "label"]);
  if (split === "validation") {
    if (evaluation === undefined) {
      throw new RangeError("ucf101: validation needs evaluation_type MCVD or Latte");
    }
    entries = evaluation === "MCVD"
      ? firstOf(list, entries.filter((_, i) => i % 10 === 0), samples)
      : balanced(list, entries, samples ?? entries.length, seed);
  }
  const large = entries.find(({ label }) => label! >= UCF101_CLASSES);
  if (large !== undefined) {
    throw new RangeError(`${list}: expected classes 0 to 100, found ${large.label} (${large.video_path})`);
  }
  return itemSet({
    name: `UCF-101 ${list}`,
    holds: "frames",
    actions: false,
    classes: UCF101_CLASSES,
    rule: { short: "pad" },
    fit: { resolution, crop: true },
  }, entries.map(({ video_path, label }) => videoItem(video_path!, { label })));
}

/**
 * BAIR robot pushing: videos of 30 frames; their actions are listed but not used, as in the paper. Validation takes
 * consecutive frames from the first on, whatever the interval.
 *
 * @param options Which part.
 * @throws {FileFormatError} If the list is damaged or its clips are not there.
 * @throws {RangeError} If there are fewer clips than the protocol takes.
 */
export function bair(options: PaperSetOptions): DataSet {
  if (options.latents) throw new RangeError("bair: latents are not read from lists, as in the authors' code");
  const entries = readList(options.list, ["video_path"]);
  const chosen = options.split === "validation" ? firstOf(options.list, entries, options.samples) : entries;
  return itemSet({
    name: `BAIR ${options.list}`,
    holds: "frames",
    actions: false,
    rule: { short: "pad", consecutiveValidation: true },
    fit: { resolution: options.resolution, crop: false },
  }, chosen.map(({ video_path }) => videoItem(video_path!)));
}

function withActions(name: string, options: PaperSetOptions, actionsInside: boolean): DataSet {
  const { list, latents = false } = options;
  const entries = readList(list, latents ? ["latent_path", "action_path"] : ["video_path"]);
  const chosen = options.split === "validation" ? firstOf(list, entries, options.samples) : entries;
  const without = chosen.find(({ action_path }) => !actionsInside && action_path === undefined);
  if (!latents && without !== undefined) {
    throw new RangeError(`${list}: expected an "action_path" for ${without.video_path}, found none`);
  }
  const items = chosen.map(({ video_path, latent_path, action_path: actions }) =>
    latents
      ? latentItem(latent_path!, { actions })
      : /\.npz$/i.test(video_path!)
      ? npzItem(video_path!, { actions })
      : videoItem(video_path!, { actions })
  );
  return itemSet({
    name: `${name} ${list}`,
    holds: latents ? "latents" : "frames",
    actions: true,
    rule: { short: "refuse" },
    fit: latents ? { crop: false } : { resolution: options.resolution, crop: false },
  }, items);
}

/**
 * Minecraft: mp4 videos with an npz of actions each, or latents of `torch.save` with the same npz.
 *
 * @param options Which part.
 * @throws {FileFormatError} If the list is damaged or its clips are not there.
 * @throws {RangeError} If there are fewer clips than the protocol takes.
 */
export function minecraft(options: PaperSetOptions): DataSet {
  return withActions("Minecraft", options, false);
}

/**
 * DMLab: npz archives with `video` as 8-bit `[300, 64, 64, 3]` and `actions` as integers `[300]`: 0 left, 1 right, 2
 * forward, action f leading from frame f to frame f + 1 (seen in the authors' sample, where the picture of frame f + 1
 * shifts by 11 pixels after a turn at f); or latents of `torch.save` with such an npz for the actions.
 *
 * @param options Which part.
 * @throws {FileFormatError} If the list is damaged or its clips are not there.
 * @throws {RangeError} If there are fewer clips than the protocol takes.
 */
export function dmlab(options: PaperSetOptions): DataSet {
  return withActions("DMLab", options, true);
}
