/**
 * A whole training run in a folder, whatever is trained: it resumes where it stopped, logs, validates, saves checkpoints
 * and draws its curve.
 *
 *     FOLDER/checkpoints/step-…   see checkpoint.ts
 *            log.jsonl            one JSON object per line
 *            tensorboard/         event files
 *            loss.svg             the curve
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { sweepAbandoned, writeAtomic } from "../io/atomic.ts";
import { StepLog } from "../io/run_folder.ts";
import type { FileTensor } from "../io/tensor_file.ts";
import { EventWriter } from "../io/tfevents.ts";
import type { Params } from "../params.ts";
import { disposeAll } from "../tensor.ts";
import {
  checkSameRun,
  type Fingerprint,
  latestState,
  pruneCheckpoints,
  readCheckpoint,
  saveCheckpoint,
  type SavedState,
} from "./checkpoint.ts";
import { initialParams, type InitMatch } from "./init.ts";
import { Meter, type RunProgress } from "./meter.ts";
import type { Objective, TrainInput } from "./objective.ts";
import { Trainer, type TrainerConfig } from "./trainer.ts";

/** Settings of the training loop: folder, length, logging, checkpoints, callbacks. */
export interface LoopOptions {
  /** The device to compute on. */
  readonly device: Device;
  /** The run's folder. */
  readonly folder: string;
  /** Title of the curve. */
  readonly name: string;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Steps between two lines of the log. */
  readonly logEvery: number;
  /** Steps between two checkpoints; the last step of the run saves one too. */
  readonly saveEvery: number;
  /** Number of checkpoints to keep. */
  readonly keep: number;
  /** Everything that decides the bits of the run; a folder with another one is refused. Default: the configuration. */
  readonly fingerprint?: Fingerprint;
  /** The folder's newest checkpoint, where the caller has already looked for it and compared fingerprints. */
  readonly saved?: SavedState | null;
  /** Weights that a new run of the model starts from, as far as they match. */
  readonly init?: ReadonlyMap<string, FileTensor>;
  /** FLOP/s that the device reaches on a large matrix product; steps are reported as a share of it. */
  readonly peak?: number;
  /** Called before the first step. */
  readonly onStart?: (start: RunStart) => void;
  /** Called after every step. */
  readonly onStep?: (progress: RunProgress) => void;
  /** Called after every validation. */
  readonly onValidation?: (step: number, measured: Readonly<Record<string, number>>) => void;
  /** Called after every step; if it returns true, the run saves a checkpoint and ends. */
  readonly stop?: () => boolean;
}

/** An encoded picture for TensorBoard. */
export interface Picture {
  /** Columns. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** PNG. */
  readonly encoded: Uint8Array;
}

/** Validation on data that is not trained on. */
export interface Validation {
  /** Steps between two validations; the last step of the run validates too. */
  readonly every: number;
  /** Losses and other measures of weights, by name. Those of averaged weights are logged with `_ema` behind the name. */
  readonly measure: (params: Params) => Promise<Readonly<Record<string, number>>>;
  /** Makes samples with the averaged weights, or the raw ones of a run without averages. Returns pictures by tag. */
  readonly sample?: (params: Params, step: number) => Promise<Readonly<Record<string, Picture>>>;
}

/** A run. */
export interface RunOptions<Input extends TrainInput> extends LoopOptions {
  /** Networks, batches and loss; the run disposes of it. */
  readonly objective: Objective<Input>;
  /** Configuration of the trainer. */
  readonly config: TrainerConfig;
  /** Validation, if any. */
  readonly validation?: Validation;
}

/** Start of a run. */
export interface RunStart {
  /** Steps that were done before. */
  readonly step: number;
  /** The checkpoint that it resumes from. */
  readonly from?: string;
  /** Match of the initial weights with the model, for a new run. */
  readonly match?: InitMatch;
}

/** End of a run. */
export interface RunEnd {
  /** Steps done. */
  readonly step: number;
  /** False if it was stopped before its last step. */
  readonly finished: boolean;
  /** Updates of the weights: steps that were not skipped. */
  readonly updates: number;
  /** Folder of the last checkpoint. */
  readonly checkpoint: string;
}

async function openTrainer<Input extends TrainInput>(
  { device, objective, config, init }: RunOptions<Input>,
  from: SavedState | null,
): Promise<{ readonly trainer: Trainer<Input>; readonly match?: InitMatch }> {
  if (from) {
    const saved = readCheckpoint(from, objective.networks, config.emaDecay !== null);
    return { trainer: await Trainer.start(device, objective, config, { saved }) };
  }
  if (!init) return { trainer: await Trainer.start(device, objective, config) };
  const { shapes, initial } = objective.networks.model;
  const { params: model, match } = initialParams(device, shapes, config.seed, init, initial);
  return { trainer: await Trainer.start(device, objective, config, { weights: { model } }), match };
}

/**
 * Trains until `steps` steps are done, or until it is stopped. A run in the folder is resumed: on one device weights and
 * log end with the same bits as those of a run that was never interrupted.
 *
 * @throws {DivergedError} If too many steps in a row were not finite; the last checkpoint is untouched then.
 * @throws {FileFormatError} If the last checkpoint is damaged, or belongs to another run: the first difference.
 */
