import { assert, assertEquals } from "@std/assert";
import { AUTOENCODER_GRADIENT_CASES } from "../kernels/autoencoder_cases.ts";
import { holdsHalves } from "../kernels/check.ts";
import { openCpuDevice } from "../kernels/cpu/device.ts";
import type { Device } from "../kernels/device.ts";
import { GRADIENT_CASES } from "../kernels/gradient_cases.ts";
import { linearGradInput } from "../kernels/linear.ts";
import { parseContract } from "../kernels/spec.ts";
import { generator, type KernelCase } from "./helpers.ts";

/** The bytes of every output of a case, whose weight `w` may be packed before. */
async function outputs(device: Device, test: KernelCase, pack = false): Promise<Uint8Array[]> {
  const { kernel, params } = test, random = generator(3);
  const contracts = Object.entries({ ...kernel.inputs, ...kernel.outputs });
  const storages = contracts.map(([name, text]) => {
    if (test.absent?.includes(name)) return null;
    const { letters, dtypes } = parseContract(text);
    const shape = letters.map((l) => /^\d+$/.test(l) ? Number(l) : params[l]);
    const count = shape.reduce((n, s) => n * s, 1), made = test.inputs?.[name]?.(params, random);
    const values = Array.from({ length: count }, (_, i) => made ? made[i] : random() * 2 - 1);
    const half = holdsHalves(dtypes, params);
    const data = dtypes[0] === "i32"
      ? Int32Array.from(values)
      : half
      ? new Uint16Array(Float16Array.from(values).buffer)
      : Float32Array.from(values);
    const storage = device.alloc(data.byteLength);
    device.write(storage, data);
    if (pack && name === "w") device.pack(storage, { kind: "linear", shape, dtype: half ? "f16" : "f32" });
    return storage;
  });
  device.run({ kernel, buffers: storages, params });
  const first = Object.keys(kernel.inputs).length;
  return await Promise.all(
    storages.slice(first).filter((s) => s !== null).map(async (s) => new Uint8Array(await device.read(s))),
  );
}

Deno.test({
  name: "kernels of training give the same bits on one thread and on three, in both builds",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    for (const simd of ["relaxed", "plain"] as const) {
      const one = await openCpuDevice({ threads: 1, simd }),
        three = await openCpuDevice({ threads: 3, simd });
      for (const test of [...GRADIENT_CASES, ...AUTOENCODER_GRADIENT_CASES]) {
        assertEquals(await outputs(three, test), await outputs(one, test), test.kernel.name);
      }
      one.close();
      three.close();
    }
  },
});

Deno.test({
  name: "the gradient of a linear layer's input is the same from packed weights",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await openCpuDevice({ threads: 1 });
    for (const test of GRADIENT_CASES.filter((c) => c.kernel === linearGradInput)) {
      assertEquals(
        await outputs(device, test, true),
        await outputs(device, test),
        JSON.stringify(test.params),
      );
    }
    device.close();
  },
});

Deno.test({
  name: "keys that no query sees may hold anything: gradients of attention stay finite, theirs are 0",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await openCpuDevice({ threads: 1 });
    for (const test of GRADIENT_CASES.filter((c) => /attentionGrad/.test(c.kernel.name))) {
      const { S, D } = test.params; // row S-1 lies in no range
      const spoiled = (_: unknown, random: () => number) =>
        Array.from({ length: S * D }, (_, i) => i < (S - 1) * D ? random() : NaN);
      const got = await outputs(device, { ...test, inputs: { ...test.inputs, k: spoiled, v: spoiled } });
      for (const bytes of got) {
        const values = new Float32Array(bytes.buffer);
        assert(values.every(Number.isFinite), test.kernel.name);
        if (values.length === S * D) assertEquals(values.slice((S - 1) * D), new Float32Array(D));
      }
    }
    device.close();
  },
});
