/**
 * A third device that runs every kernel's double-precision reference on the host and rounds the result to f32. It
 * shows what a model computes when kernels are exact, and costs nothing to trust.
 *
 * @module
 */
import type { Device, DeviceStats, Launch, Storage } from "../kernels/device.ts";
import { holdsHalves, type HostBuffers } from "../kernels/spec.ts";

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
    setAside() {},
    flush() {},
    sync: () => Promise.resolve(),
    trim() {},
    close() {},
  };
}

function runReference({ kernel, buffers, params }: Launch): void {
  const io: HostBuffers = {};
  const floats = (i: number) => {
    const { data } = buffers[i] as HostStorage;
    return holdsHalves(kernel.buffers[i], params) ? new Float16Array(data) : new Float32Array(data);
  };
  kernel.buffers.forEach(({ name, dtypes }, i) => {
    if (!buffers[i]) io[name] = null;
    else if (dtypes[0] === "i32") io[name] = new Int32Array((buffers[i] as HostStorage).data);
    else io[name] = Float64Array.from(floats(i));
  });
  kernel.reference(io, params);
  kernel.buffers.forEach(({ name, output }, i) => {
    const value = io[name];
    if (output && value instanceof Float64Array) floats(i).set(value);
  });
}
