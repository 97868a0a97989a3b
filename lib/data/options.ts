/**
 * A data set out of the authors' option files: the blocks `datasets.train` and `datasets.sample`.
 *
 * @module
 */
import { didYouMean } from "../nearest.ts";
import type { BatchOptions } from "./batches.ts";
import type { DataSet } from "./clip.ts";
import { folderSet } from "./folder.ts";
import { latentSet } from "./latents.ts";
import { bair, dmlab, minecraft, type PaperSetOptions, ucf101 } from "./sets.ts";
import { placesSet, walkSet } from "./walk_set.ts";
import { STEPS } from "./world/pose.ts";
import type { Split } from "./world/world.ts";
import { worldSet } from "./world_set.ts";

/** The authors' data sets by the names of their readers, then ours. */
const TYPES = {
  UCFDataset: ucf101,
  BairDataset: bair,
  MinecraftDataset: minecraft,
  DMLabDataset: dmlab,
  WorldDataset: undefined,
  PlacesDataset: undefined,
  WalkDataset: undefined,
  FolderDataset: undefined,
  LatentDataset: undefined,
} as const;

type TypeName = keyof typeof TYPES;

const KEYS = ["type", "data_list", "split", "use_latent", "data_cfg", "batch_size_per_gpu", "num_sample"];
const CFG_KEYS = [
  ...["n_frames", "num_frames", "frame_interval", "frame_skip", "resolution", "use_flip", "evaluation_type"],
  ...["seed", "part", "clips", "clip_frames", "cells", "steps", "first", "rollouts", "shares"],
];

/** Types that are made from the built-in world. */
const WORLD_TYPES = ["WorldDataset", "PlacesDataset", "WalkDataset"] as const;

/** Keys of `data_cfg` that only some types know. */
const ONLY: Readonly<Record<string, readonly TypeName[]>> = {
  evaluation_type: ["UCFDataset"],
  use_flip: ["UCFDataset", "BairDataset", "FolderDataset"],
  seed: [...WORLD_TYPES, "UCFDataset"],
  part: [...WORLD_TYPES, "FolderDataset"],
  clips: WORLD_TYPES,
  clip_frames: ["WorldDataset", "WalkDataset"],
  cells: WORLD_TYPES,
  steps: ["WorldDataset"],
  first: ["WalkDataset"],
  rollouts: ["WalkDataset"],
  shares: ["FolderDataset"],
};

/** A data set and how to take batches of it; the caller adds seed and position. */
export interface OpenedSet {
  /** The clips. */
  readonly set: DataSet;
  /** Options for `batches`. */
  readonly options: BatchOptions;
}

/** A mapping out of an option file. */
export type Block = Readonly<Record<string, unknown>>;

/** Reads typed values out of a block and says where a wrong one stands. */
class Reader {
  constructor(readonly where: string, readonly block: Block, keys: readonly string[]) {
    for (const key of Object.keys(block)) {
      if (!keys.includes(key)) throw new RangeError(`${where}: unknown key ${key}${didYouMean(key, keys)}`);
    }
  }
  #wrong(key: string, expected: string): never {
    throw new RangeError(
      `${this.where}.${key}: expected ${expected}, found ${JSON.stringify(this.block[key]) ?? "nothing"}`,
    );
  }
  /** The first of the keys that is there: the authors write some in two ways. */
  whole(keys: readonly string[], least: number): number | undefined {
    const there = keys.filter((key) => this.block[key] != null);
    if (there.length > 1) {
      throw new RangeError(`${this.where}: ${there.join(" and ")} say the same, give one of them`);
    }
    if (there.length === 0) return undefined;
    const value = this.block[there[0]];
    return Number.isSafeInteger(value) && (value as number) >= least
      ? value as number
      : this.#wrong(there[0], `a whole number of at least ${least}`);
  }
  text(key: string): string | undefined {
    const value = this.block[key];
    return value == null ? undefined : typeof value === "string" ? value : this.#wrong(key, "text");
  }
  choice<const T extends readonly string[]>(key: string, choices: T): T[number] | undefined {
    const value = this.text(key);
    return value === undefined || choices.includes(value) ? value : this.#wrong(key, choices.join(" or "));
  }
  flag(key: string): boolean {
    const value = this.block[key];
    return value == null ? false : typeof value === "boolean" ? value : this.#wrong(key, "true or false");
  }
  pair(key: string): readonly [number, number] | undefined {
    const value = this.block[key];
    if (value == null) return undefined;
    const fits = Array.isArray(value) && value.length === 2 && value.every((v) => typeof v === "number");
    return fits ? value as [number, number] : this.#wrong(key, "two numbers");
  }
  needed<T>(key: string, value: T | undefined, expected: string): T {
    return value === undefined ? this.#wrong(key, expected) : value;
  }
}

