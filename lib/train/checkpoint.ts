/**
 * Checkpoints of a training run: a folder with the weights, the averaged weights, the optimizer's moments and a small
 * state file. It appears whole or not at all, so a run killed at any moment resumes from its last whole one.
 *
 *     step-00001000/model.safetensors      the weights in f32, under the authors' names, with batch-norm statistics
 *                   ema.safetensors        the same, averaged
 *                   optimizer.safetensors  moments, `m.NAME` and `v.NAME`
 *                   state.json             steps, updates, the run's fingerprint, checksums of the other files
 *
 * Further networks of the objective have `NETWORK.safetensors` and `NETWORK_optimizer.safetensors` beside them.
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
import { isBuffer, type Params } from "../params.ts";
import type { Shape } from "../tensor.ts";
import type { Network, NetworkSpec, SavedNetwork } from "./network.ts";
import type { ByNetwork, TrainInput } from "./objective.ts";
import { averaged, type SavedTrainer, type Trainer, type TrainerState } from "./trainer.ts";

const FORMAT = "far training checkpoint 2", STATE = "state.json";

/** All settings that decide the bits of a run, by name: JSON values, possibly nested. */
export type Fingerprint = Readonly<Record<string, unknown>>;

/** A checkpoint's record of the run around its trainer. */
export interface RunRecord {
  /** Fingerprint of the run. */
  readonly fingerprint: Fingerprint;
  /** Losses of the steps since the last line of the log; the next line includes them in its mean. */
  readonly losses: readonly number[];
}

/** A whole checkpoint: its state file was read, and the other files have the sizes and checksums noted there. */
export interface SavedState extends RunRecord {
  /** Its folder. */
  readonly path: string;
  /** The run's counters. */
  readonly state: TrainerState;
  /** Sizes and checksums of its files, by name. */
  readonly files: Readonly<Record<string, FileSum>>;
}

/** A checkpoint with its tensors. */
export interface SavedRun extends SavedState, SavedTrainer {
  /** See {@linkcode SavedState}. */
  readonly state: TrainerState;
}

/** Options of saving a checkpoint. */
export interface SaveOptions extends Partial<RunRecord> {
  /** Number of checkpoints to keep, 3 unless given. */
  readonly keep?: number;
}

const lazy = (shape: Shape, read: () => Promise<Float32Array>): LazyTensor => ({
  shape,
  dtype: "F32",
  read: async () => fromFloat32(await read(), shape),
});

/** Entries of one tensor file. */
type TensorEntries = readonly (readonly [string, LazyTensor])[];

/** Entries of the tensors of a record under their names with a prefix, read when they are written. */
function entriesOf(like: Params, read: (name: string) => Promise<Float32Array>, prefix = ""): TensorEntries {
  return Object.keys(like).map((name) => [prefix + name, lazy(like[name].shape, () => read(name))]);
}

/** Files of a network and its optimizer. */
const fileNames = (network: string) =>
  network === "model" ? ["model", "optimizer"] as const : [network, `${network}_optimizer`] as const;

function weightsOf(network: Network): TensorEntries {
  return entriesOf(network.all, (name) => network.values(name));
}

function momentsOf({ params, optimizer: { m, v } }: Network): TensorEntries {
  return [
    ...entriesOf(params, (name) => m.read(name), "m."),
    ...entriesOf(params, (name) => v.read(name), "v."),
  ];
}

/**
 * Saves a run between two steps and removes all but the last checkpoints.
 *
 * @param folder Folder of the run's checkpoints.
 * @returns Folder of the new one.
 * @throws {FileAccessError} If the system refuses; earlier checkpoints are untouched then.
 */
