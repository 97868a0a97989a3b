/**
 * Checkpoints of a training run: a folder with the weights, the averaged weights, the optimiser's moments and a small
 * state file. It appears whole or not at all, so a run killed at any moment goes on from the last one that stands.
 *
 *     step-00001000/model.safetensors      the weights in f32, under the authors' names
 *                   ema.safetensors        averaged weights, what `predict` should be given
 *                   optimizer.safetensors  moments, `m.NAME` and `v.NAME`
 *                   state.json             steps, updates, configuration
 *
 * @module
 */
import { writeAtomic, writeFolderAtomic } from "../io/atomic.ts";
import { FileFormatError } from "../io/errors.ts";
import { fromFloat32, type LazyTensor, toFloat32 } from "../io/host.ts";
import { keepLast, listSteps, stepFolder } from "../io/run_folder.ts";
import { readJsonObject } from "../io/text.ts";
import { openSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { Shape } from "../tensor.ts";
import type { Params } from "../params.ts";
import type { AdamW } from "./adamw.ts";
import type { SavedTensors, Trainer, TrainerState } from "./trainer.ts";

const FORMAT = "far training checkpoint 1";

/** A checkpoint that was read. */
export interface SavedRun {
  /** Where it was. */
  readonly path: string;
  /** The run's counters. */
  readonly state: TrainerState;
  /** The weights. */
  readonly params: Readonly<Record<string, Float32Array>>;
  /** Moments and averages. */
  readonly tensors: SavedTensors;
  /** How the run was configured when it was saved. */
  readonly config: Readonly<Record<string, unknown>>;
}

const lazy = (shape: Shape, read: () => Promise<Float32Array>): LazyTensor => ({
  shape,
  dtype: "F32",
  read: async () => fromFloat32(await read(), shape),
});

/** Entries of one tensor file. */
export type TensorEntries = readonly (readonly [string, LazyTensor])[];

/** Entries of `names`, each with a prefix, read when they are written. */
export function entriesOf(
  like: Params,
  read: (name: string) => Promise<Float32Array>,
  prefix = "",
): TensorEntries {
  return Object.keys(like).map((name) => [prefix + name, lazy(like[name].shape, () => read(name))]);
}

/** The moments of an optimiser, `m.NAME` and `v.NAME`. */
export const momentsOf = (like: Params, optimizer: AdamW): TensorEntries => [
  ...entriesOf(like, (name) => optimizer.m.read(name), "m."),
  ...entriesOf(like, (name) => optimizer.v.read(name), "v."),
];

/**
 * Writes a checkpoint and removes all but the last ones.
 *
 * @param folder Where the run's checkpoints are.
 * @param files Tensor files by name, without the ending.
 * @param keep Number of checkpoints that stay.
 * @returns The folder of the new one.
 * @throws {FileAccessError} If the system refuses; earlier checkpoints are untouched then.
 */
export async function writeCheckpoint(
  folder: string,
  files: Readonly<Record<string, TensorEntries>>,
  state: TrainerState,
  config: unknown,
  keep: number,
): Promise<string> {
  const path = stepFolder(folder, state.step);
  await writeFolderAtomic(path, async (temp) => {
    for (const [name, entries] of Object.entries(files)) {
      await writeSafetensors(`${temp}/${name}.safetensors`, entries);
    }
    await writeAtomic(
      `${temp}/state.json`,
      JSON.stringify({ format: FORMAT, ...state, config }, null, 2) + "\n",
    );
  });
  keepLast(folder, keep);
  return path;
}

/**
 * Saves a run between two steps and removes all but the last checkpoints.
 *
 * @param folder Where the run's checkpoints are.
 * @param keep Number of checkpoints that stay.
 * @returns The folder of the new one.
 * @throws {FileAccessError} If the system refuses; earlier checkpoints are untouched then.
 */
export async function saveCheckpoint(trainer: Trainer, folder: string, keep = 3): Promise<string> {
  const { params, optimizer, ema, state, config } = trainer;
  const files = {
    model: entriesOf(params, (name) => optimizer.weight(params, name)),
    ...(ema ? { ema: entriesOf(params, (name) => ema.shadow.read(name)) } : {}),
    optimizer: momentsOf(params, optimizer),
  };
  return await writeCheckpoint(folder, files, state, config, keep);
}

/** Reads tensors of one file of a checkpoint; shapes that differ are an error. */
export function readTensors(
  path: string,
  shapes: Readonly<Record<string, Shape>>,
  prefix = "",
): Record<string, Float32Array> {
  using file = openSafetensors(path);
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const tensor = file.read(prefix + name);
      if (tensor.shape.join() !== shape.join()) {
        throw new FileFormatError(
          path,
          `${prefix}${name} has shape [${tensor.shape.join(", ")}], the configuration makes it [${
            shape.join(", ")
          }]: ` +
            "go on with the configuration that the run was started with, or start a new one elsewhere",
        );
      }
      return [name, toFloat32(tensor)];
    }),
  );
}

