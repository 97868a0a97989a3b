/**
 * Shared by the training verbs: flags, the folder of the run, its progress on the terminal, Ctrl-C.
 *
 * @module
 */
import { OwnedFolder } from "../lib/io/owned_folder.ts";
import { listSteps } from "../lib/io/run_folder.ts";
import type { PlannedTraining } from "../lib/pipeline/training_plan.ts";
import { runTraining, type TrainingWatch } from "../lib/pipeline/training_run.ts";
import { optionFiles, readOptions, type TrainOptions } from "../lib/train/options.ts";
import { linearRate } from "../lib/pipeline/health.ts";
import { availableMemory } from "../lib/io/environment.ts";
import { type Call, choice, type Flags, path, texts, UsageError, type Values } from "./args.ts";
import { deviceFlags, openChosen, progressFlags } from "./flags.ts";
import { InterruptListener } from "./interrupt.ts";
import { deviceOf } from "../kernels/device.ts";
import { ProfileFile } from "./profile.ts";
import { Progress, progressMode, terminalColumns } from "./progress.ts";
import { Interrupted } from "./report.ts";

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
  const planned = plan(options), profile = ProfileFile.of(f), opened = await openChosen(f);
  const { device, reason } = profile?.open(opened) ?? opened, progress = new Progress(progressMode(f));
  try {
    using watch = new TerminalWatch(progress);
    const end = await runTraining(planned, {
      ...{ verb, declared, flags: f, owned, init: f.init, watch },
      ...{ device, reason, deviceName: deviceOf(device), available: availableMemory() },
      measurePeak: async () => 1e9 * await linearRate(device, undefined, 3),
    });
    if (end.finished) return;
    throw new Interrupted(watch.signal!, `${end.checkpoint} holds the run; the same command resumes it`);
  } finally {
    await profile?.finish((line) => progress.say(line));
    device.close();
  }
}

/** Seconds between two plain lines where there is no terminal. */
const EVERY = 10;

/** Shows a run: on a terminal the line of a step replaces the one before it, elsewhere some of them are printed. */
class TerminalWatch implements TrainingWatch, Disposable {
  readonly #progress: Progress;
  #interrupts: InterruptListener | undefined;
  #shown = -Infinity;
  #open = false;

  constructor(progress: Progress) {
    this.#progress = progress;
  }

  get warnings(): readonly string[] {
    return this.#progress.warnings;
  }

  /** The signal that asked to stop. */
  get signal() {
    return this.#interrupts?.signal ?? null;
  }

  get stopping(): boolean {
    return this.signal !== null;
  }

  say(line: string): void {
    this.#end();
    this.#progress.say(line);
  }

  warn(line: string): void {
    this.#end();
    this.#progress.warn(line);
  }

  event(kind: string, values: Readonly<Record<string, unknown>>): void {
    this.#progress.event(kind, values);
  }

  begin(): void {
    this.#interrupts = new InterruptListener(
      (line) => this.say(line),
      "finishing the step and saving a checkpoint",
    );
  }

  step(line: string, important: boolean): void {
    const { mode } = this.#progress;
    if (mode === "bar") {
      Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${line.slice(0, terminalColumns() - 1)}`));
      this.#open = true;
      if (important) this.#end();
      return;
    }
    const now = this.#progress.now();
    if (mode !== "lines" || (now - this.#shown < EVERY && !important)) return;
    this.#shown = now;
    this.#progress.say(line);
  }

  #end(): void {
    if (this.#open) console.error();
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.#end();
    this.#interrupts?.[Symbol.dispose]();
  }
}
