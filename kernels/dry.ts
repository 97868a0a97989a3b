/**
 * A device that computes nothing and counts everything: run a model on it to learn its cost before the work starts.
 *
 * @module
 */
import type { Device, DeviceStats, Launch, PackRequest, Storage } from "./device.ts";

/** Memory of a dry device. Small tables of integers keep their contents: they decide how long a launch takes. */
export interface DryStorage extends Storage {
  /** The last written contents, where they were integers. */
  integers?: Int32Array;
  /** How the weight is laid out. */
  packed?: PackRequest;
}

/** Launches of one kernel with about the same sizes, and one of them to measure. */
export interface LaunchKind {
  /** One of the launches. */
  readonly sample: Launch & { readonly buffers: readonly (DryStorage | null)[] };
  /** Its work: floating-point operations, or bytes where a kernel counts none. */
  readonly unit: number;
}

/**
 * Names the kind of a launch. Sizes within a tenth of one another are one kind; scalars (scale, offset) change nothing, flags and
 * small sizes do. Of launches that only move bytes, which have a dozen sizes and offsets, their number counts alone.
 */
function kindOf({ kernel, buffers, params }: Launch, moves: boolean, work: number): string {
  const close = (value: number) => `~${Math.round(4 * Math.log2(value))}`;
  if (moves) return `${kernel.name} ${close(work)}`;
  const sizes = Object.entries(params).filter(([name]) => kernel.params[name] !== "f32")
    .map(([name, value]) => name + (value <= 16 ? String(value) : close(value)));
  const there = buffers.map((b) => b === null ? "-" : (b as DryStorage).packed ? "p" : "b").join("");
  return `${kernel.name} ${there} ${sizes.join(" ")}`;
}

/** Cost of everything that was launched on a dry device. */
export interface DryCost {
  /** Floating-point operations by kernel name. */
  readonly flops: Record<string, number>;
  /** Work by kind of launch; {@linkcode DryDevice.kinds} says what a kind is. */
  readonly work: Record<string, number>;
}

/** A device whose launches only add up. */
export interface DryDevice extends Device {
  /** Cost of the launches so far. */
  readonly cost: DryCost;
  /** Every kind of launch that was seen. */
  readonly kinds: ReadonlyMap<string, LaunchKind>;
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
  const cost: DryCost = { flops: {}, work: {} };
  const kinds = new Map<string, LaunchKind>();
  return {
    // `webgpu` keeps samplers from yielding to timers between steps.
    info: { name: "webgpu", description: "dry", software: true, limits: {}, features: [], threads: 1 },
    stats,
    cost,
    kinds,
    alloc(bytes): DryStorage {
      stats.liveBytes += bytes;
      stats.peakBytes = stats.heldBytes = Math.max(stats.peakBytes, stats.liveBytes);
      return { bytes };
    },
    free(storage) {
      stats.liveBytes -= storage.bytes;
    },
    run(launch: Launch) {
      const { kernel, buffers, params } = launch;
      stats.dispatches++;
      const flops = kernel.flops(params);
      const work = flops || buffers.reduce((sum, storage) => sum + (storage?.bytes ?? 0), 1);
      const kind = kindOf(launch, flops === 0, work);
      // Pooled tables may be written again: the sample keeps what this launch saw.
      if (!kinds.has(kind)) {
        kinds.set(kind, { sample: { ...launch, buffers: buffers.map((b) => b && { ...b }) }, unit: work });
      }
      cost.work[kind] = (cost.work[kind] ?? 0) + work;
      cost.flops[kernel.name] = (cost.flops[kernel.name] ?? 0) + flops;
    },
    read: (storage, byteOffset = 0, bytes = storage.bytes - byteOffset) =>
      Promise.resolve(new ArrayBuffer(bytes)),
    write(storage: DryStorage, data) {
      if (data instanceof Int32Array) storage.integers = data;
    },
    pack(storage: DryStorage, request) {
      storage.packed = request;
    },
    setAside() {},
    flush() {},
    sync: () => Promise.resolve(),
    trim() {},
    close() {},
  };
}
