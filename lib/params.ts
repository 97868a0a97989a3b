/**
 * Parameter records: the authors' state-dict names, as tensors on a device.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { LARGEST_HALF } from "../kernels/half.ts";
import { findNotFinite } from "./finite.ts";
import { toFloat32 } from "./io/host.ts";
import type { TensorFile } from "./io/tensor_file.ts";
import { didYouMean } from "./nearest.ts";
import { streamOf, uniform } from "./random.ts";
import { disposeAll, type Shape, sizeOf, Tensor, unscoped } from "./tensor.ts";

/** A model's parameters by the authors' state-dict names. A checkpoint is such a record. */
export type Params = Readonly<Record<string, Tensor>>;

/**
 * One parameter by name.
 *
 * @throws {Error} If the record has no such name.
 */
export function param(params: Params, name: string): Tensor {
  const tensor = params[name];
  if (!tensor) {
    throw new Error(`parameters: ${name} is missing; load the record with loadParams, which checks names`);
  }
  return tensor;
}

/** No configuration may have more: 68.7 billion, 256 GiB in single precision. */
export const MOST_PARAMETERS: number = 2 ** 36;

/** True for the tensors of a state dict that no gradient moves: batch-norm statistics. */
export const isBuffer = (name: string): boolean =>
  /\.(running_mean|running_var|num_batches_tracked)$/.test(name);

/** A state dict in two: what is trained, and the statistics of batch norm. */
export function splitBuffers(all: Params): { readonly params: Params; readonly buffers: Params } {
  const part = (wanted: boolean) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => isBuffer(name) === wanted));
  return { params: part(false), buffers: part(true) };
}

/** A linear layer's weight and bias. */
export function layerOf(params: Params, name: string): { readonly w: Tensor; readonly bias: Tensor } {
  return { w: param(params, `${name}.weight`), bias: param(params, `${name}.bias`) };
}

/** Storage of weights on a device. */
export interface WeightStorage {
  /** Storage of the weights of linear layers and dense convolutions; everything else stays f32. Default f32. */
  readonly dtype?: "f32" | "f16";
}

/** Options for placing a parameter record on a device. */
export interface ParamOptions extends WeightStorage {
  /** Lay weights out for inference (default). Training updates them every step and packs for itself. */
  readonly pack?: boolean;
}

/** True for the weights that may be stored as f16: those of linear layers and dense convolutions. */
export function isMatrix(name: string, shape: Shape): boolean {
  return (shape.length === 2 || (shape.length === 4 && shape[1] > 1)) && !name.includes("embedding_table") &&
    !name.includes("to_qkv_multiscale");
}

/** Storage type of one parameter. */
export const dtypeOf = (name: string, shape: Shape, { dtype }: WeightStorage): "f32" | "f16" =>
  dtype === "f16" && isMatrix(name, shape) ? "f16" : "f32";

/**
 * A matrix as f16, each number rounded to the nearest.
 *
 * @param name Of the parameter.
 * @param values Row-major f32.
 * @throws {RangeError} If f16 cannot hold one of them: the name, the number, what to do.
 */
export function halvesOf(name: string, values: Float32Array): Float16Array<ArrayBuffer> {
  const bad = values.findIndex((v) => !(Math.abs(v) <= LARGEST_HALF));
  if (bad < 0) return Float16Array.from(values);
  throw new RangeError(
    `${name} holds ${
      values[bad]
    } at element ${bad}, expected at most ${LARGEST_HALF} for weights stored as f16: ` +
      "store them as f32 (--dtype f32, mixed_precision no)",
  );
}

/** Puts one parameter on the device. `values` are row-major f32. */
function place(
  device: Device,
  name: string,
  shape: Shape,
  values: Float32Array,
  options: ParamOptions,
): Tensor {
  const tensor = dtypeOf(name, shape, options) === "f16"
    ? Tensor.from(device, halvesOf(name, values), shape)
    : Tensor.from(device, values, shape);
  if (options.pack !== false && isMatrix(name, shape)) {
    if (shape.length === 4 && shape[2] * shape[3] > 1) tensor.pack("conv2d");
    else {
      const flat = tensor.reshape([shape[0], shape[1]]); // a 1x1 convolution is a linear layer
      flat.pack("linear");
      flat.dispose();
    }
  }
  return tensor;
}

