import { assert, assertEquals } from "@std/assert";
import { attentionGradKey, attentionGradQuery } from "../kernels/attention.ts";
import type { Device } from "../kernels/device.ts";
import { openCpuDevice } from "../kernels/cpu/device.ts";
import { outputsOf } from "./helpers.ts";

Deno.test({
  name: "keys that no query sees may hold anything: gradients of attention stay finite, theirs are 0",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const device = await openCpuDevice({ threads: 1 });
    for (const kernel of [attentionGradQuery, attentionGradKey]) {
      for (const test of kernel.cases) {
        const { S, D } = test.params; // row S-1 lies in no range
        const spoiled = (_: unknown, random: () => number) =>
          Array.from({ length: S * D }, (_, i) => i < (S - 1) * D ? random() : NaN);
        const got = await outputsOf(device, {
          kernel,
          ...test,
          inputs: { ...test.inputs, k: spoiled, v: spoiled },
        });
        for (const bytes of got) {
          const values = new Float32Array(bytes.buffer);
          assert(values.every(Number.isFinite), kernel.name);
          if (values.length === S * D) assertEquals(values.slice((S - 1) * D), new Float32Array(D));
        }
      }
    }
    device.close();
  },
});

for (const blas of ["off", "auto"]) {
  Deno.test({
    name:
      `keys between those that are seen may hold anything, and a query that sees nothing (cpu, --blas ${blas})`,
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const device = await openCpuDevice({ threads: 1, blas });
      await gradientsWithoutTheHidden(device);
      device.close();
    },
  });
}

async function gradientsWithoutTheHidden(device: Device): Promise<void> {
  const T = 40, S = 40, D = 32, blind = 5;
  const params = { T, S, D, A: 1, A2: 2, V: 4 * T, hd: D, keys: 20, scale: 0.2, slope: 0, hasSlope: 0 };
  const hidden = (s: number) => s >= 10 && s < 20 || s >= 30;
  const rows = (absent: (row: number) => boolean) => (_: unknown, random: () => number) =>
    Array.from({ length: T * D }, (_, i) => absent(Math.floor(i / D)) ? NaN : random());
  const keys = rows(hidden), queries = rows((t) => t === blind);
  const visible = Array.from({ length: 4 * T }, (_, i) => i >> 2 === blind ? 0 : [0, 10, 20, 30][i % 4]);
  const stats = (_: unknown, random: () => number) => Array.from({ length: 2 * T }, () => 2 + random());
  const inputs = { q: queries, k: keys, v: keys, dy: queries, visible: () => visible, stats };
  for (const kernel of [attentionGradQuery, attentionGradKey]) {
    for (const bytes of await outputsOf(device, { kernel, params, inputs })) {
      const values = new Float32Array(bytes.buffer), dq = kernel === attentionGradQuery;
      assert(values.every(Number.isFinite), kernel.name);
      for (let row = 0; row < T; row++) {
        const zero = values.slice(row * D, (row + 1) * D).every((v) => v === 0);
        assertEquals(zero, dq ? row === blind : hidden(row), `${kernel.name}, row ${row}`);
      }
    }
  }
}