export async function trainRun<Input extends TrainInput>(o: RunOptions<Input>): Promise<RunEnd> {
  const { folder, objective, validation } = o, checkpoints = `${folder}/checkpoints`;
  const fingerprint = o.fingerprint ?? { ...o.config };
  const saved = o.saved === undefined ? latestState(checkpoints) : o.saved;
  if (saved && o.saved === undefined) checkSameRun(saved, fingerprint, o.steps);
  const { trainer, match } = await openTrainer(o, saved);
  try {
    const start = {
      step: trainer.state.step,
      ...(saved ? { from: saved.path } : {}),
      ...(match ? { match } : {}),
    };
    sweepAbandoned(checkpoints);
    pruneCheckpoints(checkpoints, o.keep); // a kill may have come between a save and this
    const log = await RunLog.open(folder, start.step);
    o.onStart?.(start);
    const meter = new Meter(o, saved?.losses);
    let checkpoint = start.from ?? "", stopped = false;
    while (trainer.state.step < o.steps && !stopped) {
      const began = performance.now(), report = await trainer.step();
      const seconds = (performance.now() - began) / 1000, { step } = report;
      const done = step + 1, last = done === o.steps;
      let flops = 0;
      for (const shape of report.shapes) flops += await objective.flops?.(shape, step) ?? 0;
      const progress = meter.add(report, seconds, flops);
      o.onStep?.(progress);
      if (done % o.logEvery === 0 || last || step === 0 || report.skipped) {
        log.step(progress);
        meter.restart();
      }
      if (validation && (done % validation.every === 0 || last)) {
        const { measured, pictures } = await validate(validation, trainer);
        log.validation(step, measured, pictures);
        o.onValidation?.(step, measured);
      }
      stopped = o.stop?.() ?? false;
      if (done % o.saveEvery === 0 || last || stopped) {
        checkpoint = await saveCheckpoint(trainer, checkpoints, {
          keep: o.keep,
          fingerprint,
          losses: meter.losses,
        });
      }
    }
    const { curvesSvg } = await import("../display/plot.ts"); // loaded now: a run starts without it
    await writeAtomic(`${folder}/loss.svg`, curvesSvg(o.name, log.curves()));
    const { step, updates } = trainer.state;
    return { step, finished: step >= o.steps, updates, checkpoint };
  } finally {
    trainer.dispose();
  }
}

/** Measures raw and averaged weights, and makes samples. */
async function validate<Input extends TrainInput>(
  { measure, sample }: Validation,
  trainer: Trainer<Input>,
): Promise<{
  readonly measured: Readonly<Record<string, number>>;
  readonly pictures: Readonly<Record<string, Picture>>;
}> {
  const measured: Record<string, number> = { ...await measure(trainer.params) };
  const copies = await trainer.ema?.params(), averages = copies && { ...trainer.params, ...copies };
  try {
    if (averages) {
      for (const [name, value] of Object.entries(await measure(averages))) measured[`${name}_ema`] = value;
    }
    return { measured, pictures: await sample?.(averages ?? trainer.params, trainer.state.step) ?? {} };
  } finally {
    disposeAll(copies);
  }
}

/** The log of a run: lines for programs, event files for TensorBoard. */
class RunLog {
  readonly #lines: StepLog;
  readonly #events: EventWriter;

  private constructor(lines: StepLog, events: EventWriter) {
    this.#lines = lines;
    this.#events = events;
  }

  /** Opens the log of a run whose next step is `start`; lines of steps that are computed again are removed. */
  static async open(folder: string, start: number): Promise<RunLog> {
    const lines = new StepLog(`${folder}/log.jsonl`);
    await lines.cutFrom(start);
    return new RunLog(lines, new EventWriter(`${folder}/tensorboard`, start));
  }

  /** Logs a step. */
  step({ report, loss, seconds, framesPerSecond, flopsPerSecond, memory }: RunProgress): void {
    const { step, lr, gradientNorm, terms, skipped } = report;
    const values = { loss, ...terms, gradientNorm, lr, seconds, framesPerSecond, flopsPerSecond };
    this.#lines.append({
      step,
      time: Date.now() / 1000,
      ...values,
      memory,
      ...(skipped ? { skipped } : {}),
    });
    const finite = Object.entries(values).filter(([, v]) => Number.isFinite(v));
    this.#events.scalars(step, Object.fromEntries(finite.map(([k, v]) => [`train/${k}`, v])));
  }

  /** Logs a validation. */
  validation(
    step: number,
    measured: Readonly<Record<string, number>>,
    pictures: Readonly<Record<string, Picture>>,
  ): void {
    for (const [tag, picture] of Object.entries(pictures)) this.#events.image(step, tag, picture);
    if (Object.keys(measured).length === 0) return;
    this.#lines.append({ step, ...measured });
    this.#events.scalars(step, Object.fromEntries(Object.entries(measured).map(([k, v]) => [`val/${k}`, v])));
  }

  /** Losses over steps, for a plot. */
  curves() {
    const lines = this.#lines.lines();
    return [
      ["loss", "training loss"],
      ["validation_loss", "validation"],
      [
        "validation_loss_ema",
        "averaged weights",
      ],
      ["distant_loss", "distant frames, whole context"],
      [
        "distant_loss_window",
        "distant frames, window only",
      ],
    ]
      .map(([key, name]) => ({
        name,
        points: lines.filter((l) => typeof l[key] === "number").map((l) =>
          [l.step, l[key] as number] as const
        ),
      }))
      .filter((curve) => curve.points.length > 0);
  }
}
