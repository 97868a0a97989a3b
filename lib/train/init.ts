/**
 * Initial parameters of a training run: fresh ones, or those of a checkpoint as far as they match.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { findNotFinite } from "../finite.ts";
import { toFloat32 } from "../io/host.ts";
import type { FileTensor } from "../io/tensor_file.ts";
import { defaultValues, type Params } from "../params.ts";
import { normal, streamOf, uniform } from "../random.ts";
import { type Shape, sizeOf, Tensor, unscoped } from "../tensor.ts";

/** Modulations and output layers start at zero: every block is the identity, and the model predicts zero velocity. */
const ZERO = /(^|\.)(norm1|norm2|norm_out)\.linear\.|^(context_)?proj_out\./;
/** Layers that start from a normal distribution of this width, as in DiT. */
const NORMAL = /^timestep_embedder\..*weight$|embedding_table\.weight$/;
const WIDTH = 0.02;

/**
 * Initial values of one parameter of FAR, DiT's scheme: Xavier-uniform matrices, biases at zero, timestep and
 * condition embeddings normal with deviation 0.02, modulations and output layers at zero, norms at one.
 *
 * @param name The authors' state-dict name.
 * @param shape Its shape.
 * @param seed Seed of the run; every parameter has a stream of its own.
 */
export function freshValues(name: string, shape: Shape, seed: number): Float32Array {
  const count = sizeOf(shape);
  if (ZERO.test(name) || name.endsWith(".bias")) return new Float32Array(count);
  const key = streamOf(seed, `initial ${name}`);
  if (NORMAL.test(name)) return normal(key, count).map((v) => v * WIDTH);
  if (shape.length < 2) return new Float32Array(count).fill(1);
  const bound = Math.sqrt(6 / (shape[0] + shape[1]));
  return Float32Array.from(uniform(key, count), (u) => (2 * u - 1) * bound);
}

/** Initial values of one parameter, given the shapes of all. */
export type FreshValues = (
  name: string,
  shape: Shape,
  seed: number,
  shapes: Readonly<Record<string, Shape>>,
) => Float32Array;

/** Match of a checkpoint with a model. */
export interface InitMatch {
  /** Parameters taken from the checkpoint. */
  readonly taken: readonly string[];
  /** Parameters that start fresh, each with the reason: `missing`, or the shape that was found. */
  readonly fresh: readonly string[];
  /** Tensors of the checkpoint that the model lacks. */
  readonly unused: readonly string[];
}

/** Parameters and their origin. */
export interface InitialParams {
  /** Every parameter of the model. */
  readonly params: Params;
  /** Match with the checkpoint. */
  readonly match: InitMatch;
}

/**
 * Parameters to start a run from, f32 and row-major.
 *
 * @param shapes Names and shapes of the model.
 * @param seed Seed of the initial values.
 * @param from Tensors of a checkpoint by name: those with a parameter's name and shape are taken.
 * @param values Initial values of parameters that the checkpoint lacks. Default: PyTorch's initialization.
 * @throws {RangeError} If a tensor that is taken holds a value that is not finite.
 */
export function initialParams(
  device: Device,
  shapes: Readonly<Record<string, Shape>>,
  seed: number,
  from: ReadonlyMap<string, FileTensor> = new Map(),
  values: FreshValues = defaultValues,
): InitialParams {
  const taken: string[] = [], fresh: string[] = [];
  const valuesOf = (name: string, shape: Shape): Float32Array => {
    const found = from.get(name);
    if (found?.shape.join() === shape.join()) {
      const values = toFloat32(found.read());
      const bad = findNotFinite(values);
      if (bad >= 0) {
        throw new RangeError(`${name}: holds ${values[bad]} at element ${bad}, expected finite numbers`);
      }
      taken.push(name);
      return values;
    }
    fresh.push(
      found
        ? `${name} (found [${found.shape.join(", ")}], expected [${shape.join(", ")}])`
        : `${name} (missing)`,
    );
    return values(name, shape, seed, shapes);
  };
  const params = unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map((
        [name, shape],
      ) => [name, Tensor.from(device, valuesOf(name, shape), shape)]),
    )
  );
  return {
    params,
    match: { taken, fresh, unused: [...from.keys()].filter((name) => !Object.hasOwn(shapes, name)) },
  };
}
