/**
 * A prediction as a job: encode the context, roll out, decode, and write videos, contact sheet, scores and report into a folder.
 * Stopped at any frame, the same job resumes with the next one.
 *
 * @module
 */
import { countParameters } from "../far/config.ts";
import { type Frames, makeFrames, sliceFrames } from "../io/frames.ts";
import { bytesHash, fileHash } from "../io/hash.ts";
import { meanScore, SCORE_PROTOCOL, scoreFrames } from "../metrics/frames.ts";
import { disposeAll } from "../tensor.ts";
import { bytes, duration } from "../units.ts";
import { downsampling } from "../dcae/config.ts";
import { type Clip, readClip } from "./clip.ts";
import { decodeFrames, encodeFrames, type Latents, latentSize } from "./codec.ts";
import { REPORT_FILE } from "./html_report.ts";
import { Job, type JobOptions } from "./job.ts";
import { strangeClip } from "./kind.ts";
import type { OpenModels } from "./models.ts";
import { FPS, RESULT_FILE, videoEnding, writePictures, writeResult } from "./pictures.ts";
import { type ByStage, predictionCost, type PredictionEstimate, writingOf } from "./prediction_cost.ts";
import { learnWriting } from "./rates.ts";
import { type PredictionResult, writePredictionReport } from "./report_prediction.ts";
import { Rollout } from "./rollout.ts";
import { SavedLatents, STATE_FILE } from "./saved_latents.ts";
import {
  framesNeeded,
  type PredictionTask,
  predictionTask,
  type PredictOptions,
  rolloutConditions,
  samplerText,
} from "./task.ts";
import { timed } from "./watch.ts";
import { RANDOM_STAMP } from "./weights.ts";

/** Amount and form of a prediction's output. */
export interface OutputOptions {
  /** Trajectories, each with noise of its own. */
  readonly trajectories: number;
  /** Keeps keys and values between steps and frames instead of computing them again. */
  readonly cache: boolean;
  /** Shows the context as the autoencoder decodes it. */
  readonly decodeContext: boolean;
  /** Kind of video: `mp4`, `gif` or `webm`. */
  readonly ending: string;
  /** Frames per second of the videos. */
  readonly fps: number;
}

/** Options of {@linkcode predictTo}. */
export interface PredictToOptions extends PredictOptions, Pick<JobOptions, "watch" | "restart"> {
  /** Trajectories, each with noise of its own. Default 1. */
  readonly trajectories?: number;
  /** Keeps keys and values between steps and frames instead of computing them again. Default true. */
  readonly cache?: boolean;
  /** Shows the context as the autoencoder decodes it. Default false. */
  readonly decodeContext?: boolean;
  /** Kind of video. Default mp4. */
  readonly format?: "mp4" | "gif" | "webm";
  /** Frames per second of the videos; the clip's unless given, else 10. */
  readonly fps?: number;
}

/** Names of all files that a prediction may write. */
const WORKING = [STATE_FILE, "prediction*", "side_by_side.*", "sheet.png", REPORT_FILE, RESULT_FILE];

const total = (seconds: ByStage) => Object.values(seconds).reduce((a, b) => a + b, 0);

/** Timings by stage in words: `load 20 s, encode 12 s, …` */
export const stageText = (seconds: ByStage): string =>
  Object.entries(seconds).map(([name, s]) => `${name} ${duration(s)}`).join(", ");

/** Timings by the names of the estimate. */
function grouped(seconds: ByStage): Record<string, number> {
  const out: Record<string, number> = { load: 0, encode: 0, predict: 0, decode: 0, write: 0 };
  for (const [name, s] of Object.entries(seconds)) out[name.startsWith("load") ? "load" : name] += s;
  return out;
}

/** Inputs that decide the result beside the call and the device. */
function decidesOf(
  task: PredictionTask,
  { far, vae }: OpenModels,
  sha256: Readonly<Record<string, string | null>>,
) {
  const { context, actions, label } = task;
  const frames = ({ frames, height, width, data }: Frames) => ({
    frames,
    height,
    width,
    sha256: bytesHash(data),
  });
  return {
    models: { far: far.config, vae: vae.config, sha256 },
    context: frames(context),
    // The frames that really followed decide scores and pictures only, which are made in one go at the end.
    truth: task.truth.frames,
    actions: actions === undefined ? null : [...actions],
    label: label ?? null,
  };
}

