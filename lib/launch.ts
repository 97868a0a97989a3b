/**
 * Launching a kernel on tensors: sizes checked, outputs made, the launch recorded or run.
 *
 * @module
 */
import { planOf } from "../kernels/plan.ts";
import type { Kernel, Params } from "../kernels/spec.ts";
import type { Storage } from "../kernels/device.ts";
import { recording } from "./tape.ts";
import { Tensor } from "./tensor.ts";

type Inputs = Readonly<Record<string, Tensor | null | undefined>>;

/**
 * Launches a kernel: solves and checks its sizes, makes the outputs that are not given, records or runs it.
 *
 * @param params Sizes that no input shows, scalars and flags.
 * @param outs Outputs that already exist; `null` leaves an optional output out.
 * @throws {RangeError} If a shape or dtype breaks the contract: kernel, tensor, expected, found.
 */
export function launch(
  kernel: Kernel,
  inputs: Inputs,
  params: Params,
  outs: Inputs = {},
): Record<string, Tensor> {
  const contracts = kernel.buffers;
  const tensors: (Tensor | null | undefined)[] = new Array(contracts.length);
  for (let i = 0; i < contracts.length; i++) {
    const { name, output } = contracts[i];
    tensors[i] = output ? outs[name] : inputs[name];
  }
  const plan = planOf(kernel, tensors, params);
  const device = (tensors.find((t) => t) as Tensor).device;
  const result: Record<string, Tensor> = {};
  const buffers: (Storage | null)[] = new Array(contracts.length);
  for (let i = 0; i < contracts.length; i++) {
    const { name, output, dtypes } = contracts[i], shape = plan.shapes[i];
    const t = tensors[i] ?? (output && shape ? Tensor.empty(device, shape, dtypes[0]) : null);
    if (t && t.device !== device) throw new RangeError(`${kernel.name}: ${name} lies on another device`);
    if (output && t) result[name] = t;
    tensors[i] = t;
    buffers[i] = t ? t.storage : null;
  }
  device.run({ kernel, buffers, params: plan.params });
  recording()?.record(kernel, tensors, plan.params);
  return result;
}

/** A flag of a kernel: whether something is there. */
export const flag = (t: unknown): number => t ? 1 : 0;
