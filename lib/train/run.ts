/**
 * A whole training run in a folder: it goes on where it stopped, logs, validates, saves checkpoints and draws its curve.
 *
 *     FOLDER/checkpoints/step-…   see checkpoint.ts
 *            log.jsonl            one JSON object a line
 *            tensorboard/         event files
 *            loss.svg             the curve
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { farShapes } from "../far/config.ts";
import { writeAtomic } from "../io/atomic.ts";
import { StepLog } from "../io/run_folder.ts";
import type { FileTensor } from "../io/tensor_file.ts";
import { EventWriter } from "../io/tfevents.ts";
import type { Params } from "../params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../tensor.ts";
import { configChanges, latestCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import { stepCost } from "./cost.ts";
import { initialParams, type InitMatch } from "./init.ts";
import { flowMatchingLoss, type TrainBatch } from "./objective.ts";
import { curvesSvg } from "./plot.ts";
import { type BatchSource, prepareBatch, type StepReport, Trainer, type TrainerConfig } from "./trainer.ts";

/** Validation on clips that are not trained on. */
export interface Validation {
  /** Steps between two validations; the end of the run is one too. */
  readonly every: number;
  /** Held-out batches. */
  readonly batches: readonly TrainBatch[];
  /** Makes samples with weights: averaged ones where the run has them. Pictures for TensorBoard come back by tag. */
  readonly sample?: (
    params: Params,
    step: number,
  ) => Promise<Readonly<Record<string, { width: number; height: number; encoded: Uint8Array }>> | void>;
}

/** How a run is watched and kept. */
export interface RunOptions {
  /** Where to compute. */
  readonly device: Device;
  /** How to train. */
  readonly config: TrainerConfig;
  /** What to train on. */
  readonly source: BatchSource;
  /** The run's folder. */
  readonly folder: string;
  /** Title of the curve. */
  readonly name: string;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Steps between two lines of the log. */
  readonly logEvery: number;
  /** Steps between two checkpoints; the end of the run is one too. */
  readonly saveEvery: number;
  /** Checkpoints that stay. */
  readonly keep: number;
  /** Held-out clips. */
  readonly validation?: Validation;
  /** Tensors to start a new run from. */
  readonly init?: ReadonlyMap<string, FileTensor>;
  /** FLOP/s that the device reaches on a large matrix product, for the share of it that training uses. */
  readonly peak?: number;
  /** Is told how the run begins. */
  readonly onStart?: (start: RunStart) => void;
  /** Is told after every step. */
  readonly onStep?: (progress: RunProgress) => void;
  /** Is told what a validation measured. */
  readonly onValidation?: (step: number, losses: Readonly<Record<string, number>>) => void;
  /** When true after a step, the run saves a checkpoint and ends. */
  readonly stop?: () => boolean;
}

/** How a run begins. */
export interface RunStart {
  /** Steps that were done before. */
  readonly step: number;
  /** The checkpoint that it goes on from. */
  readonly from?: string;
  /** What the configuration changes about it. */
  readonly changes: readonly string[];
  /** What the initial weights matched, for a new run. */
  readonly match?: InitMatch;
}

/** Where a run stands. */
export interface RunProgress {
  /** What the last step did. */
  readonly report: StepReport;
  /** Mean loss since the last line of the log. */
  readonly loss: number;
  /** Seconds of a step, over the last steps. */
  readonly seconds: number;
  /** Frames a second. */
  readonly framesPerSecond: number;
  /** Model FLOP/s: forward and backward as if nothing was computed twice. */
  readonly flopsPerSecond: number;
  /** Share of the device's peak, where that was measured. */
  readonly share?: number;
  /** Seconds until the end. */
  readonly left: number;
  /** Largest amount of device memory in use so far, in bytes. */
  readonly memory: number;
}

/** How a run ended. */
export interface RunEnd {
  /** Steps done. */
  readonly step: number;
  /** False when it was told to stop before. */
  readonly finished: boolean;
  /** The last checkpoint. */
  readonly checkpoint: string;
}

/** Steps over which time is averaged. */
const RECENT = 20;
/** Validation draws noise of its own, the same at every validation. */
const VALIDATION_SEED = 0x5eed;

/** Mean loss over held-out batches, each with the same noise at every call. */
export async function validationLoss(
  device: Device,
  params: Params,
  config: TrainerConfig,
  batches: readonly TrainBatch[],
): Promise<number> {
  let sum = 0;
  for (const [i, batch] of batches.entries()) {
    const input = prepareBatch({ ...config, seed: VALIDATION_SEED }, batch, i);
    const loss = unscoped(() => scope(() => flowMatchingLoss(params, device, input)));
    sum += (await loss.read()).reduce((a, b) => a + b, 0);
    loss.dispose();
  }
  return sum / batches.length;
}

async function startTrainer(
  o: RunOptions,
  checkpoints: string,
): Promise<{ trainer: Trainer; start: RunStart }> {
  const { device, config, source } = o, shapes = farShapes(config.model);
  const saved = latestCheckpoint(checkpoints, shapes, config.emaDecay !== null);
  if (!saved) {
    const { params, match } = initialParams(device, shapes, config.seed, o.init);
    const start = { step: 0, changes: [], ...(o.init ? { match } : {}) };
    return { trainer: await Trainer.start(device, params, config, source), start };
  }
  const params = unscoped(() =>
    Object.fromEntries(
      Object.entries(saved.params).map(([name, values]) => [name, Tensor.from(device, values, shapes[name])]),
    )
  );
  const start = { step: saved.state.step, from: saved.path, changes: configChanges(saved, config) };
  return { trainer: await Trainer.start(device, params, config, source, saved), start };
}

