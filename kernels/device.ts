/**
 * The contract that both devices fulfil: buffers from a pool, launches, readback, statistics.
 *
 * @module
 */
import type { DType, Kernel, Params } from "./spec.ts";

/** Name of a device: `webgpu` for every hardware adapter, `cpu` for WebAssembly SIMD with threads. */
export type DeviceName = "webgpu" | "cpu";

/** A block of device memory. Only the device that made it knows what is inside. */
export interface Storage {
  /** Usable size in bytes (row-major contents; a packed weight may privately use more). */
  readonly bytes: number;
}

/**
 * How a weight may be laid out privately for speed. `read` always gives the row-major contents back.
 *
 * `linear` is `[N, K]`; `conv2d` is `[O, I, KH, KW]`.
 */
export interface PackRequest {
  /** Use of the weight. */
  readonly kind: "linear" | "conv2d";
  /** Its shape. */
  readonly shape: readonly number[];
  /** Its storage type. */
  readonly dtype: DType;
}

/** One launch of a kernel: buffers in the order inputs, outputs (null when absent), sizes, scalars and flags by name. */
export interface Launch {
  /** The kernel to run. */
  readonly kernel: Kernel;
  /** Its buffers, null where an optional one is absent. */
  readonly buffers: readonly (Storage | null)[];
  /** Sizes, scalars and flags. Devices remember what follows from them by this object: it must not change afterwards. */
  readonly params: Params;
}

/** Counters since the device was opened. */
export interface DeviceStats {
  /** Bytes handed out and not yet freed. */
  liveBytes: number;
  /** Largest `liveBytes` so far. */
  peakBytes: number;
  /** Bytes that the device holds, pooled ones included. */
  heldBytes: number;
  /** Kernel launches. */
  dispatches: number;
  /** Queue submissions (always 0 on the cpu). */
  submits: number;
  /** Times the host waited for the device. */
  waits: number;
  /** Compiled pipelines (exported functions used, on the cpu). */
  pipelines: number;
}

/** A device description for `doctor`, logs and results. */
export interface DeviceInfo {
  /** Kind of the device. */
  readonly name: DeviceName;
  /** Adapter or processor, e.g. `NVIDIA H200` or `cpu, 2 threads, relaxed SIMD`. */
  readonly description: string;
  /** True for a software adapter (llvmpipe, SwiftShader). */
  readonly software: boolean;
  /** Limits by name, in bytes or counts. */
  readonly limits: Readonly<Record<string, number>>;
  /** Optional features in use. */
  readonly features: readonly string[];
  /** Threads that compute (1 on a GPU). */
  readonly threads: number;
  /** Of the cpu device: the BLAS that computes its products, with its path, or why there is none. */
  readonly blas?: string;
}

/** A compute device. Launches are synchronous for the caller: only `read` and `sync` wait. */
export interface Device {
  /** Description of the device. */
  readonly info: DeviceInfo;
  /** Counters, updated in place. */
  readonly stats: DeviceStats;
  /**
   * Takes a block from the pool. Its contents are undefined.
   * @throws {Error} When memory is exhausted: bytes needed and available, in one line.
   */
  alloc(bytes: number): Storage;
  /** Gives a block back to the pool. Launches that were recorded before still see its contents. */
  free(storage: Storage): void;
  /** Copies host bytes in. Takes effect after every launch recorded before it and before every one after it. */
  write(storage: Storage, data: ArrayBufferView, byteOffset?: number): void;
  /** Copies bytes out, after everything recorded so far. Row-major, whatever the private layout. */
  read(storage: Storage, byteOffset?: number, bytes?: number): Promise<ArrayBuffer>;
  /** Records (webgpu) or runs (cpu) a kernel. */
  run(launch: Launch): void;
  /** Lays a weight out for speed, in place. Packing twice, or on a device without packed layouts, does nothing. */
  pack(storage: Storage, request: PackRequest): void;
  /**
   * Says that a buffer is seldom used. Where memory runs short, the cpu device keeps such buffers in ordinary memory until a
   * launch needs them; other devices do nothing.
   */
  setAside(storage: Storage): void;
  /** Sends what was recorded to the device without waiting. */
  flush(): void;
  /** Waits until everything recorded so far has run, and throws what went wrong meanwhile. */
  sync(): Promise<void>;
  /** Returns pooled memory that is not in use to the system. */
  trim(): void;
  /** Stops threads and frees everything. */
  close(): void;
}

/** A device's description without the number of its threads, which changes no bit of a result. */
export const deviceOf = ({ info }: Device): string => info.description.replace(/\d+ threads?/, "threads");
