/**
 * `far.ts data`: make clips of the built-in world, find the paper's data sets, look for broken files, count.
 *
 * @module
 */
import { join } from "node:path";
import { checkSet, statsOf } from "../lib/data/check.ts";
import type { DataSet } from "../lib/data/clip.ts";
import { folderSet } from "../lib/data/folder.ts";
import { findSet, howToGet, KNOWN_SETS } from "../lib/data/known.ts";
import { type Block, dataSetOf } from "../lib/data/options.ts";
import { worldSet } from "../lib/data/world_set.ts";
import { SPLITS } from "../lib/data/world/world.ts";
import { worldFileNames, writeWorld } from "../lib/data/world/write.ts";
import { printable } from "../lib/io/errors.ts";
import { isFile, isFolder } from "../lib/io/paths.ts";
import { readYaml } from "../lib/io/yaml.ts";
import { choice, integer, path, toggle, UsageError, type Values, verb } from "./args.ts";
import { progressFlags, restartFlag } from "./flags.ts";
import { runJob } from "./job.ts";
import { Progress, progressMode } from "./progress.ts";
import { printJson } from "./report.ts";

const TYPES = ["ucf101", "bair", "minecraft", "dmlab"] as const;
const READERS = {
  ucf101: "UCFDataset",
  bair: "BairDataset",
  minecraft: "MinecraftDataset",
  dmlab: "DMLabDataset",
} as const;

const flags = {
  root: path("list: folder that holds the data sets", { default: "datasets" }),
  type: choice(TYPES, "check, stats: kind of a list, where its path does not say"),
  latents: toggle("check, stats: a list names latents instead of videos"),
  split: choice(SPLITS, "make: part of the world; check, stats: part of a folder or of the world", {
    default: "train",
  }),
  clips: integer("make: clips to write (default 8); stats: clips to look at, check world: clips to make", {
    min: 1,
  }),
  frames: integer("make: frames of a clip", { default: 300, min: 1, max: 100_000 }),
  size: integer("make: rows and columns of a frame, an even number", { default: 64, min: 16, max: 512 }),
  cells: integer("make: cells along each side of the maze", { default: 4, min: 2, max: 64 }),
  seed: integer("make: family of walks", { default: 0, min: 0, max: 2 ** 32 - 1 }),
  first: integer("make: number of the first walk", { default: 0, min: 0 }),
  out: path("make: folder for the clips: new, empty, or an earlier one, to which they are added", {
    default: "out/world",
    presentation: true,
  }),
  ...restartFlag,
  ...progressFlags,
};
/** A folder is taken whole unless --split was given. */
type DataFlags = Values<typeof flags> & { readonly splitGiven: boolean };

/** Work on clips as a stage that has ended when the result is there. */
async function staged<T>(
  progress: Progress,
  what: string,
  clips: number,
  work: (update: (done: number) => void) => Promise<T>,
): Promise<T> {
  using stage = progress.stage(what, clips, "clip");
  return await work((done) => stage.update(done));
}

async function make(what: string | undefined, f: DataFlags): Promise<void> {
  if (what !== "world") {
    throw new UsageError(`far.ts data make: expected world, found ${what ?? "nothing"}`);
  }
  const clips = f.clips ?? 8, { seed, split, size, first, frames } = f;
  await runJob({
    ...{ verb: "data", declared: flags, flags: f, operands: ["make", what], out: "out" },
    stopping: "finishing this clip",
  }, async (job, run) => {
    const resume = await job.begin(null, {}, worldFileNames("*", split));
    const options = { seed, split, size, first, frames, clips, resume, cells: [f.cells, f.cells] as const };
    const files = await staged(
      run.progress,
      "make",
      clips,
      (update) =>
        writeWorld(job.part(""), options, async (done) => {
          update(done);
          if (done < clips) await run.pause();
        }),
    );
    await job.place(files, { add: true });
    const list = join(f.out, files.at(-1)!);
    run.event("done", { list, clips });
    run.say(`wrote ${list} and its ${clips} clips`);
  });
}

function list(f: DataFlags): void {
  const rows = KNOWN_SETS.map((known) => ({
    name: known.folder,
    what: known.what,
    lists: findSet(known, f.root),
    get: howToGet(known, f.root),
  }));
  if (f.json) return printJson(rows, 2);
  console.log("world: endless walks through mazes, made on the spot; nothing to download");
  for (const { name, what, lists, get } of rows) {
    const there = lists.filter(({ clips }) => clips !== undefined);
    console.log(`${name}: ${what}${there.length === 0 ? "; not here" : ""}`);
    for (const { list, clips } of there) console.log(`  ${list}: ${clips} clips`);
    for (const { list, problem } of lists) {
      if (problem !== undefined && (there.length > 0 || !/no such file/.test(problem))) {
        console.log(`  ${printable(problem.startsWith(list) ? problem : `${list}: ${problem}`)}`);
      }
    }
    if (there.length < lists.length) console.log(`  to get it: ${get}`);
  }
}

