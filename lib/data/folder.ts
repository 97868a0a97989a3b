/**
 * One's own data: a folder of videos, npz archives or folders of images, with actions beside them or without.
 *
 * @module
 */
import { basename, extname, join } from "node:path";
import { streamOf, uniform } from "../random.ts";
import { accessError, FileFormatError } from "../io/errors.ts";
import { isFile } from "../io/paths.ts";
import { openTensorFile } from "../io/open.ts";
import { ACTION_ENDINGS, hasActions } from "./actions.ts";
import type { DataSet } from "./clip.ts";
import { type Item, itemSet, npzItem, videoItem } from "./items.ts";
import { type Split, SPLITS } from "./world/world.ts";

const VIDEO = /\.(mp4|m4v|mov|3gp|mkv|webm|avi|ogv|mpe?g|vob|mts|m2ts|flv|wmv|y4m|gif)$/i;
const IMAGE = /\.(png|jpe?g|webp|bmp|tiff?)$/i;

/** Options of a folder of clips. */
export interface FolderOptions {
  /** The folder, or a single clip. */
  readonly folder: string;
  /** Part of the clips; all when absent. A single clip belongs to every part. */
  readonly split?: Split;
  /** Shares of validation and test; 0.05 each unless given. */
  readonly shares?: readonly [validation: number, test: number];
  /** Rows and columns that frames are scaled and cut to; their own when absent. */
  readonly resolution?: number;
}

/** A clip found in a folder. */
interface Found {
  /** Path below the folder, with `/`. */
  readonly name: string;
  readonly kind: "video" | "images" | "npz";
  readonly actions?: string;
}

function list(folder: string): Deno.DirEntry[] {
  try {
    // A link may lead to a file or a folder; what counts is where it leads.
    return [...Deno.readDirSync(folder)].filter((e) => !e.name.startsWith(".")).map((entry) => {
      if (!entry.isSymlink) return entry;
      const { isFile, isDirectory } = Deno.statSync(join(folder, entry.name));
      return { ...entry, isFile, isDirectory };
    }).sort((a, b) => a.name < b.name ? -1 : 1);
  } catch (error) {
    throw accessError(folder, "cannot list", error);
  }
}

/** The file of actions beside a clip: the same name with another ending. */
function beside(files: ReadonlySet<string>, name: string): string | undefined {
  return ACTION_ENDINGS.map((ending) => name + ending).find((file) => files.has(file));
}

/** A single file instead of a folder. */
function single(path: string): Found[] | undefined {
  try {
    if (!Deno.statSync(path).isFile) return undefined;
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
  if (path.endsWith(".npz")) return [{ name: "", kind: "npz" }];
  const stem = path.slice(0, path.length - extname(path).length);
  const actions = ACTION_ENDINGS.map((ending) => stem + ending).find(isFile);
  return [{ name: "", kind: "video", actions }];
}

function* search(folder: string, below: string): Generator<Found> {
  const entries = list(join(folder, below)),
    files = new Set(entries.filter((e) => e.isFile).map((e) => e.name));
  const path = (name: string) => below === "" ? name : `${below}/${name}`;
  const stems = new Set<string>();
  for (const { name, isFile } of entries) {
    if (!isFile || !VIDEO.test(name)) continue;
    const stem = basename(name, extname(name)), actions = beside(files, stem);
    if (stems.has(stem) && actions !== undefined) {
      throw new FileFormatError(join(folder, path(actions)), "belongs to two videos of the same name");
    }
    stems.add(stem);
    yield { name: path(name), kind: "video", actions: actions && join(folder, path(actions)) };
  }
  for (const { name, isFile } of entries) {
    // An npz beside a video holds its actions.
    if (isFile && name.endsWith(".npz") && !stems.has(basename(name, ".npz"))) {
      const actions = beside(new Set([...files].filter((file) => file !== name)), basename(name, ".npz"));
      yield { name: path(name), kind: "npz", actions: actions && join(folder, path(actions)) };
    }
  }
  for (const { name, isDirectory } of entries) {
    if (!isDirectory) continue;
    const inside = list(join(folder, path(name))).filter((e) => e.isFile).map((e) => e.name);
    if (!inside.some((file) => IMAGE.test(file))) {
      yield* search(folder, path(name));
      continue;
    }
    const own = beside(new Set(inside), "actions"), next = beside(files, name);
    const actions = own ? join(folder, path(name), own) : next && join(folder, path(next));
    yield { name: path(name), kind: "images", actions };
  }
}

/**
 * The part that a clip belongs to. It depends on the clip's path below the folder alone: adding clips moves no other, and
 * the parts of two runs never mix.
 *
 * @param name Path below the folder, with `/`.
 * @param shares Shares of validation and test.
 */
export function splitOf(
  name: string,
  shares: readonly [validation: number, test: number] = [0.05, 0.05],
): Split {
  const [place] = uniform(streamOf(0, `split of ${name}`), 1), [validation, test] = shares;
  return place < test ? "test" : place < test + validation ? "validation" : "train";
}

/** Whether an archive holds actions. One that cannot be opened counts as if it did: reading it will say what is wrong. */
function holdsActions(npz: string): boolean {
  try {
    using file = openTensorFile(npz);
    return hasActions(file);
  } catch {
    return true;
  }
}

/**
 * A folder as a data set. Every video, every npz with an array of frames (`video` in DMLab's layout) and every folder of images is a
 * clip, at any depth, in the order of their names. Actions stand in a file of the same name (`walk.mp4` and `walk.csv`,
 * `.npy`, `.npz` or `.txt`; `actions.csv` inside a folder of images); either all clips have them or none.
 *
 * @param options The folder and the part of it.
 * @throws {FileFormatError} If there is no clip, or only some have actions.
 * @throws {FileAccessError} If a folder cannot be listed.
 * @throws {RangeError} If the shares are no shares.
 */
export function folderSet(options: FolderOptions): DataSet {
  const { folder, split, shares = [0.05, 0.05], resolution } = options;
  if (!shares.every((share) => share >= 0) || shares[0] + shares[1] >= 1) {
    throw new RangeError(
      `folder: expected shares of validation and test below 1 in all, found ${shares.join(" and ")}`,
    );
  }
  const file = single(folder), all = file ?? [...search(folder, "")];
  if (all.length === 0) {
    throw new FileFormatError(folder, "expected videos, npz archives or folders of images, found none");
  }
  const chosen = split === undefined || file
    ? all
    : all.filter(({ name }) => splitOf(name, shares) === split);
  if (chosen.length === 0) {
    throw new FileFormatError(
      folder,
      `none of its ${all.length} clips falls into ${split}: give larger shares, or folders of your own for ${
        SPLITS.join(", ")
      }`,
    );
  }
  const has = ({ name, kind, actions }: Found) =>
    actions !== undefined || (kind === "npz" && holdsActions(join(folder, name)));
  const [some, none] = [chosen.find(has), chosen.find((clip) => !has(clip))];
  if (some && none) {
    throw new FileFormatError(
      join(folder, none.name),
      `has no actions in it or beside it (${
        ACTION_ENDINGS.join(", ")
      }), but ${some.name} has: either all clips have them or none`,
    );
  }
  const items = chosen.map(({ name, kind, actions }): Item =>
    (kind === "npz" ? npzItem : videoItem)(join(folder, name), { actions })
  );
  return itemSet({
    name: `folder ${folder}${split ? ` (${split})` : ""}`,
    holds: "frames",
    actions: some !== undefined,
    rule: { short: "refuse" },
    fit: { resolution, crop: resolution !== undefined },
  }, items);
}
