import { assert, assertEquals } from "@std/assert";
import { attentionGradKey, attentionGradQuery } from "../kernels/attention.ts";
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
