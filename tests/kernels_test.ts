import { assert } from "@std/assert";
import { KERNELS } from "../kernels/all.ts";
import { openReferenceDevice } from "./reference_device.ts";
import { checkKernel, testOnDevices } from "./helpers.ts";
import { CASES } from "../kernels/cases.ts";

Deno.test("every kernel has at least two cases", () => {
  for (const kernel of KERNELS) {
    assert(CASES.filter((c) => c.kernel === kernel).length >= 2, kernel.name);
  }
});

Deno.test("every kernel case runs on the reference device", async () => {
  const device = openReferenceDevice();
  for (const test of CASES) await checkKernel(device, test);
});

for (const kernel of KERNELS) {
  testOnDevices(
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
