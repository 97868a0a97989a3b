/**
 * `far.ts encode OPTIONS.yml`: the latents of a whole data set, so that training need not run the autoencoder.
 *
 * Clips are encoded one by one into a folder beside the target, each file whole or not there, so an interrupted run goes on
 * with the first clip that is missing. The shards are written at the end.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import type { Clip, DataSet } from "../lib/data/clip.ts";
import { latentSet, writeLatents } from "../lib/data/latents.ts";
import { dataSetOf } from "../lib/data/options.ts";
import { transformFrames } from "../lib/data/transform.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { isFile } from "../lib/io/paths.ts";
import { readJsonObject } from "../lib/io/run_folder.ts";
import { openSafetensors, writeSafetensors } from "../lib/io/safetensors.ts";
import type { Params } from "../lib/params.ts";
import { disposeAll } from "../lib/tensor.ts";
import { readOptions } from "../lib/train/options.ts";
import { UsageError } from "./args.ts";
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

const clipFile = (folder: string, index: number) =>
  `${folder}/clip-${String(index).padStart(7, "0")}.safetensors`;

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
  const part = `${to}.part`, settings = `${part}/settings.json`;
  if (isFile(settings)) {
    if (JSON.stringify(readJsonObject(settings)) !== JSON.stringify(about)) {
      throw new UsageError(
        `${part}: holds clips of another set or autoencoder: remove it, or take another --to`,
      );
    }
  } else await writeAtomic(settings, JSON.stringify(about, null, 2) + "\n");

  const params = vae.weights.load(at.device, "encoder.");
  try {
    using stage = at.progress.stage("encode", set.length, "clip");
    for (let i = 0; i < set.length; i++) {
      if (!isFile(clipFile(part, i))) {
        const { latents, actions, label } = await encodeClip(at.device, vae, params, set, await set.read(i));
        await writeSafetensors(clipFile(part, i), {
          latents: fromFloat32(latents!.data, latents!.shape),
          ...(actions ? { actions: fromFloat32(Float32Array.from(actions), [actions.length]) } : {}),
          ...(label === undefined ? {} : { label: fromFloat32(Float32Array.of(label), []) }),
        });
      }
      stage.update(i + 1);
      await at.pause();
    }
  } finally {
    disposeAll(params);
  }
  let count = 0, sum = 0, squares = 0;
  const clips = function* (): Generator<Clip> {
    for (let i = 0; i < set.length; i++) {
      using file = openSafetensors(clipFile(part, i));
      const values = (name: string) =>
        file.tensors.has(name) ? Int32Array.from(toFloat32(file.read(name))) : undefined;
      const { shape } = file.tensors.get("latents")!;
      if (shape.length !== 4) {
        throw new FileFormatError(clipFile(part, i), `expected latents [F, C, H, W], found [${shape}]`);
      }
      const data = toFloat32(file.read("latents"));
      count += data.length;
      for (const v of data) [sum, squares] = [sum + v, squares + v * v];
      yield {
        source: set.source(i),
        latents: { shape: shape as unknown as [number, number, number, number], data },
        actions: values("actions"),
        label: values("label")?.[0],
      };
    }
  };
  await writeLatents(to, clips(), { classes: set.classes, about });
  latentSet(to); // reads every head once: what was written can be trained on
  Deno.removeSync(part, { recursive: true });
  const mean = sum / count, deviation = Math.sqrt(Math.max(0, squares / count - mean * mean));
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
