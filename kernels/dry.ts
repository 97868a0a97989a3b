/**
 * A device that computes nothing and counts everything: run a model on it to learn its cost before the work starts.
 *
 * @module
 */
import type { Device, DeviceStats, Launch, Storage } from "./device.ts";

/** Cost of everything that was launched on a dry device. */
export interface DryCost {
  /** Floating-point operations by kernel name. */
  readonly flops: Record<string, number>;
  /** Bytes of all buffers that the launches were given, by kernel name: an upper bound of what they move. */
  readonly bytes: Record<string, number>;
}

/** A device whose launches only add up. */
export interface DryDevice extends Device {
  /** What was launched so far. */
  readonly cost: DryCost;
}

/**
 * Opens a dry device. Its tensors have no contents: reads give zeros. `stats` counts memory as a real device would, so
 * `stats.peakBytes` after a model's run is what it needs at once.
 *
 * @example
 * ```ts
 * import { openDryDevice } from "./dry.ts";
 * const device = openDryDevice();
 * const half = device.alloc(512);
 * device.free(half);
 * console.assert(device.stats.peakBytes === 512 && device.stats.liveBytes === 0);
 * ```
 */
export function openDryDevice(): DryDevice {
  const stats: DeviceStats = {
    liveBytes: 0,
    peakBytes: 0,
    heldBytes: 0,
    dispatches: 0,
    submits: 0,
    waits: 0,
    pipelines: 0,
  };
  const cost: DryCost = { flops: {}, bytes: {} };
  return {
    // `webgpu` keeps samplers from yielding to timers between steps.
    info: { name: "webgpu", description: "dry", software: true, limits: {}, features: [], threads: 1 },
    stats,
    cost,
    alloc(bytes): Storage {
      stats.liveBytes += bytes;
      stats.peakBytes = stats.heldBytes = Math.max(stats.peakBytes, stats.liveBytes);
      return { bytes };
    },
    free(storage) {
      stats.liveBytes -= storage.bytes;
    },
    run({ kernel, buffers, params }: Launch) {
      stats.dispatches++;
      cost.flops[kernel.name] = (cost.flops[kernel.name] ?? 0) + kernel.flops(params);
      const bytes = buffers.reduce((sum, storage) => sum + (storage?.bytes ?? 0), 0);
      cost.bytes[kernel.name] = (cost.bytes[kernel.name] ?? 0) + bytes;
    },
    read: (storage, byteOffset = 0, bytes = storage.bytes - byteOffset) =>
      Promise.resolve(new ArrayBuffer(bytes)),
    write() {},
    pack() {},
    flush() {},
    sync: () => Promise.resolve(),
    trim() {},
    close() {},
  };
}
