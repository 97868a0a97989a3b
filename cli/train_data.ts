/**
 * The data sets that option files name.
 *
 * @module
 */
import type { BatchOptions } from "../lib/data/batches.ts";
import { type Clip, type ClipRange, type DataSet, framesThere, takeRange } from "../lib/data/clip.ts";
import { worldSet } from "../lib/data/world_set.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { makeFrames } from "../lib/io/frames.ts";
import type { DatasetOptions } from "../lib/train/options.ts";
import { flag, group, nullable, OptionError, whole, word } from "../lib/train/schema.ts";
import { type Clip as UserClip, readClip } from "./clip.ts";

const DATA_CFG = group({
  n_frames: nullable(whole(undefined, { min: 1 })),
  num_frames: nullable(whole(undefined, { min: 1 })),
  frame_interval: nullable(whole(undefined, { min: 1 })),
  frame_skip: nullable(whole(undefined, { min: 1 })),
  resolution: nullable(whole(undefined, { min: 8 })),
  use_flip: flag(false),
  /** Of the built-in world: family of walks, and their number of frames. */
  seed: whole(0),
  clip_frames: whole(300, { min: 1 }),
});

const TYPES = ["World", "Clips"] as const;

/** A data set and how batches are taken from it. */
export interface OpenData {
  readonly set: DataSet;
  readonly options: Omit<BatchOptions, "position">;
}

const CLIP = /\.(npz|npy|safetensors|mp4|avi|mov|mkv|webm|gif)$/i;

/** The clips of a folder, or the one file. */
function clipFiles(path: string): string[] {
  if (Deno.statSync(path).isFile) return [path];
  const files = [...Deno.readDirSync(path)].filter((e) => e.isFile && CLIP.test(e.name)).map((e) => e.name)
    .sort();
  if (files.length === 0) throw new FileFormatError(path, "expected clips (npz, npy, videos), found none");
  return files.map((name) => `${path}/${name}`);
}

/** Clips of the user, each read once and kept. */
export function clipSet(path: string, resolution: number | undefined, limit?: number): DataSet {
  const files = clipFiles(path).slice(0, limit), read = new Map<number, Promise<UserClip>>();
  const flags = { start: 0, every: 1, fit: "crop" as const };
  const clip = (index: number): Promise<UserClip> => {
    let found = read.get(index);
    if (!found) {
      read.set(index, found = readClip(files[index], flags, { count: 100_000, side: resolution ?? 64 }));
    }
    return found;
  };
  return {
    name: path,
    length: files.length,
    holds: "frames",
    actions: files.every((f) => /\.(npz|safetensors)$/i.test(f)),
    rule: { short: "refuse" },
    fit: { resolution, crop: true },
    source: (index) => files[index],
    frames: async (index) => (await clip(index)).frames.frames,
    async read(index, given?: ClipRange): Promise<Clip> {
      const { frames, actions } = await clip(index), { height, width } = frames;
      const range = given ?? { start: 0, interval: 1, count: frames.frames };
      if (framesThere(range, frames.frames) < range.count) {
        throw new FileFormatError(
          files[index],
          `has ${frames.frames} frames, expected ${range.count} from ${range.start}`,
        );
      }
      const data = takeRange(frames.data, height * width * 3, range);
      return {
        source: files[index],
        frames: makeFrames(range.count, height, width, data),
        ...(actions ? { actions: takeRange(actions, 1, range) } : {}),
      };
    },
  };
}

/**
 * Opens a data set of an option file.
 *
 * @param at Its path in the options, for messages.
 * @throws {OptionError} If the type is unknown or an option does not fit.
 * @throws {FileAccessError} If files cannot be read.
 */
export function openData(given: DatasetOptions, at: string, seed: number): OpenData {
  const split = given.split === "validation" ? "validation" : "training";
  const cfg = DATA_CFG.read({ ...given.data_cfg }, `${at}.data_cfg`);
  const type = word(TYPES).read(given.type, `${at}.type`);
  const frames = cfg.n_frames ?? cfg.num_frames;
  if (frames === null) {
    throw new OptionError(`${at}.data_cfg.num_frames: is missing, expected a whole number`);
  }
  const resolution = cfg.resolution ?? undefined, limit = given.num_sample ?? undefined;
  let set: DataSet;
  if (type === "World") {
    const part = split === "training" ? "train" as const : "validation" as const;
    set = worldSet({
      split: part,
      seed: cfg.seed,
      size: resolution ?? 64,
      frames: cfg.clip_frames,
      clips: limit,
    });
  } else {
    if (given.data_list === null) {
      throw new OptionError(`${at}.data_list: is missing, expected a clip or a folder of clips`);
    }
    set = clipSet(given.data_list, resolution, limit);
  }
  return {
    set,
    options: {
      split,
      seed,
      frames,
      interval: cfg.frame_interval ?? cfg.frame_skip ?? 1,
      flip: cfg.use_flip,
      batch: split === "training" ? given.batch_size_per_gpu : Math.min(given.batch_size_per_gpu, set.length),
    },
  };
}
