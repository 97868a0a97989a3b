/**
 * Device memory by size class, handed out again in a stable order.
 *
 * @module
 */
import type { DeviceStats, Storage } from "../device.ts";
import { oneLine } from "./adapter.ts";

/** A GPU buffer of the pool. */
export interface PooledBuffer {
  readonly id: number;
  readonly buffer: GPUBuffer;
  /** Bytes that the device holds for it. */
  readonly size: number;
  /** Serial of the last batch that used it; writes and destruction wait for that batch to be submitted. */
  batch: number;
  /** True when the driver had no memory for it; it is destroyed rather than handed out again. */
  broken: boolean;
}

/** A block handed out by the pool; null once it was freed. */
export class GpuStorage implements Storage {
  constructor(readonly bytes: number, public pooled: PooledBuffer | null, readonly pool: BufferPool) {}
}

/** The device interface that the pool needs. */
export interface PoolOwner {
  readonly gpu: GPUDevice;
  readonly stats: DeviceStats;
  /** Largest buffer in bytes. */
  readonly maxBytes: number;
  /** Bytes that the device may hold, all together. */
  readonly memoryLimit: number;
  /** Submits what was recorded, so that buffers may be destroyed. */
  submit(): void;
  /** Remembers a failure for the next wait. */
  fail(message: string): void;
  /** Called before a buffer is destroyed. */
  forget(buffer: PooledBuffer): void;
}

const MiB = 1024 * 1024;
const inMiB = (bytes: number) => `${(bytes / MiB).toFixed(bytes < MiB ? 3 : 1)} MiB`;

/** Bytes held for a request: multiples of 256, at most one eighth more than asked for. */
export function sizeClass(bytes: number): number {
  if (bytes <= 256) return 256;
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(bytes)) - 3));
  return Math.ceil(bytes / step) * step;
}

/** See the module text. */
export class BufferPool {
  readonly #owner: PoolOwner;
  /** Free buffers by size, lowest id first: equal steps get equal buffers, so their bind groups are found again. */
  readonly #free = new Map<number, PooledBuffer[]>();
  readonly #all = new Set<PooledBuffer>();
  #nextId = 0;

  constructor(owner: PoolOwner) {
    this.#owner = owner;
  }

  /**
   * Takes a block.
   *
   * @throws {RangeError} If the adapter has no buffers of that size.
   * @throws {Error} If the memory limit is reached, pooled memory returned: bytes needed and available.
   */
  alloc(bytes: number): GpuStorage {
    const { maxBytes, memoryLimit, stats } = this.#owner;
    if (!Number.isInteger(bytes) || bytes < 0) {
      throw new RangeError(`webgpu: alloc found ${bytes} bytes, expected a whole number of at least 0`);
    }
    if (bytes > maxBytes) {
      throw new RangeError(
        `webgpu: alloc needs ${inMiB(bytes)}, the adapter allows ${
          inMiB(maxBytes)
        } a buffer; split the tensor`,
      );
    }
    const size = Math.min(sizeClass(bytes), maxBytes);
    let pooled = this.#free.get(size)?.shift();
    if (!pooled) {
      if (stats.heldBytes + size > memoryLimit) this.trim();
      if (stats.heldBytes + size > memoryLimit) {
        throw new Error(
          `webgpu: out of memory: ${inMiB(size)} needed, ${inMiB(memoryLimit - stats.heldBytes)} of ${
            inMiB(memoryLimit)
          } available`,
        );
      }
      pooled = this.#create(size);
    }
    stats.liveBytes += bytes;
    stats.peakBytes = Math.max(stats.peakBytes, stats.liveBytes);
    return new GpuStorage(bytes, pooled, this);
  }

  #create(size: number): PooledBuffer {
    const { gpu, stats } = this.#owner;
    gpu.pushErrorScope("out-of-memory");
    const id = this.#nextId++;
    const buffer = gpu.createBuffer({
      label: `pool ${id}`,
      size,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
    const pooled: PooledBuffer = { id, buffer, size, batch: -1, broken: false };
    gpu.popErrorScope().then((error) => {
      if (!error) return;
      pooled.broken = true;
      this.#owner.fail(
        `out of memory: ${inMiB(size)} needed beside ${inMiB(stats.heldBytes - size)} held: ${
          oneLine(error)
        }`,
      );
    }, () => {});
    stats.heldBytes += size;
    this.#all.add(pooled);
    return pooled;
  }

  /** Gives a block back. Freeing twice is an error: its buffer may belong to someone else by then. */
  free(storage: GpuStorage): void {
    const pooled = storage.pooled;
    if (!pooled) throw new Error(`webgpu: a block of ${storage.bytes} bytes was freed twice`);
    storage.pooled = null;
    this.#owner.stats.liveBytes -= storage.bytes;
    if (pooled.broken) {
      this.#owner.submit();
      return this.#destroy(pooled);
    }
    const list = this.#free.get(pooled.size);
    if (!list) this.#free.set(pooled.size, [pooled]);
    else {
      let at = list.length;
      while (at > 0 && list[at - 1].id > pooled.id) at--;
      list.splice(at, 0, pooled);
    }
  }

  #destroy(pooled: PooledBuffer): void {
    this.#owner.forget(pooled);
    pooled.buffer.destroy();
    this.#all.delete(pooled);
    this.#owner.stats.heldBytes -= pooled.size;
  }

  /** Destroys the buffers that are not in use. */
  trim(): void {
    this.#owner.submit();
    for (const list of this.#free.values()) list.forEach((pooled) => this.#destroy(pooled));
    this.#free.clear();
  }

  /** Destroys every buffer. */
  close(): void {
    this.#free.clear();
    for (const pooled of [...this.#all]) this.#destroy(pooled);
  }
}
