/**
 * Estimate of a prediction before it starts: time by stage, device memory, work.
 *
 * @module
 */
import { countParameters } from "../far/config.ts";
import { latentSize } from "./codec.ts";
import { type Cost, dcaeCost, flopsOf, refuseTooLarge, sampleCost, totalCost } from "./cost.ts";
import type { OpenModels } from "./models.ts";
import { VIEWED } from "./pictures.ts";
import type { OutputOptions } from "./predict.ts";
import { costsOf, expectedWriting, measureRates, sampleSeconds, secondsAt, type Writing } from "./rates.ts";
import type { PredictionTask } from "./task.ts";
import type { Part } from "./weights.ts";

/** Numbers by stage: `load`, `encode`, `predict`, `decode`, `write`, as far as they apply. */
export type ByStage = Readonly<Record<string, number>>;

/** Estimate of a prediction. */
export interface PredictionEstimate {
  /** Seconds. */
  readonly seconds: ByStage;
  /** Bytes on the device at once. */
  readonly memory: ByStage;
  /** Billions of floating-point operations. */
  readonly gflop: ByStage;
  /** FLOP of one trajectory until an Euler step of a predicted frame is done; both are counted from 0. */
  readonly workUntil: (frame: number, step: number) => number;
}

/** The videos of a result: each prediction, and where there is truth all of them beside it. */
export function writingOf(task: PredictionTask, { ending, trajectories }: OutputOptions): Writing {
  const { context, truth, predict } = task, beside = truth.frames > 0 ? 1 + trajectories : 0;
  // Small frames are written several times as large.
  const scale = Math.max(1, Math.ceil(VIEWED / Math.min(context.height, context.width)));
  const pixels = (context.frames + predict) * context.height * context.width * scale ** 2;
  return { ending, videos: trajectories + (beside > 0 ? 1 : 0), pixels: (trajectories + beside) * pixels };
}

/**
 * Estimates a prediction from a dry run and the measured speed of the device.
 *
 * @throws {RangeError} If it does not fit on the device or in the machine's memory: bytes needed and available.
 */
export async function predictionCost(
  { device, far, vae }: Pick<OpenModels, "device" | "far" | "vae">,
  task: PredictionTask,
  output: OutputOptions,
): Promise<PredictionEstimate> {
  const { context, predict, steps, guidance, remember } = task,
    { trajectories, cache, decodeContext } = output;
  const { height, width } = latentSize(vae.config, context);
  const sides = [context.height, context.width] as const, shown = decodeContext ? context.frames : 0;
  const encode = dcaeCost(vae.config, "encode", context.frames, sides, vae.weights.dtype);
  const decode = dcaeCost(vae.config, "decode", trajectories * predict + shown, sides, vae.weights.dtype);
  const shape = {
    clips: 1,
    height,
    width,
    context: context.frames,
    predict,
    steps,
    guidance,
    cache,
    remember,
  };
  const frames = await sampleCost(far.config, shape, far.weights.dtype), sampled = totalCost(frames, steps);
  const memory = { encode: encode.memory, predict: sampled.memory, decode: decode.memory };
  refuseTooLarge(device, memory);
  const rates = await measureRates(device, [encode, decode, ...costsOf(frames)]);
  const loading = (model: Part<unknown>, part: number) =>
    // Reading and packing a checkpoint takes about a fifth of the time of making numbers up.
    part * countParameters(model.weights.shapes) /
    (model.weights.path === null ? rates.random : 5 * rates.random);
  const work = frames.map((f) => ({ first: flopsOf(f.first), further: flopsOf(f.further) }));
  const before = [0]; // work of all frames before each one
  for (const f of work) before.push(before.at(-1)! + f.first + (steps - 1) * f.further);
  const gflop = (cost: Cost) => Math.round(flopsOf(cost) / 1e7) / 100;
  return {
    workUntil: (frame, step) => before[frame] + work[frame].first + step * work[frame].further,
    seconds: {
      load: loading(far, 1) + loading(vae, context.frames > 0 ? 1 : 0.5),
      encode: secondsAt(encode, rates),
      predict: trajectories * sampleSeconds(frames, steps, rates),
      decode: secondsAt(decode, rates),
      write: expectedWriting(writingOf(task, output)),
    },
    memory,
    gflop: { encode: gflop(encode), predict: trajectories * gflop(sampled), decode: gflop(decode) },
  };
}
