/**
 * Runs a prediction (or a generation, which has no context) from estimate to result folder.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { downsampling } from "../lib/dcae/config.ts";
import { countParameters, type FarConfig } from "../lib/far/config.ts";
import { type Frames, makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { RESULT_FILE, videoEnding, VIEWED, writePictures, writeResult } from "../lib/pipeline/pictures.ts";
import { type Cost, dcaeCost, flopsOf, refuseTooLarge, sampleCost, totalCost } from "../lib/pipeline/cost.ts";
import { availableMemory } from "./flags.ts";
import { bytesHash, fileHash } from "../lib/io/hash.ts";
import type { Job, JobFlags } from "./job.ts";
import { meanScore, SCORE_PROTOCOL, scoreFrames } from "../lib/metrics/frames.ts";
import type { Part } from "../lib/pipeline/weights.ts";
import { REPORT_FILE } from "../lib/pipeline/html_report.ts";
import { strangeClip } from "../lib/pipeline/kind.ts";
import type { Autoencoder } from "../lib/pipeline/models.ts";
import {
  costsOf,
  expectedWriting,
  learnWriting,
  measureRates,
  sampleSeconds,
  secondsAt,
  type Writing,
} from "../lib/pipeline/rates.ts";
import { bytes, duration } from "../lib/units.ts";
import { writePredictionReport } from "../lib/pipeline/report_prediction.ts";
import { RunState, STATE_FILE } from "./resume.ts";
import { decodeFrames, encodeFrames, type Latents, latentSize } from "../lib/pipeline/codec.ts";
import { Rollout } from "../lib/pipeline/rollout.ts";
import { timed } from "../lib/pipeline/watch.ts";
import { disposeAll } from "../lib/tensor.ts";

/** Flags that a prediction needs. */
export interface TaskFlags extends JobFlags {
  readonly pred: number;
  readonly steps: number;
  readonly guidance: number;
  readonly seed: number;
  readonly samples: number;
  readonly dtype: "f32" | "f16";
  readonly "kv-cache": "auto" | "off";
  readonly "decode-context": "yes" | "no";
  readonly out: string;
  readonly format: "auto" | "mp4" | "gif" | "webm";
  readonly fps?: number;
}

/** A prediction that is ready to run. */
export interface Task {
  readonly verb: "predict" | "generate";
  readonly flags: TaskFlags;
  /** The verb's own flags, for result.json. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly clip: { readonly path: string; readonly fps?: number } | null;
  /** Frames that are given; none for a generation, but their size counts. */
  readonly context: Frames;
  /** Frames that really followed, as many as there are. */
  readonly truth: Frames;
  readonly far: Part<FarConfig>;
  readonly vae: Autoencoder;
  readonly actions?: Int32Array;
  readonly label?: number;
}

const STAMP = "RANDOM WEIGHTS";

/** Seconds by stage. */
interface Estimate {
  /** FLOP until a step of a frame is done. */
  readonly workUntil: (frame: number, step: number) => number;
  readonly seconds: Readonly<Record<string, number>>;
  readonly memory: Readonly<Record<string, number>>;
  readonly gflop: Readonly<Record<string, number>>;
}

/** The videos of a result: each prediction, and where there is truth all of them beside it. */
function writingOf({ flags, context, truth }: Task, ending: string): Writing {
  const beside = truth.frames > 0 ? 1 + flags.samples : 0;
  // Small frames are written several times as large.
  const scale = Math.max(1, Math.ceil(VIEWED / Math.min(context.height, context.width)));
  const pixels = (context.frames + flags.pred) * context.height * context.width * scale ** 2;
  return { ending, videos: flags.samples + (beside > 0 ? 1 : 0), pixels: (flags.samples + beside) * pixels };
}