/**
 * Predicts what follows the first frames of a clip and writes the result into a folder. Stopped, the same call resumes.
 *
 * @param folder New, empty, or with an earlier result of this function or of `far.ts predict`, which is replaced.
 * @param model The models on their device, from `loadModel`.
 * @param clip A clip, or what `readClip` reads.
 * @param options What to predict and what to write.
 * @returns The content of result.json.
 * @throws {OwnershipError} If the folder holds something else, or an interrupted prediction with other options.
 * @throws {RangeError} If the clip has too few frames or actions, or the work does not fit into memory.
 */
export async function predictTo(
  folder: string,
  model: OpenModels,
  clip: Clip | string,
  options: PredictToOptions = {},
): Promise<PredictionResult> {
  const { far, vae } = model,
    { watch, restart, trajectories = 1, cache = true, decodeContext = false } = options;
  const whole = typeof clip === "string"
    ? await readClip(clip, { frames: framesNeeded(far, options), side: vae.side })
    : clip;
  const task = predictionTask(far, whole, options), ending = videoEnding(options.format ?? "auto");
  const output = { trajectories, cache, decodeContext, ending, fps: options.fps ?? whole.fps ?? FPS };
  const { context, truth: _, actions: __, label, ...numbers } = task;
  const flags = { model: far.name, context: context.frames, ...numbers, label, ...output };
  const settings = { verb: "predict", operands: [whole.path], flags };
  using job = await Job.open(folder, { settings, watch, restart });
  return await runPrediction(job, model, task, output);
}

/**
 * Runs a prediction and puts its result in place.
 *
 * @param job The folder; not begun yet.
 * @param models The models on their device; nothing of them is loaded yet.
 * @param task What to predict.
 * @param output What to write.
 * @returns The content of result.json.
 */
export async function runPrediction(
  job: Job,
  models: OpenModels,
  task: PredictionTask,
  output: OutputOptions,
): Promise<PredictionResult> {
  const { device, reason, far, vae } = models,
    { watch } = job,
    { context, truth } = task,
    { fps, ending } = output;
  const sha256 = { far: fileHash(far.weights.path), vae: fileHash(vae.weights.path) };
  const { workUntil, ...estimate } = await predictionCost(models, task, output);
  watch.say(
    `estimate: ${duration(total(estimate.seconds))} (${stageText(estimate.seconds)}), ` +
      `${bytes(Math.max(...Object.values(estimate.memory)))} of device memory, ${
        total(estimate.gflop).toFixed(0)
      } GFLOP`,
  );
  watch.event("estimate", estimate);

  await job.begin(device, decidesOf(task, models, sha256), WORKING);
  const saved = new SavedLatents(job), latents = await contextLatents(job, models, context, saved);
  const decode = async (values: Float32Array) =>
    (await decodeFrames(device, vae, { ...latents, values })).values;
  // The first frame does not wait for a look at the clip, which decodes some of the context.
  const look = once(async () => {
    const strange = vae.card && await strangeClip(vae.card, far.name, context, latents, decode);
    if (strange !== undefined) watch.warn(strange);
  });
  const made = await rollOut(job, models, task, output, latents, saved, workUntil, look);
  await look(); // an interrupted run may have made every frame
  const { predicted, values, shown } = await decodeAll(job, models, task, output, latents, made);

  const scores = values.map((v) => scoreFrames(v, truth, context.frames));
  const random = far.weights.path === null || vae.weights.path === null,
    stamp = random ? RANDOM_STAMP : undefined;
  const start = performance.now();
  const files = await writePictures(job.part(""), { context: shown, predicted, truth, fps, ending, stamp });
  watch.seconds.write = (performance.now() - start) / 1000;
  const seconds = grouped(watch.seconds);
  await learnWriting(writingOf(task, output), seconds.write);
  const facts = (model: typeof far | typeof vae, sha256: string | null) => ({
    name: model.name,
    weights: model.weights.path,
    sha256,
    parameters: countParameters(model.weights.shapes),
  });
  const result = {
    settings: job.settings,
    random_weights: random,
    warnings: watch.warnings,
    models: { far: { ...facts(far, sha256.far), config: far.config }, vae: facts(vae, sha256.vae) },
    device: { ...device.info, reason },
    clip: {
      frames: context.frames + task.predict,
      height: context.height,
      width: context.width,
      actions: task.actions && [...task.actions],
    },
    estimate,
    seconds,
    stages: watch.seconds,
    peak_device_bytes: device.stats.peakBytes,
    protocol: {
      scores: SCORE_PROTOCOL,
      context_frames: context.frames,
      predicted_frames: task.predict,
      trajectories: output.trajectories,
      best_of: "none, each trajectory is scored alone",
      sampler: samplerText(task),
    },
    scores: scores.map((s, trajectory) => ({ trajectory, mean: meanScore(s), frames: s })),
    files,
  };
  await writeResult(job.part(""), result);
  await writePredictionReport(job.part(""), result, { context: shown, predicted, truth, fps });
  await job.place([...files, REPORT_FILE, RESULT_FILE]);
  return result;
}

