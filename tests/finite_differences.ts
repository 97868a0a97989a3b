/**
 * Gradients against finite differences of the double-precision references.
 *
 * @module
 */
import { assert } from "@std/assert";
import { generator } from "../kernels/check.ts";
import type { HostBuffers, Kernel, Params } from "../kernels/spec.ts";

/** Runs a reference on copies of what it writes. */
export function run(kernel: Kernel, io: HostBuffers, params: Params): HostBuffers {
  const copy = { ...io };
  for (const name of Object.keys(kernel.outputs)) copy[name] = copy[name]?.slice() ?? null;
  kernel.reference(copy, params);
  return copy;
}

const random = generator(7);
/** `n` numbers in [-scale, scale], new ones at every call. */
export const values = (n: number, scale = 1) =>
  Float64Array.from({ length: n }, () => (random() * 2 - 1) * scale);
/** `n` zeros. */
export const zeros = (n: number) => new Float64Array(n);

/**
 * Central differences of L = Σ outputs · cotangents in double precision, against the gradient of one input: every entry,
 * within 1e-6 of the largest (step 1e-5: rounding 1e-11 / 1e-5, curvature 1e-10).
 */
export function agree(
  kernel: Kernel,
  io: HostBuffers,
  params: Params,
  cotangents: HostBuffers,
  input: string,
  gradient: ArrayLike<number>,
) {
  const loss = () => {
    const out = run(kernel, io, params);
    let sum = 0;
    for (const [name, c] of Object.entries(cotangents)) c!.forEach((v, i) => sum += v * out[name]![i]);
    return sum;
  };
  const x = io[input] as Float64Array, h = 1e-5;
  let largest = 1, worst = 0;
  for (let i = 0; i < x.length; i++) {
    const kept = x[i];
    x[i] = kept + h;
    const up = loss();
    x[i] = kept - h;
    const down = loss();
    x[i] = kept;
    const slope = (up - down) / (2 * h);
    largest = Math.max(largest, Math.abs(slope));
    worst = Math.max(worst, Math.abs(slope - gradient[i]));
  }
  assert(worst <= 1e-6 * largest, `${kernel.name}: d${input} is off by ${worst} of ${largest}`);
}
