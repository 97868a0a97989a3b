/**
 * What tests share: the devices under test and a test per device.
 *
 * @module
 */
import type { Device, DeviceName } from "../kernels/device.ts";
import { buffersOf, generator, type KernelCase } from "../kernels/check.ts";
import { openDevice, type OpenOptions } from "../kernels/open.ts";
import { holdsHalves, shapeOf } from "../kernels/spec.ts";
import { needs } from "./tools.ts";
export { checkKernel, generator, type KernelCase, toleranceOf } from "../kernels/check.ts";

/** Devices named in FAR_DEVICES (comma-separated); without it all that are there, except WebGPU over software GL. */
export const DEVICES: readonly DeviceName[] = await namedDevices();

async function namedDevices(): Promise<DeviceName[]> {
  const named = Deno.env.get("FAR_DEVICES");
  if (named) {
    return named.split(",").map((name) => {
      if (name !== "cpu" && name !== "webgpu") {
        throw new Error(`FAR_DEVICES: found ${name}, expected cpu, webgpu or both with a comma`);
      }
      return name;
    });
  }
  return await adapterServes() ? ["cpu", "webgpu"] : ["cpu"];
}

/**
 * Whether there is a WebGPU adapter other than software GL, to which Deno falls back without Vulkan: there the tests of one
 * kernel take ten minutes. Such an adapter cannot say how large its subgroups are and gives the widest range that WebGPU knows.
 * A process of its own looks, because Deno 2.9.6 may crash at its end when several test files have opened GL.
 */
async function adapterServes(): Promise<boolean> {
  const look = `const info = (await navigator.gpu?.requestAdapter())?.info;
    const gl = info?.isFallbackAdapter && info.subgroupMinSize === 4 && info.subgroupMaxSize === 128;
    console.log(info !== undefined && !gl);`;
  const command = new Deno.Command(Deno.execPath(), { args: ["eval", look], stdin: "null", stderr: "null" });
  return new TextDecoder().decode((await command.output()).stdout).trim() === "true";
}

/** A device, or the cpu device with a BLAS of the system. */
export type Setting = DeviceName | "blas";

/** The devices under test, and the cpu device with a BLAS if it is one of them. */
export const SETTINGS: readonly Setting[] = DEVICES.includes("cpu") ? [...DEVICES, "blas"] : DEVICES;

/** What opens it. */
export const optionsOf = (setting: Setting): OpenOptions =>
  setting === "blas" ? { device: "cpu", blas: "auto" } : { device: setting };

/** A test of one setting, ignored by name where there is no BLAS. */
export const testOf = (setting: Setting, name: string) => needs(setting === "blas" ? ["blas"] : [], name);

const opened = new Map<Setting, Promise<Device>>();

/** The shared device of that name; opened once per test process. */
export function sharedDevice(name: Setting): Promise<Device> {
  let device = opened.get(name);
  if (!device) {
    opened.set(name, device = openDevice(optionsOf(name)).then((o) => o.device));
  }
  return device;
}

/** Registers one test per device under test. Threads and GPU objects outlive a test, so resources are not counted. */
export function testOnDevices(name: string, body: (device: Device) => Promise<void> | void): void {
  const named = Deno.env.get("FAR_DEVICES") ? DEVICES : ["cpu", "webgpu"] as const;
  for (const deviceName of named) {
    Deno.test({
      name: `${name} (${deviceName})`,
      ignore: !DEVICES.includes(deviceName), // counted: nobody takes a device for tested that is not there
      sanitizeOps: false,
      sanitizeResources: false,
      fn: async () => await body(await sharedDevice(deviceName)),
    });
  }
}

/** testOnDevices, and on the cpu device with a BLAS where this machine has one. */
export function testOnEverySetting(name: string, body: (device: Device) => Promise<void> | void): void {
  testOnDevices(name, body);
  const test = needs(["blas"], `${name} (cpu with a BLAS)`);
  Deno.test({
    ...test,
    ignore: test.ignore || !DEVICES.includes("cpu"),
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => await body(await sharedDevice("blas")),
  });
}

/** The bytes of every output of a case; `pack` lays out the weights that the kernel takes packed. */
export async function outputsOf(device: Device, test: KernelCase, pack = false): Promise<Uint8Array[]> {
  const { kernel, params } = test, { bytes } = buffersOf(test, generator(3));
  const weights = Object.keys(kernel.wasm.packed?.(params) ?? {});
  const storages = kernel.buffers.map((buffer) => {
    const { name } = buffer, data = bytes[name];
    if (!data) return null;
    const storage = device.alloc(data.byteLength);
    device.write(storage, data);
    if (pack && weights.includes(name)) {
      const shape = shapeOf(buffer, params), kind = shape.length === 2 ? "linear" : "conv2d";
      device.pack(storage, { kind, shape, dtype: holdsHalves(buffer, params) ? "f16" : "f32" });
    }
    return storage;
  });
  device.run({ kernel, buffers: storages, params });
  const outputs = storages.filter((s, i) => s && kernel.buffers[i].output);
  const result = await Promise.all(outputs.map(async (s) => new Uint8Array(await device.read(s!))));
  storages.forEach((s) => s && device.free(s));
  return result;
}
