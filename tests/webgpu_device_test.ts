import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { attention } from "../kernels/attention.ts";
import type { Device, Storage } from "../kernels/device.ts";
import { binary, unary } from "../kernels/elementwise.ts";
import type { Kernel, Params } from "../kernels/spec.ts";
import { describeAdapter, openWebGpuDevice } from "../kernels/webgpu/device.ts";
import { sizeClass } from "../kernels/webgpu/pool.ts";

import { webgpuTest as test } from "./webgpu_helpers.ts";

function put(device: Device, values: Float32Array<ArrayBuffer>): Storage {
  const storage = device.alloc(values.byteLength);
  device.write(storage, values);
  return storage;
}

const floats = async (device: Device, s: Storage) => [...new Float32Array(await device.read(s))];
const axpby = (E: number, alpha: number, beta: number): Params => ({ E, op: 0, alpha, beta });

/** y = alpha a + beta b. */
function add(device: Device, a: Storage, b: Storage, y: Storage, alpha = 1, beta = 1): void {
  device.run({ kernel: binary, buffers: [a, b, y], params: axpby(a.bytes / 4, alpha, beta) });
}

/** A kernel whose shader is wrong. */
const broken: Kernel = {
  ...unary,
  name: "broken",
  wgsl: { ...unary.wgsl, source: "fn forward() { nothing }" },
};

/** A kernel that asks for more loop iterations than Mesa 22.3 runs. */
const long: Kernel = { ...unary, name: "long", wgsl: { ...unary.wgsl, loops: () => 65_535 } };

test("equal steps get the same blocks and no more memory, bind groups or pipelines", async (device) => {
  const first = put(device, new Float32Array(100).fill(1));
  const step = () => {
    // Freed in another order than taken: a stack of free blocks would hand them out in turns.
    const a = device.alloc(400), b = device.alloc(400), c = device.alloc(400);
    add(device, first, first, a);
    add(device, a, first, b);
    add(device, a, b, c);
    for (const s of [a, c, b]) device.free(s);
    return c;
  };
  step();
  const held = device.stats.heldBytes, groups = device.bindGroups, pipelines = device.stats.pipelines;
  for (let i = 0; i < 1000; i++) step();
  await device.sync();
  assertEquals(device.stats.heldBytes, held);
  assertEquals(device.bindGroups, groups);
  assertEquals(device.stats.pipelines, pipelines);
  assertEquals(device.stats.liveBytes, 400);
  assertEquals(device.stats.peakBytes, 1600);
  assertEquals(device.stats.dispatches, 3003);
});

test("a freed block keeps its contents for the launches recorded before", async (device) => {
  const a = put(device, Float32Array.of(1, 2, 3)), y = device.alloc(12), z = device.alloc(12);
  add(device, a, a, y);
  device.free(a);
  const b = put(device, Float32Array.of(10, 20, 30)); // the same block
  add(device, b, b, z);
  assertEquals(await floats(device, y), [2, 4, 6]);
  assertEquals(await floats(device, z), [20, 40, 60]);
});

test("writes take effect between the launches before and after them", async (device) => {
  const x = put(device, Float32Array.of(1, 1)), y = put(device, new Float32Array(2)), z = device.alloc(8);
  const outs = [1, 2, 3].map((value) => {
    const out = device.alloc(8);
    device.write(x, Float32Array.of(value, value));
    add(device, x, y, out);
    return out;
  });
  device.write(x, Float32Array.of(7), 4);
  add(device, x, y, z);
  const read = await Promise.all([...outs, z].map((s) => floats(device, s)));
  assertEquals(read, [[1, 1], [2, 2], [3, 3], [3, 7]]);
});

test("reads see what was recorded before them and nothing later, in one wait", async (device) => {
  const x = put(device, Float32Array.of(1)), zero = put(device, Float32Array.of(0));
  const a = device.alloc(4), b = device.alloc(4);
  add(device, x, zero, a);
  const early = floats(device, a);
  add(device, a, x, b, 10);
  device.write(a, Float32Array.of(99));
  const late = Promise.all([floats(device, a), floats(device, b)]);
  assertEquals(device.stats.waits, 0);
  assertEquals([await early, ...await late], [[1], [99], [11]]);
  assertEquals(device.stats.waits, 1);
});

test("parts of a block are read and written at any offset", async (device) => {
  const s = device.alloc(10);
  device.write(s, Uint16Array.of(1, 2, 3, 4, 5));
  device.write(s, Uint16Array.of(9), 8);
  assertEquals([...new Uint16Array(await device.read(s))], [1, 2, 3, 4, 9]);
  assertEquals([...new Uint16Array(await device.read(s, 2, 6))], [2, 3, 4]);
  assertEquals((await device.read(s, 4, 0)).byteLength, 0);
  assertThrows(() => device.write(s, Uint16Array.of(9), 2), RangeError, "write of 2 bytes at 2");
  assertThrows(() => device.write(s, new Uint8Array(12)), RangeError, "expected within 10 bytes");
  await assertRejects(() => device.read(s, 8, 4), RangeError, "expected within 10 bytes");
});

