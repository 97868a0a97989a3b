/**
 * What the training verbs share: flags, the folder of the run, its watching, Ctrl-C, the end.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { OwnedFolder } from "../lib/io/owned_folder.ts";
import { listSteps } from "../lib/io/run_folder.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import type { FileTensor } from "../lib/io/tensor_file.ts";
import { checkSameRun, latestState } from "../lib/train/checkpoint.ts";
import type { LoopOptions, RunEnd } from "../lib/train/loop.ts";
import { optionFiles, readOptions, type TrainOptions } from "../lib/train/options.ts";
import { choice, type Flags, path, texts, UsageError, type Values } from "./args.ts";
import { linearRate } from "../lib/pipeline/health.ts";
import { availableMemory } from "../lib/io/environment.ts";
import { deviceFlags, openChosen, progressFlags } from "./flags.ts";
import { InterruptListener } from "./interrupt.ts";
import { Progress, progressMode } from "./progress.ts";
import { bytes, duration } from "../lib/units.ts";
import { Interrupted } from "./report.ts";
import { writeTrainingReport } from "../lib/pipeline/report_training.ts";
import { weightsAdvice } from "../lib/train/advice.ts";
import type { OpenData } from "./train_data.ts";
import { decoderOf } from "../lib/data/stamp.ts";
import { runFingerprint } from "./train_fingerprint.ts";
import { TrainLine } from "./train_line.ts";
import { dropSamples } from "../lib/pipeline/train_samples.ts";

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

/** The estimate of a run comes after so many steps, which are its own measurement. */
const MEASURED = 3;

/** Values of {@linkcode trainingFlags}. */
export type TrainingFlags = Values<typeof trainingFlags>;

/** A run that was read but not started: its folder is claimed until it is disposed of. */
export interface OpenRun extends Disposable {
  readonly verb: string;
  readonly options: TrainOptions;
  /** The run's folder. */
  readonly folder: string;
  readonly owned: OwnedFolder;
}

/**
 * Reads the option file of a run and claims its folder.
 *
 * @param verb For messages, and for the mark on the folder.
 * @param pipeline What the file must describe.
 * @param more Files that flags name.
 * @throws {OwnershipError} If the folder holds something else than such a run.
 * @throws {FolderLockedError} If another process trains in it.
 */
export async function openRun(
  verb: string,
  f: TrainingFlags,
  pipeline: TrainOptions["train"]["train_pipeline"],
  more: readonly string[] = [],
): Promise<OpenRun> {
  if (f.config === undefined) throw new UsageError(`far.ts ${verb}: expected --config FILE, found nothing`);
  const options = readOptions(f.config, f.set), found = options.train.train_pipeline;
  if (found !== pipeline) {
    const other = found === "FARTrainer" ? "train" : "train-vae";
    throw new UsageError(
      `${f.config}: describes a ${found}, expected a ${pipeline}; far.ts ${other} takes it`,
    );
  }
  const folder = f.out ?? `out/train/${options.name}`;
  const sources = [...f.init === undefined ? [] : [f.init], ...more, ...optionFiles(options)];
  const owned = await OwnedFolder.claim(folder, { kind: verb, flag: "--out", sources, others: "keep" });
  if (f.resume === "never" && listSteps(`${folder}/checkpoints`).length > 0) {
    owned[Symbol.dispose]();
    throw new UsageError(`${folder}: holds a run already: take another --out, or omit --resume never`);
  }
  return { verb, options, folder, owned, [Symbol.dispose]: () => owned[Symbol.dispose]() };
}

/** A run that is ready to start. */
export interface Planned {
  /** Trained parameters. */
  readonly parameters: number;
  /** Shape of a batch. */
  readonly shape: readonly number[];
  /** Starts it. */
  readonly run: (
    loop: LoopOptions & { readonly init?: ReadonlyMap<string, FileTensor> },
  ) => Promise<RunEnd>;
}

/** What a plan is made with. */
export interface Setting {
  readonly device: Device;
  readonly progress: Progress;
}

/** What a run takes from outside its options. */
export interface Inputs {
  /** The verb's flags as declared. */
  readonly declared: Flags;
  /** Checkpoint that a new run starts from. */
  readonly initFile: string | null;
  /** The data sets. */
  readonly data: { readonly train: OpenData; readonly sample: OpenData | null };
}

/**
 * Opens the device, looks for a run to resume, plans, runs until the end or Ctrl-C, and says how it went.
 *
 * @throws {FileFormatError} If the folder holds another run, or one whose newest checkpoint is damaged.
 * @throws {Interrupted} After Ctrl-C: the last checkpoint holds the run.
 */