/** Counters and configuration of the newest checkpoint of a run, or null where there is none. */
export function latestState(
  folder: string,
): { readonly path: string; readonly state: TrainerState; readonly config: Record<string, unknown> } | null {
  const last = listSteps(folder).at(-1);
  if (!last) return null;
  const file = `${last.path}/state.json`;
  const { format, config, ...counters } = readJsonObject(file);
  if (format !== FORMAT) {
    throw new FileFormatError(
      file,
      `expected format ${JSON.stringify(FORMAT)}, found ${JSON.stringify(format)}`,
    );
  }
  const count = (name: string): number => {
    const value = counters[name];
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    throw new FileFormatError(file, `${name}: expected a whole number, found ${JSON.stringify(value)}`);
  };
  const state = {
    step: count("step"),
    updates: count("updates"),
    skippedInRow: count("skippedInRow"),
    ...("criticUpdates" in counters ? { criticUpdates: count("criticUpdates") } : {}),
  };
  return { path: last.path, state, config: config as Record<string, unknown> };
}

/**
 * Reads the newest checkpoint of a run, or null where there is none.
 *
 * @param shapes Names and shapes of the model.
 * @param ema Whether averaged weights are wanted; a run that had none starts them from its weights.
 * @throws {FileFormatError} If it is damaged or belongs to another model: who, expected, found.
 */
export function latestCheckpoint(
  folder: string,
  shapes: Readonly<Record<string, Shape>>,
  ema: boolean,
): SavedRun | null {
  const last = latestState(folder);
  if (!last) return null;
  const optimizer = `${last.path}/optimizer.safetensors`;
  return {
    ...last,
    params: readTensors(`${last.path}/model.safetensors`, shapes),
    tensors: {
      m: readTensors(optimizer, shapes, "m."),
      v: readTensors(optimizer, shapes, "v."),
      ...(ema && last.config.emaDecay !== null
        ? { ema: readTensors(`${last.path}/ema.safetensors`, shapes) }
        : {}),
    },
  };
}

/** What a configuration changes about a saved run, one line each: `lr: was 0.001, is 0.0001`. */
export function configChanges(saved: Pick<SavedRun, "config">, config: unknown): string[] {
  const flat = (value: unknown, at = ""): [string, string][] =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.entries(value).flatMap(([k, v]) => flat(v, at ? `${at}.${k}` : k))
      : [[at, JSON.stringify(value) ?? "nothing"]];
  const before = new Map(flat(saved.config)), after = new Map(flat(JSON.parse(JSON.stringify(config))));
  return [...new Set([...before.keys(), ...after.keys()])].filter((k) => before.get(k) !== after.get(k)).map((
    k,
  ) => `${k}: was ${before.get(k) ?? "not set"}, is ${after.get(k) ?? "not set"}`);
}
