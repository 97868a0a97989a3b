/**
 * The small algebra of tensors, as in NumPy: sums, differences and products that broadcast, reductions, softmax, matrix
 * products. All have gradients; f32 only. The models use the fused operations beside this file.
 *
 * @module
 */
import { COPY_AXES } from "../kernels/copy.ts";
import { linear } from "../kernels/linear.ts";
import { softmax as softmaxKernel } from "../kernels/softmax.ts";
import { launch } from "./launch.ts";
import { axpby, concat, copyStrided, full, permute, slice, stridesOf, times } from "./ops_basic.ts";
import { type Shape, sizeOf, Tensor } from "./tensor.ts";

/** The shape that two shapes broadcast to: axes count from the last, an axis of size 1 or a missing one repeats. */
function commonShape(who: string, a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length), size = (s: Shape, i: number) => s[s.length - rank + i] ?? 1;
  return Array.from({ length: rank }, (_, i) => {
    const m = size(a, i), n = size(b, i);
    if (m !== n && m !== 1 && n !== 1) {
      throw new RangeError(
        `${who}: found [${a}] and [${b}], expected sizes that are equal or 1, from the last axis on`,
      );
    }
    return m === 1 ? n : m;
  });
}

/**
 * Repeats a tensor along new leading axes and axes of size 1. At most six axes.
 *
 * @throws {RangeError} If the shape does not follow from the tensor's.
 */
export function broadcast(x: Tensor, shape: Shape): Tensor {
  const lead = shape.length - x.shape.length;
  if (lead < 0 || shape.length > COPY_AXES || x.shape.some((n, i) => n !== 1 && n !== shape[lead + i])) {
    throw new RangeError(
      `broadcast: found [${x.shape}] for [${shape}], expected equal sizes or 1, from the last axis on, and at most six axes`,
    );
  }
  if (x.shape.join() === shape.join()) return x;
  const strides = stridesOf(x.shape), y = Tensor.empty(x.device, shape, x.dtype);
  const from = shape.map((_, i) => i < lead || x.shape[i - lead] === 1 ? 0 : strides[i - lead]);
  copyStrided(x, y, { sizes: shape, from, to: stridesOf(shape) });
  return y;
}

/** Both sides of an operation in their common shape. A number becomes a tensor of the other's shape. */
function together(who: string, a: Tensor, b: Tensor | number): [Tensor, Tensor] {
  if (typeof b === "number") return [a, full(a.device, a.shape, b)];
  if (a.shape.join() === b.shape.join()) return [a, b];
  const shape = commonShape(who, a.shape, b.shape);
  return [broadcast(a, shape), broadcast(b, shape)];
}

/**
 * a + b, broadcast.
 *
 * @throws {RangeError} If the shapes do not broadcast.
 *
 * @example
 * ```ts
 * import { openDevice, ops, Tensor } from "../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const x = Tensor.from(device, Float32Array.of(1, 2, 3, 4), [2, 2]);
 * const centred = ops.sub(x, ops.mean(x, 0)); // [2, 2] less [2]
 * console.assert((await ops.add(centred, 10).read()).join() === "9,9,11,11");
 * device.close();
 * ```
 */
export function add(a: Tensor, b: Tensor | number): Tensor {
  return axpby(...together("add", a, b), 1, 1);
}

/** a - b, broadcast. */
export function sub(a: Tensor, b: Tensor | number): Tensor {
  return axpby(...together("sub", a, b), 1, -1);
}

/** a · b, element by element, broadcast. */
export function mul(a: Tensor, b: Tensor | number): Tensor {
  return times(...together("mul", a, b));
}

/** x wᵀ: x `[M, K]`, w `[N, K]`, y `[M, N]`. */
function product(x: Tensor, w: Tensor): Tensor {
  const M = x.shape[0], none = { act: 0, hasBias: 0, hasGate: 0, hasResidual: 0, half: 0 };
  return launch(linear, { x, w }, { M, Y: M, xRow: 0, yRow: 0, gateCol: 0, G: 0, ...none }).y;
}

/** Axes by number from 0, sorted; all of them when none are named. */
function axesOf(who: string, x: Tensor, axes?: number | readonly number[]): number[] {
  const rank = x.shape.length, given = axes === undefined ? x.shape.map((_, a) => a) : [axes].flat();
  const found = given.map((a) => a < 0 ? a + rank : a);
  if (found.some((a) => !Number.isInteger(a) || a < 0 || a >= rank) || new Set(found).size !== found.length) {
    throw new RangeError(`${who}: axes are [${given}], expected different axes of [${x.shape}]`);
  }
  return found.sort((a, b) => a - b);
}

/**
 * Sum over some axes, which disappear. Each axis is added up on its own, the last first.
 *
 * @param axes Default all: the result has the shape `[]`.
 */
export function sum(x: Tensor, axes?: number | readonly number[]): Tensor {
  let y = x;
  for (const axis of axesOf("sum", x, axes).toReversed()) {
    const rest = y.shape.toSpliced(axis, 1), n = y.shape[axis];
    const order = [...y.shape.keys()].toSpliced(axis, 1).concat(axis);
    const rows = axis === y.shape.length - 1 ? y : permute(y, order); // [rest, n]
    y = product(rows.reshape([sizeOf(rest), n]), full(x.device, [1, n], 1)).reshape(rest);
  }
  return y;
}

/** Mean over some axes, which disappear; default all. */
export function mean(x: Tensor, axes?: number | readonly number[]): Tensor {
  const count = axesOf("mean", x, axes).reduce((n, a) => n * x.shape[a], 1);
  return mul(sum(x, axes), 1 / count);
}

/** Softmax along one axis, default the last. */
export function softmax(x: Tensor, axis = -1): Tensor {
  const [at] = axesOf("softmax", x, axis), last = x.shape.length - 1;
  const swap = x.shape.map((_, i) => i === at ? last : i === last ? at : i);
  const rows = at === last ? x : permute(x, swap), n = x.shape[at];
  const y = launch(softmaxKernel, { x: rows.reshape([x.size / n, n]) }, {}).y.reshape(rows.shape);
  return at === last ? y : permute(y, swap);
}

/**
 * Matrix product of the last two axes: a `[…, M, K]` and b `[…, K, N]` to `[…, M, N]`; leading axes broadcast.
 *
 * @throws {RangeError} If the sizes do not fit.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  const [M, K] = a.shape.slice(-2), [L, N] = b.shape.slice(-2);
  if (a.shape.length < 2 || b.shape.length < 2 || K !== L) {
    throw new RangeError(`matmul: found [${a.shape}] and [${b.shape}], expected [..., M, K] and [..., K, N]`);
  }
  const lead = commonShape("matmul", a.shape.slice(0, -2), b.shape.slice(0, -2)), count = sizeOf(lead);
  const x = broadcast(a, [...lead, M, K]).reshape([count, M, K]);
  const w = permute(broadcast(b, [...lead, K, N]).reshape([count, K, N]), [0, 2, 1]); // [count, N, K]
  const part = (t: Tensor, i: number) => (count === 1 ? t : slice(t, 0, i, 1)).reshape(t.shape.slice(1));
  const products = Array.from({ length: count }, (_, i) => product(part(x, i), part(w, i))); // [M, N] each
  return (count === 1 ? products[0] : concat(products, 0)).reshape([...lead, M, N]);
}
