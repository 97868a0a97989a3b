/**
 * Rounding to f16 and reading it, bit by bit.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { conv2dGradInput } from "../kernels/conv2d.ts";
import { openCpuDevice } from "../kernels/cpu/device.ts";
import type { Device } from "../kernels/device.ts";
import { HALF_BLOCK, LARGEST_HALF, toHalf } from "../kernels/half.ts";
import { linearGradInput } from "../kernels/linear.ts";
import { launch, linear, permute } from "../lib/ops.ts";
import { halvesOf } from "../lib/params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../lib/tensor.ts";
import { testOnDevices } from "./helpers.ts";

/** Rounds on a device: bits of the halves, and the largest sizes. */
async function round(device: Device, x: Float32Array): Promise<[Uint16Array, Float32Array]> {
  const E = x.length, L = Math.ceil(E / HALF_BLOCK);
  const storages = [4 * E, Math.ceil(E / 2) * 4, 4 * L].map((bytes) => device.alloc(bytes));
  device.write(storages[0], x);
  device.run({ kernel: toHalf, buffers: storages, params: { E, at: 0, L } });
  const [y, largest] = await Promise.all(storages.slice(1).map((s) => device.read(s)));
  storages.forEach((s) => device.free(s));
  return [new Uint16Array(y, 0, E), new Float32Array(largest)];
}

/** Every finite f16, the numbers half-way to the next one, and the f32 just below and above both. */
function everyHalf(): Float32Array {
  const halves = new Float16Array(Uint16Array.from({ length: 0x7c00 }, (_, i) => i).buffer);
  const points = [...halves].flatMap((x, i) => [x, (x + (halves[i + 1] ?? 2 ** 16)) / 2]);
  const bits = new Uint32Array(Float32Array.from(points).buffer);
  const near = [...bits].flatMap((b) => [b, b + 1, ...(b > 0 ? [b - 1] : [])]);
  return new Float32Array(Uint32Array.from(near.flatMap((b) => [b, b + 0x80000000])).buffer);
}

async function roundsEverything(device: Device): Promise<void> {
  const x = everyHalf(), [got, largest] = await round(device, x);
  const want = Float16Array.from(x, (v) => Math.min(LARGEST_HALF, Math.max(-LARGEST_HALF, v)));
  assertEquals(got, new Uint16Array(want.buffer));
  const sizes = Float32Array.from(
    { length: largest.length },
    (_, n) => x.subarray(n * HALF_BLOCK, (n + 1) * HALF_BLOCK).reduce((m, v) => Math.max(m, Math.abs(v)), 0),
  );
  assertEquals(largest, sizes);
}

testOnDevices(
  "every f16, what lies half-way between two of them and its neighbours round as Float16Array does",
  roundsEverything,
);

testOnDevices("infinity stays within f16 and NaN is NaN, and both are the largest", async (device) => {
  const x = new Float32Array(3 * HALF_BLOCK).fill(1);
  x[5] = -Infinity;
  x[HALF_BLOCK + 4095] = NaN;
  const [y, largest] = await round(device, x);
  assertEquals([y[5], y[HALF_BLOCK + 4095] & 0x7e00, y[0]], [0xfbff, 0x7e00, 0x3c00]);
  assertEquals([...largest], [Infinity, NaN, 1]);
});

Deno.test({
  name: "the build without relaxed SIMD rounds to f16 and reads it alike",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await openCpuDevice({ threads: 1, simd: "plain" });
    await roundsEverything(device);
    await readsEverything(device);
    device.close();
  },
});

/** Every finite f16. */
const FINITE = new Float16Array(
  Uint16Array.from({ length: 0xf800 }, (_, i) => i + (i < 0x7c00 ? 0 : 0x400)).buffer,
);

/** The matrix that picks one row after another. */
const identity = (n: number) => Float32Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? 1 : 0);

async function readsEverything(device: Device): Promise<void> {
  const one = unscoped(() => Tensor.from(device, identity(8), [8, 8])), many = FINITE.length / 8;
  for (const pack of [false, true]) {
    const rows = unscoped(() => Tensor.from(device, FINITE, [many, 8])); // [N, K]
    if (pack) rows.pack("linear");
    const y = unscoped(() => scope(() => permute(linear(one, rows), [1, 0]))); // [many, 8]
    assertEquals(await y.read(), Float32Array.from(FINITE), "forward");
    const columns = unscoped(() => Tensor.from(device, FINITE, [8, many])); // [N, K]
    if (pack) columns.pack("linear");
    const params = { M: 8, xRow: 0, yRow: 0, zCol: 0, accumulate: 0, half: 1, X: 8 };
    const { dx } = unscoped(() => launch(linearGradInput, { dz: one, w: columns }, params));
    assertEquals(await dx.read(), Float32Array.from(FINITE), "gradient");
    const image = unscoped(() => columns.reshape([8, many / 2, 1, 2]));
    if (pack) image.pack("conv2d");
    const dz = unscoped(() => Tensor.from(device, identity(8), [8, 1, 1, 8]));
    const conv = unscoped(() =>
      launch(conv2dGradInput, { dz, w: image }, { H: 1, W: 2, stride: 2, pad: 0, accumulate: 0, half: 1 }).dx
    ); // [8, 1, 2, many / 2]
    const wanted = Float32Array.from(FINITE, (_, i) => {
      const inner = i % many, o = (i - inner) / many;
      return FINITE[o * many + inner % (many / 2) * 2 + Math.floor(inner / (many / 2))];
    });
    assertEquals(await conv.read(), wanted, "gradient of a convolution");
    disposeAll([rows, y, columns, dx, image, dz, conv]);
  }
  one.dispose();
}

testOnDevices("products read every finite f16 as it is, packed and row-major", readsEverything);

Deno.test("a weight that f16 cannot hold is refused by name, not stored as infinity", () => {
  assertEquals(halvesOf("w", new Float32Array([65504, -65504, 1e-9])), new Float16Array([65504, -65504, 0]));
  const message = "proj.weight holds 65520 at element 1, expected at most 65504";
  assertThrows(() => halvesOf("proj.weight", new Float32Array([1, 65520])), RangeError, message);
  assertThrows(() => halvesOf("proj.weight", new Float32Array([NaN])), RangeError, "proj.weight holds NaN");
});