/**
 * Runs until `steps` steps are done, or until it is told to stop. A folder with checkpoints is gone on with: on one device
 * the end has the same bits as that of a run that was never interrupted, however it was.
 *
 * @throws {DivergedError} If too many steps in a row were not finite; the last checkpoint is untouched then.
 * @throws {FileFormatError} If the last checkpoint belongs to another model.
 */
export async function trainRun(o: RunOptions): Promise<RunEnd> {
  const { folder } = o, checkpoints = `${folder}/checkpoints`;
  const { trainer, start } = await startTrainer(o, checkpoints);
  try {
    const log = new StepLog(`${folder}/log.jsonl`);
    await log.cutFrom(start.step);
    const events = new EventWriter(`${folder}/tensorboard`, start.step);
    o.onStart?.(start);
    const watch = new Watch(o), validate = () => runValidation(o, trainer, log, events);
    let checkpoint = start.from ?? "", stopped = false;
    while (trainer.state.step < o.steps && !stopped) {
      const began = performance.now(), report = await trainer.step();
      const done = report.step + 1, last = done === o.steps;
      const progress = watch.see(report, (performance.now() - began) / 1000);
      o.onStep?.(progress);
      if (done % o.logEvery === 0 || last || report.step === 0 || report.skipped) {
        const { step, lr, gradientNorm, skipped } = report,
          { loss, seconds, framesPerSecond, flopsPerSecond } = progress;
        const values = { loss, gradientNorm, lr, seconds, framesPerSecond, flopsPerSecond };
        log.append({
          step,
          time: Date.now() / 1000,
          ...values,
          memory: progress.memory,
          ...(skipped ? { skipped } : {}),
        });
        const finite = Object.entries(values).filter(([, v]) => Number.isFinite(v));
        events.scalars(step, Object.fromEntries(finite.map(([k, v]) => [`train/${k}`, v])));
        watch.restart();
      }
      if (o.validation && (done % o.validation.every === 0 || last)) await validate();
      stopped = o.stop?.() ?? false;
      if (done % o.saveEvery === 0 || last || stopped) {
        checkpoint = await saveCheckpoint(trainer, checkpoints, o.keep);
      }
    }
    await writeAtomic(`${folder}/loss.svg`, curvesSvg(o.name, curvesOf(log)));
    return { step: trainer.state.step, finished: trainer.state.step >= o.steps, checkpoint };
  } finally {
    trainer.dispose();
  }
}

async function runValidation(
  o: RunOptions,
  trainer: Trainer,
  log: StepLog,
  events: EventWriter,
): Promise<void> {
  const { device, config, validation } = o, { batches, sample } = validation!, step = trainer.state.step - 1;
  const losses: Record<string, number> = {};
  if (batches.length > 0) {
    losses.validation_loss = await validationLoss(device, trainer.params, config, batches);
  }
  const averaged = await trainer.ema?.params();
  try {
    if (averaged && batches.length > 0) {
      losses.validation_loss_ema = await validationLoss(device, averaged, config, batches);
    }
    const pictures = await sample?.(averaged ?? trainer.params, step + 1);
    for (const [tag, picture] of Object.entries(pictures ?? {})) events.image(step, tag, picture);
  } finally {
    disposeAll(averaged);
  }
  if (Object.keys(losses).length > 0) {
    log.append({ step, ...losses });
    events.scalars(step, Object.fromEntries(Object.entries(losses).map(([k, v]) => [`val/${k}`, v])));
  }
  o.onValidation?.(step, losses);
}

function curvesOf(log: StepLog) {
  const lines = log.lines();
  return [["loss", "training loss"], ["validation_loss", "validation"], [
    "validation_loss_ema",
    "averaged weights",
  ]]
    .map(([key, name]) => ({
      name,
      points: lines.filter((l) => typeof l[key] === "number").map((l) => [l.step, l[key] as number] as const),
    }))
    .filter((c) => c.points.length > 0);
}

/** Rates over the last steps. */
class Watch {
  readonly #o: RunOptions;
  readonly #recent: { readonly seconds: number; readonly frames: number; readonly flops: number }[] = [];
  readonly #flops = new Map<string, number>();
  #losses: number[] = [];

  constructor(o: RunOptions) {
    this.#o = o;
  }

  /** @param seconds What the step took; validation and checkpoints are not counted. */
  see(report: StepReport, seconds: number): RunProgress {
    const { device, steps, peak } = this.#o, recent = this.#recent;
    if (Number.isFinite(report.loss)) this.#losses.push(report.loss);
    const flops = report.shapes.reduce((sum, shape) => sum + this.#flopsOf(shape), 0);
    recent.push({ seconds, frames: report.frames, flops });
    if (recent.length > RECENT) recent.shift();
    const total = (key: "seconds" | "frames" | "flops") => recent.reduce((n, e) => n + e[key], 0);
    const elapsed = total("seconds"),
      mean = elapsed / recent.length,
      flopsPerSecond = total("flops") / elapsed;
    return {
      report,
      loss: this.#losses.length > 0
        ? this.#losses.reduce((a, b) => a + b, 0) / this.#losses.length
        : report.loss,
      seconds: mean,
      framesPerSecond: total("frames") / elapsed,
      flopsPerSecond,
      ...(peak ? { share: flopsPerSecond / peak } : {}),
      left: (steps - report.step - 1) * mean,
      memory: device.stats.peakBytes,
    };
  }

  /** Forgets the losses that were logged. */
  restart(): void {
    this.#losses = [];
  }

  #flopsOf(shape: TrainBatch["shape"]): number {
    const { model, objective } = this.#o.config, key = shape.join();
    let flops = this.#flops.get(key);
    if (flops === undefined) {
      this.#flops.set(key, flops = stepCost(model, shape, { full: objective.videoDiT }).flops);
    }
    return flops;
  }
}