async function estimate(task: Task, device: Device, ending: string): Promise<Estimate> {
  const { flags, far, vae, context } = task, cache = flags["kv-cache"] === "auto";
  const size = latentSize(vae.config, context), sides = [context.height, context.width] as const;
  const shown = flags["decode-context"] === "yes" ? context.frames : 0;
  const encode = dcaeCost(vae.config, "encode", context.frames, sides, flags.dtype);
  const decode = dcaeCost(vae.config, "decode", flags.samples * flags.pred + shown, sides, flags.dtype);
  const shape = {
    clips: 1,
    height: size.height,
    width: size.width,
    context: context.frames,
    predict: flags.pred,
    steps: flags.steps,
    guidance: flags.guidance,
    cache,
  };
  const frames = await sampleCost(far.config, shape, flags.dtype), predict = totalCost(frames, flags.steps);
  const memory = { encode: encode.memory, predict: predict.memory, decode: decode.memory };
  refuseTooLarge(device, memory, availableMemory());
  const rates = await measureRates(device, [encode, decode, ...costsOf(frames)]);
  const loading = (model: Part<unknown>, part: number) =>
    // Reading and packing a checkpoint takes about a fifth of the time of making numbers up.
    part * countParameters(model.weights.shapes) /
    (model.weights.path === null ? rates.random : 5 * rates.random);
  const work = frames.map((f) => ({ first: flopsOf(f.first), further: flopsOf(f.further) }));
  const before = [0]; // work of all frames before each one
  for (const f of work) before.push(before.at(-1)! + f.first + (flags.steps - 1) * f.further);
  const gflop = (cost: Cost) => Math.round(flopsOf(cost) / 1e7) / 100;
  return {
    workUntil: (frame, step) => before[frame] + work[frame].first + step * work[frame].further,
    seconds: {
      load: loading(far, 1) + loading(vae, context.frames > 0 ? 1 : 0.5),
      encode: secondsAt(encode, rates),
      predict: flags.samples * sampleSeconds(frames, flags.steps, rates),
      decode: secondsAt(decode, rates),
      write: expectedWriting(writingOf(task, ending)),
    },
    memory,
    gflop: { encode: gflop(encode), predict: flags.samples * gflop(predict), decode: gflop(decode) },
  };
}

const sum = (values: Readonly<Record<string, number>>) => Object.values(values).reduce((a, b) => a + b, 0);

/** `load 20 s, encode 12 s, …` */
const stages = (seconds: Readonly<Record<string, number>>) =>
  Object.entries(seconds).map(([name, s]) => `${name} ${duration(s)}`).join(", ");

/** Timings by the names of the estimate. */
function grouped(seconds: Readonly<Record<string, number>>): Record<string, number> {
  const out: Record<string, number> = { load: 0, encode: 0, predict: 0, decode: 0, write: 0 };
  for (const [name, s] of Object.entries(seconds)) out[name.startsWith("load") ? "load" : name] += s;
  return out;
}

/** Inputs that decide the result beside the call and the device. */
function decides(task: Task, hashes: Readonly<Record<string, string | null>>): Record<string, unknown> {
  const { context, truth, actions, label } = task;
  const frames = ({ frames, height, width, data }: Frames) => ({
    frames,
    height,
    width,
    sha256: bytesHash(data),
  });
  return {
    models: { far: task.far.config, vae: task.vae.config, sha256: hashes },
    context: frames(context),
    truth: frames(truth),
    actions: actions === undefined ? null : [...actions],
    label: label ?? null,
  };
}

/** Names of all files that a prediction may write. */
const WORKING = [STATE_FILE, "prediction*", "side_by_side.*", "sheet.png", REPORT_FILE, RESULT_FILE];