export async function saveCheckpoint<Input extends TrainInput>(
  trainer: Trainer<Input>,
  folder: string,
  { keep = 3, fingerprint = { ...trainer.config }, losses = [] }: SaveOptions = {},
): Promise<string> {
  const { networks: { model, ...others }, ema, state } = trainer, averages = averaged(model.all);
  const files: Record<string, TensorEntries> = {
    model: weightsOf(model),
    ...(ema
      ? { ema: entriesOf(model.all, (name) => averages[name] ? ema.shadow.read(name) : model.values(name)) }
      : {}),
    optimizer: momentsOf(model),
  };
  for (const [name, network] of Object.entries(others)) {
    const [weights, moments] = fileNames(name);
    Object.assign(files, { [weights]: weightsOf(network), [moments]: momentsOf(network) });
  }
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

/** Removes all checkpoints but the last ones: of each, the files that its state file names. */
export function pruneCheckpoints(folder: string, keep: number): void {
  keepLast(folder, keep, (path) => {
    try {
      return [STATE, ...Object.keys(readJsonObject(`${path}/${STATE}`).files ?? {})];
    } catch {
      return []; // damaged: it stays
    }
  });
}

/** Reads tensors of one file of a checkpoint; other shapes than expected are an error. */
function readTensors(
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
  const { format, fingerprint, losses, files, networkUpdates, ...counters } = readJsonObject(file);
  const refuse = (what: string, expected: string, found: unknown): never => {
    throw new FileFormatError(file, `${what}: expected ${expected}, found ${JSON.stringify(found)}`);
  };
  const isObject = (v: unknown) => typeof v === "object" && v !== null && !Array.isArray(v);
  if (format !== FORMAT) refuse("format", JSON.stringify(FORMAT), format);
  if (!isObject(fingerprint)) refuse("fingerprint", "an object", fingerprint);
  if (!isObject(files)) refuse("files", "an object", files);
  if (!Array.isArray(losses) || !losses.every(Number.isFinite)) refuse("losses", "a list of numbers", losses);
  const count = (name: string, value: unknown = counters[name]): number => {
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    return refuse(name, "a whole number", value);
  };
  const countsOf = (values: unknown) => {
    if (!isObject(values)) refuse("networkUpdates", "an object", values);
    const named = Object.entries(values as object);
    return Object.fromEntries(named.map(([name, value]) => [name, count(`networkUpdates.${name}`, value)]));
  };
  const state = {
    step: count("step"),
    updates: count("updates"),
    skippedInRow: count("skippedInRow"),
    ...(networkUpdates === undefined ? {} : { networkUpdates: countsOf(networkUpdates) }),
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

/** A path quoted for a shell. */
const shellWord = (path: string): string =>
  /^[\w./+@:-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;

/**
 * The newest checkpoint of a run, or null where there is none. A damaged one is an error, which names it and the newest one
 * that is whole.
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

/** The state of a checkpoint, or its damage in words. */
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
 * @param fingerprint Fingerprint of the run to be computed.
 * @param steps Its number of steps.
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

/**
 * Reads the tensors of a checkpoint.
 *
 * @param networks The networks of the objective.
 * @param ema Whether averaged weights are wanted; a run without starts them from its weights.
 * @throws {FileFormatError} If it belongs to another model or objective: who, expected, found.
 */
export function readCheckpoint(saved: SavedState, networks: ByNetwork<NetworkSpec>, ema: boolean): SavedRun {
  const read = (file: string, shapes: Readonly<Record<string, Shape>>, prefix = "") => {
    const name = `${file}.safetensors`;
    if (name in saved.files) return readTensors(`${saved.path}/${name}`, shapes, prefix);
    throw new FileFormatError(
      saved.path,
      `expected ${name}, found ${
        Object.keys(saved.files).join(", ")
      }: it is of another objective or version, so start a ` +
        "new run in another folder",
    );
  };
  const found = Object.entries(networks).map(([name, { shapes }]): [string, SavedNetwork] => {
    const [weights, moments] = fileNames(name);
    const trained = Object.fromEntries(Object.entries(shapes).filter(([name]) => !isBuffer(name)));
    return [name, {
      params: read(weights, shapes),
      m: read(moments, trained, "m."),
      v: read(moments, trained, "v."),
    }];
  });
  return {
    ...saved,
    networks: Object.fromEntries(found) as SavedTrainer["networks"],
    ...(ema && "ema.safetensors" in saved.files ? { ema: read("ema", networks.model.shapes) } : {}),
  };
}

/**
 * Reads the newest checkpoint of a run, or null where there is none.
 *
 * @param networks The networks of the objective.
 * @param ema Whether averaged weights are wanted; a run without starts them from its weights.
 * @throws {FileFormatError} If it is damaged, or belongs to another model or objective: who, expected, found.
 */
export function latestCheckpoint(
  folder: string,
  networks: ByNetwork<NetworkSpec>,
  ema: boolean,
): SavedRun | null {
  const saved = latestState(folder);
  return saved && readCheckpoint(saved, networks, ema);
}
