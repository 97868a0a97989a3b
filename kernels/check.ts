/**
 * The check that every kernel passes on every device, in tests and in `doctor`.
 *
 * @module
 */
import type { Device } from "./device.ts";
import { type Case, countOf, holdsHalves, type HostBuffers, type Kernel, type Tolerance } from "./spec.ts";

/** The tolerance of kernels that state none. */
const DEFAULT_TOLERANCE: Tolerance = { bound: 2e-6, why: "f32 rounding of a few operations per element" };

/** Largest allowed error of a kernel against its f64 reference, relative to max(1, largest expected value). */
export const toleranceOf = (kernel: Kernel): Tolerance => kernel.tolerance ?? DEFAULT_TOLERANCE;

/** A small seeded generator (mulberry32): uniform numbers in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** One case of a kernel. */
export interface KernelCase extends Case {
  readonly kernel: Kernel;
}

/** The made-up buffers of a case: bytes for a device, doubles for the reference, null where absent. */
export function buffersOf(test: KernelCase, random: () => number): {
  readonly host: HostBuffers;
  readonly bytes: Record<string, Float32Array | Int32Array | Uint16Array>;
} {
  const host: HostBuffers = {}, bytes: Record<string, Float32Array | Int32Array | Uint16Array> = {};
  for (const buffer of test.kernel.buffers) {
    const { name, dtypes } = buffer;
    if (test.absent?.includes(name)) {
      host[name] = null;
      continue;
    }
    const count = countOf(buffer, test.params);
    if (!Number.isFinite(count)) {
      throw new Error(`${test.kernel.name} case: a size of ${name} [${buffer.letters}] is missing`);
    }
    const made = test.inputs?.[name]?.(test.params, random);
    const values = Float64Array.from({ length: count }, (_, i) => made ? made[i] : random() * 2 - 1);
    if (dtypes[0] === "i32") host[name] = Int32Array.from(bytes[name] = Int32Array.from(values));
    else if (holdsHalves(buffer, test.params)) {
      const half = new Uint16Array(Math.ceil(count / 2) * 2);
      half.set(new Uint16Array(Float16Array.from(values).buffer));
      bytes[name] = half;
      host[name] = Float64Array.from(Float16Array.from(values));
    } else host[name] = Float64Array.from(bytes[name] = Float32Array.from(values));
  }
  return { host, bytes };
}

/**
 * Runs one case on a device: equal to the f64 reference within the table's tolerance, untouched where the kernel does
 * not write, and the same bits twice. Returns the worst error.
 */
export async function checkKernel(device: Device, test: KernelCase, seed = 1): Promise<number> {
  const { kernel, params } = test;
  const { host, bytes } = buffersOf(test, generator(seed));
  const outputs = kernel.buffers.filter((b) => b.output && bytes[b.name]);

  const runs: Record<string, ArrayBuffer>[] = [];
  for (let run = 0; run < 2; run++) {
    const storages = kernel.buffers.map(({ name }) => {
      if (!bytes[name]) return null;
      const storage = device.alloc(bytes[name].byteLength);
      device.write(storage, bytes[name]);
      return storage;
    });
    device.run({ kernel, buffers: storages, params });
    const found: Record<string, ArrayBuffer> = {};
    await Promise.all(outputs.map(async (b) => {
      found[b.name] = await device.read(storages[kernel.buffers.indexOf(b)]!, 0, bytes[b.name].byteLength);
    }));
    runs.push(found);
    storages.forEach((s) => s && device.free(s));
  }

  kernel.reference(host, params);
  const { bound } = toleranceOf(kernel);
  let worst = 0;
  for (const output of outputs) {
    const { name } = output, buffer = runs[0][name];
    const again = new Uint32Array(runs[1][name]);
    if (new Uint32Array(buffer).some((word, i) => word !== again[i])) {
      throw new Error(`${kernel.name} ${JSON.stringify(params)}: ${name} differs between two runs`);
    }
    const want = host[name]!;
    const got = holdsHalves(output, params) ? new Float16Array(buffer) : new Float32Array(buffer);
    let scale = 1;
    for (const w of want) scale = Math.max(scale, Math.abs(w));
    for (let i = 0; i < want.length; i++) {
      const error = Math.abs(got[i] - want[i]) / scale;
      if (!(error <= bound)) {
        throw new Error(
          `${kernel.name} ${JSON.stringify(params)}: ${name}[${i}] is ${got[i]}, expected ${
            want[i]
          } within ${bound} of ${scale}`,
        );
      }
      worst = Math.max(worst, error);
    }
  }
  return worst;
}
