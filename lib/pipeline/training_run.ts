/**
 * A training run as an option file describes it, in its folder: checks whether it is the run that the folder holds, trains,
 * and writes the report.
 *
 * @module
 */
import type { Opened } from "../../kernels/open.ts";
import { decoderOf } from "../data/stamp.ts";
import { writeAtomic } from "../io/atomic.ts";
import { openTensorFile } from "../io/open.ts";
import type { OwnedFolder } from "../io/owned_folder.ts";
import { stateDict } from "../io/state_dict.ts";
import { weightsAdvice } from "../train/advice.ts";
import { checkSameRun, latestState } from "../train/checkpoint.ts";
import type { RunProgress } from "../train/meter.ts";
import type { RunEnd } from "../train/run.ts";
import { duration } from "../units.ts";
import { linearRate } from "./health.ts";
import { writeTrainingReport } from "./report_training.ts";
import { runFingerprint, type RunParts } from "./training_fingerprint.ts";
import type { PlannedTraining } from "./training_plan.ts";
import { dropSamples } from "./training_samples.ts";
import { estimateLine, matchLines, precisionLine, stepLine, validationLine } from "./training_text.ts";
import type { Watch } from "./watch.ts";

/** Observer of a training run. Until the first step, {@linkcode Watch.pause} is where it may be stopped. */
export interface TrainingWatch
  extends Pick<Watch, "warnings" | "interrupted" | "say" | "warn" | "event" | "pause"> {
  /** A line about the last step, which the next one may replace unless it is important. */
  step(line: string, important: boolean): void;
}

/** Where and how a planned training runs. */
export interface TrainingRunOptions extends Pick<RunParts, "verb" | "declared" | "flags"> {
  /** The run's folder, claimed by this process. */
  readonly owned: OwnedFolder;
  /** Checkpoint to start from, instead of that of the options. */
  readonly init?: string;
  /** Opens the device; the caller closes it. */
  readonly open: () => Promise<Opened>;
  /** Observer. */
  readonly watch: TrainingWatch;
}

/** The estimate of a run comes after so many steps, which measure it. */
const MEASURED = 3;

/**
 * Resumes the run in the folder or starts one, and trains until the end or until the user wants to stop.
 *
 * @throws {FileFormatError} If the folder holds another run, or one whose newest checkpoint is damaged.
 * @throws {RangeError} If training does not fit into memory.
 */
export async function runTraining(training: PlannedTraining, o: TrainingRunOptions): Promise<RunEnd> {
  const { options, train, heldOut, plan } = training, { owned, watch } = o;
  const folder = owned.path, total = options.train.total_iter, initFile = o.init ?? training.initFile;
  using initial = initFile === null ? null : openTensorFile(initFile);
  const { device, reason } = await o.open();
  const sets = { "datasets.train.data_list": train.set, "datasets.sample.data_list": heldOut?.set };
  const decoders = await Promise.all(Object.values(sets).map((set) => set && decoderOf(set)));
  const decoder = decoders.find((name) => name) ?? null;
  const { verb, declared, flags } = o;
  const fingerprint = runFingerprint({ verb, declared, flags, options, sets, device, decoder });
  const saved = latestState(`${folder}/checkpoints`);
  if (saved) checkSameRun(saved, fingerprint, total);
  for (const { warning } of heldOut ? [train, heldOut] : [train]) if (warning) watch.warn(warning);
  const precision = precisionLine(options);
  if (precision) watch.say(precision);
  const { parameters, shape, start } = await plan({
    device,
    folder,
    say: (line) => watch.say(line),
    warn: (line) => watch.warn(line),
  });
  const peak = 1e9 * await linearRate(device, undefined, 3);
  await watch.pause();
  await owned.mark();
  dropSamples(`${folder}/samples`, saved?.state.step ?? 0);
  await writeAtomic(`${folder}/options.json`, JSON.stringify(options, null, 2) + "\n");
  watch.say(
    `${options.name}: ${
      (parameters / 1e6).toFixed(1)
    } M parameters, batches of [${shape}], ${total} steps, ` +
      `${(peak / 1e9).toFixed(0)} GFLOP/s measured`,
  );
  const began = performance.now(), observer = stepObserver(watch, total);
  const end = await start({
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
    onStart({ step, from, match }) {
      if (from) watch.say(`resuming from ${from}, step ${step}`);
      if (match) matchLines(initFile!, match).forEach((line) => watch.say(line));
      watch.event("run", { folder, step, from, match });
    },
    onStep: observer,
    onValidation(step, measured) {
      if (Object.keys(measured).length > 0) watch.say(validationLine(step, measured));
      watch.event("validation", { step, ...measured });
    },
    stop: () => watch.interrupted,
  });
  await writeTrainingReport(folder, {
    options,
    device: { ...device.info, reason },
    parameters,
    shape,
    ...end,
    warnings: watch.warnings,
  });
  const took = duration((performance.now() - began) / 1000);
  watch.say(`${end.step} steps, ${took}: ${end.checkpoint}, ${folder}/loss.svg, report.html`);
  watch.event("end", { ...end });
  if (end.finished && end.step > 0) {
    watch.say(weightsAdvice(end.checkpoint, options.train.ema_decay, end.updates));
  }
  return end;
}

/** Tells about every step, and estimates the run once. */
function stepObserver(watch: TrainingWatch, total: number): (progress: RunProgress) => void {
  let seen = 0;
  return (p) => {
    const { step, loss, gradientNorm, lr, skipped } = p.report;
    // The first step compiles and packs, the second one waits for the first batch that was read ahead.
    if (++seen === MEASURED && p.left > 1) {
      watch.say(estimateLine(p, total));
      watch.event("estimate", { seconds: { steps: p.left }, memory: p.memory });
    }
    const { seconds, framesPerSecond, flopsPerSecond, share, left, memory } = p;
    watch.event("step", {
      ...{ step, total, loss, gradientNorm, lr },
      ...{ seconds, framesPerSecond, flopsPerSecond, share, left, memory, skipped },
    });
    watch.step(stepLine(p, total), step + 1 === total || skipped !== undefined);
  };
}