test("more launches than a batch holds keep their own scalars", async (device) => {
  const x = put(device, Float32Array.of(1)), zero = put(device, Float32Array.of(0));
  const outs = Array.from({ length: 50 }, () => device.alloc(4));
  outs.forEach((out, i) => add(device, x, zero, out, i));
  const values = await Promise.all(outs.map((s) => floats(device, s)));
  assertEquals(values.map(([v]) => v), outs.map((_, i) => i));
  assertEquals(device.stats.submits, 7); // 6 full batches and the rest, together with the reads
}, { batchSize: 8 });

test("a shader that does not compile is reported once, by name, in one line", async (device) => {
  const x = put(device, Float32Array.of(1)), y = device.alloc(4);
  const launch = { kernel: broken, buffers: [x, y], params: { E: 1, act: 0 } };
  device.run(launch);
  const error = await assertRejects(() => device.read(y), Error, "broken: the shader does not compile");
  assert(!error.message.includes("\n"), error.message);
  await device.sync();
  assertThrows(() => device.run(launch), Error, "broken: the shader does not compile");
  add(device, x, x, y);
  assertEquals(await floats(device, y), [2]);
});

test("all reads of a failed batch are refused", async (device) => {
  const x = put(device, Float32Array.of(1)), y = device.alloc(4);
  device.run({ kernel: broken, buffers: [x, y], params: { E: 1, act: 0 } });
  const outcomes = await Promise.allSettled([device.read(x), device.read(y)]);
  assertEquals(outcomes.map((o) => o.status), ["rejected", "rejected"]);
});

test("an error that the driver reports on its own surfaces at the next wait", async (device) => {
  device.gpu.createBuffer({ size: 2 ** 50, usage: GPUBufferUsage.STORAGE });
  const error = await assertRejects(() => device.sync(), Error, "webgpu: ");
  assert(!error.message.includes("\n"), error.message);
  await device.sync();
});

test("one block cannot be an input and an output, nor two outputs", (device) => {
  const a = device.alloc(4), b = device.alloc(4);
  assertThrows(
    () => add(device, a, b, b),
    Error,
    "binary: b and y share one block, expected an output of its own",
  );
  const launch = { T: 1, D: 4, A: 1, hd: 4, S: 1, V: 4, scale: 1, slope: 0, hasSlope: 0, hasLse: 1 };
  const [q, k, v, r] = [16, 16, 16, 16].map((n) => device.alloc(n));
  assertThrows(
    () => device.run({ kernel: attention, buffers: [q, k, v, r, a, a], params: launch }),
    Error,
    "attention: y and lse share one block",
  );
});

test("missing scalars, flags, buffers and foreign or freed blocks are named", async (device) => {
  const a = device.alloc(4), b = device.alloc(4);
  const run = (params: Params, buffers: Storage[]) => () => device.run({ kernel: unary, buffers, params });
  assertThrows(run({ act: 0, E: 1 }, [a]), Error, "unary: found 1 buffers, expected 2 (x,y)");
  assertThrows(run({ E: 1 }, [a, b]), Error, "unary: flag act is missing");
  assertThrows(
    () => device.run({ kernel: binary, buffers: [a, a, b], params: { E: 1, op: 0, alpha: 1 } }),
    Error,
    "binary: parameter beta is missing",
  );
  device.free(b);
  assertThrows(run({ E: 1, act: 0 }, [a, b]), Error, "unary: y was given a block that was freed");
  assertThrows(() => device.free(b), Error, "freed");
  const other = await openWebGpuDevice();
  const c = other.alloc(4);
  assertThrows(run({ E: 1, act: 0 }, [a, c]), Error, "unary: y was given a block of another device");
  other.close();
  await device.sync();
});

test("a launch of no elements does nothing", async (device) => {
  const a = device.alloc(0), b = device.alloc(0);
  device.run({ kernel: unary, buffers: [a, b], params: { E: 0, act: 0 } });
  await device.sync();
  assertEquals(device.stats.dispatches, 0);
});

test("a device that was closed or lost says so in one line", async (device) => {
  const a = put(device, Float32Array.of(1));
  device.gpu.destroy();
  await assertRejects(() => device.read(a), Error, "webgpu: the device was lost");
  assertThrows(() => device.alloc(4), Error, "webgpu: the device was lost");
  await assertRejects(() => device.sync(), Error, "webgpu: the device was lost");
  const other = await openWebGpuDevice();
  const b = other.alloc(4);
  other.close();
  other.close();
  assertThrows(() => other.write(b, Float32Array.of(1)), Error, "webgpu: the device is closed");
  other.free(b); // scopes may end after the device
});

