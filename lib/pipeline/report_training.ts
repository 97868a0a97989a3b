/**
 * The report of a training run, from its folder.
 *
 * @module
 */
import { isFile } from "../io/paths.ts";
import { StepLog } from "../io/run_folder.ts";
import type { LogLine, TrainingReport } from "../report/training.ts";
import type { Picture } from "../report/viewer.ts";
import type { TrainOptions } from "../train/options.ts";
import { deviceFacts, optionFacts, recordFacts, writeReport } from "./html_report.ts";
import { bytes, duration } from "../units.ts";

/** Facts that the folder does not hold. */
export interface TrainingFacts {
  readonly options: TrainOptions;
  readonly device: { readonly description: string; readonly reason: string };
  /** Trained parameters. */
  readonly parameters: number;
  /** Shape of a batch. */
  readonly shape: readonly number[];
  /** The last checkpoint. */
  readonly checkpoint: string;
  /** Steps that are done. */
  readonly step: number;
  /** Further warnings. */
  readonly warnings: readonly string[];
}

/** Sheets of samples in the order of their steps: `step-N/sheet.png` of the transformer, `step-N.png` of the autoencoder. */
function samplesIn(folder: string): Picture[] {
  const found: { readonly position: number; readonly path: string }[] = [];
  try {
    for (const { name, isDirectory } of Deno.readDirSync(`${folder}/samples`)) {
      const step = /^step-(\d+)(\.png)?$/.exec(name);
      if (step === null || isDirectory !== (step[2] === undefined)) continue;
      const path = `${folder}/samples/${name}${isDirectory ? "/sheet.png" : ""}`;
      if (isFile(path)) found.push({ position: Number(step[1]), path });
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return found.sort((a, b) => a.position - b.position).map(({ position, path }) => ({
    position,
    alt: `Samples after ${position} steps`,
    png: Deno.readFileSync(path),
  }));
}

/** Data of the report. */
export function trainingData(
  facts: TrainingFacts,
  lines: readonly LogLine[],
  samples: readonly Picture[],
): TrainingReport {
  const { options, device, parameters, shape, step } = facts, total = options.train.total_iter;
  const lastOf = (key: string) => {
    const value = lines.findLast((l) => typeof l[key] === "number")?.[key];
    return value as number | undefined;
  };
  const tile = (key: string, name: string, show: (value: number) => string) => {
    const value = lastOf(key);
    return value === undefined ? [] : [[name, show(value)] as const];
  };
  const skipped = lines.filter((l) => l.skipped !== undefined).length;
  const seconds = lines.reduce((sum, l, i) => {
    const before = i === 0 ? -1 : lines[i - 1].step;
    return sum + (typeof l.seconds === "number" ? (l.step - before) * l.seconds : 0);
  }, 0);
  const four = (v: number) => v.toFixed(4);
  return {
    title: `${options.train.train_pipeline === "FARTrainer" ? "train" : "train-vae"} ${options.name}`,
    lede: `${(parameters / 1e6).toFixed(1)} M parameters · batches of [${
      shape.join(", ")
    }] · ${step} of ${total} steps`,
    warnings: [
      ...facts.warnings,
      ...(step < total
        ? [`The run was stopped after ${step} of ${total} steps; the same command resumes it.`]
        : []),
      ...(skipped > 0
        ? [
          `${
            skipped === 1 ? "1 step was" : `${skipped} steps were`
          } skipped because a loss or gradient was not finite; see log.jsonl.`,
        ]
        : []),
    ],
    tiles: [
      ...tile("loss", "training loss", four),
      ...tile("validation_loss", "validation loss", four),
      ...tile("validation_loss_ema", "validation loss, averaged weights", four),
      ...tile("framesPerSecond", "speed", (v) => `${v.toPrecision(3)} frames/s`),
      ["time in steps", `about ${duration(seconds)}`],
      ...tile("memory", "device memory", bytes),
    ],
    facts: [
      recordFacts("Run", { steps: `${step} of ${total}`, parameters, batch: `[${shape.join(", ")}]` }),
      deviceFacts(device),
      optionFacts(options),
    ],
    files: ["log.jsonl", "loss.svg", "options.json"],
    lines,
    samples,
  };
}

/** Writes the report into the folder of a run. */
export async function writeTrainingReport(folder: string, facts: TrainingFacts): Promise<void> {
  const { trainingReport } = await import("../report/training.ts");
  const lines = new StepLog(`${folder}/log.jsonl`).lines();
  await writeReport(folder, trainingReport(trainingData(facts, lines, samplesIn(folder))));
}
