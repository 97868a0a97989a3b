/**
 * The check that every kernel passes on every device, in tests and in `doctor`.
 *
 * @module
 */
import type { Device } from "./device.ts";
import { type DType, type HostBuffers, type Kernel, type Params, parseContract } from "./spec.ts";

/** Largest error of a kernel against its f64 reference, relative to max(1, largest expected value), with the reason. */
export const TOLERANCES: Readonly<Record<string, { readonly bound: number; readonly why: string }>> = {
  default: { bound: 2e-6, why: "f32 rounding of a few operations per element" },
  linear: {
    bound: 1e-5,
    why: "f32 sums over K up to 3072, error about sqrt(K) * 6e-8 times the terms' size",
  },
  linearQkv: { bound: 1e-5, why: "as linear" },
  groupedLinear: { bound: 1e-5, why: "as linear" },
  conv2d: { bound: 1e-5, why: "f32 sums over I*KH*KW up to 4608" },
  attention: { bound: 5e-6, why: "scores of size 5 lose 5e-7 before exp, then a weighted mean" },
  toHalf: { bound: 0, why: "rounding to the nearest f16 is exact" },
  reluAttention: { bound: 1e-5, why: "a ratio of two f32 sums over all positions" },
};

/** Whether a buffer of a launch holds halves: because it always does, or because the `half` flag says so. */
export const holdsHalves = (dtypes: readonly DType[], params: Params): boolean =>
  dtypes[0] === "f16" || (params.half === 1 && dtypes.includes("f16"));

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

/** One call of a kernel to check: all sizes, scalars and flags by name, and how to make what must not be random. */
export interface KernelCase {
  readonly kernel: Kernel;
  readonly params: Params;
  /** Index inputs, and floats that must not be uniform in [-1, 1]. */
  readonly inputs?: Readonly<Record<string, (p: Params, random: () => number) => ArrayLike<number>>>;
  /** Optional inputs and outputs that are left out. */
  readonly absent?: readonly string[];
}

/**
 * Runs one case on a device: equal to the f64 reference within the table's tolerance, untouched where the kernel does
 * not write, and the same bits twice. Returns the worst error.
 */
export async function checkKernel(device: Device, test: KernelCase, seed = 1): Promise<number> {
  const { kernel, params } = test;
  const random = generator(seed);
  const host: HostBuffers = {};
  const bytes: Record<string, ArrayBufferView> = {};
  const contracts = Object.entries({ ...kernel.inputs, ...kernel.outputs });
  for (const [name, text] of contracts) {
    if (test.absent?.includes(name)) {
      host[name] = null;
      continue;
    }
    const { letters, dtypes } = parseContract(text);
    const count = letters.reduce((n, l) => n * (/^\d+$/.test(l) ? Number(l) : params[l]), 1);
    if (!Number.isFinite(count)) {
      throw new Error(`${kernel.name} case: a size of ${name} [${letters}] is missing`);
    }
    const made = test.inputs?.[name]?.(params, random);
    const values = Float64Array.from({ length: count }, (_, i) => made ? made[i] : random() * 2 - 1);
    if (dtypes[0] === "i32") host[name] = Int32Array.from(bytes[name] = Int32Array.from(values));
    else if (holdsHalves(dtypes, params)) {
      const half = new Uint16Array(Math.ceil(count / 2) * 2);
      half.set(new Uint16Array(Float16Array.from(values).buffer));
      bytes[name] = half;
      host[name] = Float64Array.from(Float16Array.from(values));
    } else host[name] = Float64Array.from(bytes[name] = Float32Array.from(values));
  }

  const runs: Record<string, ArrayBuffer>[] = [];
  for (let run = 0; run < 2; run++) {
    const storages = contracts.map(([name]) => {
      if (!bytes[name]) return null;
      const storage = device.alloc(bytes[name].byteLength);
      device.write(storage, bytes[name]);
      return storage;
    });
    device.run({ kernel, buffers: storages, params });
    const names = Object.keys(kernel.outputs).filter((n) => bytes[n]);
    const buffers = await Promise.all(
      names.map((n) => device.read(storages[contracts.findIndex(([c]) => c === n)]!, 0, bytes[n].byteLength)),
    );
    runs.push(Object.fromEntries(names.map((n, i) => [n, buffers[i]])));
    storages.forEach((s) => s && device.free(s));
  }

  kernel.reference(host, params);
  const { bound } = TOLERANCES[kernel.name] ?? TOLERANCES.default;
  let worst = 0;
  for (const [name, buffer] of Object.entries(runs[0])) {
    const again = new Uint32Array(runs[1][name]);
    if (new Uint32Array(buffer).some((word, i) => word !== again[i])) {
      throw new Error(`${kernel.name} ${JSON.stringify(params)}: ${name} differs between two runs`);
    }
    const { dtypes } = parseContract(kernel.outputs[name]), want = host[name]!;
    const got = holdsHalves(dtypes, params) ? new Float16Array(buffer) : new Float32Array(buffer);
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
