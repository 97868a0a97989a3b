/**
 * The check that every gradient rule passes: in double precision, against finite differences of the reference.
 *
 * @module
 */
import { buffersOf, generator, type KernelCase } from "./check.ts";
import type { Backward } from "./gradient.ts";
import { planOf } from "./plan.ts";
import type { HostBuffers, Kernel, Params, Shaped } from "./spec.ts";
import { shapeOf } from "./spec.ts";

/** A tensor on the host. */
interface HostTensor extends Shaped {
  readonly data: Float64Array | Int32Array;
}

/** Elements of an input whose slope is measured. */
const SAMPLES = 40;
/** Step of the differences: rounding costs about 1e-11 / 1e-5, curvature 1e-10. */
const STEP = 1e-5;
/** Largest difference, relative to max(1, largest slope). */
const BOUND = 1e-5;

const sizeOf = (shape: readonly number[]) => shape.reduce((n, s) => n * s, 1);
const full = (shape: readonly number[], value: number): HostTensor => ({
  shape,
  dtype: "f32",
  data: new Float64Array(sizeOf(shape)).fill(value),
});
/** Contents that may not be read. */
const empty = (shape: readonly number[]) => full(shape, NaN);

/** Runs a kernel's reference as a device would run the kernel. */
function launchOnHost(
  kernel: Kernel,
  inputs: Readonly<Record<string, HostTensor | null | undefined>>,
  params: Params,
  outs: Readonly<Record<string, HostTensor | null | undefined>> = {},
): Record<string, HostTensor> {
  const given = kernel.buffers.map((b) => (b.output ? outs : inputs)[b.name]);
  const plan = planOf(kernel, given, params), io: HostBuffers = {}, made: Record<string, HostTensor> = {};
  kernel.buffers.forEach(({ name, output }, i) => {
    const shape = plan.shapes[i], t = given[i] ?? (output && shape ? empty(shape) : null);
    io[name] = t?.data ?? null;
    if (output && t) made[name] = t;
  });
  kernel.reference(io, plan.params);
  return made;
}

function moveALittle(data: Float64Array, random: () => number): void {
  for (const i of data.keys()) data[i] += (random() * 0.02 - 0.01) * (data[i] || 1);
}

/** Whether the rule of a kernel can be checked at a case: it must hold there, and what it saves must be there. */
export function hasGradientAt({ kernel, params, absent }: KernelCase): boolean {
  const rule = kernel.gradient;
  return rule !== undefined && (rule.when?.(params) ?? true) && !rule.saves.some((n) => absent?.includes(n));
}

/**
 * Compares what the gradient rule of a case's kernel gives with central differences of Σ outputs · cotangents.
 *
 * Inputs are moved by up to a hundredth of themselves, so that no maximum is a tie and no ReLU stands at its kink.
 *
 * @returns The worst difference, relative to max(1, largest slope).
 * @throws {Error} If a slope is off, or if the rule gives no gradient for an input that it does not call constant.
 */
export function checkGradient(test: KernelCase, seed = 1): number {
  const { kernel, params } = test, rule = kernel.gradient!;
  const random = generator(seed), { host } = buffersOf(test, random);
  const tensors: Record<string, HostTensor> = {};
  for (const b of kernel.buffers) {
    const data = host[b.name];
    if (!data) continue;
    if (data instanceof Float64Array && !b.output) moveALittle(data, random);
    tensors[b.name] = { shape: shapeOf(b, params), dtype: b.dtypes[0], data };
  }
  const outputs = kernel.buffers.filter((b) => b.output && tensors[b.name]).map((b) => b.name);
  const cotangents = Object.fromEntries(outputs.map((name) => {
    const t = full(tensors[name].shape, 0);
    if (!rule.constant?.includes(name)) {
      (t.data as Float64Array).forEach((_, i, data) => data[i] = random() * 2 - 1);
    }
    return [name, t];
  }));
  const before = Object.fromEntries(outputs.map((name) => [name, tensors[name].data.slice()]));
  const loss = (): number => {
    const io: HostBuffers = { ...host };
    for (const name of outputs) io[name] = before[name].slice();
    kernel.reference(io, params);
    let sum = 0;
    for (const name of outputs) cotangents[name].data.forEach((c, i) => sum += c * io[name]![i]);
    return sum;
  };
  kernel.reference(host, params); // the outputs that the rule saves

  const wanted = kernel.buffers.filter((b) => !b.output && b.dtypes[0] === "f32" && tensors[b.name]);
  const differentiated = wanted.map((b) => b.name).filter((name) => !rule.constant?.includes(name));
  const grads: Record<string, HostTensor> = {};
  const sum = (name: string) => grads[name] ??= full(tensors[name].shape, 0);
  const add = (name: string, gradient: HostTensor, alpha = 1) => {
    if (!differentiated.includes(name)) return;
    const to = sum(name).data;
    gradient.data.forEach((g, i) => to[i] += alpha * g);
  };
  const backward: Backward<HostTensor> = {
    params,
    saved: (name) => {
      if (!rule.saves.includes(name)) {
        throw new Error(`${kernel.name}: its rule reads ${name} and does not save it`);
      }
      return tensors[name];
    },
    grad: (output) => cotangents[output],
    wants: (name) => differentiated.includes(name),
    sum,
    fresh: (name) => grads[name] ? null : grads[name] = empty(tensors[name].shape),
    add,
    give: add,
    launch: launchOnHost,
    zeros: (shape) => full(shape, 0),
    empty,
    flat: (t) => ({ ...t, shape: [t.data.length] }),
  };
  rule.backward(backward);

  let worst = 0;
  for (const name of differentiated) {
    const gradient = grads[name]?.data, x = host[name] as Float64Array;
    if (!gradient) {
      throw new Error(`${kernel.name}: its rule gives no gradient for ${name}, nor calls it constant`);
    }
    let largest = 1, off = 0, at = 0;
    for (let sample = 0; sample < Math.min(SAMPLES, x.length); sample++) {
      const i = x.length <= SAMPLES ? sample : Math.floor(random() * x.length), kept = x[i];
      x[i] = kept + STEP;
      const up = loss();
      x[i] = kept - STEP;
      const slope = (up - loss()) / (2 * STEP), difference = Math.abs(slope - gradient[i]);
      x[i] = kept;
      largest = Math.max(largest, Math.abs(slope));
      if (!(difference <= off)) [off, at] = [difference, i];
    }
    if (!(off <= BOUND * largest)) {
      throw new Error(
        `${kernel.name} ${JSON.stringify(params)}: d${name}[${at}] is ${
          gradient[at]
        }, off by ${off} of ${largest}`,
      );
    }
    worst = Math.max(worst, off / largest);
  }
  return worst;
}