export async function runTraining(
  f: TrainingFlags,
  { verb, options, folder, owned }: OpenRun,
  { declared, initFile, data }: Inputs,
  plan: (setting: Setting) => Promise<Planned>,
): Promise<void> {
  const progress = new Progress(progressMode(f)), total = options.train.total_iter;
  using initial = initFile === null ? null : openTensorFile(initFile);
  const { device, reason } = await openChosen(f);
  try {
    progress.say(`device ${reason}`);
    const sets = {
      "datasets.train.data_list": data.train.set,
      "datasets.sample.data_list": data.sample?.set,
    };
    const decoders = await Promise.all(Object.values(sets).map((set) => set && decoderOf(set)));
    const decoder = decoders.find((name) => name) ?? null;
    const fingerprint = runFingerprint({ verb, declared, flags: f, options, sets, device, decoder });
    const saved = latestState(`${folder}/checkpoints`);
    if (saved) checkSameRun(saved, fingerprint, total);
    for (const warning of [data.train.warning, data.sample?.warning]) if (warning) progress.warn(warning);
    if (options.mixed_precision !== "no") {
      progress.say(
        `mixed_precision ${options.mixed_precision}: matrices are stored as f16${
          options.mixed_precision === "bf16" ? " (devices have no bf16)" : ""
        }, their masters, activations, gradients and sums are f32`,
      );
    }
    const { parameters, shape, run } = await plan({ device, progress });
    const peak = 1e9 * await linearRate(device, undefined, 3);
    await owned.mark();
    dropSamples(`${folder}/samples`, saved?.state.step ?? 0);
    await writeAtomic(`${folder}/options.json`, JSON.stringify(options, null, 2) + "\n");
    progress.say(
      `${options.name}: ${
        (parameters / 1e6).toFixed(1)
      } M parameters, batches of [${shape}], ${total} steps, ` +
        `${(peak / 1e9).toFixed(0)} GFLOP/s measured`,
    );
    using interrupt = new InterruptListener(
      (line) => progress.say(line),
      "finishing the step and saving a checkpoint",
    );
    using line = new TrainLine(progress, total);
    const start = performance.now();
    let seen = 0;
    const end = await run({
      device,
      folder,
      name: options.name,
      steps: total,
      logEvery: options.logger.print_freq,
      saveEvery: options.logger.save_checkpoint_freq,
      keep: options.logger.keep_checkpoints,
      fingerprint,
      saved,
      init: initial === null ? undefined : stateDict(initial).tensors,
      peak,
      onStart: ({ step, from, match }) => {
        if (from) progress.say(`resuming from ${from}, step ${step}`);
        if (match) describeMatch(initFile!, match).forEach((text) => progress.say(text));
        progress.event("run", { folder, step, from, match });
      },
      onStep: (p) => {
        // The first step compiles and packs, the second one waits for the first batch that was read ahead.
        if (++seen === MEASURED && p.left > 1) {
          line.say(
            `estimate: ${duration(p.left)} for ${
              total - p.report.step - 1
            } more steps, validation not counted, ` +
              `${bytes(p.memory)} of device memory`,
          );
          progress.event("estimate", { seconds: { steps: p.left }, memory: p.memory });
        }
        line.see(p);
      },
      onValidation: (step, losses) => {
        const shown = Object.entries(losses).map(([name, loss]) =>
          `${name.replaceAll("_", " ")} ${loss.toFixed(4)}`
        );
        if (shown.length > 0) line.say(`step ${step + 1}: ${shown.join(", ")}`);
        progress.event("validation", { step, ...losses });
      },
      stop: () => interrupt.signal !== null,
    });
    const facts = {
      options,
      device: { ...device.info, reason },
      parameters,
      shape,
      ...end,
      warnings: progress.warnings,
    };
    await writeTrainingReport(folder, facts);
    line.say(
      `${end.step} steps, ${
        duration((performance.now() - start) / 1000)
      }: ${end.checkpoint}, ${folder}/loss.svg, report.html`,
    );
    progress.event("end", { ...end });
    if (!end.finished) {
      throw new Interrupted(
        interrupt.signal!,
        `${end.checkpoint} holds the run; the same command resumes it`,
      );
    }
    if (end.step > 0) line.say(weightsAdvice(end.checkpoint, options.train.ema_decay, end.updates));
  } finally {
    device.close();
  }
}

/**
 * Refuses what does not fit before it starts: bytes needed and available.
 *
 * @param peakBytes Device memory of a step.
 * @param states Bytes of moments and averages, which the cpu device keeps outside.
 */
export function checkMemory(device: Device, peakBytes: number, states: number): void {
  const cpu = device.info.name === "cpu";
  const needed = cpu ? peakBytes : peakBytes + states; // the cpu device keeps moments and averages outside
  const limit = device.info.limits.maxBytes, available = availableMemory();
  const advice =
    "take a smaller model, fewer frames or clips per batch, or train.gradient_checkpointing=true";
  if (limit !== undefined && needed > limit) {
    throw new RangeError(
      `training needs ${bytes(needed)} of device memory, the ${device.info.name} device has ${
        bytes(limit)
      }: ${advice}`,
    );
  }
  if (cpu && available !== undefined && needed + states > available) {
    throw new RangeError(
      `training needs ${bytes(needed + states)} of memory, ${bytes(available)} are available: ${advice}`,
    );
  }
}

/** Whole lines about what the initial weights matched. */
function describeMatch(
  file: string,
  match: { taken: readonly string[]; fresh: readonly string[]; unused: readonly string[] },
): string[] {
  const some = (names: readonly string[]) =>
    names.slice(0, 20).join(", ") + (names.length > 20 ? ` and ${names.length - 20} more` : "");
  return [
    `${file}: ${match.taken.length} parameters taken`,
    ...(match.fresh.length > 0 ? [`started fresh (${match.fresh.length}): ${some(match.fresh)}`] : []),
    ...(match.unused.length > 0
      ? [`not part of the model (${match.unused.length}): ${some(match.unused)}`]
      : []),
  ];
}
