/**
 * Shared by the tests of the WebGPU device.
 *
 * @module
 */
import { openWebGpuDevice, type WebGpuDevice, type WebGpuOptions } from "../kernels/webgpu/device.ts";
import { DEVICES } from "./helpers.ts";

/** A test with a WebGPU device of its own. */
export function webgpuTest(
  name: string,
  body: (device: WebGpuDevice) => Promise<void> | void,
  options: WebGpuOptions = {},
): void {
  Deno.test({
    name: `webgpu: ${name}`,
    ignore: !DEVICES.includes("webgpu"),
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const device = await openWebGpuDevice(options);
      try {
        await body(device);
      } finally {
        device.close();
      }
    },
  });
}