/** Runs the task and puts its result in place. */
export async function runPrediction(job: Job, task: Task): Promise<void> {
  const { flags, far, vae, context } = task, { progress } = job, { out } = flags;
  if (far.config.inChannels !== vae.config.latentChannels) {
    throw new RangeError(
      `${far.name} takes latents of ${far.config.inChannels} channels, ${vae.name} makes ${vae.config.latentChannels}: ` +
        "choose another --vae",
    );
  }
  latentSize(vae.config, context);
  const ending = videoEnding(flags.format);
  progress.say(`checking weights`);
  const hashes = { far: fileHash(far.weights.path), vae: fileHash(vae.weights.path) };
  far.weights.verify();
  vae.weights.verify();
  const device = await job.openDevice();
  const { workUntil, ...expected } = await estimate(task, device, ending);
  const memory = Math.max(...Object.values(expected.memory));
  progress.say(
    `estimate: ${duration(sum(expected.seconds))} (${stages(expected.seconds)}), ` +
      `${bytes(memory)} of device memory, ${sum(expected.gflop).toFixed(0)} GFLOP`,
  );
  progress.event("estimate", expected);

  await job.begin(decides(task, hashes), WORKING);
  const state = new RunState(job);
  const latents = await contextLatents(job, task, state);
  const look = async (values: Float32Array) =>
    (await decodeFrames(device, vae, { ...latents, values })).values;
  const strange = vae.card && await strangeClip(vae.card, far.name, context, latents, look);
  if (strange !== undefined) progress.warn(strange);
  const made = await trajectories(job, task, latents, state, workUntil);
  const { predicted, values, shown } = await pictures(job, task, latents, made);

  const scores = values.map((v) => scoreFrames(v, task.truth, context.frames));
  const parameters = { far: countParameters(far.weights.shapes), vae: countParameters(vae.weights.shapes) };
  const random = far.weights.path === null || vae.weights.path === null;
  const folder = job.folder.part(""), fps = flags.fps ?? task.clip?.fps ?? 10;
  const start = performance.now();
  const files = await writePictures(folder, {
    context: shown,
    predicted,
    truth: task.truth,
    fps,
    ending,
    stamp: random ? STAMP : undefined,
  });
  job.seconds.write = (performance.now() - start) / 1000;
  const took = grouped(job.seconds);
  await learnWriting(writingOf(task, ending), took.write);
  const result = {
    settings: {
      verb: task.verb,
      operands: task.clip === null ? [] : [task.clip.path],
      flags: task.settings,
    },
    random_weights: random,
    warnings: progress.warnings,
    models: {
      far: {
        name: far.name,
        weights: far.weights.path,
        sha256: hashes.far,
        parameters: parameters.far,
        config: far.config,
      },
      vae: { name: vae.name, weights: vae.weights.path, sha256: hashes.vae, parameters: parameters.vae },
    },
    device: { ...device.info, reason: job.reason },
    clip: {
      frames: context.frames + flags.pred,
      height: context.height,
      width: context.width,
      actions: task.actions && [...task.actions],
    },
    estimate: expected,
    seconds: took,
    stages: job.seconds,
    peak_device_bytes: device.stats.peakBytes,
    protocol: {
      scores: SCORE_PROTOCOL,
      context_frames: context.frames,
      predicted_frames: flags.pred,
      trajectories: flags.samples,
      best_of: "none, each trajectory is scored alone",
      sampler: `Euler, ${flags.steps} steps, guidance ${flags.guidance}, seed ${flags.seed}`,
    },
    scores: scores.map((s, trajectory) => ({ trajectory, mean: meanScore(s), frames: s })),
    files,
  };
  await writeResult(folder, result);
  await writePredictionReport(folder, result, { context: shown, predicted, truth: task.truth, fps });
  await job.folder.place([...files, REPORT_FILE, RESULT_FILE]);
  progress.event("done", { out, files, seconds: took, scores: scores.map(meanScore) });
  progress.say(
    `took: ${duration(sum(took))} (${stages(took)}); the estimate was ${duration(sum(expected.seconds))}`,
  );
  progress.say(`took ${bytes(device.stats.peakBytes)} of device memory; the estimate was ${bytes(memory)}`);
  for (const [i, s] of scores.entries()) {
    const mean = meanScore(s);
    if (mean === null) continue;
    const psnr = mean.psnr === null ? "infinite" : mean.psnr.toFixed(2);
    progress.say(
      `${flags.samples > 1 ? `trajectory ${i}: ` : ""}MSE ${
        mean.mse.toFixed(4)
      }, PSNR ${psnr} dB, mean of ${s.length} predicted frames` +
        (random ? " (random weights: the figures mean nothing)" : ""),
    );
  }
  progress.say(`wrote ${out}: ${files.join(", ")}, ${RESULT_FILE}, ${REPORT_FILE}`);
}