/** The reader of a list, by its path. */
function typeOf(what: string, f: DataFlags): string {
  const name = f.type ?? TYPES.find((type) => what.toLowerCase().includes(type.replace("101", "")));
  if (name !== undefined) return READERS[name];
  if (/world_\w+\.json$/.test(what)) return READERS.dmlab;
  throw new UsageError(`far.ts data: the path ${what} does not tell what kind of list it is: give --type`);
}

/** The data sets that an operand means: the world, a folder, a list, or all of an option file. */
function setsOf(what: string, f: DataFlags): DataSet[] {
  if (what === "world") {
    const cells = [f.cells, f.cells] as const, clips = f.clips ?? (f.split === "train" ? 256 : undefined);
    return [worldSet({ seed: f.seed, split: f.split, size: f.size, frames: f.frames, cells, clips })];
  }
  if (/\.ya?ml$/i.test(what)) {
    const options = readYaml(what) as { datasets?: Record<string, Block> };
    const blocks = Object.entries(options?.datasets ?? {});
    if (blocks.length === 0) throw new Error(`${what}: expected data sets under "datasets", found none`);
    return blocks.map(([name, block]) => dataSetOf(block, `${what}: datasets.${name}`).set);
  }
  const block = { data_list: what, split: "training", data_cfg: { num_frames: 1 } };
  if (isFolder(what)) {
    if (isFile(`${what}/index.json`)) return [dataSetOf({ ...block, type: "LatentDataset" }, what).set];
    return [folderSet({ folder: what, split: f.splitGiven ? f.split : undefined })];
  }
  return [dataSetOf({ ...block, type: typeOf(what, f), use_latent: f.latents }, what).set];
}

async function check(what: string, f: DataFlags): Promise<number> {
  const progress = new Progress(progressMode(f));
  let broken = 0;
  for (const set of setsOf(what, f)) {
    const problems = await staged(progress, "check", set.length, (update) => checkSet(set, update));
    broken += problems.length;
    for (const { message } of problems) console.error(`far: ${printable(message)}`);
    const sum = problems.length === 0 ? "all can be read" : `${problems.length} cannot be used`;
    progress.event("checked", { name: set.name, clips: set.length, problems });
    progress.say(`${set.name}: ${set.length} clips, ${sum}`);
  }
  return broken === 0 ? 0 : 1;
}

async function stats(what: string, f: DataFlags): Promise<void> {
  const progress = new Progress(progressMode(f));
  for (const set of setsOf(what, f)) {
    const clips = Math.min(f.clips ?? set.length, set.length);
    const found = await staged(progress, "count", clips, (update) => statsOf(set, clips, update));
    if (f.json) {
      progress.event("stats", { name: set.name, ...found });
      continue;
    }
    const three = (values: readonly number[]) => values.map((v) => v.toFixed(3)).join(" ");
    const counts = (record: Readonly<Record<string, number>>) =>
      Object.entries(record).map(([key, count]) => `${key} (${count})`).join(", ");
    const { least, all, most } = found.frames;
    console.log(
      `${set.name}: ${found.clips} of ${found.of} clips, ${all} frames, ${least} to ${most} per clip`,
    );
    console.log(`  sizes: ${counts(found.sizes)}`);
    if (found.actions) console.log(`  actions: ${counts(found.actions)}`);
    if (found.labels) console.log(`  classes: ${counts(found.labels)}`);
    console.log(`  mean ${three(found.mean)}, deviation ${three(found.deviation)}`);
  }
}

/** `far.ts data`. */
export const dataVerb = verb({
  name: "data",
  summary: "Make clips of the built-in world; list, check and count data sets",
  about:
    "make world writes walks through the built-in mazes as npz files in DMLab's layout (video, actions, and the camera's " +
    "poses) with a list. list tells which of the paper's data sets are here and how to get the others. check reads every " +
    "clip in full and names all that are broken: exit code 1 if there are any. stats counts frames, sizes, actions and " +
    "classes.\n\n" +
    "WHAT is world, a folder of your own clips (videos, npz, folders of images, with actions beside them), a folder of " +
    "latents, one of the authors' lists (datasets/dmlab/dmlab_train.json), or an option file (yml), of which all data " +
    "sets are taken.",
  operands: [
    { name: "ACTION", help: "what to do", choices: ["make", "list", "check", "stats"] },
    { name: "WHAT", help: "world, a folder, a list (json, txt) or an option file (yml)", optional: true },
  ],
  flags,
  examples: [
    {
      does: "write 16 test walks of 300 frames",
      line: "data make world --split test --clips 16 --out out/world",
    },
    { does: "list the data sets that are present", line: "data list" },
    { does: "find broken files before training", line: "data check datasets/dmlab/dmlab_train.json" },
    { does: "count frames, sizes and classes in a folder of videos", line: "data stats holidays --json" },
  ],
  run: async ({ flags: raw, operands: [action, what], given }) => {
    const f: DataFlags = { ...raw, splitGiven: given.has("split") };
    if (action === "make") return await make(what, f);
    if (action === "list") {
      if (what !== undefined) {
        throw new UsageError(`far.ts data list: expected only flags, found also ${what}`);
      }
      return list(f);
    }
    if (what === undefined) throw new UsageError(`far.ts data ${action}: expected WHAT, found nothing`);
    return action === "check" ? await check(what, f) : await stats(what, f);
  },
});
