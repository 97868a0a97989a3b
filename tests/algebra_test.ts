/**
 * The small algebra: values that a reader can check, gradients against finite differences, the same bits twice.
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import * as ops from "../lib/ops.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, type Shape, sizeOf, Tensor } from "../lib/tensor.ts";
import { testOnDevices } from "./helpers.ts";

const counting = (device: Device, ...shape: number[]) =>
  Tensor.from(device, Float32Array.from({ length: sizeOf(shape) }, (_, i) => i + 1), shape);

/** Shape and values of what `body` makes. */
async function result(body: () => Tensor): Promise<[Shape, number[]]> {
  using y = scope(body);
  return [y.shape, [...await y.read()]];
}

testOnDevices("add, sub and mul broadcast as NumPy does", async (device) => {
  const x = counting(device, 2, 3), row = Tensor.from(device, Float32Array.of(10, 20, 30));
  const column = Tensor.from(device, Float32Array.of(100, 200), [2, 1]);
  assertEquals(await result(() => ops.add(x, row)), [[2, 3], [11, 22, 33, 14, 25, 36]]);
  assertEquals(await result(() => ops.sub(row, x)), [[2, 3], [9, 18, 27, 6, 15, 24]]);
  assertEquals(await result(() => ops.mul(x, column)), [[2, 3], [100, 200, 300, 800, 1000, 1200]]);
  assertEquals(await result(() => ops.add(column, row)), [[2, 3], [110, 120, 130, 210, 220, 230]]);
  assertEquals(await result(() => ops.mul(x, -2)), [[2, 3], [-2, -4, -6, -8, -10, -12]]);
  assertEquals(await result(() => ops.sub(ops.add(row, 1), 0.5)), [[3], [10.5, 20.5, 30.5]]);
  assertThrows(() => ops.add(x, counting(device, 2)), RangeError, "add: found [2,3] and [2]");
  assertThrows(() => ops.broadcast(x, [3, 2]), RangeError, "broadcast: found [2,3] for [3,2]");
  disposeAll([x, row, column]);
});

testOnDevices("sum and mean over any axes", async (device) => {
  const x = counting(device, 2, 3, 2); // 1 … 12
  assertEquals(await result(() => ops.sum(x)), [[], [78]]);
  assertEquals(await result(() => ops.sum(x, 0)), [[3, 2], [8, 10, 12, 14, 16, 18]]);
  assertEquals(await result(() => ops.sum(x, 1)), [[2, 2], [9, 12, 27, 30]]);
  assertEquals(await result(() => ops.sum(x, [-1, 0])), [[3], [18, 26, 34]]);
  assertEquals(await result(() => ops.mean(x)), [[], [6.5]]);
  assertEquals(await result(() => ops.mean(x, [1, 2])), [[2], [3.5, 9.5]]);
  assertThrows(() => ops.sum(x, 3), RangeError, "sum: axes are [3], expected different axes of [2,3,2]");
  assertThrows(() => ops.mean(x, [0, -3]), RangeError, "mean: axes are [0,-3]");
  x.dispose();
});

testOnDevices("matmul multiplies the last two axes; leading ones broadcast", async (device) => {
  const a = counting(device, 2, 3), b = counting(device, 3, 2), batch = counting(device, 2, 1, 1, 3);
  assertEquals(await result(() => ops.matmul(a, b)), [[2, 2], [22, 28, 49, 64]]);
  // [1 2 3] and [4 5 6] times b, for two batches of one row.
  assertEquals(await result(() => ops.matmul(batch, b)), [[2, 1, 1, 2], [22, 28, 49, 64]]);
  const pair = counting(device, 2, 3, 1); // columns 1 2 3 and 4 5 6
  assertEquals(await result(() => ops.matmul(a, pair)), [[2, 2, 1], [14, 32, 32, 77]]);
  assertThrows(() => ops.matmul(a, a), RangeError, "matmul: found [2,3] and [2,3]");
  disposeAll([a, b, batch, pair]);
});

