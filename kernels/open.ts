/**
 * Choosing and opening a device.
 *
 * @module
 */
import type { Device, DeviceName } from "./device.ts";

/** Choice and options of the device. */
export interface OpenOptions {
  /** `auto` takes `webgpu` when there is a hardware adapter, else `cpu`. */
  readonly device?: DeviceName | "auto";
  /** Threads of the cpu device, the calling one included. Default: the number of logical cores. */
  readonly threads?: number;
  /**
   * A BLAS of the system for the products of the cpu device: `off` (default), `auto` for the first that is found, may be
   * called without asking and is faster than WebAssembly, or the path of one. Bits differ between settings.
   */
  readonly blas?: string;
}

/** A device together with the reason for which it was chosen. */
export interface Opened {
  /** The open device. */
  readonly device: Device;
  /** One line, e.g. `cpu: the only WebGPU adapter is software (llvmpipe)`. */
  readonly reason: string;
}

/**
 * Opens a compute device.
 *
 * `auto` takes WebGPU only on a hardware adapter: software Vulkan computes 10 to 100 times slower than the cpu device
 * (0.2 to 3 against 26 to 54 GFLOP/s, 2 cores, 2026-11-21).
 *
 * @throws {Error} If the named device is not there: why, in one line.
 */
export async function openDevice(options: OpenOptions = {}): Promise<Opened> {
  const wanted = options.device ?? "auto";
  if (wanted === "cpu") return { device: await openCpu(options), reason: "cpu: asked for by name" };
  if (wanted === "webgpu") return { device: await openWebGpu(), reason: "webgpu: asked for by name" };
  const adapter = await findAdapter();
  if (!adapter) return { device: await openCpu(options), reason: "cpu: there is no WebGPU adapter" };
  const name = adapter.description || adapter.vendor || "unnamed";
  if (adapter.software) {
    return { device: await openCpu(options), reason: `cpu: the only WebGPU adapter is software (${name})` };
  }
  return { device: await openWebGpu(), reason: `webgpu: hardware adapter (${name})` };
}

/** A WebGPU adapter in its own words. */
export interface AdapterDescription {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** True for llvmpipe, SwiftShader and the like. */
  readonly software: boolean;
}

/** The adapter that `webgpu` would use, or null where there is none. */
export async function findAdapter(): Promise<AdapterDescription | null> {
  const request = navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  const adapter = await request?.catch(() => null);
  if (!adapter) return null;
  const { vendor, architecture, device, description, isFallbackAdapter: software } = adapter.info;
  return { vendor, architecture, device, description, software };
}

async function openCpu(options: OpenOptions): Promise<Device> {
  const { openCpuDevice } = await import(new URL("./cpu/device.ts", import.meta.url).href);
  return await openCpuDevice({ threads: options.threads, blas: options.blas });
}

async function openWebGpu(): Promise<Device> {
  const { openWebGpuDevice } = await import(new URL("./webgpu/device.ts", import.meta.url).href);
  return await openWebGpuDevice({});
}
