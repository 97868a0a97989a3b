/**
 * The latents of a whole data set, so that training need not run the autoencoder.
 *
 * @module
 */
import type { Clip, DataSet } from "../data/clip.ts";
import { decoderOf, stampOf } from "../data/stamp.ts";
import { transformFrames } from "../data/transform.ts";
import { fileHash } from "../io/hash.ts";
import type { Params } from "../params.ts";
import { disposeAll } from "../tensor.ts";
import { encodeImages } from "./codec.ts";
import type { Job } from "./job.ts";
import { LATENT_PARTS, type LatentStatistics, writeInParts } from "./latent_parts.ts";
import type { OpenModels } from "./models.ts";
import { RANDOM_STAMP } from "./weights.ts";

/** Latents of one clip, all frames, not multiplied by the scaling factor. */
async function encodeClip(
  { device, vae }: Pick<OpenModels, "device" | "vae">,
  params: Params,
  set: DataSet,
  clip: Clip,
): Promise<Clip> {
  const frames = clip.frames!, size = set.fit.resolution, F = frames.frames;
  const H = size ?? frames.height, W = size ?? frames.width;
  const planes = new Float32Array(F * 3 * H * W);
  transformFrames(frames, planes, { resolution: size }); // cut in the middle: nothing random is in stored latents
  for (let i = 0; i < planes.length; i++) planes[i] = planes[i] * 2 - 1;
  const { values, shape: [C, h, w] } = await encodeImages(device, vae.config, params, planes, [F, 3, H, W]);
  return { ...clip, frames: undefined, latents: { shape: [F, C, h, w], data: values } };
}

/**
 * Encodes every clip of a data set into shards that `LatentDataset` reads. Stopped, the same job resumes with the first clip
 * that is missing.
 *
 * @param job The folder that gets the shards; not begun yet.
 * @param models The autoencoder on its device; nothing of it is loaded yet.
 * @param set Clips with frames.
 * @returns Statistics of the latents, which are not multiplied by the scaling factor.
 */
export async function encodeSet(
  job: Job,
  models: Pick<OpenModels, "device" | "vae">,
  set: DataSet,
): Promise<LatentStatistics> {
  const { device, vae } = models, weights = fileHash(vae.weights.path);
  const about = {
    data: set.name,
    clips: String(set.length),
    resolution: String(set.fit.resolution ?? "as stored"),
    autoencoder: vae.name,
    weights: weights ?? RANDOM_STAMP,
  };
  const decides = {
    about,
    clips: stampOf(set),
    decoder: await decoderOf(set),
    autoencoder: vae.config,
    weights,
  };
  await job.begin(device, decides, LATENT_PARTS);
  const params = vae.weights.load(device, "encoder.");
  try {
    return await writeInParts(job, {
      ...{ set, about, stage: "encode" },
      make: async ([i]) => [await encodeClip(models, params, set, await set.read(i))],
    });
  } finally {
    disposeAll(params);
  }
}
