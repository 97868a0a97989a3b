import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { attention } from "../kernels/attention.ts";
import { CASES } from "../kernels/cases.ts";
import { conv2d, conv2dGradInput } from "../kernels/conv2d.ts";
import { ALIGNMENT, Allocator } from "../kernels/cpu/allocator.ts";
import { openCpuDevice } from "../kernels/cpu/device.ts";
import { accumulate, groupMean } from "../kernels/elementwise.ts";
import { linear } from "../kernels/linear.ts";
import type { Kernel, Params } from "../kernels/spec.ts";
import { checkKernel, generator, outputsOf } from "./helpers.ts";

/** Threads outlive a test's promises, so resources are not counted. */
function test(name: string, fn: () => Promise<void> | void): void {
  Deno.test({ name, fn, sanitizeOps: false, sanitizeResources: false });
}

/** Runs a program in a process of its own with read access only. */
async function run(program: string): Promise<{ code: number; text: string }> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  const module = new URL("../kernels/cpu/device.ts", import.meta.url).href;
  await Deno.writeTextFile(file, `import { openCpuDevice } from "${module}";\n${program}`);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--no-check", "--allow-read", file],
    env: { NO_COLOR: "1" },
    signal: AbortSignal.timeout(60_000),
  }).output();
  await Deno.remove(file);
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

Deno.test("the allocator hands out aligned blocks that never overlap, and joins what it gets back", () => {
  const limit = 1 << 20, first = 4096;
  let length = 8192;
  const allocator = new Allocator({
    grow: (bytes) => bytes <= limit && (length = bytes, true),
    get length() {
      return length;
    },
  }, first);
  const random = generator(7);
  const live: { at: number; bytes: number }[] = [];
  let refused = 0;
  for (let step = 0; step < 5000; step++) {
    if (random() < 0.55 || live.length === 0) {
      const bytes = Math.floor(random() ** 4 * 60_000);
      const at = allocator.alloc(bytes);
      if (at < 0) {
        refused++;
        continue;
      }
      assertEquals(at % ALIGNMENT, 0);
      assert(at >= first && at + bytes <= length);
      for (const b of live) assert(at + Math.max(1, bytes) <= b.at || b.at + Math.max(1, b.bytes) <= at);
      live.push({ at, bytes });
    } else {
      const [b] = live.splice(Math.floor(random() * live.length), 1);
      allocator.free(b.at, b.bytes);
    }
  }
  assert(refused > 0, "the limit was never met");
  for (const b of live) allocator.free(b.at, b.bytes);
  assertEquals(allocator.largest(limit), limit - first);
  assertEquals(allocator.alloc(limit - first), first);
  assertEquals(allocator.alloc(1), -1);
});

test("every kernel gives the same bits on one, two and three threads", async () => {
  for (const simd of ["relaxed", "plain"] as const) {
    const devices = await Promise.all([1, 2, 3].map((threads) => openCpuDevice({ threads, simd })));
    for (const each of CASES) {
      const results = [];
      for (const device of devices) results.push(await outputsOf(device, each));
      assertEquals(results[1], results[0], each.kernel.name);
      assertEquals(results[2], results[0], each.kernel.name);
    }
    devices.forEach((d) => d.close());
  }
});

test("packed weights give the same bits as row-major ones, f32 and f16", async () => {
  const device = await openCpuDevice({ threads: 2 });
  const cases = CASES.filter((c) => c.kernel.wasm.packed);
  assert(cases.some((c) => c.params.half === 1) && cases.length > 10);
  for (const each of cases) {
    assertEquals(await outputsOf(device, each, true), await outputsOf(device, each), each.kernel.name);
  }
  device.close();
});

test("the build without relaxed SIMD passes every kernel case", async () => {
  const device = await openCpuDevice({ threads: 2, simd: "plain" });
  assert(!device.info.features.includes("relaxed-simd"));
  for (const each of CASES) await checkKernel(device, each);
  device.close();
});

test("a packed weight reads back row-major, whole or in part, and takes writes", async () => {
  const device = await openCpuDevice({ threads: 1 });
  const shapes = [["linear", [16, 24]], ["linear", [13, 7]], ["conv2d", [9, 5, 3, 3]], ["linear", [
    1,
    1,
  ]]] as const;
  for (const dtype of ["f32", "f16"] as const) {
    for (const [kind, shape] of shapes) {
      const count = shape.reduce((n: number, s) => n * s, 1), random = generator(count);
      const values = Array.from({ length: count }, () => random() * 2 - 1);
      const data = dtype === "f32" ? Float32Array.from(values) : Float16Array.from(values);
      const storage = device.alloc(data.byteLength);
      device.write(storage, data);
      device.pack(storage, { kind, shape, dtype });
      device.pack(storage, { kind, shape, dtype }); // does nothing
      const bytes = new Uint8Array(data.buffer);
      assertEquals(new Uint8Array(await device.read(storage)), bytes);
      const from = 2 * Math.floor(count / 3), length = Math.min(bytes.length - from, 4);
      assertEquals(
        new Uint8Array(await device.read(storage, from, length)),
        bytes.slice(from, from + length),
      );
      device.write(storage, Uint8Array.of(1, 2), from);
      bytes.set([1, 2], from);
      assertEquals(new Uint8Array(await device.read(storage)), bytes);
      device.free(storage);
    }
  }
  device.close();
});

