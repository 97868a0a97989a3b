/**
 * A device that repeats every launch in double precision and compares: finds the kernel that is wrong inside a model.
 *
 * @module
 */
import type { Device, Launch } from "../kernels/device.ts";
import { type BufferContract, holdsHalves, type HostBuffers } from "../kernels/spec.ts";

/** The worst difference of one launch, relative to max(1, the largest expected value). */
export interface ShadowReport {
  readonly kernel: string;
  readonly params: Readonly<Record<string, number>>;
  readonly output: string;
  readonly worst: number;
}

/** Wraps a device. `reports` waits for all launches so far and lists them in order. */
export function shadow(device: Device): { readonly device: Device; reports(): Promise<ShadowReport[]> } {
  const pending: Promise<ShadowReport[]>[] = [];
  const wrapped: Device = {
    info: device.info,
    stats: device.stats,
    alloc: (bytes) => device.alloc(bytes),
    free: (storage) => device.free(storage),
    write: (storage, data, at) => device.write(storage, data, at),
    read: (storage, at, bytes) => device.read(storage, at, bytes),
    pack: (storage, request) => device.pack(storage, request),
    setAside: (storage) => device.setAside(storage),
    flush: () => device.flush(),
    sync: () => device.sync(),
    trim: () => device.trim(),
    close: () => device.close(),
    run: (launch: Launch) => {
      const read = () => Promise.all(launch.buffers.map((b) => b ? device.read(b) : null));
      const before = read();
      device.run(launch);
      pending.push(compare(launch, before, read()));
    },
  };
  return { device: wrapped, reports: async () => (await Promise.all(pending)).flat() };
}

type Copies = Promise<(ArrayBuffer | null)[]>;

async function compare({ kernel, params }: Launch, before: Copies, after: Copies): Promise<ShadowReport[]> {
  const given = await before, found = await after, io: HostBuffers = {};
  const floats = (contract: BufferContract, data: ArrayBuffer) =>
    holdsHalves(contract, params) ? new Float16Array(data) : new Float32Array(data);
  kernel.buffers.forEach((contract, i) => {
    const { name, dtypes } = contract, data = given[i];
    if (!data) io[name] = null;
    else io[name] = dtypes[0] === "i32" ? new Int32Array(data) : Float64Array.from(floats(contract, data));
  });
  kernel.reference(io, params);
  return kernel.buffers.filter((b) => b.output && io[b.name]).map((contract) => {
    const { name } = contract, want = io[name]!;
    const got = floats(contract, found[kernel.buffers.indexOf(contract)]!);
    let scale = 1, worst = 0;
    for (const w of want) if (Number.isFinite(w)) scale = Math.max(scale, Math.abs(w));
    for (let i = 0; i < want.length; i++) {
      if (Number.isFinite(want[i])) worst = Math.max(worst, Math.abs(got[i] - want[i]) / scale || 0);
    }
    return { kernel: kernel.name, params, output: name, worst };
  });
}
