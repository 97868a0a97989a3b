/**
 * `far.ts data`: make clips of the built-in world, find the paper's data sets, look for broken files, count.
 *
 * @module
 */
import { join } from "node:path";
import { checkSet, type SetStats, statsOf } from "../lib/data/check.ts";
import { stepsOf, WORLDS } from "../lib/data/world_set.ts";
import type { Returns } from "../lib/data/world/returns.ts";
import { SPLITS } from "../lib/data/world/world.ts";
import { worldFileNames, writeWorld } from "../lib/data/world/write.ts";
import { printable } from "../lib/io/errors.ts";
import {
  LIST_TYPES,
  namedSets,
  presentLines,
  presentSets,
  type SetOptions,
} from "../lib/pipeline/named_sets.ts";
import { choice, integer, path, toggle, UsageError, type Values, verb } from "./args.ts";
import { progressFlags, restartFlag } from "./flags.ts";
import { runJob } from "./job.ts";
import { Progress, progressMode } from "./progress.ts";
import { printJson } from "./report.ts";

const flags = {
  root: path("list: folder that holds the data sets", { default: "datasets" }),
  type: choice(LIST_TYPES, "check, stats: kind of a list, where its path does not say"),
  latents: toggle("check, stats: a list names latents instead of videos"),
  split: choice(SPLITS, "make: part of the world; check, stats: part of a folder or of the world", {
    default: "train",
  }),
  clips: integer(
    "make: clips to write (default 8); stats: clips to look at, check world or grid: clips to make",
    {
      min: 1,
    },
  ),
  frames: integer("make: frames of a clip", { default: 300, min: 1, max: 100_000 }),
  size: integer("make: rows and columns of a frame, an even number", { default: 64, min: 16, max: 512 }),
  cells: integer("make: cells along each side of the maze", { default: 4, min: 2, max: 64 }),
  seed: integer("make: family of walks", { default: 0, min: 0, max: 2 ** 32 - 1 }),
  ctx: integer("stats: frames of context; those behind it are looked up in it", { default: 144, min: 1 }),
  short: integer("stats: last frames of the context that count as recent", { default: 16, min: 1 }),
  first: integer("make: number of the first walk", { default: 0, min: 0 }),
  out: path("make: folder for the clips: new, empty, or an earlier one, to which they are added", {
    default: "out/world",
    presentation: true,
  }),
  ...restartFlag,
  ...progressFlags,
};
type DataFlags = Values<typeof flags>;

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
  const steps = stepsOf(what ?? "");
  if (what === undefined || steps === undefined) {
    const kinds = Object.values(WORLDS).join(" or ");
    throw new UsageError(`far.ts data make: expected ${kinds}, found ${what ?? "nothing"}`);
  }
  const clips = f.clips ?? 8, { seed, split, size, first, frames } = f;
  await runJob({
    ...{ verb: "data", declared: flags, flags: f, operands: ["make", what], out: "out" },
    stopping: "finishing this clip",
  }, async (job, run) => {
    const resume = await job.begin(null, {}, worldFileNames("*", split, steps));
    const cells = [f.cells, f.cells] as const;
    const options = { seed, split, steps, size, first, frames, clips, resume, cells };
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
  const sets = presentSets(f.root);
  if (f.json) return printJson(sets, 2);
  console.log("world, grid: endless walks through mazes, made on the spot; nothing to download");
  for (const line of presentLines(sets)) console.log(printable(line));
}

async function check(what: string, f: DataFlags, options: SetOptions): Promise<number> {
  const progress = new Progress(progressMode(f));
  let broken = 0;
  for (const set of namedSets(what, options)) {
    const problems = await staged(progress, "check", set.length, (update) => checkSet(set, update));
    broken += problems.length;
    for (const { message } of problems) console.error(`far: ${printable(message)}`);
    const sum = problems.length === 0 ? "all can be read" : `${problems.length} cannot be used`;
    progress.event("checked", { name: set.name, clips: set.length, problems });
    progress.say(`${set.name}: ${set.length} clips, ${sum}`);
  }
  return broken === 0 ? 0 : 1;
}

async function stats(what: string, f: DataFlags, options: SetOptions): Promise<void> {
  if (f.short > f.ctx) throw new UsageError(`--short: expected at most --ctx ${f.ctx}, found ${f.short}`);
  const progress = new Progress(progressMode(f)), returns = { context: f.ctx, window: f.short };
  for (const set of namedSets(what, options)) {
    const clips = Math.min(f.clips ?? set.length, set.length);
    const found = await staged(progress, "count", clips, (update) => statsOf(set, clips, update, returns));
    if (f.json) {
      progress.event("stats", { name: set.name, ...found });
      continue;
    }
    for (const line of statsLines(set.name, found, f)) console.log(printable(line));
  }
}

/** Describes the value of memory in words. */
function returnLines(
  { samePose, samePoseDistant, samePlace, oracle, oracleWindow }: Returns,
  { ctx, short }: DataFlags,
): string[] {
  const [same, distant, near] = [samePose, samePoseDistant, samePlace].map((share) =>
    `${(100 * share).toFixed(1)} %`
  );
  return [
    `frames from ${ctx} on: ${same} have exactly a pose of frames 0 to ${
      ctx - 1
    }, ${distant} one that the last ` +
    `${short} of them lack, ${near} a pose near one`,
    `showing the frame with the nearest pose scores ${oracle.toFixed(2)} dB, of the last ${short} alone ` +
    `${oracleWindow.toFixed(2)} dB (PSNR of the mean squared error)`,
  ];
}

function statsLines(name: string, found: SetStats, f: DataFlags): string[] {
  const { clips, of, frames, sizes, actions, labels, mean, deviation, returns } = found;
  const three = (values: readonly number[]) => values.map((v) => v.toFixed(3)).join(" ");
  const counts = (record: Readonly<Record<string, number>>) =>
    Object.entries(record).map(([key, count]) => `${key} (${count})`).join(", ");
  return [
    `${name}: ${clips} of ${of} clips, ${frames.all} frames, ${frames.least} to ${frames.most} per clip`,
    `  sizes: ${counts(sizes)}`,
    ...(actions ? [`  actions: ${counts(actions)}`] : []),
    ...(labels ? [`  classes: ${counts(labels)}`] : []),
    `  mean ${three(mean)}, deviation ${three(deviation)}`,
    ...(returns ? returnLines(returns, f).map((line) => `  ${line}`) : []),
  ];
}

/** `far.ts data`. */
export const dataVerb = verb({
  name: "data",
  summary: "Make clips of the built-in world; list, check and count data sets",
  about:
    "make world writes walks through the built-in mazes as npz files in DMLab's layout (video, actions, and the camera's " +
    "poses) with a list; make grid, walks with turns of 90 degrees and whole cells. list tells which of the paper's data sets are here and how to get the others. check reads every " +
    "clip in full and names all that are broken: exit code 1 if there are any. stats counts frames, sizes, actions and " +
    "classes, and for world and grid how often a walk returns to what its context has shown.\n\n" +
    "WHAT is world or grid, a folder of your own clips (videos, npz, folders of images, with actions beside them), a folder of " +
    "latents, one of the authors' lists (datasets/dmlab/dmlab_train.json), or an option file (yml), of which all data " +
    "sets are taken.",
  operands: [
    { name: "ACTION", help: "what to do", choices: ["make", "list", "check", "stats"] },
    {
      name: "WHAT",
      help: "world, grid, a folder, a list (json, txt) or an option file (yml)",
      optional: true,
    },
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
  run: async ({ flags: f, operands: [action, what], given }) => {
    if (action === "make") return await make(what, f);
    if (action === "list") {
      if (what === undefined) return list(f);
      throw new UsageError(`far.ts data list: expected only flags, found also ${what}`);
    }
    if (what === undefined) throw new UsageError(`far.ts data ${action}: expected WHAT, found nothing`);
    // A folder is taken whole unless --split was given.
    const options = { ...f, split: given.has("split") ? f.split : undefined, world: f };
    return action === "check" ? await check(what, f, options) : await stats(what, f, options);
  },
});
