/**
 * Checkpoints of a training run: a folder with the weights, the averaged weights, the optimiser's moments and a small
 * state file. It appears whole or not at all, so a run killed at any moment resumes from the last one that stands.
 *
 *     step-00001000/model.safetensors      the weights in f32, under the authors' names
 *                   ema.safetensors        averaged weights
 *                   optimizer.safetensors  moments, `m.NAME` and `v.NAME`
 *                   state.json             steps, updates, what the run is, checksums of the other files
 *
 * @module
 */
import { writeAtomic, writeFolderAtomic } from "../io/atomic.ts";
import { firstDifference } from "../io/difference.ts";
import { FileFormatError, isMissing } from "../io/errors.ts";
import { fromFloat32, type LazyTensor, toFloat32 } from "../io/host.ts";
import { type FileSum, fileSum, keepLast, listSteps, stepFolder } from "../io/run_folder.ts";
import { readJsonObject } from "../io/text.ts";
import { openSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { Shape } from "../tensor.ts";
import type { Params } from "../params.ts";
import type { AdamW } from "./adamw.ts";
import type { SavedTensors, Trainer, TrainerState } from "./trainer.ts";

const FORMAT = "far training checkpoint 2", STATE = "state.json";

/** All settings that decide what a run computes, by name: JSON values, possibly nested. */
export type Fingerprint = Readonly<Record<string, unknown>>;

/** A checkpoint's record of the run around its trainer. */
export interface RunRecord {
  /** Fingerprint of the run. */
  readonly fingerprint: Fingerprint;
  /** Losses of the steps since the last line of the log, whose next line is their mean too. */
  readonly losses: readonly number[];
}

/** A checkpoint that is whole: its state file was read, and the other files have the sizes and checksums that it says. */
export interface SavedState extends RunRecord {
  /** Its folder. */
  readonly path: string;
  /** The run's counters. */
  readonly state: TrainerState;
  /** Checksums of its files when they were written, by name. */
  readonly files: Readonly<Record<string, FileSum>>;
}

/** A checkpoint with its tensors. */
export interface SavedRun extends SavedState {
  /** The weights. */
  readonly params: Readonly<Record<string, Float32Array>>;
  /** Moments and averages. */
  readonly tensors: SavedTensors;
}

/** Options of saving a checkpoint. */
export interface SaveOptions extends Partial<RunRecord> {
  /** Number of checkpoints that stay, 3 unless given. */
  readonly keep?: number;
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
 * @param config The trainer's configuration: the fingerprint, unless `options` has another.
 * @returns The folder of the new one.
 * @throws {FileAccessError} If the system refuses; earlier checkpoints are untouched then.
 */
export async function writeCheckpoint(
  folder: string,
  files: Readonly<Record<string, TensorEntries>>,
  state: TrainerState,
  config: object,
  { keep = 3, fingerprint = { ...config }, losses = [] }: SaveOptions = {},
): Promise<string> {
  const path = stepFolder(folder, state.step);
  await writeFolderAtomic(path, async (temp) => {
    const sums: Record<string, FileSum> = {};
    for (const [name, entries] of Object.entries(files)) {
      const file = `${name}.safetensors`;
      await writeSafetensors(`${temp}/${file}`, entries);
      sums[file] = fileSum(`${temp}/${file}`);
    }
    const all = { format: FORMAT, ...state, losses, fingerprint, files: sums };
    await writeAtomic(`${temp}/${STATE}`, JSON.stringify(all, null, 2) + "\n");
  });
  pruneCheckpoints(folder, keep);
  return path;
}

/** Removes all checkpoints but the last ones, of each the files that it says it has. */
export function pruneCheckpoints(folder: string, keep: number): void {
  keepLast(folder, keep, (path) => {
    try {
      return [STATE, ...Object.keys(readJsonObject(`${path}/${STATE}`).files ?? {})];
    } catch {
      return []; // damaged: it stays
    }
  });
}

/**
 * Saves a run between two steps and removes all but the last checkpoints.
 *
 * @param folder Where the run's checkpoints are.
 * @returns The folder of the new one.
 * @throws {FileAccessError} If the system refuses; earlier checkpoints are untouched then.
 */
export async function saveCheckpoint(
  trainer: Trainer,
  folder: string,
  options: SaveOptions = {},
): Promise<string> {
  const { params, optimizer, ema, state, config } = trainer;
  const files = {
    model: entriesOf(params, (name) => optimizer.weight(params, name)),
    ...(ema ? { ema: entriesOf(params, (name) => ema.shadow.read(name)) } : {}),
    optimizer: momentsOf(params, optimizer),
  };
  return await writeCheckpoint(folder, files, state, config, options);
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
            "resume with the configuration that the run was started with, or start a new one elsewhere",
        );
      }
      return [name, toFloat32(tensor)];
    }),
  );
}

