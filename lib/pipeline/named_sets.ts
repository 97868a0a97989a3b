/**
 * Data sets by one word: the built-in world, a folder, a list, or the option file that names them.
 *
 * @module
 */
import type { DataSet } from "../data/clip.ts";
import { folderSet } from "../data/folder.ts";
import { findSet, howToGet, KNOWN_SETS } from "../data/known.ts";
import { type Block, dataSetOf } from "../data/options.ts";
import type { Split } from "../data/world/world.ts";
import { stepsOf, worldSet } from "../data/world_set.ts";
import { isFile, isFolder } from "../io/paths.ts";
import { readYaml } from "../io/yaml.ts";
import { ChoiceError } from "./choice.ts";

const READERS = {
  ucf101: "UCFDataset",
  bair: "BairDataset",
  minecraft: "MinecraftDataset",
  dmlab: "DMLabDataset",
} as const;

/** Kinds of lists. */
export type ListType = keyof typeof READERS;

/** All kinds of lists. */
export const LIST_TYPES = Object.keys(READERS) as readonly ListType[];

/** Settings that the word leaves open. */
export interface SetOptions {
  /** Kind of a list, where its path does not say. */
  readonly type?: ListType;
  /** A list names latents instead of videos. */
  readonly latents: boolean;
  /** Part of the world, or of a folder; a folder is taken whole unless given. */
  readonly split?: Split;
  /** The walks of the world. */
  readonly world: {
    readonly seed: number;
    readonly size: number;
    readonly frames: number;
    readonly cells: number;
    readonly clips?: number;
  };
}

/** The reader of a list, by its path. */
function readerOf(what: string, type: ListType | undefined): string {
  const found = type ?? LIST_TYPES.find((name) => what.toLowerCase().includes(name.replace("101", "")));
  if (found !== undefined) return READERS[found];
  if (/(world|grid)_\w+\.json$/.test(what)) return READERS.dmlab;
  throw new ChoiceError(`the path ${what} does not tell what kind of list it is: give {type}`);
}

/**
 * The data sets that a word means.
 *
 * @param what `world`, `grid`, a folder of clips or of latents, one of the authors' lists, or an option file.
 * @throws {ChoiceError} If nothing says what kind of list it is.
 * @throws {FileFormatError} If a list or an option file is broken.
 */
export function namedSets(what: string, options: SetOptions): DataSet[] {
  const { split, world } = options, steps = stepsOf(what);
  if (steps !== undefined) {
    const part = split ?? "train", clips = world.clips ?? (part === "train" ? 256 : undefined);
    return [worldSet({ ...world, steps, split: part, cells: [world.cells, world.cells], clips })];
  }
  if (/\.ya?ml$/i.test(what)) {
    const file = readYaml(what) as { datasets?: Record<string, Block> };
    const blocks = Object.entries(file?.datasets ?? {});
    if (blocks.length === 0) throw new Error(`${what}: expected data sets under "datasets", found none`);
    return blocks.map(([name, block]) => dataSetOf(block, `${what}: datasets.${name}`).set);
  }
  const block = { data_list: what, split: "training", data_cfg: { num_frames: 1 } };
  if (isFolder(what)) {
    if (isFile(`${what}/index.json`)) return [dataSetOf({ ...block, type: "LatentDataset" }, what).set];
    return [folderSet({ folder: what, split })];
  }
  const type = readerOf(what, options.type);
  return [dataSetOf({ ...block, type, use_latent: options.latents }, what).set];
}

/** One of the paper's data sets, as far as it is on this machine. */
export interface PresentSet {
  /** Its folder. */
  readonly name: string;
  /** Description of the data set. */
  readonly what: string;
  /** Its lists, each with the number of its clips or what is wrong with it. */
  readonly lists: ReturnType<typeof findSet>;
  /** How to get it. */
  readonly get: string;
}

/** The paper's data sets below a folder. */
export const presentSets = (root: string): PresentSet[] =>
  KNOWN_SETS.map((known) => ({
    name: known.folder,
    what: known.what,
    lists: findSet(known, root),
    get: howToGet(known, root),
  }));

/** The same in lines. */
export function presentLines(sets: readonly PresentSet[]): string[] {
  return sets.flatMap(({ name, what, lists, get }) => {
    const there = lists.filter(({ clips }) => clips !== undefined);
    // That a list is not there is said once for all of them.
    const broken = lists.filter(({ problem }) =>
      problem !== undefined && (there.length > 0 || !/no such file/.test(problem))
    );
    return [
      `${name}: ${what}${there.length === 0 ? "; not here" : ""}`,
      ...there.map(({ list, clips }) => `  ${list}: ${clips} clips`),
      ...broken.map(({ list, problem }) =>
        `  ${problem!.startsWith(list) ? problem : `${list}: ${problem}`}`
      ),
      ...(there.length < lists.length ? [`  to get it: ${get}`] : []),
    ];
  });
}
