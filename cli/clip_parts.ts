/**
 * Writing the latents of many clips one by one, so that an interrupted run goes on with the first clip that is missing.
 *
 * Clips wait in a folder beside the target, each file whole or not there; the shards are written at the end.
 *
 * @module
 */
import type { Clip, DataSet } from "../lib/data/clip.ts";
import { latentSet, writeLatents } from "../lib/data/latents.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { isFile } from "../lib/io/paths.ts";
import { readJsonObject } from "../lib/io/run_folder.ts";
import { openSafetensors, writeSafetensors } from "../lib/io/safetensors.ts";
import { UsageError } from "./args.ts";
import type { Workplace } from "./stages.ts";

/** A set of latents to write. */
export interface LatentJob {
  /** Clips of which latents are made. */
  readonly set: DataSet;
  /** Folder for the shards; replaced if it exists. */
  readonly to: string;
  /** What decides the values: stored with them, and a run with other values does not go on. */
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

const clipFile = (folder: string, index: number) =>
  `${folder}/clip-${String(index).padStart(7, "0")}.safetensors`;

async function writeClip(file: string, { latents, actions, label }: Clip): Promise<void> {
  const { data, history, shape } = latents!;
  await writeSafetensors(file, {
    latents: fromFloat32(data, shape),
    ...(history ? { history: fromFloat32(history, shape) } : {}),
    ...(actions ? { actions: fromFloat32(Float32Array.from(actions), [actions.length]) } : {}),
    ...(label === undefined ? {} : { label: fromFloat32(Float32Array.of(label), []) }),
  });
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
 * Makes every clip that is not there yet and writes them all as shards.
 *
 * @throws {UsageError} If an interrupted run with other settings left its clips beside the target.
 */
export async function writeInParts(at: Workplace, job: LatentJob): Promise<Written> {
  const { set, to, about, together = 1 } = job, part = `${to}.part`, settings = `${part}/settings.json`;
  if (isFile(settings)) {
    if (JSON.stringify(readJsonObject(settings)) !== JSON.stringify(about)) {
      throw new UsageError(`${part}: holds clips made with other settings: remove it, or take another --to`);
    }
  } else await writeAtomic(settings, JSON.stringify(about, null, 2) + "\n");

  using stage = at.progress.stage(job.stage, set.length, "clip");
  for (let first = 0; first < set.length; first += together) {
    const count = Math.min(together, set.length - first);
    const indices = Array.from({ length: count }, (_, i) => first + i);
    if (!indices.every((i) => isFile(clipFile(part, i)))) {
      for (const [i, clip] of (await job.make(indices)).entries()) {
        await writeClip(clipFile(part, first + i), clip);
      }
    }
    stage.update(first + count);
    await at.pause();
  }
  let count = 0, sum = 0, squares = 0;
  const clips = function* (): Generator<Clip> {
    for (let i = 0; i < set.length; i++) {
      const clip = readClip(clipFile(part, i), set.source(i));
      count += clip.latents!.data.length;
      for (const v of clip.latents!.data) [sum, squares] = [sum + v, squares + v * v];
      yield clip;
    }
  };
  await writeLatents(to, clips(), { classes: set.classes, about });
  latentSet(to); // reads every head once: what was written can be trained on
  Deno.removeSync(part, { recursive: true });
  const mean = sum / count;
  return { mean, deviation: Math.sqrt(Math.max(0, squares / count - mean * mean)) };
}
