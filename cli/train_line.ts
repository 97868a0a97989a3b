/**
 * The live line of a training run.
 *
 * @module
 */
import type { RunProgress } from "../lib/train/loop.ts";
import { type Progress, terminalColumns } from "./progress.ts";
import { bytes, duration } from "../lib/units.ts";

/** Seconds between two plain lines where there is no terminal. */
const EVERY = 10;

/** Line about a training step. */
export function describeStep(p: RunProgress, total: number): string {
  const { report } = p;
  const rate = `${(p.flopsPerSecond / 1e9).toPrecision(3)} GFLOP/s` +
    (p.share === undefined ? "" : ` (${Math.round(100 * p.share)} % of peak)`);
  return [
    `step ${report.step + 1}/${total}`,
    report.skipped ? `skipped: ${report.skipped}` : `loss ${p.loss.toFixed(4)}`,
    `${p.seconds.toPrecision(3)} s/step`,
    `${p.framesPerSecond.toPrecision(3)} frames/s`,
    rate,
    bytes(p.memory),
    `left ${duration(p.left)}`,
  ].join("  ");
}

/** Shows every step: on a terminal the line is written over, elsewhere a line comes now and then. */
export class TrainLine implements Disposable {
  readonly #progress: Progress;
  readonly #total: number;
  #shown = -Infinity;
  #open = false;

  /** @param total Steps of the run. */
  constructor(progress: Progress, total: number) {
    this.#progress = progress;
    this.#total = total;
  }

  /** Shows where the run stands. */
  see(p: RunProgress): void {
    const { mode } = this.#progress, { report } = p;
    this.#progress.event("step", {
      step: report.step,
      total: this.#total,
      loss: report.loss,
      gradientNorm: report.gradientNorm,
      lr: report.lr,
      seconds: p.seconds,
      framesPerSecond: p.framesPerSecond,
      flopsPerSecond: p.flopsPerSecond,
      share: p.share,
      left: p.left,
      memory: p.memory,
      skipped: report.skipped,
    });
    const line = describeStep(p, this.#total), last = report.step + 1 === this.#total;
    if (mode === "bar") {
      Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[K${line.slice(0, terminalColumns() - 1)}`));
      this.#open = true;
      if (report.skipped) this.#end();
      return;
    }
    const now = this.#progress.now();
    if (mode !== "lines" || (now - this.#shown < EVERY && !last && !report.skipped)) return;
    this.#shown = now;
    this.#progress.say(line);
  }

  /** Says something between two steps. */
  say(line: string): void {
    this.#end();
    this.#progress.say(line);
  }

  #end(): void {
    if (this.#open) console.error();
    this.#open = false;
  }

  /** Ends the line. */
  [Symbol.dispose](): void {
    this.#end();
  }
}
