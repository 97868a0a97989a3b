/**
 * Training with weights stored as f16: the matrices that products read are f16, and the optimizer keeps their f32 masters
 * beside its moments. Activations, gradients and sums are f32, so no gradient underflows and the loss needs no scaling.
 *
 * @module
 */
import { dtypeOf, halvesOf, type Params, type WeightStorage } from "../params.ts";
import { type Shape, sizeOf, Tensor, unscoped } from "../tensor.ts";

/** Weights with f16 matrices, and the f32 masters of these. */
export interface HalfWeights {
  /** Matrices as f16, everything else as it was. */
  readonly params: Params;
  /** The matrices in f32. */
  readonly masters: Readonly<Record<string, Float32Array>>;
}

/**
 * Stores the matrices of a model as f16, where the storage asks for it, and disposes of their f32 tensors.
 *
 * @param params Weights in f32.
 * @throws {RangeError} If a matrix exceeds the range of f16: the name, the number, what to do.
 */
export async function storeWeights(params: Params, storage: WeightStorage): Promise<HalfWeights> {
  const masters: Record<string, Float32Array> = {}, halves = new Map<string, Float16Array<ArrayBuffer>>();
  for (const [name, t] of Object.entries(params)) {
    if (dtypeOf(name, t.shape, storage) === "f32") continue;
    halves.set(name, halvesOf(name, masters[name] = await t.read()));
  }
  const stored = Object.entries(params).map(([name, t]): [string, Tensor] => {
    const values = halves.get(name), { device, shape } = t;
    if (!values) return [name, t];
    t.dispose();
    return [name, unscoped(() => Tensor.from(device, values, shape))];
  });
  return { params: Object.fromEntries(stored), masters };
}

/** Bytes of optimizer state: two moments, the averages if there are any, the masters of f16 matrices. */
export function stateBytes(
  shapes: Readonly<Record<string, Shape>>,
  config: WeightStorage & { readonly emaDecay: number | null },
): number {
  return Object.entries(shapes).reduce((sum, [name, shape]) => {
    const copies = 2 + (config.emaDecay === null ? 0 : 1) + (dtypeOf(name, shape, config) === "f16" ? 1 : 0);
    return sum + 4 * copies * sizeOf(shape);
  }, 0);
}
