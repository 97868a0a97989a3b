/**
 * A model's weights out of whatever a training run wrapped around them.
 *
 * @module
 */
import { didYouMean } from "../nearest.ts";
import { FileFormatError, quote } from "./errors.ts";
import type { FileTensor, TensorFile } from "./tensor_file.ts";

/**
 * Where weights stand in a nested checkpoint, the best first: averaged weights before the ones that were being trained, as
 * the paper evaluates (and as BasicSR, timm and Lightning name them).
 */
const USUAL_GROUPS: readonly string[] = [
  "params_ema",
  "ema",
  "model_ema",
  "ema_state_dict",
  "state_dict_ema",
  "ema.shadow",
  "params",
  "state_dict",
  "model_state_dict",
  "model",
  "module",
  "net",
  "network",
  "transformer",
  "vae",
  "generator",
];

/** What DistributedDataParallel and torch.compile put before every name. */
const WRAPPERS: readonly string[] = ["module.", "_orig_mod."];

/** Weights found in a checkpoint. */
export interface StateDict {
  /** The nested dictionary they came from, `""` for the top level, and any wrapper, as in `state_dict.module`. */
  readonly entry: string;
  /** The tensors under their names in the model. */
  readonly tensors: ReadonlyMap<string, FileTensor>;
}

/**
 * The weights of a checkpoint under the names that the model gives them. A flat file is taken as it is. Of a nested one,
 * the dictionary that `entry` names is taken, or the only one, or the one with the most usual name, averaged weights first
 * (`params_ema`, `ema`, ..., `params`, `state_dict`, `model`, ...). A prefix that wrappers put before every single name
 * (`module.`, `_orig_mod.`) is dropped.
 *
 * @param file An open file.
 * @param entry The nested dictionary to take.
 * @throws {FileFormatError} If there is no such dictionary, or several and none has a usual name: all are listed.
 *
 * @example
 * ```ts
 * import { fromFloat32 } from "./host.ts";
 * import { encodeSafetensors, openSafetensors } from "./safetensors.ts";
 * import { stateDict } from "./state_dict.ts";
 * const x = fromFloat32(new Float32Array(1), [1]);
 * using file = openSafetensors(await encodeSafetensors({ "module.a": x, "module.b": x }));
 * console.assert([...stateDict(file).tensors.keys()].join() === "a,b");
 * ```
 */
export function stateDict(file: TensorFile, entry?: string): StateDict {
  const group = entry ?? usualGroup(file);
  if (!file.groups.has(group)) {
    const known = [...file.groups].map((name) => quote(name)).slice(0, 12).join(", ");
    throw new FileFormatError(
      file.path,
      `no dictionary ${quote(group)} with tensors${didYouMean(group, file.groups) || `, found ${known}`}`,
    );
  }
  const prefix = group === "" ? "" : `${group}.`;
  let names = [...file.tensors.keys()].filter((name) => name.startsWith(prefix)).map((name) =>
    name.slice(prefix.length)
  );
  let wrapper = prefix;
  for (let found: string | undefined = ""; found !== undefined;) {
    found = names.length === 0
      ? undefined
      : WRAPPERS.find((word) => names.every((name) => name.startsWith(word)));
    if (found === undefined) break;
    const { length } = found;
    wrapper += found;
    names = names.map((name) => name.slice(length));
  }
  return {
    entry: wrapper.replace(/\.$/, ""),
    tensors: new Map(names.map((name) => [name, file.tensors.get(wrapper + name)!])),
  };
}

function usualGroup(file: TensorFile): string {
  const { groups } = file;
  if (groups.has("") || groups.size === 0) return "";
  const usual = USUAL_GROUPS.find((name) => groups.has(name));
  if (usual !== undefined) return usual;
  if (groups.size === 1) return [...groups][0];
  const listed = [...groups].slice(0, 12).map((name) => quote(name)).join(", ");
  throw new FileFormatError(
    file.path,
    `holds tensors in ${groups.size} dictionaries and none has a usual name, name one of: ${listed}`,
  );
}
