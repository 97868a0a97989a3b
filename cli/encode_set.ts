/**
 * `far.ts encode OPTIONS.yml`: the latents of a whole data set, so that training need not run the autoencoder.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import type { Clip, DataSet } from "../lib/data/clip.ts";
import { decoderOf, sourcesOf, stampOf } from "../lib/data/stamp.ts";
import { dataSetOf } from "../lib/data/options.ts";
import { transformFrames } from "../lib/data/transform.ts";
import type { Params } from "../lib/params.ts";
import { disposeAll } from "../lib/tensor.ts";
import { readOptions } from "../lib/train/options.ts";
import { UsageError } from "./args.ts";
import { WORKING, writeInParts } from "./clip_parts.ts";
import { encodeImages } from "../lib/pipeline/codec.ts";
import { fileHash } from "../lib/io/hash.ts";
import type { Job } from "./job.ts";
import type { chooseDcae } from "../lib/pipeline/models.ts";

/** What to encode. */
export interface SetToEncode {
  /** Option file with the data set. */
  readonly file: string;
  /** Which of its two. */
  readonly part: "train" | "sample";
  /** `path=value` on top of the file. */
  readonly set: readonly string[];
}

/** Latents of one clip, all frames, not multiplied by the scaling factor. */
async function encodeClip(
  device: Device,
  vae: ReturnType<typeof chooseDcae>,
  params: Params,
  set: DataSet,
  clip: Clip,
): Promise<Clip> {
  const frames = clip.frames!, size = set.fit.resolution;
  const H = size ?? frames.height, W = size ?? frames.width;
  const planes = new Float32Array(frames.frames * 3 * H * W);
  transformFrames(frames, planes, { resolution: size }); // cut in the middle: nothing random is in stored latents
  for (let i = 0; i < planes.length; i++) planes[i] = planes[i] * 2 - 1;
  const { values, shape: [C, h, w] } = await encodeImages(device, vae.config, params, planes, [
    frames.frames,
    3,
    H,
    W,
  ]);
  return { ...clip, frames: undefined, latents: { shape: [frames.frames, C, h, w], data: values } };
}

/**
 * Opens the data set of an option file.
 *
 * @returns The set, and the folder or list that it is read from.
 * @throws {UsageError} If there is none, or it holds latents already.
 */
export function setToEncode(
  { file, part, set: sets }: SetToEncode,
): { readonly set: DataSet; readonly sources: readonly string[] } {
  const { datasets } = readOptions(file, sets), block = datasets[part];
  if (block === null) throw new UsageError(`${file}: has no datasets.${part}`);
  const { set } = dataSetOf({ ...block }, `datasets.${part}`);
  if (set.holds === "latents") throw new UsageError(`${file}: ${set.name} holds latents already`);
  return { set, sources: sourcesOf(block, set) };
}

/**
 * Encodes every clip of a data set into shards that `LatentDataset` reads.
 *
 * @param job The run; its folder gets the shards.
 */
export async function encodeSet(job: Job, vae: ReturnType<typeof chooseDcae>, set: DataSet): Promise<void> {
  const { path } = job.folder, weights = fileHash(vae.weights.path);
  vae.weights.verify();
  const device = await job.openDevice();
  const about = {
    data: set.name,
    clips: String(set.length),
    resolution: String(set.fit.resolution ?? "as stored"),
    autoencoder: vae.name,
    weights: weights ?? "RANDOM WEIGHTS",
  };
  await job.begin({
    about,
    clips: stampOf(set),
    decoder: await decoderOf(set),
    autoencoder: vae.config,
    weights,
  }, WORKING);
  const params = vae.weights.load(device, "encoder.");
  const make = async (
    [i]: readonly number[],
  ) => [await encodeClip(device, vae, params, set, await set.read(i))];
  const { mean, deviation } = await writeInParts(job, { set, about, stage: "encode", make })
    .finally(() => disposeAll(params));
  job.progress.event("done", { path, clips: set.length, mean, deviation, seconds: job.seconds });
  job.progress.say(
    `wrote ${path}: latents of ${set.length} clips${
      vae.weights.path === null ? ", RANDOM WEIGHTS" : ""
    }; mean ` +
      `${mean.toFixed(4)}, deviation ${deviation.toFixed(4)} (a scaling_factor of ${
        (1 / deviation).toFixed(4)
      } makes it 1)`,
  );
}