/** Latents of the context: encoded, or as an interrupted run has saved them. */
async function contextLatents(job: Job, task: Task, { latents }: RunState): Promise<Latents> {
  const size = latentSize(task.vae.config, task.context);
  if (latents.context) return { values: latents.context.values, ...size };
  return await encodeFrames(job.device, task.vae, task.context, job);
}

/** Latents of every trajectory, saved as they come. */
async function trajectories(
  job: Job,
  task: Task,
  context: Latents,
  state: RunState,
  workUntil: Estimate["workUntil"],
): Promise<Float32Array[]> {
  const { flags, far } = task, { device } = job, C = context.channels, H = context.height, W = context.width;
  const save = (name: string, values: () => Float32Array) => state.save(name, values, [C, H, W]);
  await save("context", () => context.values);
  const saved = Array.from({ length: flags.samples }, (_, i) => state.latents[`trajectory_${i}`]?.values);
  if (saved.every((values) => values?.length === flags.pred * C * H * W)) return saved;
  job.say(`loading ${far.name}`);
  const params = await timed(job, "load model", () => far.weights.load(device));
  try {
    for (const [trajectory, made] of saved.entries()) {
      if (flags.samples > 1) job.say(`trajectory ${trajectory + 1} of ${flags.samples}`);
      using walk = new Rollout({ device, params, config: far.config }, {
        frameShape: [1, C, H, W],
        context: context.values.length > 0 ? context.values : undefined,
        made,
        predict: flags.pred,
        actions: task.actions,
        label: far.config.condition?.type === "label"
          ? [task.label ?? far.config.condition.classes]
          : undefined,
        steps: flags.steps,
        guidance: flags.guidance,
        seed: flags.seed,
        streams: [trajectory],
        cache: flags["kv-cache"] === "auto",
        onStep: (frame, step) => {
          const at = frame - task.context.frames;
          stage.update(at + (step + 1) / flags.steps, share(at, step));
        },
      });
      const before = walk.frame - task.context.frames;
      const last = flags.steps - 1, start = before > 0 ? workUntil(before - 1, last) : 0;
      const share = (frame: number, step: number) =>
        (workUntil(frame, step) - start) / (workUntil(flags.pred - 1, last) - start);
      using stage = job.stage("predict", flags.pred, "frame", before);
      await timed(job, "predict", async () => {
        for await (const { frame } of walk) {
          stage.update(frame + 1 - task.context.frames, share(frame - task.context.frames, last));
          await save(`trajectory_${trajectory}`, () => walk.made);
          await job.pause();
        }
      });
      saved[trajectory] = walk.made;
    }
    return saved as Float32Array[];
  } finally {
    disposeAll(params);
    device.trim();
  }
}

/** Decodes what was predicted, and the context where that is asked for. */
async function pictures(job: Job, task: Task, context: Latents, made: readonly Float32Array[]) {
  const { flags } = task, decodeContext = flags["decode-context"] === "yes" && context.values.length > 0;
  const parts = decodeContext ? [context.values, ...made] : made;
  const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  parts.reduce((from, p) => (all.set(p, from), from + p.length), 0);
  const decoded = await decodeFrames(job.device, task.vae, { ...context, values: all }, job);
  const given = decodeContext ? task.context.frames : 0,
    size = decoded.frames.height * decoded.frames.width * 3;
  const cut = (i: number) => [given + i * flags.pred, given + (i + 1) * flags.pred] as const;
  const r = downsampling(task.vae.config);
  const none = makeFrames(0, context.height * r, context.width * r);
  return {
    shown: decodeContext
      ? sliceFrames(decoded.frames, 0, given)
      : task.context.frames > 0
      ? task.context
      : none,
    predicted: made.map((_, i) => sliceFrames(decoded.frames, ...cut(i))),
    values: made.map((_, i) => decoded.values.subarray(cut(i)[0] * size, cut(i)[1] * size)),
  };
}