test("packing holds a weight once", async () => {
  const device = await openCpuDevice({ threads: 1 });
  const bytes = 512 * 1024 * 4, storage = device.alloc(bytes);
  device.pack(storage, { kind: "linear", shape: [512, 1024], dtype: "f32" });
  assert(device.stats.peakBytes < bytes * 1.1, `${device.stats.peakBytes} bytes for ${bytes}`);
  device.free(storage);
  device.close();
});

test("a row of a linear layer and a query of attention do not depend on what is computed beside them", async () => {
  const device = await openCpuDevice({ threads: 2 });
  const random = generator(5);
  const numbers = (count: number) => {
    const data = Float32Array.from({ length: count }, () => random() * 4 - 2), s = device.alloc(count * 4);
    device.write(s, data);
    return s;
  };
  const M = 101, N = 40, K = 300, x = numbers(M * K), w = numbers(N * K), y = numbers(M * N);
  const project = async (xRow: number, rows: number) => {
    const p = { M: rows, N, K, G: 0, xRow, yRow: xRow, gateCol: 0 };
    const params = { ...p, act: 2, hasBias: 0, hasGate: 0, hasResidual: 0, half: 0 };
    device.run({ kernel: linear, buffers: [x, w, null, null, null, null, y], params });
    return new Uint8Array(await device.read(y, xRow * N * 4, 4 * N));
  };
  const together = await project(0, M);
  assertEquals(await project(0, 1), together);

  const T = 70, S = 230, D = 64, q = numbers(T * D), k = numbers(S * D), v = numbers(S * D);
  const out = numbers(T * D), ranges = device.alloc(T * 16);
  const attend = async (of: (t: number) => number[], query: number) => {
    device.write(ranges, Int32Array.from(Array.from({ length: T }, (_, t) => of(t)).flat()));
    const params = { T, D, A: 1, scale: 0.125, slope: 0, hd: 64, hasSlope: 0, hasLse: 0 };
    device.run({ kernel: attention, buffers: [q, k, v, ranges, out, null], params });
    return new Uint8Array(await device.read(out, query * D * 4, D * 4));
  };
  const mine = [5, 150, 170, 229];
  const alike = await attend(() => mine, 3);
  assertEquals(await attend((t) => t === 3 ? mine : [0, 1 + t * 3, 0, 0], 3), alike);
  assertEquals(await attend((t) => t === 3 ? mine : [t, S, 0, 0], 3), alike);
  device.close();
});

test("what a convolution makes of an image, and its gradient, do not depend on the batch", async () => {
  const device = await openCpuDevice({ threads: 2 }), random = generator(9);
  const numbers = (count: number) => Float32Array.from({ length: count }, () => random() * 4 - 2);
  const H = 20, W = 19, I = 16, O = 24, B = 4, at = 2; // images begin and end inside a task
  const launched = async (kernel: Kernel, from: number, to: number, data: Float32Array, w: Float32Array) => {
    const output = kernel.buffers.at(-1)!.name, bytes = 4 * H * W * to;
    const run = async (images: number, first: number) => {
      const sizes = { B: images, H, W, OH: H, OW: W, I, O, KH: 3, KW: 3, stride: 1, pad: 1 };
      const buffers = kernel.buffers.map(({ name }) => {
        if (name === "bias") return null;
        const storage = device.alloc(name === "w" ? w.byteLength : 4 * images * H * W * Math.max(from, to));
        const each = H * W * from;
        if (name === "w") device.write(storage, w);
        else if (name !== output) device.write(storage, data.subarray(first * each, (first + images) * each));
        return storage;
      });
      device.run({ kernel, buffers, params: { ...sizes, act: 0, hasBias: 0, half: 0, accumulate: 0 } });
      const offset = (at - first) * bytes;
      return new Uint8Array(await device.read(buffers.at(-1)!, offset, bytes));
    };
    assertEquals(await run(1, at), await run(B, 0), kernel.name);
  };
  const w = numbers(9 * I * O);
  await launched(conv2d, I, O, numbers(B * H * W * I), w);
  await launched(conv2dGradInput, O, I, numbers(B * H * W * O), w);
  device.close();
});

