/**
 * Parameter records: the authors' state-dict names, as tensors on a device.
 *
 * @module
 */
import type { Tensor } from "./tensor.ts";

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

/** A linear layer's weight and bias. */
export function layerOf(params: Params, name: string): { readonly w: Tensor; readonly bias: Tensor } {
  return { w: param(params, `${name}.weight`), bias: param(params, `${name}.bias`) };
}
