/**
 * Sources of the parameters of a model; a stage loads only those that it needs.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { FileFormatError } from "../io/errors.ts";
import { firstNotFinite } from "../io/finite.ts";
import { toFloat32 } from "../io/host.ts";
import { openTensorFile } from "../io/open.ts";
import { stateDict } from "../io/state_dict.ts";
import type { FileTensor, TensorFile } from "../io/tensor_file.ts";
import { checkShapes, loadParams, type Params, randomParams } from "../params.ts";
import type { Shape } from "../tensor.ts";

/** Storage of weights on a device; arithmetic is f32. */
export type WeightType = "f32" | "f16";

/** Words on every output that was made with random weights. */
export const RANDOM_STAMP = "RANDOM WEIGHTS";

/** Source of a model's parameters. */
export interface Weights {
  /** Every name and shape of the model. */
  readonly shapes: Readonly<Record<string, Shape>>;
  /** The checkpoint's path, or null for random weights. */
  readonly path: string | null;
  /** Storage on a device. */
  readonly dtype: WeightType;
  /**
   * Checks every name, shape and value, before long work starts.
   *
   * @throws {FileFormatError} Names all that do not fit.
   */
  verify(): void;
  /** Puts the parameters whose name starts with `prefix` on a device. The caller disposes of them. */
  load(device: Device, prefix?: string): Params;
}

/** A configuration with its weights: the transformer, or the autoencoder. */
export interface Part<C> {
  /** Name for messages. */
  readonly name: string;
  /** Its configuration. */
  readonly config: C;
  /** Its parameters. */
  readonly weights: Weights;
}

/** The part of an open checkpoint that loading reads. */
type Checkpoint = Pick<TensorFile, "path" | "tensors" | "read">;

function view(file: TensorFile, tensors: ReadonlyMap<string, FileTensor>): Checkpoint {
  return { path: file.path, tensors, read: (name) => tensors.get(name)!.read() };
}

const starting = <T>(entries: Iterable<readonly [string, T]>, prefix: string) =>
  [...entries].filter(([name]) => name.startsWith(prefix));

/**
 * Parameters in a checkpoint.
 *
 * @param path safetensors or `.pth`.
 * @param shapes Names and shapes that the model has.
 * @param options `entry`: dictionary to take from a nested checkpoint, e.g. `params_ema`. `dtype`: f32 unless given.
 */
export function fileWeights(
  path: string,
  shapes: Readonly<Record<string, Shape>>,
  { entry, dtype = "f32" }: { readonly entry?: string; readonly dtype?: WeightType } = {},
): Weights {
  const tensorsOf = (file: TensorFile) => stateDict(file, entry).tensors;
  return {
    shapes,
    path,
    dtype,
    verify() {
      using file = openTensorFile(path);
      const tensors = tensorsOf(file);
      checkShapes(view(file, tensors), shapes);
      for (const [name, tensor] of tensors) {
        const host = tensor.read(), bad = firstNotFinite(host);
        if (bad >= 0) {
          throw new FileFormatError(
            path,
            `${name} holds ${toFloat32(host)[bad]} at element ${bad}, expected finite numbers`,
          );
        }
      }
    },
    load(device, prefix = "") {
      using file = openTensorFile(path);
      const part = new Map(starting(tensorsOf(file), prefix));
      const own = Object.fromEntries(starting(Object.entries(shapes), prefix));
      return loadParams(device, view(file, part), own, { dtype });
    },
  };
}

/** Random weights are the same in every run, whatever seed the noise has. */
const RANDOM_WEIGHTS_SEED = 0;

/** Random parameters, to try the program without a trained model. */
export function randomWeights(shapes: Readonly<Record<string, Shape>>, dtype: WeightType = "f32"): Weights {
  return {
    shapes,
    path: null,
    dtype,
    verify() {},
    load: (device, prefix = "") => {
      const own = Object.fromEntries(starting(Object.entries(shapes), prefix));
      return randomParams(device, own, RANDOM_WEIGHTS_SEED, { dtype });
    },
  };
}
