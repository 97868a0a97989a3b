/**
 * The fingerprint of a training run: everything that decides its bits, so that a resumed run is the same one or none.
 *
 * @module
 */
import { type Device, deviceOf } from "../../kernels/device.ts";
import type { DataSet } from "../data/clip.ts";
import { stampOf } from "../data/stamp.ts";
import { isFile } from "../io/paths.ts";
import type { Fingerprint } from "../train/checkpoint.ts";
import { optionsFingerprint, type TrainOptions } from "../train/options.ts";
import { fileHash } from "../io/hash.ts";

/** A setting beside the option file, as far as fingerprints are concerned. */
export interface SettingKind {
  /** Changes no bit of the result. */
  readonly presentation?: boolean;
  /** Names a file, whose content counts. */
  readonly file?: boolean;
}

/** Parts of a fingerprint. */
export interface RunParts {
  /** Kind of run. */
  readonly verb: string;
  /** Settings beside the option file: flags of the verb. */
  readonly declared: Readonly<Record<string, SettingKind>>;
  /** Their values. */
  readonly flags: Readonly<Record<string, unknown>>;
  /** Options of the run. */
  readonly options: TrainOptions;
  /** Data sets by the option that names their files. */
  readonly sets: Readonly<Record<string, DataSet | undefined>>;
  /** Device to train on. */
  readonly device: Device;
  /** Program that decodes the videos of the sets. */
  readonly decoder: string | null;
}

/** Hash of a file that a flag or an option names; a name that is no file stands for itself. */
const contentOf = (path: unknown): unknown =>
  typeof path === "string" && isFile(path) ? fileHash(path) : path;

/**
 * The fingerprint of a run. Settings declared as presentation are not in it. Files are in it by content, not by path; data sets
 * by the names of their clips with sizes and times of change.
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
