/**
 * The loop of a training run in a folder, whatever is trained: it resumes where it stopped, logs, validates, saves
 * checkpoints and draws its curve.
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
import { EventWriter } from "../io/tfevents.ts";
import {
  checkSameRun,
  type Fingerprint,
  latestState,
  pruneCheckpoints,
  type SavedState,
  type SaveOptions,
} from "./checkpoint.ts";
import type { InitMatch } from "./init.ts";
import type { StepReport, TrainerState } from "./trainer.ts";

/** Options of the training loop: logging, validation, checkpoints. */
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
  /** Steps between two checkpoints; the end of the run is one too. */
  readonly saveEvery: number;
  /** Checkpoints that stay. */
  readonly keep: number;
  /** What decides the bits of the run; a run in the folder that has another one is refused. The configuration unless given. */
  readonly fingerprint?: Fingerprint;
  /** The folder's newest checkpoint, where the caller has looked for it and compared it already. */
  readonly saved?: SavedState | null;
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

/** Interface of a trainer, as the loop uses it. */
export interface Trainee {
  /** Counters. */
  readonly state: TrainerState;
  /** One step. */
  step(): Promise<StepReport>;
  /** Gives its memory back. */
  dispose(): void;
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

/** Result of a validation. */
export interface Measured {
  /** Losses and metrics by name. */
  readonly losses: Readonly<Record<string, number>>;
  /** Pictures by tag. */
  readonly pictures?: Readonly<Record<string, Picture>>;
}

/** The model to train. */
export interface Training<T extends Trainee> {
  /** Its configuration. */
  readonly config: object;
  /** Starts, or resumes from a checkpoint. */
  readonly open: (saved: SavedState | null) => Promise<{ readonly trainer: T; readonly match?: InitMatch }>;
  /** Saves a checkpoint and gives its folder. */
  readonly save: (trainer: T, checkpoints: string, options: SaveOptions) => Promise<string>;
  /** FLOP of a step, without what was computed twice. */
  readonly flopsOf: (report: StepReport) => number;
  /** Steps between two validations, and one of them; the end of the run is one too. */
  readonly validation?: {
    readonly every: number;
    readonly measure: (trainer: T, step: number) => Promise<Measured>;
  };
}

/** Start of a run. */
export interface RunStart {
  /** Steps that were done before. */
  readonly step: number;
  /** The checkpoint that it resumes from. */
  readonly from?: string;
  /** Match of the initial weights, for a new run. */
  readonly match?: InitMatch;
}

/** Progress of a run. */
export interface RunProgress {
  /** Report of the last step. */
  readonly report: StepReport;
  /** Mean loss since the last line of the log. */
  readonly loss: number;
  /** Seconds of a step, over the last steps. */
  readonly seconds: number;
  /** Frames per second. */
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

/** End of a run. */
export interface RunEnd {
  /** Steps done. */
  readonly step: number;
  /** False when it was told to stop before. */
  readonly finished: boolean;
  /** Updates of the weights: steps that were not skipped. */
  readonly updates: number;
  /** The last checkpoint. */
  readonly checkpoint: string;
}

/** Steps over which time is averaged. */
const RECENT = 20;

/**
 * Runs until `steps` steps are done, or until it is told to stop. A run in the folder is resumed: on one device weights and
 * log end with the same bits as those of a run that was never interrupted, however it was.
 *
 * @throws {DivergedError} If too many steps in a row were not finite; the last checkpoint is untouched then.
 * @throws {FileFormatError} If the last checkpoint is damaged, or belongs to another run: the first difference.
 */
export async function runLoop<T extends Trainee>(o: LoopOptions, training: Training<T>): Promise<RunEnd> {
  const { folder } = o, checkpoints = `${folder}/checkpoints`, { validation } = training;
  const fingerprint = o.fingerprint ?? { ...training.config };
  const saved = o.saved === undefined ? latestState(checkpoints) : o.saved;
  if (saved && o.saved === undefined) checkSameRun(saved, fingerprint, o.steps);
  const { trainer, match } = await training.open(saved);
  try {
    const start = {
      step: trainer.state.step,
      ...(saved ? { from: saved.path } : {}),
      ...(match ? { match } : {}),
    };
    sweepAbandoned(checkpoints);
    pruneCheckpoints(checkpoints, o.keep); // a kill may have come between a save and this
    const log = new StepLog(`${folder}/log.jsonl`);
    await log.cutFrom(start.step);
    const events = new EventWriter(`${folder}/tensorboard`, start.step);
    o.onStart?.(start);
    const watch = new Watch(o, training.flopsOf, saved?.losses);
    const validate = async (step: number) => {
      const { losses, pictures } = await validation!.measure(trainer, step + 1);
      for (const [tag, picture] of Object.entries(pictures ?? {})) events.image(step, tag, picture);
      if (Object.keys(losses).length > 0) {
        log.append({ step, ...losses });
        events.scalars(step, Object.fromEntries(Object.entries(losses).map(([k, v]) => [`val/${k}`, v])));
      }
      o.onValidation?.(step, losses);
    };
    let checkpoint = start.from ?? "", stopped = false;
    while (trainer.state.step < o.steps && !stopped) {
      const began = performance.now(), report = await trainer.step();
      const done = report.step + 1, last = done === o.steps;
      const progress = watch.see(report, (performance.now() - began) / 1000);
      o.onStep?.(progress);
      if (done % o.logEvery === 0 || last || report.step === 0 || report.skipped) {
        const { step, lr, gradientNorm, skipped } = report,
          { loss, seconds, framesPerSecond, flopsPerSecond } = progress;
        const values = { loss, ...report.terms, gradientNorm, lr, seconds, framesPerSecond, flopsPerSecond };
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
      if (validation && (done % validation.every === 0 || last)) await validate(report.step);
      stopped = o.stop?.() ?? false;
      if (done % o.saveEvery === 0 || last || stopped) {
        checkpoint = await training.save(trainer, checkpoints, {
          keep: o.keep,
          fingerprint,
          losses: watch.losses,
        });
      }
    }
    const { curvesSvg } = await import("../display/plot.ts"); // loaded now: a run starts without it
    await writeAtomic(`${folder}/loss.svg`, curvesSvg(o.name, curvesOf(log)));
    const { step, updates } = trainer.state;
    return { step, finished: step >= o.steps, updates, checkpoint };
  } finally {
    trainer.dispose();
  }
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
  readonly #o: LoopOptions;
  readonly #flopsOf: (report: StepReport) => number;
  readonly #recent: { readonly seconds: number; readonly frames: number; readonly flops: number }[] = [];
  #losses: number[];

  /** @param losses Those that a checkpoint kept. */
  constructor(o: LoopOptions, flopsOf: (report: StepReport) => number, losses: readonly number[] = []) {
    this.#o = o;
    this.#flopsOf = flopsOf;
    this.#losses = [...losses];
  }

  /** Finite losses since the last line of the log. */
  get losses(): readonly number[] {
    return this.#losses;
  }

  /** @param seconds What the step took; validation and checkpoints are not counted. */
  see(report: StepReport, seconds: number): RunProgress {
    const { device, steps, peak } = this.#o, recent = this.#recent;
    if (Number.isFinite(report.loss)) this.#losses.push(report.loss);
    recent.push({ seconds, frames: report.frames, flops: this.#flopsOf(report) });
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
}
