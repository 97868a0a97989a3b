/**
 * Shared by the training verbs: flags, the folder of the run, and its progress on the terminal.
 *
 * @module
 */
import { OwnedFolder } from "../lib/io/owned_folder.ts";
import { listSteps } from "../lib/io/run_folder.ts";
import type { PlannedTraining } from "../lib/pipeline/training_plan.ts";
import { runTraining, type TrainingWatch } from "../lib/pipeline/training_run.ts";
import { optionFiles, readOptions, type TrainOptions } from "../lib/train/options.ts";
import { type Call, choice, type Flags, path, texts, UsageError, type Values } from "./args.ts";
import { deviceFlags, progressFlags } from "./flags.ts";
import { Run } from "./job.ts";
import { terminalColumns } from "./progress.ts";

/** Flags of every training verb. */
export const trainingFlags = {
  // The options that these two make are compared one by one.
  config: path("option file (YAML), the authors' or one in the same schema", { presentation: true }),
  set: texts("replace an option: train.optim_g.lr=3e-4; may be given several times", {
    value: "PATH=VALUE",
    presentation: true,
  }),
  out: path("folder of the run (default: out/train/NAME, with the name in the option file)", {
    presentation: true,
  }),
  init: path("checkpoint (safetensors or .pth) whose weights a new run starts from, as far as they match"),
  resume: choice(["auto", "never"], "resume the run in the folder, or refuse a folder that has one", {
    default: "auto",
    presentation: true,
  }),
  ...deviceFlags,
  ...progressFlags,
};

/** A training verb. */
export interface TrainingVerb {
  readonly name: string;
  /** Pipeline that its option files describe. */
  readonly pipeline: TrainOptions["train"]["train_pipeline"];
  /** Its flags as declared. */
  readonly flags: Flags;
}

/**
 * Reads the option file, claims the folder of the run, trains until the end or Ctrl-C.
 *
 * @param plan Plans the training that the options describe.
 * @param files Further files that flags name.
 * @throws {Interrupted} After Ctrl-C: the last checkpoint holds the run.
 */
export async function train(
  { name: verb, pipeline, flags: declared }: TrainingVerb,
  call: Call<Flags>,
  plan: (options: TrainOptions) => PlannedTraining,
  files: readonly string[] = [],
): Promise<void> {
  const f = call.flags as Values<typeof trainingFlags>;
  if (f.config === undefined) throw new UsageError(`far.ts ${verb}: expected --config FILE, found nothing`);
  const options = readOptions(f.config, f.set), found = options.train.train_pipeline;
  if (found !== pipeline) {
    const other = found === "FARTrainer" ? "train" : "train-vae";
    throw new UsageError(
      `${f.config}: describes a ${found}, expected a ${pipeline}; far.ts ${other} takes it`,
    );
  }
  const folder = f.out ?? `out/train/${options.name}`;
  const sources = [...f.init === undefined ? [] : [f.init], ...files, ...optionFiles(options)];
  using owned = await OwnedFolder.claim(folder, { kind: verb, flag: "--out", sources, others: "keep" });
  if (f.resume === "never" && listSteps(`${folder}/checkpoints`).length > 0) {
    throw new UsageError(`${folder}: holds a run already: take another --out, or omit --resume never`);
  }
  using run = new TrainingRun(f, "finishing the step and saving a checkpoint");
  const planned = plan(options), settings = { verb, declared, flags: f, init: f.init };
  try {
    const end = await runTraining(planned, { ...settings, owned, watch: run, open: () => run.openDevice() });
    run.kept = () => `${end.checkpoint} holds the run; the same command resumes it`;
    if (!end.finished) await run.pause(); // throws
  } finally {
    await run.finish();
  }
}

/** Seconds between two plain lines where there is no terminal. */
const EVERY = 10;

/** Shows a run: on a terminal the line of a step replaces the one before it, elsewhere some of them are printed. */
class TrainingRun extends Run implements TrainingWatch {
  #shown = -Infinity;

  step(line: string, important: boolean): void {
    const { progress } = this, now = progress.now();
    if (progress.mode === "bar") {
      progress.draw(line.slice(0, terminalColumns() - 1));
      if (important) progress.keep();
    } else if (progress.mode === "lines" && (important || now - this.#shown >= EVERY)) {
      this.#shown = now;
      progress.say(line);
    }
  }

  override [Symbol.dispose](): void {
    this.progress.draw("");
    super[Symbol.dispose]();
  }
}
