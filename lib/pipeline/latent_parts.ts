/**
 * Writing the latents of many clips one by one, so that an interrupted run resumes with the first clip that is missing.
 *
 * Finished clips wait in the job's folder, each in a file of its own that carries the job's fingerprint; the shards are
 * written at the end.
 *
 * @module
 */
import type { Clip, DataSet } from "../data/clip.ts";
import { LATENT_FILES, latentSet, writeLatentFiles } from "../data/latents.ts";
import { FileFormatError } from "../io/errors.ts";
import { fromFloat32, toFloat32 } from "../io/host.ts";
import { isFile } from "../io/paths.ts";
import { openSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { Job, PartStore } from "./job.ts";

/** A set of latents to make. */
export interface LatentsToMake {
  /** Clips of which latents are made. */
  readonly set: DataSet;
  /** Origin of the latents, stored with them. */
  readonly about: Readonly<Record<string, string>>;
  /** Name of the stage. */
  readonly stage: string;
  /** Clips that are made together; 1 unless given. */
  readonly together?: number;
  /** Makes the latents of clips, in their order. */
  readonly make: (indices: readonly number[]) => Promise<readonly Clip[]>;
}

/** Statistics of the latents that were written. */
export interface LatentStatistics {
  /** Mean of all latents. */
  readonly mean: number;
  /** Standard deviation of all latents. */
  readonly deviation: number;
}

/** Names of all files that {@linkcode writeInParts} may write, for {@linkcode Job.begin}. */
export const LATENT_PARTS = ["clip-*.safetensors", ...LATENT_FILES];

const clipName = (index: number) => `clip-${String(index).padStart(7, "0")}.safetensors`;

async function writeClip(
  file: string,
  { latents, actions, label }: Clip,
  fingerprint: string,
): Promise<void> {
  const { data, history, shape } = latents!;
  await writeSafetensors(file, {
    latents: fromFloat32(data, shape),
    ...(history ? { history: fromFloat32(history, shape) } : {}),
    ...(actions ? { actions: fromFloat32(Float32Array.from(actions), [actions.length]) } : {}),
    ...(label === undefined ? {} : { label: fromFloat32(Float32Array.of(label), []) }),
  }, { fingerprint });
}

/** Whether a clip of this job is there. */
function isMade(store: PartStore, index: number): boolean {
  const path = store.part(clipName(index));
  if (!isFile(path)) return false;
  using file = openSafetensors(path);
  return file.metadata.fingerprint === store.digest;
}

function readClip(path: string, source: string): Clip {
  using file = openSafetensors(path);
  const values = (name: string) => file.tensors.has(name) ? toFloat32(file.read(name)) : undefined;
  const { shape } = file.tensors.get("latents")!, actions = values("actions"), history = values("history");
  if (shape.length !== 4) throw new FileFormatError(path, `expected latents [F, C, H, W], found [${shape}]`);
  return {
    source,
    latents: {
      shape: shape as unknown as [number, number, number, number],
      data: values("latents")!,
      ...(history ? { history } : {}),
    },
    actions: actions && Int32Array.from(actions),
    label: values("label")?.[0],
  };
}

/**
 * Makes every clip that is not there yet, writes them all as shards, and puts those in place.
 *
 * @param job A job that has begun with the names of {@linkcode LATENT_PARTS}.
 * @param latents What to make.
 * @returns Statistics of all latents.
 */
export async function writeInParts(job: Job, latents: LatentsToMake): Promise<LatentStatistics> {
  const { set, about, together = 1 } = latents, { watch } = job;
  {
    using stage = watch.stage(latents.stage, set.length, "clip");
    for (let first = 0; first < set.length; first += together) {
      const count = Math.min(together, set.length - first);
      const indices = Array.from({ length: count }, (_, i) => first + i);
      if (!indices.every((i) => isMade(job, i))) {
        for (const [i, clip] of (await latents.make(indices)).entries()) {
          await writeClip(job.part(clipName(first + i)), clip, job.digest);
        }
      }
      stage.update(first + count);
      await watch.pause();
    }
  }
  let count = 0, sum = 0, squares = 0;
  const clips = function* (): Generator<Clip> {
    for (let i = 0; i < set.length; i++) {
      const clip = readClip(job.part(clipName(i)), set.source(i));
      count += clip.latents!.data.length;
      for (const v of clip.latents!.data) [sum, squares] = [sum + v, squares + v * v];
      yield clip;
    }
  };
  const { files } = await writeLatentFiles(job.part(""), clips(), { classes: set.classes, about });
  latentSet(job.part("")); // reads every head once: what was written can be trained on
  await job.place(files);
  const mean = sum / count;
  return { mean, deviation: Math.sqrt(Math.max(0, squares / count - mean * mean)) };
}
