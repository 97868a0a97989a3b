/**
 * The content of a checkpoint, and which of our models it fits.
 *
 * @module
 */
import { DCAE_MODELS, dcaeShapes } from "../dcae/config.ts";
import { countParameters, FAR_MODELS, farConfig, farShapes } from "../far/config.ts";
import { toFloat32 } from "../io/host.ts";
import { openTensorFile } from "../io/open.ts";
import { stateDict } from "../io/state_dict.ts";
import type { FileTensor } from "../io/tensor_file.ts";
import type { Shape } from "../tensor.ts";
import { BUNDLED } from "./bundled.ts";
import { resolveDcae, resolveFar } from "./models.ts";

/** One tensor of a checkpoint. */
export interface TensorReport {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  /** Over the finite elements; absent unless asked for. */
  readonly mean?: number;
  readonly std?: number;
  readonly min?: number;
  readonly max?: number;
  /** Elements that are not finite. */
  readonly bad?: number;
}

/** A checkpoint as `weights inspect` shows it. */
export interface CheckpointReport {
  readonly path: string;
  readonly format: string;
  readonly bytes: number;
  /** Dictionary that the weights were found in; empty for the top level. */
  readonly entry: string;
  readonly groups: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly parameters: number;
  readonly dtypes: Readonly<Record<string, number>>;
  /** Models of ours that have these names and shapes, and the nearest one where none has. */
  readonly fits: readonly string[];
  readonly nearest?: { readonly model: string; readonly differences: number; readonly first: string };
  readonly tensors: readonly TensorReport[];
}

function statistics(tensor: FileTensor): Partial<TensorReport> {
  const values = toFloat32(tensor.read());
  let sum = 0, squares = 0, min = Infinity, max = -Infinity, bad = 0;
  for (const v of values) {
    if (!Number.isFinite(v)) {
      bad++;
      continue;
    }
    sum += v;
    squares += v * v;
    if (v < min) min = v;
    if (v > max) max = v;
  }
  const count = values.length - bad;
  if (count === 0) return { bad };
  const mean = sum / count;
  return { mean, std: Math.sqrt(Math.max(0, squares / count - mean * mean)), min, max, bad };
}

/** Every model of ours that the names and shapes could be, with the condition that the file's tables show. */
function candidates(tensors: ReadonlyMap<string, FileTensor>): Record<string, Record<string, Shape>> {
  const out: Record<string, Record<string, Shape>> = {};
  let condition: Record<string, unknown> = {}, with_ = "";
  for (const type of ["action", "label"]) {
    const table = tensors.get(`${type}_embedder.embedding_table.weight`);
    if (!table || table.shape.length !== 2) continue;
    const classes = table.shape[0] - 1, key = type === "action" ? "num_action_classes" : "num_classes";
    condition = { condition_cfg: { type, [key]: classes } };
    with_ = ` with ${classes} ${type}s`;
  }
  const add = (name: string, shapes: () => Record<string, Shape>) => {
    try {
      out[name] = shapes();
    } catch {
      // FAR-Long knows no labels
    }
  };
  for (const name of Object.keys(FAR_MODELS)) add(name + with_, () => farShapes(farConfig(name, condition)));
  for (const [name, config] of Object.entries(DCAE_MODELS)) out[`DC-AE ${name}`] = dcaeShapes(config);
  for (const name of Object.keys(BUNDLED)) {
    add(`${name} (bundled)${with_}`, () => farShapes(resolveFar(name, condition)));
    out[`DC-AE ${name} (bundled)`] = dcaeShapes(resolveDcae(name).config);
  }
  return out;
}

/** The first difference in names or shapes, and how many there are. */
function differences(tensors: ReadonlyMap<string, FileTensor>, shapes: Readonly<Record<string, Shape>>) {
  const found: string[] = [];
  for (const [name, shape] of Object.entries(shapes)) {
    const tensor = tensors.get(name);
    if (!tensor) found.push(`${name} is missing`);
    else if (tensor.shape.join() !== shape.join()) {
      found.push(`${name} has shape [${tensor.shape}], expected [${shape}]`);
    }
  }
  for (const name of tensors.keys()) {
    if (!Object.hasOwn(shapes, name)) found.push(`${name} is not part of it`);
  }
  return found;
}

/**
 * Looks into a checkpoint.
 *
 * @param entry Dictionary to take from a nested one.
 * @param withStatistics Read every element too.
 */
export function inspectCheckpoint(path: string, entry?: string, withStatistics = false): CheckpointReport {
  using file = openTensorFile(path);
  const found = stateDict(file, entry);
  const dtypes: Record<string, number> = {};
  for (const { dtype } of found.tensors.values()) dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
  const compared = Object.entries(candidates(found.tensors)).map(([model, shapes]) => ({
    model,
    wrong: differences(found.tensors, shapes),
  }));
  const closest = compared.reduce((a, b) => b.wrong.length < a.wrong.length ? b : a);
  const fits = compared.filter((c) => c.wrong.length === 0).map((c) => c.model);
  const some = closest.wrong.length > 0 && closest.wrong.length < found.tensors.size;
  return {
    path,
    format: file.format,
    bytes: file.size,
    entry: found.entry,
    groups: [...file.groups],
    metadata: file.metadata,
    parameters: countParameters(Object.fromEntries([...found.tensors].map(([n, t]) => [n, t.shape]))),
    dtypes,
    fits,
    ...(some
      ? { nearest: { model: closest.model, differences: closest.wrong.length, first: closest.wrong[0] } }
      : {}),
    tensors: [...found.tensors].map(([name, t]) => ({
      name,
      shape: t.shape,
      dtype: t.dtype,
      ...(withStatistics ? statistics(t) : {}),
    })),
  };
}
