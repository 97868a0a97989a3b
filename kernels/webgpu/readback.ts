/**
 * Reading device memory: every read asked for in one turn of the event loop shares one submission and one wait.
 *
 * A wait costs about 11 ms in Deno 2.9 whatever the work, and ten maps in parallel cost one (2026-11-21).
 *
 * @module
 */
import type { DeviceStats } from "../device.ts";
import type { PooledBuffer } from "./pool.ts";
import { sizeClass } from "./pool.ts";

/** Staging memory that is kept for later reads. */
const MAX_KEPT = 64 * 1024 * 1024;

/** The device interface that reading needs. */
export interface ReadbackOwner {
  readonly gpu: GPUDevice;
  readonly stats: DeviceStats;
  /** Largest buffer in bytes. */
  readonly maxBytes: number;
  /** Records a copy after everything recorded so far. */
  copy(from: PooledBuffer, at: number, to: GPUBuffer, bytes: number): void;
  submit(): void;
  /** Throws what went wrong, `failed` or what explains it. */
  check(failed: unknown): Promise<void>;
}

interface Turn {
  readonly staging: GPUBuffer[];
  readonly done: Promise<void>;
}

/** See the module text. */
export class Readback {
  readonly #owner: ReadbackOwner;
  readonly #kept = new Map<number, GPUBuffer[]>();
  #keptBytes = 0;
  #turn: Turn | null = null;

  constructor(owner: ReadbackOwner) {
    this.#owner = owner;
  }

  /** Copies bytes out; the copy is recorded before this returns its promise. */
  read(from: PooledBuffer, byteOffset: number, bytes: number): Promise<ArrayBuffer> {
    const first = Math.floor(byteOffset / 4) * 4;
    const end = Math.ceil((byteOffset + bytes) / 4) * 4;
    const piece = Math.floor(this.#owner.maxBytes / 256) * 256;
    const parts: { staging: GPUBuffer; at: number; bytes: number }[] = [];
    for (let at = first; at < end; at += piece) {
      const length = Math.min(piece, end - at);
      const staging = this.#take(length);
      this.#owner.copy(from, at, staging, length);
      parts.push({ staging, at: at - first, bytes: length });
    }
    const turn = this.#turn ??= this.#startTurn();
    for (const { staging } of parts) turn.staging.push(staging);
    return this.#finish(turn, parts, byteOffset - first, bytes, end - first);
  }

  async #finish(
    turn: Turn,
    parts: readonly { staging: GPUBuffer; at: number; bytes: number }[],
    skip: number,
    bytes: number,
    total: number,
  ): Promise<ArrayBuffer> {
    try {
      await turn.done;
    } catch (error) {
      for (const { staging } of parts) this.#destroy(staging);
      throw error;
    }
    if (parts.length === 1) {
      const { staging } = parts[0];
      const result = staging.getMappedRange(0, total).slice(skip, skip + bytes);
      this.#give(staging);
      return result;
    }
    const all = new Uint8Array(total);
    for (const { staging, at, bytes } of parts) {
      all.set(new Uint8Array(staging.getMappedRange(0, bytes)), at);
      this.#give(staging);
    }
    return skip === 0 && bytes === total ? all.buffer : all.buffer.slice(skip, skip + bytes);
  }

  #startTurn(): Turn {
    const staging: GPUBuffer[] = [];
    const done = (async () => {
      await Promise.resolve();
      this.#turn = null;
      this.#owner.submit();
      this.#owner.stats.waits++;
      let failed: unknown = null;
      await Promise.all(staging.map((b) => b.mapAsync(GPUMapMode.READ))).catch((error) => failed = error);
      await this.#owner.check(failed);
    })();
    return { staging, done };
  }

  #take(bytes: number): GPUBuffer {
    const size = Math.min(sizeClass(bytes), this.#owner.maxBytes);
    const kept = this.#kept.get(size)?.pop();
    if (kept) {
      this.#keptBytes -= size;
      return kept;
    }
    this.#owner.stats.heldBytes += size;
    return this.#owner.gpu.createBuffer({
      label: "readback",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
  }

  #give(staging: GPUBuffer): void {
    staging.unmap();
    if (this.#keptBytes + staging.size > MAX_KEPT) return this.#destroy(staging);
    this.#keptBytes += staging.size;
    const list = this.#kept.get(staging.size);
    if (list) list.push(staging);
    else this.#kept.set(staging.size, [staging]);
  }

  #destroy(staging: GPUBuffer): void {
    this.#owner.stats.heldBytes -= staging.size;
    staging.destroy();
  }

  /** Destroys the staging buffers that no read is using. */
  trim(): void {
    for (const list of this.#kept.values()) list.forEach((b) => this.#destroy(b));
    this.#kept.clear();
    this.#keptBytes = 0;
  }
}
