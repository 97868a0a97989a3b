/**
 * Small results of every verb, for the tests of their reports.
 *
 * @module
 */
import { evaluationData, type EvaluationResult, shownClips } from "../lib/pipeline/report_evaluation.ts";
import { methodRows } from "../lib/pipeline/evaluation_table.ts";
import { type Method, METHODS } from "../lib/pipeline/evaluation.ts";
import { predictionData, type PredictionResult } from "../lib/pipeline/report_prediction.ts";
import { type Frames, makeFrames } from "../lib/io/frames.ts";
import { encodePng } from "../lib/io/image.ts";
import type { EvaluationReport } from "../lib/report/evaluation.ts";
import type { PredictionReport } from "../lib/report/prediction.ts";
import type { TrainingReport } from "../lib/report/training.ts";
import { generator } from "../kernels/check.ts";

/** A name that is markup unless it is escaped. */
export const NASTY =
  `x"'><img src=x onerror="document.title='broken'"></script><script>throw 1</script>&amp;`;

/** Frames of noise, all different. */
export function noise(seed: number, frames: number, height: number, width: number): Frames {
  const random = generator(seed), size = frames * height * width * 3;
  return makeFrames(
    frames,
    height,
    width,
    Uint8Array.from({ length: size }, () => Math.floor(random() * 256)),
  );
}

/** Sizes of {@linkcode prediction}. */
export interface PredictionSize {
  readonly context?: number;
  readonly predicted?: number;
  readonly truth?: number;
  readonly trajectories?: number;
  readonly side?: number;
}

/** The clips of {@linkcode prediction}. */
export function predictionClips(
  { context = 5, predicted = 4, truth = predicted, trajectories = 1, side = 16 }: PredictionSize = {},
) {
  return {
    context: noise(1, context, side, side),
    truth: noise(2, truth, side, side),
    predicted: Array.from({ length: trajectories }, (_, i) => noise(3 + i, predicted, side, side)),
    fps: 10,
  };
}

/** A prediction with nasty names; the PSNR of the second frame is infinite. */
export function prediction(size: PredictionSize = {}): PredictionReport {
  const clips = predictionClips(size), { context, predicted, truth } = clips, first = context.frames;
  const scores = predicted.map((_, i) => ({
    mean: { mse: 0.01, psnr: null, ssim: 0.5 },
    frames: Array.from({ length: Math.min(truth.frames, predicted[0].frames) }, (_, f) => ({
      frame: first + f,
      mse: 0.01,
      psnr: f === 1 ? null : 20 + i - f,
      ssim: 0.5 + f / 100,
    })),
  }));
  const model = { name: NASTY, weights: null, sha256: null, parameters: 1e6 };
  const result: PredictionResult = {
    settings: {
      verb: first === 0 ? "generate" : "predict",
      operands: [NASTY],
      flags: { label: NASTY, steps: 1 },
    },
    random_weights: true,
    warnings: [NASTY],
    models: { far: model, vae: model },
    device: { description: "cpu", reason: NASTY },
    estimate: { seconds: { predict: 1 }, memory: { predict: 1e6 } },
    seconds: { predict: 2 },
    peak_device_bytes: 2e6,
    protocol: { context_frames: first, predicted_frames: predicted[0].frames, sampler: "Euler, 1 step" },
    scores: truth.frames === 0 ? [] : scores,
    files: [`${NASTY}.mp4`],
  };
  return predictionData(result, clips, encodePng(noise(9, 1, 20, 30)));
}

/** Scores of three clips over four frames: clip 1 is the best, clip 2 the worst; method i lies i dB below the model. */
export function evaluationResult(): EvaluationResult {
  const clip = (source: string, base: number) => {
    const of = (scale: number) =>
      Object.fromEntries(
        METHODS.map((m, i) => [m, [0, 1, 2, 3].map((f) => (base - f - i) * scale)]),
      ) as Record<Method, number[]>;
    return { source, psnr: of(1), ssim: of(0.01) };
  };
  const clips = [clip("first", 20), clip(NASTY, 30), clip("third", 10)];
  const all = clips.map((c) => ({ ...c, seconds: 0 }));
  return {
    settings: { operands: ["world"], flags: { clips: 3 } },
    random_weights: false,
    warnings: [],
    ...{ data: NASTY, ctx: 144, pred: 4, short: 16, seconds: 3 },
    models: { far: { name: "far", sha256: "1" }, vae: { name: "vae", sha256: "2" } },
    protocol: { sampler: "Euler, 1 step" },
    methods: methodRows(all),
    by_frame: [{ from: 144, to: 146, methods: methodRows(all, 0, 2) }, {
      from: 146,
      to: 148,
      methods: methodRows(all, 2, 4),
    }],
    clip_scores: clips,
  };
}

/** The report of {@linkcode evaluationResult}. */
export function evaluation(): EvaluationReport {
  const result = evaluationResult(), order = shownClips(result.clip_scores, 2);
  const sheets = new Map(order.map((clip) => [clip, encodePng(noise(clip, 1, 20, 30))]));
  return evaluationData(result, { description: "cpu", reason: "asked for" }, sheets);
}

/** A run of 40 steps, logged every second one, with samples after 20 and 40. */
export function training(steps = 40): TrainingReport {
  const lines = Array.from({ length: steps / 2 }, (_, i) => ({
    step: 2 * i + 1,
    ...{
      loss: 100 / (i + 1),
      lr: 1e-3,
      gradientNorm: 1,
      framesPerSecond: 50,
      seconds: 1,
      reconstruction: 0.5,
    },
    ...(i % 10 === 9 ? { validation_loss: 90 / (i + 1) } : {}),
  }));
  return {
    ...{ title: `train ${NASTY}`, lede: "", warnings: [], tiles: [], facts: [], files: ["log.jsonl"] },
    lines,
    samples: [20, 40].map((position) => ({
      position,
      alt: "samples",
      png: encodePng(noise(position, 1, 20, 30)),
    })),
  };
}