/** Does something the first time only. */
function once(body: () => Promise<void>): () => Promise<void> {
  let done = false;
  return async () => {
    if (done) return;
    done = true;
    await body();
  };
}

/** Latents of the context: encoded, or as an interrupted run has saved them. */
async function contextLatents(
  { watch }: Job,
  { device, vae }: OpenModels,
  context: Frames,
  { latents }: SavedLatents,
): Promise<Latents> {
  if (latents.context) return { values: latents.context.values, ...latentSize(vae.config, context) };
  return await encodeFrames(device, vae, context, watch);
}

/** Latents of every trajectory, saved as they come. */
async function rollOut(
  { watch }: Job,
  { device, far }: OpenModels,
  task: PredictionTask,
  output: OutputOptions,
  context: Latents,
  state: SavedLatents,
  workUntil: PredictionEstimate["workUntil"],
  afterFrame: () => Promise<void>,
): Promise<Float32Array[]> {
  const { predict, steps, guidance, seed, remember } = task,
    { trajectories } = output,
    first = task.context.frames;
  const { channels: C, height: H, width: W } = context;
  const save = (name: string, values: () => Float32Array) =>
    state.save(name, values, [C, H, W], watch.interrupted);
  await save("context", () => context.values);
  const saved = Array.from({ length: trajectories }, (_, i) => state.latents[`trajectory_${i}`]?.values);
  if (saved.every((values) => values?.length === predict * C * H * W)) return saved;
  watch.say(`loading ${far.name}`);
  const params = await timed(watch, "load model", () => far.weights.load(device));
  try {
    for (const [trajectory, made] of saved.entries()) {
      if (trajectories > 1) watch.say(`trajectory ${trajectory + 1} of ${trajectories}`);
      using walk = new Rollout({ device, params, config: far.config }, {
        frameShape: [1, C, H, W],
        context: context.values.length > 0 ? context.values : undefined,
        made,
        ...{ predict, steps, guidance, seed, remember },
        ...rolloutConditions(far, task),
        streams: [trajectory],
        cache: output.cache,
        onStep: (frame, step) => stage.update(frame - first + (step + 1) / steps, share(frame - first, step)),
      });
      const before = walk.frame - first, last = steps - 1;
      const start = before > 0 ? workUntil(before - 1, last) : 0, end = workUntil(predict - 1, last);
      const share = (frame: number, step: number) => (workUntil(frame, step) - start) / (end - start);
      using stage = watch.stage("predict", predict, "frame", before);
      while (!walk.isDone) {
        await timed(watch, "predict", async () => {
          const { frame } = await walk.step();
          stage.update(frame + 1 - first, share(frame - first, last));
          await save(`trajectory_${trajectory}`, () => walk.made);
          await watch.pause();
        });
        await afterFrame();
      }
      saved[trajectory] = walk.made;
    }
    return saved as Float32Array[];
  } finally {
    disposeAll(params);
    device.trim();
  }
}

/** Decodes what was predicted, and the context where that is asked for. */
async function decodeAll(
  { watch }: Job,
  { device, vae }: OpenModels,
  { context, predict }: PredictionTask,
  { decodeContext }: OutputOptions,
  latents: Latents,
  made: readonly Float32Array[],
): Promise<{ readonly shown: Frames; readonly predicted: Frames[]; readonly values: Float32Array[] }> {
  const withContext = decodeContext && context.frames > 0;
  const parts = withContext ? [latents.values, ...made] : made;
  const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  parts.reduce((from, p) => (all.set(p, from), from + p.length), 0);
  const { frames, values } = await decodeFrames(device, vae, { ...latents, values: all }, watch);
  const given = withContext ? context.frames : 0, size = frames.height * frames.width * 3;
  const cut = (i: number) => [given + i * predict, given + (i + 1) * predict] as const;
  const r = downsampling(vae.config), none = makeFrames(0, context.height * r, context.width * r);
  return {
    shown: withContext ? sliceFrames(frames, 0, given) : context.frames > 0 ? context : none,
    predicted: made.map((_, i) => sliceFrames(frames, ...cut(i))),
    values: made.map((_, i) => values.subarray(cut(i)[0] * size, cut(i)[1] * size)),
  };
}