function openSet(type: TypeName, top: Reader, cfg: Reader, training: boolean): DataSet {
  const resolution = cfg.whole(["resolution"], 1), samples = top.whole(["num_sample"], 1);
  const parts = ["train", "validation", "test"] as const;
  const part = cfg.choice("part", parts) ?? (training ? "train" : "validation");
  if ((WORLD_TYPES as readonly TypeName[]).includes(type)) return openWorld(type, top, cfg, training, part);
  const latents = top.flag("use_latent");
  const list = top.needed("data_list", top.text("data_list"), "a path");
  if (type === "LatentDataset") return latentSet(list);
  if (type === "FolderDataset") {
    return folderSet({ folder: list, split: part, shares: cfg.pair("shares"), resolution });
  }
  const evaluation = cfg.choice("evaluation_type", ["MCVD", "Latte"]);
  const split = training ? "training" : "validation", seed = cfg.whole(["seed"], 0);
  const options: PaperSetOptions = { list, split, latents, resolution, evaluation, samples, seed };
  return TYPES[type]!(options);
}

/** The types that are made from the built-in world. */
function openWorld(type: TypeName, top: Reader, cfg: Reader, training: boolean, split: Split): DataSet {
  if (top.flag("use_latent")) {
    throw new RangeError(`${top.where}.use_latent: write latents first and read them with LatentDataset`);
  }
  const samples = top.whole(["num_sample"], 1), size = cfg.whole(["resolution"], 1);
  const clips = cfg.whole(["clips"], 1) ?? (training ? undefined : samples);
  const frames = cfg.whole(["n_frames", "num_frames"], 1)!;
  const interval = cfg.whole(["frame_interval", "frame_skip"], 1) ?? 1;
  const length = cfg.whole(["clip_frames"], 1) ?? Math.max(300, (frames - 1) * interval + 1);
  const common = { seed: cfg.whole(["seed"], 0), split, size, cells: cfg.pair("cells") };
  if (type === "WorldDataset") {
    return worldSet({ ...common, clips, frames: length, steps: cfg.choice("steps", STEPS) });
  }
  if (type === "PlacesDataset") {
    return placesSet({ ...common, worlds: cfg.needed("clips", clips, "a number of worlds") });
  }
  const folder = top.needed("data_list", top.text("data_list"), "a folder of latents");
  const first = cfg.whole(["first"], 0), rollouts = cfg.text("rollouts");
  return walkSet({ ...common, folder, walks: clips, first, frames: length, rollouts });
}

/**
 * Opens a data set as an option file describes it.
 *
 * Types are the authors' `UCFDataset`, `BairDataset`, `MinecraftDataset`, `DMLabDataset`, with their keys, and five of
 * ours: `WorldDataset` (no `data_list`; `seed`, `part`, `clips`, `clip_frames`, `cells`, `steps` in `data_cfg`), `PlacesDataset`
 * (every pose of worlds with grid steps; `clips` worlds), `WalkDataset` (endless walks through them: `data_list` is the folder
 * of their latents; `first`, the number of the first walk; `rollouts`, a folder that `far.ts rollout` made of them, is every second clip), `FolderDataset` (`data_list` is the folder; `part`, `shares`) and `LatentDataset` (`data_list` is the
 * folder that `writeLatents` made). `n_frames` and
 * `num_frames` mean the same, and so do `frame_interval` and `frame_skip`, which the authors' autoencoder options write.
 * `num_sample` counts in validation; the authors' training sets have none.
 *
 * @param block The block, e.g. `datasets.train` of a parsed option file.
 * @param where Its name for messages.
 * @throws {RangeError} On an unknown key (with the nearest match), a wrong value, or too few clips.
 * @throws {FileFormatError} If a list is damaged or its clips are not there.
 *
 * @example
 * ```ts
 * import { dataSetOf } from "./options.ts";
 * const { set, options } = dataSetOf({
 *   type: "WorldDataset",
 *   split: "training",
 *   data_cfg: { num_frames: 300, resolution: 64 },
 *   batch_size_per_gpu: 4,
 * }, "datasets.train");
 * console.assert(set.length === 40_000 && options.batch === 4);
 * ```
 */
export function dataSetOf(block: Block, where: string): OpenedSet {
  const top = new Reader(where, block, KEYS), cfgBlock = block.data_cfg ?? {};
  if (typeof cfgBlock !== "object") {
    throw new RangeError(`${where}.data_cfg: expected a mapping, found ${cfgBlock}`);
  }
  const cfg = new Reader(`${where}.data_cfg`, cfgBlock as Block, CFG_KEYS),
    types = Object.keys(TYPES) as TypeName[];
  const type = top.needed("type", top.choice("type", types), types.join(", "));
  for (const key of Object.keys(cfgBlock)) {
    if (ONLY[key] !== undefined && !ONLY[key].includes(type)) {
      throw new RangeError(
        `${where}.data_cfg.${key}: ${type} does not know it, only ${ONLY[key].join(", ")}`,
      );
    }
  }
  const split = top.needed(
    "split",
    top.choice("split", ["training", "validation"]),
    "training or validation",
  );
  const frames = cfg.needed("num_frames", cfg.whole(["n_frames", "num_frames"], 1), "a number of frames");
  const set = openSet(type, top, cfg, split === "training");
  return {
    set,
    options: {
      batch: top.whole(["batch_size_per_gpu"], 1) ?? 1,
      frames,
      interval: cfg.whole(["frame_interval", "frame_skip"], 1) ?? 1,
      flip: cfg.flag("use_flip") && split === "training",
      split,
    },
  };
}
