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

/** Prefixes that DistributedDataParallel and torch.compile put before every name. */
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
 * the dictionary that `entry` names is taken (`""` is the top level), or the one with the most usual name, averaged weights
 * first (`params_ema`, `ema`, ..., `params`, `state_dict`, `model`, ...), or the only one. Tensors may stand beside it, such as a
 * step or the state of a random generator, as long as it holds most of the floating-point ones; where it holds fewer, the
 * top level is taken. A prefix that wrappers put before every single name
 * (`module.`, `_orig_mod.`) is dropped, and with it what stands beside the wrapped model, such as a count of averages.
 *
 * @param file An open file.
 * @param entry The nested dictionary to take.
 * @throws {FileFormatError} If there is no such dictionary, or none that is clearly meant: all are listed.
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
  const group = entry ?? usualGroup(file), { tensors } = file;
  if (!file.groups.has(group)) {
    const known = [...file.groups].map((name) => quote(name)).slice(0, 12).join(", ");
    throw new FileFormatError(
      file.path,
      `no dictionary ${quote(group)} with tensors${didYouMean(group, file.groups) || `, found ${known}`}`,
    );
  }
  const prefix = group === "" ? "" : `${group}.`;
  let names = [...tensors.keys()].filter((name) => name.startsWith(prefix)).map((name) =>
    name.slice(prefix.length)
  );
  let wrapper = prefix;
  for (let found: string | undefined = ""; found !== undefined;) {
    found = names.length === 0
      ? undefined
      : WRAPPERS.find((word) =>
        names.every((name) => name.startsWith(word) || !isWeight(tensors.get(wrapper + name)!))
      );
    if (found === undefined || !names.some((name) => name.startsWith(found!))) break;
    const word = found;
    wrapper += word;
    names = names.filter((name) => name.startsWith(word)).map((name) => name.slice(word.length));
  }
  return {
    entry: wrapper.replace(/\.$/, ""),
    tensors: new Map(names.map((name) => [name, tensors.get(wrapper + name)!])),
  };
}

/** Whether a tensor lies inside a group, at any depth. */
const inside = (name: string, group: string) => name.startsWith(`${group}.`);

function usualGroup(file: TensorFile): string {
  const { groups, tensors } = file, nested = [...groups].filter((name) => name !== "");
  const outer = nested.filter((name) => !nested.some((other) => inside(name, other)));
  const best = USUAL_GROUPS.find((name) => groups.has(name)) ?? (outer.length === 1 ? outer[0] : undefined);
  if (!groups.has("")) {
    if (best !== undefined || nested.length === 0) return best ?? "";
    throw ambiguous(file, `tensors in ${nested.length} dictionaries and none has a usual name`, nested);
  }
  // Tensors at the top as well: the weights themselves, or strays beside them.
  const weights = [...tensors].filter(([, tensor]) => isWeight(tensor)).map(([name]) => name);
  const stray = weights.filter((name) => !outer.some((group) => inside(name, group))).length;
  const held = best === undefined ? 0 : weights.filter((name) => inside(name, best)).length;
  if (best === undefined || held < stray) return "";
  if (held > stray || stray === 0) return best;
  throw ambiguous(file, "as many tensors at its top as inside", ["", ...nested]);
}

/** Whether a tensor is a weight, unlike a step, a best score or the state of a random generator. */
const isWeight = ({ shape, dtype }: FileTensor) => shape.length > 0 && /^B?F/.test(dtype);

function ambiguous(file: TensorFile, found: string, groups: readonly string[]): FileFormatError {
  const listed = groups.slice(0, 12).map((name) => quote(name)).join(", ");
  return new FileFormatError(file.path, `holds ${found}, name one of: ${listed}`);
}
