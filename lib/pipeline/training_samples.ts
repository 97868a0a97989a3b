/**
 * Samples of a training run: videos of the transformer, sheets of the autoencoder's reconstructions.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { Rollout } from "./rollout.ts";
import type { TrainingCodec } from "./training_codec.ts";
import { concatFrames, type Frames, makeFrames, sliceFrames } from "../io/frames.ts";
import type { Params } from "../params.ts";
import type { TrainBatch } from "../train/far_loss.ts";
import type { TrainOptions } from "../train/options.ts";
import type { Picture, Validation } from "../train/run.ts";
import type { Reconstruction } from "../train/vae_objective.ts";
import type { FarTrainingConfig } from "../train/far_objective.ts";
import { writeAtomic } from "../io/atomic.ts";
import { encodePng, readPng } from "../io/image.ts";
import { isFolder } from "../io/paths.ts";
import { fromPlanes } from "../io/planes.ts";
import { contactSheet } from "../io/sheet.ts";
import { FPS, PICTURE_FILE, writePictures } from "./pictures.ts";

/** Names of samples of a step: a folder of the transformer's, a sheet of the autoencoder's. */
const SAMPLES = /^step-(\d{8,})(\.png)?$/;

/** Path of the samples of a step, without an ending. */
const sampleAt = (folder: string, step: number) => `${folder}/samples/step-${String(step).padStart(8, "0")}`;

/** Removes samples of later steps than the one that a run starts from, which are made again. Other files stay. */
export function dropSamples(folder: string, step: number): void {
  for (const entry of isFolder(folder) ? [...Deno.readDirSync(folder)] : []) {
    const named = SAMPLES.exec(entry.name), path = `${folder}/${entry.name}`;
    if (named === null || Number(named[1]) <= step) continue;
    if (entry.isFile && named[2] !== undefined) Deno.removeSync(path);
    if (!entry.isDirectory || named[2] !== undefined) continue;
    const inside = [...Deno.readDirSync(path)],
      own = inside.filter((e) => e.isFile && PICTURE_FILE.test(e.name));
    for (const { name } of own) Deno.removeSync(`${path}/${name}`);
    if (own.length === inside.length) Deno.removeSync(path);
  }
}

/** Inputs of sampling. */
export interface SamplerOptions {
  readonly device: Device;
  readonly config: FarTrainingConfig;
  readonly codec: TrainingCodec;
  /** Held-out clips; the first one is continued. */
  readonly batch: TrainBatch;
  readonly options: TrainOptions["val"]["sample_cfg"];
  /** The run's folder. */
  readonly folder: string;
  /** Kind of video. */
  readonly ending: string;
}

/** Continues the first held-out clip and writes video, side-by-side with the truth and contact sheet under `samples/`. */
export function sampler(o: SamplerOptions): NonNullable<Validation["sample"]> {
  const { device, config, codec, batch, options, folder, ending } = o;
  const [, F, C, H, W] = batch.shape, per = C * H * W;
  const context = Math.min(options.context_length, F - 1), predict = options.unroll_length;
  const clip = (from: number, count: number) => batch.latents.slice(from * per, (from + count) * per);
  const type = config.model.condition?.type, total = context + predict;
  const truthCount = Math.max(0, Math.min(predict, F - context));
  return async (params: Params, step: number) => {
    // Actions of the clip; the last one is repeated beyond its end.
    const actions = type === "action"
      ? Int32Array.from({ length: total }, (_, f) => batch.actions![Math.min(f, F - 1)])
      : undefined;
    const predicted: Frames[] = [];
    for (let trajectory = 0; trajectory < options.sample_trajectory_per_video; trajectory++) {
      const frames: Frames[] = [];
      using run = new Rollout({ device, params, config: config.model }, {
        frameShape: [1, C, H, W],
        context: context > 0 ? clip(0, context) : undefined,
        predict,
        actions,
        label: type === "label" ? [batch.label![0]] : undefined,
        steps: options.num_inference_steps,
        guidance: options.guidance_scale,
        cache: options.use_kv_cache,
        seed: config.seed + trajectory,
      });
      for await (const { latents } of run) frames.push(await codec.show(latents, [C, H, W]));
      predicted.push(concatFrames(frames));
    }
    const { height, width } = predicted[0];
    const given = context > 0 ? await codec.show(clip(0, context), [C, H, W]) : makeFrames(0, height, width);
    const truth = truthCount > 0
      ? await codec.show(clip(context, truthCount), [C, H, W])
      : makeFrames(0, height, width);
    const target = sampleAt(folder, step);
    await writePictures(target, {
      context: given,
      predicted,
      truth: sliceFrames(truth, 0),
      fps: FPS,
      ending,
    });
    const encoded = Deno.readFileSync(`${target}/sheet.png`), sheet = readPng(encoded);
    return { "samples/sheet": { width: sheet.width, height: sheet.height, encoded } };
  };
}

/** Frames in a sheet of reconstructions. */
const SHOWN = 8;

/** Writes a sheet of frames above their reconstructions under `samples/`. */
export async function writeReconstructions(
  folder: string,
  { frames, decoded, shape: [N, C, H, W] }: Reconstruction,
  step: number,
): Promise<Record<string, Picture>> {
  const columns = Math.min(N, SHOWN);
  const first = (planes: Float32Array) => fromPlanes(planes.subarray(0, columns * C * H * W), H, W);
  const sheet = contactSheet([
    { label: "frames", frames: first(frames) },
    { label: "decoded", frames: first(decoded) },
  ], { columns });
  const encoded = encodePng(sheet);
  await writeAtomic(`${sampleAt(folder, step)}.png`, encoded);
  return { "samples/sheet": { width: sheet.width, height: sheet.height, encoded } };
}
