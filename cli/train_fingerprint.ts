/**
 * What a training run is: everything that decides its bits, so that a resumed run is the same one or none.
 *
 * @module
 */
import { type Device, deviceOf } from "../kernels/device.ts";
import type { DataSet } from "../lib/data/clip.ts";
import { stampOf } from "../lib/data/stamp.ts";
import { isFile } from "../lib/io/paths.ts";
import type { Fingerprint } from "../lib/train/checkpoint.ts";
import { optionsFingerprint, type TrainOptions } from "../lib/train/options.ts";
import type { Flags } from "./args.ts";
import { fileHash } from "../lib/io/hash.ts";

/** Inputs of a fingerprint. */
export interface RunParts {
  readonly verb: string;
  /** The verb's flags as declared. */
  readonly declared: Flags;
  /** Their values. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly options: TrainOptions;
  /** Data sets by the option that names their files. */
  readonly sets: Readonly<Record<string, DataSet | undefined>>;
  readonly device: Device;
  /** Which program decodes the videos of the sets. */
  readonly decoder: string | null;
}

/** What stands for a file that a flag or an option names; a name that is no file stands for itself. */
const contentOf = (path: unknown): unknown =>
  typeof path === "string" && isFile(path) ? fileHash(path) : path;

/**
 * The fingerprint of a run. Flags that are declared as presentation are not in it, and neither is where a file lies: its
 * content is, and of a data set the names of its clips with sizes and times of change.
 */
export function runFingerprint(
  { verb, declared, flags, options, sets, device, decoder }: RunParts,
): Fingerprint {
  const deciding = Object.entries(declared).filter(([, flag]) => !flag.presentation).map(
    ([name, { file }]) => {
      const value = flags[name] ?? null;
      return [`--${name}`, !file ? value : Array.isArray(value) ? value.map(contentOf) : contentOf(value)];
    },
  );
  const option = (path: string, name: string) => sets[name] ? stampOf(sets[name]) : contentOf(path);
  return {
    verb,
    ...optionsFingerprint(options, option),
    ...Object.fromEntries(deciding),
    device: deviceOf(device),
    decoder,
  };
}