/** The parts of an open checkpoint that loading reads. */
export type Checkpoint = Pick<TensorFile, "path" | "tensors" | "read">;

function misfits(file: Checkpoint, shapes: Readonly<Record<string, Shape>>): string[] {
  const problems: string[] = [];
  for (const [name, shape] of Object.entries(shapes)) {
    const found = file.tensors.get(name);
    if (!found) problems.push(`${name} is missing${didYouMean(name, file.tensors.keys())}`);
    else if (found.shape.join() !== shape.join()) {
      problems.push(`${name} has shape [${found.shape.join(", ")}], expected [${shape.join(", ")}]`);
    }
  }
  for (const name of file.tensors.keys()) {
    if (!Object.hasOwn(shapes, name)) problems.push(`${name} is not part of the model`);
  }
  return problems;
}

function refuse(file: Checkpoint, problems: readonly string[]): void {
  if (problems.length === 0) return;
  const more = problems.length > 20 ? `; and ${problems.length - 20} more` : "";
  throw new Error(`${file.path}: does not fit the model: ${problems.slice(0, 20).join("; ")}${more}`);
}

/**
 * Checks the names and shapes of a checkpoint without reading its elements.
 *
 * @param shapes Names and shapes of the model, from `farShapes` or `dcaeShapes`.
 * @throws {Error} If names or shapes differ: every mismatch in one message.
 */
export function checkShapes(file: Checkpoint, shapes: Readonly<Record<string, Shape>>): void {
  refuse(file, misfits(file, shapes));
}

/**
 * Loads a model's parameters from an open checkpoint.
 *
 * @param shapes Names and shapes of the model, from `farShapes` or `dcaeShapes`.
 * @throws {Error} If names or shapes differ, or a value is not finite: every mismatch in one message.
 */
export function loadParams(
  device: Device,
  file: Checkpoint,
  shapes: Readonly<Record<string, Shape>>,
  options: ParamOptions = {},
): Params {
  checkShapes(file, shapes);
  const problems: string[] = [];
  return unscoped(() => {
    const params: Record<string, Tensor> = {};
    for (const [name, shape] of Object.entries(shapes)) {
      const values = toFloat32(file.read(name));
      const bad = findNotFinite(values);
      if (bad >= 0) problems.push(`${name} holds ${values[bad]} at element ${bad}, expected finite numbers`);
      else if (problems.length === 0) params[name] = place(device, name, shape, values, options);
    }
    if (problems.length > 0) disposeAll(params);
    refuse(file, problems);
    return params;
  });
}

/**
 * Random parameters for trying a model without a checkpoint: PyTorch's default initialisation of linear and
 * convolution layers (uniform within 1/√fan_in), norms at 1, batch-norm statistics at mean 0 and variance 1.
 */
export function randomParams(
  device: Device,
  shapes: Readonly<Record<string, Shape>>,
  seed: number,
  options: ParamOptions = {},
): Params {
  return unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [
        name,
        place(device, name, shape, defaultValues(name, shape, seed, shapes), options),
      ]),
    )
  );
}

/** PyTorch's default initial values of one tensor of a state dict: see {@linkcode randomParams}. */
export function defaultValues(
  name: string,
  shape: Shape,
  seed: number,
  shapes: Readonly<Record<string, Shape>>,
): Float32Array {
  const count = sizeOf(shape), weight = shapes[name.replace(/bias$/, "weight")] ?? shape;
  if (weight.length < 2) return new Float32Array(count).fill(/weight$|running_var$/.test(name) ? 1 : 0);
  const bound = 1 / Math.sqrt(sizeOf(weight.slice(1)));
  const drawn = uniform(streamOf(seed, name), count), values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = (2 * drawn[i] - 1) * bound;
  return values;
}
