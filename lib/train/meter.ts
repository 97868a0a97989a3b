/**
 * Rates and losses of a training run over its last steps.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { StepReport } from "./trainer.ts";

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

/** Steps over which time is averaged. */
const RECENT = 20;

/** The run that a meter measures. */
export interface Metered {
  /** Device that it trains on. */
  readonly device: Device;
  /** Steps of the whole run. */
  readonly steps: number;
  /** FLOP/s that the device reaches on a large matrix product. */
  readonly peak?: number;
}

/** Measures steps. */
export class Meter {
  readonly #run: Metered;
  readonly #recent: { readonly seconds: number; readonly frames: number; readonly flops: number }[] = [];
  #losses: number[];

  /** @param losses Losses since the last line of the log, from a checkpoint. */
  constructor(run: Metered, losses: readonly number[] = []) {
    this.#run = run;
    this.#losses = [...losses];
  }

  /** Finite losses since the last line of the log. */
  get losses(): readonly number[] {
    return this.#losses;
  }

  /**
   * Adds a step.
   *
   * @param seconds Its duration, without validation and checkpoints.
   * @param flops Its floating-point operations, without recomputation.
   */
  add(report: StepReport, seconds: number, flops: number): RunProgress {
    const { device, steps, peak } = this.#run, recent = this.#recent;
    if (Number.isFinite(report.loss)) this.#losses.push(report.loss);
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

  /** Forgets the losses, after they were logged. */
  restart(): void {
    this.#losses = [];
  }
}
