/**
 * The data sets of the paper: where they are looked for, what is there, and how to get the rest.
 *
 * @module
 */
import { join } from "node:path";
import { dataSetOf } from "./options.ts";

/** A data set of the paper in its usual place. */
export interface KnownSet {
  /** Folder below `datasets/`. */
  readonly folder: string;
  /** Description of the data set. */
  readonly what: string;
  /** Reader, as the option files name it. */
  readonly type: string;
  /** The authors' lists. */
  readonly lists: readonly string[];
  /** Where the authors publish it on Hugging Face. */
  readonly repository: string;
  /** Clips are latents. */
  readonly latents?: boolean;
}

/** All of them, under the names that the authors' instructions and option files give. */
export const KNOWN_SETS: readonly KnownSet[] = [
  {
    folder: "ucf101",
    what: "13,320 videos of human actions in 101 classes",
    type: "UCFDataset",
    lists: ["train03.json", "test03.json", "trainval.json"],
    repository: "guyuchao/UCF101",
  },
  {
    folder: "bair",
    what: "robot arm pushing objects, 64x64, 30 frames",
    type: "BairDataset",
    lists: ["bair_train.json", "bair_val.json"],
    repository: "guyuchao/BAIR",
  },
  {
    folder: "minecraft",
    what: "some 200,000 walks through Minecraft with actions, 128x128, 300 frames",
    type: "MinecraftDataset",
    lists: ["minecraft_train.json", "minecraft_val.json"],
    repository: "guyuchao/Minecraft",
  },
  {
    folder: "minecraft_latent",
    what: "its latents",
    type: "MinecraftDataset",
    lists: ["minecraft_train.json"],
    repository: "guyuchao/Minecraft_Latent",
    latents: true,
  },
  {
    folder: "dmlab",
    what: "some 40,000 walks through DMLab mazes with actions, 64x64, 300 frames",
    type: "DMLabDataset",
    lists: ["dmlab_train.json", "dmlab_val.json"],
    repository: "guyuchao/DMLab",
  },
  {
    folder: "dmlab_latent",
    what: "its latents",
    type: "DMLabDataset",
    lists: ["dmlab_train.json"],
    repository: "guyuchao/DMLab_Latent",
    latents: true,
  },
];

/** State of a list on this machine. */
export interface ListState {
  /** The list file. */
  readonly list: string;
  /** Number of clips, where it can be read. */
  readonly clips?: number;
  /** Why it cannot be used; absent when it can. */
  readonly problem?: string;
}

/**
 * Looks for a data set.
 *
 * @param known Which.
 * @param root Where data sets stand; `datasets` in the authors' option files.
 */
export function findSet(known: KnownSet, root: string): ListState[] {
  return known.lists.map((name) => {
    const list = join(root, known.folder, name);
    try {
      const { set } = dataSetOf({
        type: known.type,
        data_list: list,
        split: "training",
        use_latent: known.latents === true,
        data_cfg: { num_frames: 1 },
      }, name);
      return { list, clips: set.length };
    } catch (error) {
      return { list, problem: (error as Error).message };
    }
  });
}

/** Instructions for getting a data set, in one line. */
export function howToGet(known: KnownSet, root: string): string {
  const folder = join(root, known.folder);
  return `download https://huggingface.co/datasets/${known.repository} into ${folder} and unpack its shard-*.tar there`;
}