/** Reads the state of one checkpoint and checks its files. */
function readState(path: string, step: number): SavedState {
  const file = `${path}/${STATE}`;
  const { format, fingerprint, losses, files, ...counters } = readJsonObject(file);
  const refuse = (what: string, expected: string, found: unknown): never => {
    throw new FileFormatError(file, `${what}: expected ${expected}, found ${JSON.stringify(found)}`);
  };
  const isObject = (v: unknown) => typeof v === "object" && v !== null && !Array.isArray(v);
  if (format !== FORMAT) refuse("format", JSON.stringify(FORMAT), format);
  if (!isObject(fingerprint)) refuse("fingerprint", "an object", fingerprint);
  if (!isObject(files)) refuse("files", "an object", files);
  if (!Array.isArray(losses) || !losses.every(Number.isFinite)) refuse("losses", "a list of numbers", losses);
  const count = (name: string): number => {
    const value = counters[name];
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    return refuse(name, "a whole number", value);
  };
  const state = {
    step: count("step"),
    updates: count("updates"),
    skippedInRow: count("skippedInRow"),
    ...("criticUpdates" in counters ? { criticUpdates: count("criticUpdates") } : {}),
  };
  if (state.step !== step) refuse("step", `${step}, as the folder says`, state.step);
  for (const [name, sum] of Object.entries(files as SavedState["files"])) {
    const found = fileSum(`${path}/${name}`),
      words = (s: FileSum) => `${s.bytes} bytes with CRC-32 ${s.crc32}`;
    if (found.bytes === sum.bytes && found.crc32 === sum.crc32) continue;
    throw new FileFormatError(`${path}/${name}`, `expected ${words(sum)}, found ${words(found)}`);
  }
  return { path, state, fingerprint, losses, files } as SavedState;
}

/** A path as a shell takes it. */
const shellWord = (path: string): string =>
  /^[\w./+@:-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;

/**
 * The newest checkpoint of a run, or null where there is none. A damaged one is never passed over: the message names it and
 * the newest one that is whole.
 *
 * @throws {FileFormatError} If it is damaged: what is wrong, and what to remove.
 * @throws {FileAccessError} If the system refuses to read it.
 */
export function latestState(folder: string): SavedState | null {
  const damaged: string[] = [];
  let reason = "", whole: SavedState | null = null;
  for (const { step, path } of listSteps(folder).toReversed()) {
    const found = wholeState(path, step);
    if (typeof found !== "string") {
      whole = found;
      break;
    }
    if (damaged.length === 0) reason = found;
    damaged.push(path);
  }
  if (damaged.length === 0) return whole;
  const remove = (what: string) => `remove what is damaged (rm -r ${what}) and repeat the command`;
  const advice = whole === null
    ? `there is no whole one before it: to start from step 0, ${remove(shellWord(folder))}`
    : `the newest whole one is ${whole.path}: to resume from step ${whole.state.step}, ` +
      remove(damaged.map(shellWord).join(" "));
  throw new FileFormatError(damaged[0], `damaged checkpoint (${reason}); ${advice}`);
}

/** The state of a checkpoint, or what is damaged about it. */
function wholeState(path: string, step: number): SavedState | string {
  try {
    return readState(path, step);
  } catch (error) {
    if (isMissing(error) || error instanceof FileFormatError) {
      return (error as Error).message.slice(path.length + 1);
    }
    throw error;
  }
}

/**
 * Refuses to resume a run as another one.
 *
 * @param saved Its newest checkpoint.
 * @param fingerprint What is to be computed now.
 * @param steps Steps of the whole run now.
 * @throws {FileFormatError} If anything differs: the first difference, and what to do.
 */
export function checkSameRun(saved: SavedState, fingerprint: Fingerprint, steps: number): void {
  const change = firstDifference(saved.fingerprint, fingerprint);
  if (change !== null) {
    throw new FileFormatError(
      saved.path,
      `its run has ${change.path} ${change.before}, found ${change.now}: resume it with what it was started with, or start ` +
        `a new run in another folder (its first weights may be ${saved.path}/model.safetensors)`,
    );
  }
  if (saved.state.step > steps) {
    throw new FileFormatError(
      saved.path,
      `its run has done ${saved.state.step} steps, found ${steps} as the whole of it: resume it with at least ` +
        `${saved.state.step}, or start a new run in another folder`,
    );
  }
}

/** Reads the tensors of a checkpoint. */
export function readCheckpoint(
  saved: SavedState,
  shapes: Readonly<Record<string, Shape>>,
  ema: boolean,
): SavedRun {
  const optimizer = `${saved.path}/optimizer.safetensors`;
  return {
    ...saved,
    params: readTensors(`${saved.path}/model.safetensors`, shapes),
    tensors: {
      m: readTensors(optimizer, shapes, "m."),
      v: readTensors(optimizer, shapes, "v."),
      ...(ema && "ema.safetensors" in saved.files
        ? { ema: readTensors(`${saved.path}/ema.safetensors`, shapes) }
        : {}),
    },
  };
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
  const saved = latestState(folder);
  return saved && readCheckpoint(saved, shapes, ema);
}
