/**
 * Launching a kernel on tensors: sizes checked, outputs made, the launch recorded or run.
 *
 * @module
 */
import { type Kernel, type Params, parseContract, solveShapes } from "../kernels/spec.ts";
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
  const tensors: Record<string, Tensor | null | undefined> = { ...inputs, ...outs };
  const sizes = solveShapes(kernel, tensors, params);
  const device = Object.values(inputs).find((t) => t)!.device;
  const result: Record<string, Tensor> = {};
  for (const [name, text] of Object.entries(kernel.outputs)) {
    const { letters, dtypes, optional } = parseContract(text);
    if (tensors[name] === undefined && !optional) {
      const shape = letters.map((l) => /^\d+$/.test(l) ? Number(l) : sizes[l]);
      if (shape.some((s) => s === undefined)) {
        throw new RangeError(`${kernel.name}: the size of ${name} is not known`);
      }
      tensors[name] = Tensor.empty(device, shape, dtypes[0]);
    }
    if (tensors[name]) result[name] = tensors[name]!;
  }
  const names = [...Object.keys(kernel.inputs), ...Object.keys(kernel.outputs)];
  const buffers = names.map((n) => {
    const t = tensors[n];
    if (t && t.device !== device) throw new RangeError(`${kernel.name}: ${n} lies on another device`);
    return t ? t.storage : null;
  });
  device.run({ kernel, buffers, params: sizes });
  recording()?.record(kernel, tensors, sizes);
  return result;
}

/** A flag of a kernel: whether something is there. */
export const flag = (t: unknown): number => t ? 1 : 0;
