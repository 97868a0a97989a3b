/**
 * A third device that runs every kernel's double-precision reference on the host and rounds the result to f32. It
 * shows what a model computes when kernels are exact, and costs nothing to trust.
 *
 * @module
 */
import { holdsHalves } from "../kernels/check.ts";
import type { Device, DeviceStats, Launch, Storage } from "../kernels/device.ts";
import { type HostBuffers, parseContract } from "../kernels/spec.ts";

class HostStorage implements Storage {
  readonly data: ArrayBuffer;
  constructor(readonly bytes: number) {
    this.data = new ArrayBuffer(Math.ceil(bytes / 4) * 4);
  }
}

/** Opens the reference device. */
export function openReferenceDevice(): Device {
  const stats: DeviceStats = {
    liveBytes: 0,
    peakBytes: 0,
    heldBytes: 0,
    dispatches: 0,
    submits: 0,
    waits: 0,
    pipelines: 0,
  };
  return {
    info: {
      name: "cpu",
      description: "double-precision reference",
      software: true,
      limits: {},
      features: [],
      threads: 1,
    },
    stats,
    alloc(bytes) {
      stats.liveBytes += bytes;
      stats.peakBytes = Math.max(stats.peakBytes, stats.liveBytes);
      return new HostStorage(bytes);
    },
    free(storage) {
      stats.liveBytes -= storage.bytes;
    },
    write(storage, data, byteOffset = 0) {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      new Uint8Array((storage as HostStorage).data).set(bytes, byteOffset);
    },
    read(storage, byteOffset = 0, bytes = storage.bytes - byteOffset) {
      return Promise.resolve((storage as HostStorage).data.slice(byteOffset, byteOffset + bytes));
    },
    run(launch) {
      stats.dispatches++;
      runReference(launch);
    },
    pack() {},
    flush() {},
    sync: () => Promise.resolve(),
    trim() {},
    close() {},
  };
}

function runReference({ kernel, buffers, params }: Launch): void {
  const io: HostBuffers = {};
  const contracts = { ...kernel.inputs, ...kernel.outputs };
  Object.entries(contracts).forEach(([name, text], i) => {
    const storage = buffers[i] as HostStorage | null;
    if (!storage) io[name] = null;
    else if (parseContract(text).dtypes[0] === "i32") io[name] = new Int32Array(storage.data);
    else if (holdsHalves(parseContract(text).dtypes, params)) {
      io[name] = Float64Array.from(new Float16Array(storage.data));
    } else io[name] = Float64Array.from(new Float32Array(storage.data));
  });
  kernel.reference(io, params);
  Object.keys(kernel.outputs).forEach((name) => {
    const at = Object.keys(contracts).indexOf(name);
    const value = io[name];
    if (!(value instanceof Float64Array)) return;
    const { data } = buffers[at] as HostStorage, { dtypes } = parseContract(kernel.outputs[name]);
    (holdsHalves(dtypes, params) ? new Float16Array(data) : new Float32Array(data)).set(value);
  });
}