test("what does not fit is refused in one line with bytes needed and available", async () => {
  const device = await openCpuDevice({ threads: 1, maxBytes: 1 << 20 });
  const kept = device.alloc(500_000);
  const error = assertThrows(() => device.alloc(900_000), Error);
  const found = error.message.match(/^cpu device: out of memory: 900000 bytes needed, (\d+) available.*$/);
  assert(found, error.message);
  const free = device.alloc(Number(found[1]));
  device.free(free);
  device.free(kept);
  assertEquals(device.stats.liveBytes, 0);
  device.close();
});

test("buffers that were set aside leave where room is short, and come back with their contents", async () => {
  const device = await openCpuDevice({ threads: 2, maxBytes: 1 << 20 }), count = 40_000, bytes = 4 * count;
  const values = (first: number) => Float32Array.from({ length: count }, (_, i) => first + i);
  const moments = [1, 2, 3, 4].map((first) => {
    const storage = device.alloc(bytes);
    device.write(storage, values(first));
    device.setAside(storage);
    return storage;
  });
  const before = device.stats.liveBytes, large = device.alloc(600_000);
  assert(device.stats.liveBytes < before + 600_000, "nothing left");
  const params = { E: count, alpha: 1, beta: 2 };
  const add = (y: number, x: number) =>
    device.run({ kernel: accumulate, buffers: [moments[x], moments[y]], params });
  // Element by element: a difference between large arrays takes minutes to print.
  const expect = async (i: number, wanted: (e: number) => number) =>
    new Float32Array(await device.read(moments[i], 0, bytes)).forEach((value, e) =>
      value === wanted(e) || assertEquals(value, wanted(e), `buffer ${i}, element ${e}`)
    );
  add(0, 1);
  add(2, 3); // there is room for two of the four: each pair drives the other out
  add(0, 3);
  await expect(0, (e) => 2 * (4 + 3 * e) + 4 + e);
  await expect(2, (e) => 2 * (3 + e) + 4 + e);
  await expect(1, (e) => 2 + e);
  device.write(moments[1], values(9));
  add(2, 0);
  await expect(1, (e) => 9 + e);
  assertThrows(() => device.alloc(500_000), Error, "out of memory"); // the rest may not leave
  const more = device.alloc(150_000); // room for one of the four: neither may leave for the other
  assertThrows(() => add(0, 1), Error, "out of memory");
  await expect(1, (e) => 9 + e);
  device.free(large);
  device.free(more);
  for (const storage of moments) device.free(storage);
  assertThrows(() => device.free(moments[0]), Error, "freed");
  assertEquals(device.stats.liveBytes, 0);
  device.close();
});

test("a kernel that traps on any thread is an error, and the device continues", async () => {
  const device = await openCpuDevice({ threads: 3 });
  const broken: Kernel = {
    ...groupMean,
    flops: () => 1e9,
    wasm: { ...groupMean.wasm, tasks: (p: Params) => p.P },
  };
  const x = device.alloc(1024), y = device.alloc(1024);
  for (let i = 0; i < 20; i++) {
    const params = { P: 64, C: 4, O: 0, hasResidual: 0 }; // divides by zero in every task
    assertThrows(
      () => device.run({ kernel: broken, buffers: [x, null, y], params }),
      Error,
      "the kernel failed",
    );
  }
  for (const each of CASES.filter((c) => c.kernel === linear)) await checkKernel(device, each);
  device.close();
});

test("a missing scalar, a freed buffer and a closed device are errors", async () => {
  const device = await openCpuDevice({ threads: 1 });
  const x = device.alloc(64), y = device.alloc(64);
  const params = { P: 1, C: 4, O: 2 };
  const launch = { kernel: groupMean, buffers: [x, null, y], params };
  assertThrows(() => device.run(launch), RangeError, "hasResidual");
  device.free(y);
  assertThrows(() => device.free(y), Error, "freed");
  await assertRejects(() => device.read(x, 60, 8), RangeError, "within 64 bytes");
  device.close();
  assertThrows(() => device.run({ ...launch, params: { ...params, hasResidual: 0 } }), Error, "closed");
  await assertRejects(() => openCpuDevice({ threads: 0 }), RangeError, "threads");
});

test("a process that forgets close() ends, with read access alone", async () => {
  const { code, text } = await run(`
    const device = await openCpuDevice({ threads: 3 });
    console.log(device.info.threads);
  `);
  assertEquals([code, text.trim()], [0, "3"]);
});
