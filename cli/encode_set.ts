/**
 * `far.ts encode OPTIONS.yml`: the latents of a whole data set, so that training need not run the autoencoder.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import type { Clip, DataSet } from "../lib/data/clip.ts";
import { dataSetOf } from "../lib/data/options.ts";
import { transformFrames } from "../lib/data/transform.ts";
import type { Params } from "../lib/params.ts";
import { disposeAll } from "../lib/tensor.ts";
import { readOptions } from "../lib/train/options.ts";
import { UsageError } from "./args.ts";
import { writeInParts } from "./clip_parts.ts";
import { encodeImages } from "./codec.ts";
import { fileHash } from "./hash.ts";
import type { chooseDcae } from "./models.ts";
import type { Workplace } from "./stages.ts";

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
 * @throws {UsageError} If there is none, or it holds latents already.
 */
export function setToEncode({ file, part, set: sets }: SetToEncode): DataSet {
  const { datasets } = readOptions(file, sets), block = datasets[part];
  if (block === null) throw new UsageError(`${file}: has no datasets.${part}`);
  const { set } = dataSetOf({ ...block }, `datasets.${part}`);
  if (set.holds === "latents") throw new UsageError(`${file}: ${set.name} holds latents already`);
  return set;
}

/**
 * Encodes every clip of a data set into shards that `LatentDataset` reads.
 *
 * @param to Folder for the shards; replaced if it exists.
 * @throws {UsageError} If an interrupted run with other settings left its clips beside it.
 */
export async function encodeSet(
  at: Workplace,
  vae: ReturnType<typeof chooseDcae>,
  set: DataSet,
  to: string,
): Promise<void> {
  const about = {
    data: set.name,
    clips: String(set.length),
    resolution: String(set.fit.resolution ?? "as stored"),
    autoencoder: vae.name,
    weights: fileHash(vae.weights.path) ?? "RANDOM WEIGHTS",
  };
  const params = vae.weights.load(at.device, "encoder.");
  const make = async (
    [i]: readonly number[],
  ) => [await encodeClip(at.device, vae, params, set, await set.read(i))];
  const { mean, deviation } = await writeInParts(at, { set, to, about, stage: "encode", make })
    .finally(() => disposeAll(params));
  at.progress.event("done", { path: to, clips: set.length, mean, deviation, seconds: at.seconds });
  at.progress.say(
    `wrote ${to}: latents of ${set.length} clips${
      vae.weights.path === null ? ", RANDOM WEIGHTS" : ""
    }; mean ` +
      `${mean.toFixed(4)}, deviation ${deviation.toFixed(4)} (a scaling_factor of ${
        (1 / deviation).toFixed(4)
      } makes it 1)`,
  );
}
