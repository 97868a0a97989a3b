/**
 * The common part of `far.ts predict` and `far.ts generate`: one prediction in one result folder, and its last lines.
 *
 * @module
 */
import { REPORT_FILE } from "../lib/pipeline/html_report.ts";
import { type ModelChoice, type OpenModels, requireWeights, verifyModels } from "../lib/pipeline/models.ts";
import { FPS, RESULT_FILE, videoEnding } from "../lib/pipeline/pictures.ts";
import { runPrediction, stageText } from "../lib/pipeline/predict.ts";
import type { PredictionResult } from "../lib/pipeline/report_prediction.ts";
import type { PredictionTask } from "../lib/pipeline/task.ts";
import { bytes, duration } from "../lib/units.ts";
import type { Flags, Values } from "./args.ts";
import { type JobCall, type Run, runJob } from "./job.ts";
import { modelChoice } from "./model_flags.ts";
import type { predictFlags } from "./predict.ts";

/** Values of the flags that decide how much is computed and written. */
type OutputFlags =
  & JobCall["flags"]
  & Pick<Values<typeof predictFlags>, "samples" | "kv-cache" | "format" | "fps" | "out">
  & Parameters<typeof modelChoice>[0]
  & { readonly "decode-context"?: "no" | "yes" };

/** A prediction that a verb has put together. */
export interface Prepared extends Pick<OpenModels, "far" | "vae"> {
  /** The prediction to make. */
  readonly task: PredictionTask;
  /** Frames per second of the clip, where it says. */
  readonly fps?: number;
}

/**
 * Runs a prediction and writes its result folder.
 *
 * @param call The verb, its flags as declared, and its operands.
 * @param f Values of the flags.
 * @param prepare Reads the clip and chooses the models.
 */
export async function predictionJob(
  call: { readonly verb: string; readonly declared: Flags; readonly operands: readonly string[] },
  f: OutputFlags,
  prepare: (chosen: ModelChoice) => Prepared | Promise<Prepared>,
): Promise<void> {
  const chosen = modelChoice(f);
  requireWeights(chosen);
  await runJob({ ...call, flags: f, out: "out", stopping: "stopping after this frame" }, async (job, run) => {
    const { task, far, vae, fps = FPS } = await prepare(chosen);
    run.say("checking weights");
    verifyModels({ far, vae });
    const result = await runPrediction(job, { ...await run.openDevice(), far, vae }, task, {
      trajectories: f.samples,
      cache: f["kv-cache"] === "auto",
      decodeContext: f["decode-context"] === "yes",
      ending: videoEnding(f.format),
      fps: f.fps ?? fps,
    });
    tell(run, job.path, result);
  });
}

/** The last lines of a run: what it took, what it scored, where it is. */
function tell(run: Run, out: string, result: PredictionResult): void {
  const { estimate, seconds, files, scores, random_weights: random } = result;
  const all = (stages: Readonly<Record<string, number>>) =>
    duration(Object.values(stages).reduce((a, b) => a + b, 0));
  run.event("done", { out, files, seconds, scores: scores.map(({ mean }) => mean) });
  run.say(`took: ${all(seconds)} (${stageText(seconds)}); the estimate was ${all(estimate.seconds)}`);
  const expected = Math.max(...Object.values(estimate.memory));
  run.say(`took ${bytes(result.peak_device_bytes)} of device memory; the estimate was ${bytes(expected)}`);
  for (const [i, { mean, frames }] of scores.entries()) {
    if (mean === null) continue;
    const psnr = mean.psnr === null ? "infinite" : mean.psnr.toFixed(2);
    run.say(
      `${scores.length > 1 ? `trajectory ${i}: ` : ""}MSE ${mean.mse.toFixed(4)}, PSNR ${psnr} dB, ` +
        `mean of ${frames.length} predicted frames` +
        (random ? " (random weights: the figures mean nothing)" : ""),
    );
  }
  run.say(`wrote ${out}: ${files.join(", ")}, ${RESULT_FILE}, ${REPORT_FILE}`);
}
