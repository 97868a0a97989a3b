/**
 * Launch plans: what follows from the shapes and scalars of a launch, found again when they come again.
 *
 * A denoising step is some 180 launches of which all but the first step's are repetitions. A repetition gets the very
 * same `params` object, so that devices keep what they make of it (number of tasks, pipeline, argument words) in a
 * WeakMap.
 *
 * @module
 */
import { type Kernel, type Params, type Shaped, shapeOf, solveShapes } from "./spec.ts";

/** Properties of a launch that are known beforehand. */
export interface Plan {
  /** Sizes, scalars and flags by name. The same object for the same launch; frozen. */
  readonly params: Params;
  /** Shape of each buffer that the launch has, null for those that are absent. */
  readonly shapes: readonly (readonly number[] | null)[];
}

interface Known {
  readonly tensors: readonly (Shaped | null | undefined)[];
  readonly names: readonly string[];
  readonly values: readonly number[];
  readonly plan: Plan;
}

/** Plans that a kernel keeps; a loop over ever new scalars starts again from none. */
const MAX_PLANS = 512;

const plans = new WeakMap<Kernel, Map<number, Known>>();

/**
 * The plan of a launch.
 *
 * @param tensors In the order of the kernel's buffers; null is absent on purpose, undefined an output still to be made.
 * @param given Sizes that no input shows, scalars and flags.
 * @throws {RangeError} If a shape or dtype breaks the contract, or an output's size is not known.
 */
export function planOf(
  kernel: Kernel,
  tensors: readonly (Shaped | null | undefined)[],
  given: Params,
): Plan {
  let hash = 0;
  for (let i = 0; i < tensors.length; i++) {
    const t = tensors[i];
    if (!t) {
      hash = Math.imul(hash, 31) + (t === null ? 1 : 2) | 0;
      continue;
    }
    const shape = t.shape;
    for (let axis = 0; axis < shape.length; axis++) hash = Math.imul(hash, 31) + shape[axis] | 0;
    hash = Math.imul(hash, 31) + shape.length | 0;
  }
  const names = Object.keys(given);
  for (let i = 0; i < names.length; i++) hash = Math.imul(hash, 31) + given[names[i]] * 40503 | 0;
  let known = plans.get(kernel);
  if (!known) plans.set(kernel, known = new Map());
  const found = known.get(hash);
  if (found && matches(found, tensors, names, given)) return found.plan;
  const plan = makePlan(kernel, tensors, given);
  if (known.size >= MAX_PLANS) known.clear();
  const values = names.map((name) => given[name]);
  const shaped = tensors.map((t) => t && { shape: t.shape, dtype: t.dtype });
  known.set(hash, { tensors: shaped, names, values, plan });
  return plan;
}

function matches(
  found: Known,
  tensors: readonly (Shaped | null | undefined)[],
  names: readonly string[],
  given: Params,
): boolean {
  if (found.names.length !== names.length) return false;
  for (let i = 0; i < names.length; i++) {
    if (found.names[i] !== names[i] || !Object.is(found.values[i], given[names[i]])) return false;
  }
  for (let i = 0; i < tensors.length; i++) {
    const a = found.tensors[i], b = tensors[i];
    if (!a || !b) {
      if (a !== b) return false;
      continue;
    }
    if (a.dtype !== b.dtype || a.shape.length !== b.shape.length) return false;
    for (let axis = 0; axis < a.shape.length; axis++) if (a.shape[axis] !== b.shape[axis]) return false;
  }
  return true;
}

function makePlan(kernel: Kernel, tensors: readonly (Shaped | null | undefined)[], given: Params): Plan {
  const params = Object.freeze(solveShapes(kernel, tensors, given));
  for (const [name, type] of Object.entries(kernel.params)) {
    // A device would drop the fraction, and go on with another size than the caller.
    if (type !== "f32" && params[name] !== undefined && !Number.isSafeInteger(params[name])) {
      throw new RangeError(`${kernel.name}: ${name} is ${params[name]}, expected an integer`);
    }
  }
  const shapes = kernel.buffers.map((buffer, i) => {
    const t = tensors[i];
    if (t) return t.shape;
    if (!buffer.output || buffer.optional || t === null) return null;
    const shape = shapeOf(buffer, params);
    if (shape.includes(undefined!)) {
      throw new RangeError(`${kernel.name}: the size of ${buffer.name} is not known`);
    }
    return shape;
  });
  return { params, shapes };
}