test("trimming returns the memory that is not in use", async (device) => {
  const kept = put(device, Float32Array.of(5)), held = device.stats.heldBytes;
  const big = device.alloc(1 << 20);
  add(device, kept, kept, big);
  device.free(big);
  const groups = device.bindGroups;
  device.trim();
  assertEquals(device.stats.heldBytes, held);
  assertEquals(device.bindGroups, groups - 1);
  assertEquals(await floats(device, kept), [5]);
});

test("the memory limit returns pooled memory first, then says what is missing", async (device) => {
  const a = device.alloc(3 << 20);
  device.free(a);
  const b = device.alloc(2 << 20); // another class: 3 and 2 do not fit together
  const message = "webgpu: out of memory: 3.0 MiB needed, ";
  assertThrows(() => device.alloc(3 << 20), Error, message);
  device.free(b);
  device.free(device.alloc(3 << 20));
  await device.sync();
}, { memoryLimit: (4 << 20) + 40_000 });

test("memory that the driver refuses is reported once, and its block is not handed out again", async (device) => {
  const { popErrorScope } = GPUDevice.prototype;
  Object.defineProperty(device.gpu, "popErrorScope", {
    configurable: true,
    value: async () => {
      await popErrorScope.call(device.gpu);
      return new GPUOutOfMemoryError("Not enough memory left.");
    },
  });
  const refused = device.alloc(3 << 20);
  Reflect.deleteProperty(device.gpu, "popErrorScope");
  const message = /^webgpu: out of memory: 3\.0 MiB needed beside [\d.]+ MiB held: Not enough memory left\.$/;
  const error = await assertRejects(() => device.sync(), Error);
  assert(message.test(error.message), error.message);
  device.free(refused);
  const held = device.stats.heldBytes;
  device.alloc(3 << 20);
  assert(device.stats.heldBytes > held, "the refused buffer came back");
  await device.sync();
});

test("a block beyond the adapter's largest buffer is refused", (device) => {
  assertThrows(() => device.alloc(device.info.limits.maxBufferSize + 1), RangeError, "the adapter allows");
});

test("size classes waste at most an eighth", () => {
  for (const bytes of [0, 1, 256, 257, 5000, 99_999, 123_456_789, 3_000_000_001]) {
    const size = sizeClass(bytes);
    assert(
      size >= bytes && size % 256 === 0 && size <= Math.max(bytes + 256, bytes * 9 / 8),
      `${bytes} ${size}`,
    );
  }
});

test("bulk uploads do not pile up in staging memory", async (device) => {
  const storage = device.alloc(32 << 20), data = new Uint8Array(32 << 20);
  device.write(storage, data);
  await device.sync();
  const before = Deno.memoryUsage().rss;
  for (let i = 0; i < 32; i++) device.write(storage, data); // 1 GiB
  await device.sync();
  const grown = (Deno.memoryUsage().rss - before) / 2 ** 20;
  assert(grown < 300, `resident memory grew by ${grown.toFixed(0)} MiB during 1024 MiB of uploads`);
});

test("a growing number of keys compiles nothing new", async (device) => {
  const D = 64, params = { T: 8, D, A: 1, hd: D, scale: 0.125, slope: 0, hasSlope: 0, hasLse: 0 };
  let pipelines = 0;
  for (const S of [8, 40, 200, 333]) {
    const [q, k, v, y] = [8, S, S, 8].map((rows) => put(device, new Float32Array(rows * D).fill(1)));
    const ranges = device.alloc(8 * 16);
    device.write(ranges, Int32Array.from({ length: 32 }, (_, i) => [0, S, 0, 0][i % 4]));
    device.run({ kernel: attention, buffers: [q, k, v, ranges, y, null], params: { ...params, S } });
    assertEquals((await floats(device, y)).every((value) => Math.abs(value - 1) < 1e-6), true);
    pipelines ||= device.stats.pipelines;
  }
  assertEquals(device.stats.pipelines, pipelines);
});

test("launches that a truncating driver would cut short are refused", (device) => {
  const launch = { kernel: long, buffers: [device.alloc(4), device.alloc(4)], params: { E: 1, act: 0 } };
  if (device.truncatesLoops) {
    assertThrows(() => device.run(launch), RangeError, "long: needs 65535 loop iterations");
  } else device.run(launch);
});

test("more workgroups than a dimension holds are folded", async (device) => {
  const E = 64 * 65_535 + 130;
  const x = put(device, Float32Array.from({ length: E }, (_, i) => i % 1000)), y = device.alloc(E * 4);
  add(device, x, x, y);
  const got = new Float32Array(await device.read(y));
  assertEquals([got[0], got[E - 1], got[64 * 65_535]], [0, 2 * ((E - 1) % 1000), 2 * (64 * 65_535 % 1000)]);
});

test("the adapter is described with its limits", async (device) => {
  const found = await describeAdapter();
  assertEquals(found?.description, device.info.description);
  assertEquals(found?.software, device.info.software);
  assert(found!.limits.maxStorageBuffersPerShaderStage >= 8);
});