testOnDevices("softmax along an axis: shares of 1, the same for shifted rows", async (device) => {
  const x = Tensor.from(device, Float32Array.of(0, Math.log(3), 500, 500 + Math.log(4)), [2, 2]);
  const close = (found: number[], want: number[]) =>
    want.forEach((w, i) => assertAlmostEquals(found[i], w, 1e-5));
  close((await result(() => ops.softmax(x)))[1], [0.25, 0.75, 0.2, 0.8]);
  close((await result(() => ops.softmax(ops.slice(x, -1, 0, 1), 0)))[1], [0, 1]);
  const wide = Tensor.from(device, normal(streamOf(1, "x"), 60), [3, 4, 5]);
  const [shape, values] = await result(() => ops.sum(ops.softmax(wide, 1), 1));
  assertEquals(shape, [3, 5]);
  close(values, new Array(15).fill(1));
  disposeAll([x, wide]);
});

/** Functions of two tensors whose gradients are checked; every operation, every axis, a tensor used twice. */
const FUNCTIONS: Readonly<Record<string, (p: { a: Tensor; b: Tensor }) => Tensor>> = {
  "add and mul with broadcasting": ({ a, b }) => ops.mul(ops.add(a, b), a), // [2, 3, 4] and [3, 1]
  "sub with numbers": ({ a, b }) => ops.mul(ops.sub(ops.mul(b, 3), 0.5), ops.sub(b, a)),
  "sums": ({ a, b }) => ops.mul(ops.sum(a, [0, 2]), ops.sum(ops.mul(ops.mul(a, b), a), -1)), // [3] and [2, 3]
  "means": ({ a, b }) => ops.mul(ops.mean(a), ops.mul(ops.mean(ops.mul(a, b), 1), ops.mean(b))),
  "softmax": ({ a, b }) => ops.mul(ops.softmax(ops.mul(a, b), 1), ops.softmax(a)),
  "matmul": ({ a, b }) =>
    ops.matmul(ops.permute(a, [0, 2, 1]), ops.matmul(a, ops.matmul(ops.permute(a, [0, 2, 1]), b))),
  "slices": ({ a, b }) =>
    ops.mul(ops.slice(a, 2, 1, 2), ops.mul(ops.slice(a, -1, 2, 2), ops.slice(b, 0, 1, 1))),
};

for (const [name, fn] of Object.entries(FUNCTIONS)) {
  testOnDevices(
    `gradients of ${name} agree with finite differences, and are the same bits twice`,
    async (device) => {
      const host = { a: normal(streamOf(2, "a"), 24), b: normal(streamOf(2, "b"), 3) };
      const shapes = { a: [2, 3, 4], b: [3, 1] };
      // The weights make every entry of the result matter differently.
      const weighed = (p: { a: Tensor; b: Tensor }) => {
        const y = fn(p);
        return ops.mul(y, Tensor.from(device, normal(streamOf(2, "weights"), y.size), y.shape));
      };
      const loss = async (values: typeof host) => {
        const p = { a: Tensor.from(device, values.a, shapes.a), b: Tensor.from(device, values.b, shapes.b) };
        using y = scope(() => weighed(p));
        disposeAll(p);
        return (await y.read()).reduce((s, v) => s + v, 0);
      };
      const params = { a: Tensor.from(device, host.a, shapes.a), b: Tensor.from(device, host.b, shapes.b) };
      const [first, second] = [valueAndGrad(weighed)(params), valueAndGrad(weighed)(params)];
      for (const key of ["a", "b"] as const) {
        const found = await first.grads[key].read();
        assertEquals(found, await second.grads[key].read());
        const largest = found.reduce((m, v) => Math.max(m, Math.abs(v)), 1);
        for (let i = 0; i < host[key].length; i++) {
          const h = 2 ** -7,
            moved = (by: number) => {
              const values = { a: host.a.slice(), b: host.b.slice() };
              values[key][i] += by;
              return loss(values);
            };
          // The fourth-order formula: f32 rounding of the loss, some 1e-6, over h is 1e-4.
          const [p1, m1, p2, m2] = [await moved(h), await moved(-h), await moved(2 * h), await moved(-2 * h)];
          const slope = (8 * (p1 - m1) - (p2 - m2)) / (12 * h);
          assert(
            Math.abs(slope - found[i]) < 2e-3 * largest,
            `d${key}[${i}] is ${found[i]}, finite differences give ${slope}`,
          );
        }
      }
      disposeAll([params, first, second]);
    },
  );
}
