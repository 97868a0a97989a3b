/**
 * Lines about a training run for people.
 *
 * @module
 */
import type { InitMatch } from "../train/init.ts";
import type { RunProgress } from "../train/meter.ts";
import type { TrainOptions } from "../train/options.ts";
import { bytes, duration } from "../units.ts";

/** Line about a step. */
export function stepLine(p: RunProgress, total: number): string {
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

/** Line about the time that a run will take. */
export const estimateLine = (p: RunProgress, total: number): string =>
  `estimate: ${duration(p.left)} for ${total - p.report.step - 1} more steps, validation not counted, ` +
  `${bytes(p.memory)} of device memory`;

/** Line about a validation. */
export function validationLine(step: number, measured: Readonly<Record<string, number>>): string {
  const shown = Object.entries(measured).map(([name, value]) =>
    `${name.replaceAll("_", " ")} ${value.toFixed(4)}`
  );
  return `step ${step + 1}: ${shown.join(", ")}`;
}

/** Line about mixed precision, or null where a run has none. */
export function precisionLine({ mixed_precision }: TrainOptions): string | null {
  if (mixed_precision === "no") return null;
  return `mixed_precision ${mixed_precision}: matrices are stored as f16${
    mixed_precision === "bf16" ? " (devices have no bf16)" : ""
  }, their masters, activations, gradients and sums are f32`;
}

/** Lines about the match of initial weights with the model. */
export function matchLines(file: string, { taken, fresh, unused }: InitMatch): string[] {
  const some = (names: readonly string[]) =>
    names.slice(0, 20).join(", ") + (names.length > 20 ? ` and ${names.length - 20} more` : "");
  return [
    `${file}: ${taken.length} parameters taken`,
    ...(fresh.length > 0 ? [`started fresh (${fresh.length}): ${some(fresh)}`] : []),
    ...(unused.length > 0 ? [`not part of the model (${unused.length}): ${some(unused)}`] : []),
  ];
}
