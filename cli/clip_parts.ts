/**
 * Writing the latents of many clips one by one, so that an interrupted run resumes with the first clip that is missing.
 *
 * Finished clips wait in the job's folder, each in a file of its own that carries the run's fingerprint; the shards are
 * written at the end.
 *
 * @module
 */
import type { Clip, DataSet } from "../lib/data/clip.ts";
import { LATENT_FILES, latentSet, writeLatentFiles } from "../lib/data/latents.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { isFile } from "../lib/io/paths.ts";
import { openSafetensors, writeSafetensors } from "../lib/io/safetensors.ts";
import type { Job } from "./job.ts";

/** A set of latents to write. */
export interface LatentJob {
  /** Clips of which latents are made. */
  readonly set: DataSet;
  /** Where the latents come from, stored with them. */
  readonly about: Readonly<Record<string, string>>;
  /** Name of the stage. */
  readonly stage: string;
  /** Clips that are made together; 1 unless given. */
  readonly together?: number;
  /** Makes the latents of clips, in their order. */
  readonly make: (indices: readonly number[]) => Promise<readonly Clip[]>;
}

/** What was written. */
export interface Written {
  /** Mean of all latents. */
  readonly mean: number;
  /** Standard deviation of all latents. */
  readonly deviation: number;
}

/** Names of all files that {@linkcode writeInParts} may write. */
export const WORKING = ["clip-*.safetensors", ...LATENT_FILES];

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

/** Whether a clip of this run is there. */
function isMade({ folder, digest }: Job, index: number): boolean {
  const path = folder.part(clipName(index));
  if (!isFile(path)) return false;
  using file = openSafetensors(path);
  return file.metadata.fingerprint === digest;
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
 * @param job A run that has begun with the names of {@linkcode WORKING}.
 */
export async function writeInParts(job: Job, latents: LatentJob): Promise<Written> {
  const { set, about, together = 1 } = latents, { folder, digest } = job;
  {
    using stage = job.progress.stage(latents.stage, set.length, "clip");
    for (let first = 0; first < set.length; first += together) {
      const count = Math.min(together, set.length - first);
      const indices = Array.from({ length: count }, (_, i) => first + i);
      if (!indices.every((i) => isMade(job, i))) {
        for (const [i, clip] of (await latents.make(indices)).entries()) {
          await writeClip(folder.part(clipName(first + i)), clip, digest);
        }
      }
      stage.update(first + count);
      await job.pause();
    }
  }
  let count = 0, sum = 0, squares = 0;
  const clips = function* (): Generator<Clip> {
    for (let i = 0; i < set.length; i++) {
      const clip = readClip(folder.part(clipName(i)), set.source(i));
      count += clip.latents!.data.length;
      for (const v of clip.latents!.data) [sum, squares] = [sum + v, squares + v * v];
      yield clip;
    }
  };
  const { files } = await writeLatentFiles(folder.part(""), clips(), { classes: set.classes, about });
  latentSet(folder.part("")); // reads every head once: what was written can be trained on
  await folder.place(files);
  const mean = sum / count;
  return { mean, deviation: Math.sqrt(Math.max(0, squares / count - mean * mean)) };
}
