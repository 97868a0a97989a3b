/**
 * A training run of an option file without the command line: what its observer is told, where it may be stopped, and what
 * its folder holds then.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openDevice } from "../kernels/open.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { OwnedFolder } from "../lib/io/owned_folder.ts";
import { isFile } from "../lib/io/paths.ts";
import { planFar } from "../lib/pipeline/training_plan.ts";
import { runTraining, type TrainingWatch } from "../lib/pipeline/training_run.ts";
import type { RunEnd } from "../lib/train/run.ts";
import { readOptions } from "../lib/train/options.ts";
import { inFolder } from "./cli_helpers.ts";
import { CLIPS } from "./train_cli_setup.ts";

const CONFIG = new URL("data/train_clip.yml", import.meta.url).pathname;

/** An observer that keeps what it is told, and stops a run before its first step or after so many. */
class Recorder implements TrainingWatch {
  readonly warnings: string[] = [];
  readonly lines: string[] = [];
  readonly events: [kind: string, values: Readonly<Record<string, unknown>>][] = [];
  readonly #stopAfter: number;

  constructor(stopAfter = Infinity) {
    this.#stopAfter = stopAfter;
  }

  get steps() {
    return this.events.filter(([kind]) => kind === "step").map(([, { step }]) => step);
  }

  get interrupted() {
    return this.steps.length >= this.#stopAfter;
  }

  say(line: string) {
    this.lines.push(line);
  }

  warn(line: string) {
    this.warnings.push(line);
  }

  event(kind: string, values: Readonly<Record<string, unknown>>) {
    this.events.push([kind, values]);
  }

  step(line: string, important: boolean) {
    if (important) this.lines.push(line);
  }

  pause() {
    return this.interrupted ? Promise.reject(new Error("stopped")) : Promise.resolve();
  }
}

async function run(folder: string, watch: Recorder, ...sets: string[]): Promise<RunEnd> {
  const options = readOptions(CONFIG, [
    `datasets.train.data_list=${CLIPS}`,
    "datasets.train.num_sample=5",
    "train.total_iter=3",
    ...sets,
  ]);
  using owned = await OwnedFolder.claim(folder, { kind: "train", flag: "--out", others: "keep" });
  const opened = await openDevice({ device: "cpu", threads: 1, blas: "off" });
  try {
    return await runTraining(planFar(options, ".gif"), {
      ...{ verb: "train", declared: {}, flags: {}, owned, watch },
      open: () => Promise.resolve(opened),
    });
  } finally {
    opened.device.close();
  }
}

Deno.test("a run that is stopped before its first step leaves its folder as it was", () =>
  inFolder(async (folder) => {
    const watch = new Recorder(0), path = `${folder}/run`;
    await assertRejects(() => run(path, watch), Error, "stopped");
    assertEquals(watch.steps, []);
    const written = [...Deno.readDirSync(folder)].flatMap((
      { name },
    ) => [...Deno.readDirSync(`${folder}/${name}`)]);
    assertEquals(written.map(({ name }) => name), []);
  }));

Deno.test("a run that is stopped after a step resumes; its observer is told of both parts", () =>
  inFolder(async (folder) => {
    const path = `${folder}/run`, first = new Recorder(1), second = new Recorder();
    const half = await run(path, first);
    assertEquals([half.step, half.finished, first.steps], [1, false, [0]]);
    assert(!first.lines.some((line) => line.startsWith("weights:")), "advice is for whole runs");
    const whole = await run(path, second);
    assertEquals([whole.step, whole.updates, whole.finished, second.steps], [3, 3, true, [1, 2]]);
    assertEquals(second.events.map(([kind]) => kind), ["run", "step", "step", "end"]);
    const [, started] = second.events[0];
    assertEquals([started.step, started.from], [1, half.checkpoint]);
    assert(second.lines.includes(`resuming from ${half.checkpoint}, step 1`), second.lines.join("\n"));
    assertMatch(second.lines.at(-2)!, /^3 steps, .*step-00000003, .*loss\.svg, report\.html$/);
    assert(second.lines.at(-1)!.startsWith("weights: "), second.lines.at(-1));
    const told = [first, second].map(({ warnings }) => warnings);
    assertEquals(told.map(([line]) => /num_sample is 5, .* has 1 clips?: all are used/.test(line)), [
      true,
      true,
    ]);
    assert(isFile(`${path}/report.html`) && isFile(`${path}/options.json`));
    await assertRejects(
      () => run(path, new Recorder(), "train.optim_g.lr=0.5"),
      FileFormatError,
      "train.optim_g.lr",
    );
  }));
