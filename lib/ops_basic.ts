/**
 * Operations on elements: copies by strides, sums and products, activations.
 *
 * @module
 */
import { type Activation, ACTIVATIONS } from "../kernels/activation.ts";
import { COPY_AXES, copyParams, type Strided, stridedCopy } from "../kernels/copy.ts";
import type { Device } from "../kernels/device.ts";
import * as elementwise from "../kernels/elementwise.ts";
import { launch } from "./launch.ts";
import { type Shape, sizeOf, Tensor } from "./tensor.ts";

export type { Strided } from "../kernels/copy.ts";

/** y[toAt + Σ i·to] = x[fromAt + Σ i·from] for all indices below `sizes`. A stride of 0 repeats. */
export function copyStrided(x: Tensor, y: Tensor, strided: Strided): void {
  const { sizes, from, to, fromAt = 0, toAt = 0 } = strided;
  if (sizes.length > COPY_AXES) {
    throw new RangeError(`copyStrided: found ${sizes.length} axes, expected at most ${COPY_AXES}`);
  }
  const last = (at: number, strides: Shape) => sizes.reduce((sum, n, i) => sum + (n - 1) * strides[i], at);
  if (sizeOf(sizes) > 0 && (last(fromAt, from) >= x.size || last(toAt, to) >= y.size)) {
    throw new RangeError(
      `copyStrided: reaches element ${last(fromAt, from)} of ${x.size} and ${last(toAt, to)} of ${y.size}`,
    );
  }
  launch(stridedCopy, { x: flat(x) }, copyParams(strided), { y: flat(y) });
}

/** Row-major strides of a shape. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** A tensor with the same values in memory of its own. */
export function copy(x: Tensor): Tensor {
  const y = Tensor.empty(x.device, x.shape, x.dtype);
  copyStrided(x, y, { sizes: [x.size], from: [1], to: [1] });
  return y;
}

/** Axes in another order: `permute(x, [0, 2, 1])`. At most six axes. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const strides = stridesOf(x.shape);
  const shape = order.map((a) => x.shape[a]);
  const y = Tensor.empty(x.device, shape, x.dtype);
  copyStrided(x, y, { sizes: shape, from: order.map((a) => strides[a]), to: stridesOf(shape) });
  return y;
}

/** The part `start … start+count-1` of one axis; a negative axis counts from the last. */
export function slice(x: Tensor, axis: number, start: number, count: number): Tensor {
  if (axis < 0) axis += x.shape.length;
  const outer = sizeOf(x.shape.slice(0, axis)), inner = sizeOf(x.shape.slice(axis + 1)), n = x.shape[axis];
  if (start < 0 || start + count > n) {
    throw new RangeError(
      `slice: found ${start} to ${start + count}, expected within axis ${axis} of size ${n}`,
    );
  }
  const y = Tensor.empty(x.device, x.shape.with(axis, count), x.dtype);
  const sizes = [outer, count * inner];
  copyStrided(x, y, { sizes, from: [n * inner, 1], to: [count * inner, 1], fromAt: start * inner });
  return y;
}

/** Joins tensors along one axis. */
export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const total = parts.reduce((n, t) => n + t.shape[axis], 0);
  const outer = sizeOf(parts[0].shape.slice(0, axis)), inner = sizeOf(parts[0].shape.slice(axis + 1));
  const y = Tensor.empty(parts[0].device, parts[0].shape.with(axis, total), parts[0].dtype);
  let at = 0;
  for (const t of parts) {
    const n = t.shape[axis];
    copyStrided(t, y, {
      sizes: [outer, n * inner],
      from: [n * inner, 1],
      to: [total * inner, 1],
      toAt: at * inner,
    });
    at += n;
  }
  return y;
}

const flat = (t: Tensor) => t.reshape([t.size]);

function binary(a: Tensor, b: Tensor, op: number, alpha: number, beta: number): Tensor {
  if (a.size !== b.size) {
    throw new RangeError(`binary: found [${a.shape}] and [${b.shape}], expected one size`);
  }
  return launch(elementwise.binary, { a: flat(a), b: flat(b) }, { op, alpha, beta }).y.reshape(a.shape);
}

/** alpha·a + beta·b, elementwise. */
export const axpby = (a: Tensor, b: Tensor, alpha: number, beta: number): Tensor =>
  binary(a, b, elementwise.BINARY.axpby, alpha, beta);

/** a + weight·(b - a): classifier-free guidance with a the unconditional and b the conditional velocity. */
export const lerp = (a: Tensor, b: Tensor, weight: number): Tensor =>
  binary(a, b, elementwise.BINARY.lerp, weight, 0);

/** a·b, elementwise. */
export const times = (a: Tensor, b: Tensor): Tensor => binary(a, b, elementwise.BINARY.mul, 1, 0);

/** An activation on its own. */
export function activation(x: Tensor, act: Activation): Tensor {
  return launch(elementwise.unary, { x: flat(x) }, { act: ACTIVATIONS[act] }).y.reshape(x.shape);
}

/** In place: y ← beta·y + alpha·x. */
export function accumulate(y: Tensor, x: Tensor, alpha = 1, beta = 1): void {
  launch(elementwise.accumulate, { x: flat(x) }, { alpha, beta }, { y: flat(y) });
}

/** A tensor full of one value. */
export function full(device: Device, shape: Shape, value: number): Tensor {
  const y = Tensor.empty(device, shape);
  device.run({ kernel: elementwise.fill, buffers: [y.storage], params: { E: y.size, value } });
  return y;
}
