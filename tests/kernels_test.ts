import { assert, assertThrows } from "@std/assert";
import { KERNELS } from "../kernels/all.ts";
import { MAX_BUFFERS } from "../kernels/spec.ts";
import { requireBuffers } from "../kernels/webgpu/adapter.ts";
import { openReferenceDevice } from "./reference_device.ts";
import { checkKernel, testOnEverySetting } from "./helpers.ts";
import { CASES } from "../kernels/cases.ts";

Deno.test("every kernel has at least two cases", () => {
  for (const kernel of KERNELS) {
    assert(CASES.filter((c) => c.kernel === kernel).length >= 2, kernel.name);
  }
});

Deno.test("no kernel binds more storage buffers than WebGPU promises", () => {
  for (const kernel of KERNELS) {
    const names = [...Object.keys(kernel.inputs), ...Object.keys(kernel.outputs)];
    assert(
      names.length <= MAX_BUFFERS,
      `${kernel.name}: has ${names.length} buffers, expected at most ${MAX_BUFFERS}: ${names.join(", ")}`,
    );
  }
});

Deno.test("an adapter with too few storage buffers is refused in one line", () => {
  const adapter = (maxStorageBuffersPerShaderStage: number) => ({
    description: "small adapter",
    software: false,
    limits: { maxStorageBuffersPerShaderStage },
    features: [],
  });
  requireBuffers(adapter(8));
  assertThrows(
    () => requireBuffers(adapter(4)),
    Error,
    "webgpu: small adapter binds 4 storage buffers in a kernel, expected at least 8; use --device cpu",
  );
});

Deno.test("every kernel case runs on the reference device", async () => {
  const device = openReferenceDevice();
  for (const test of CASES) await checkKernel(device, test);
});

for (const kernel of KERNELS) {
  testOnEverySetting(
    `${kernel.name} equals its double-precision reference and gives the same bits twice`,
    async (device) => {
      let worst = 0;
      for (const test of CASES.filter((c) => c.kernel === kernel)) {
        worst = Math.max(worst, await checkKernel(device, test));
      }
      console.log(`  ${kernel.name}: worst error ${worst.toExponential(1)}`);
    },
  );
}
