/**
 * Buffers of the cpu device.
 *
 * @module
 */
import type { Storage } from "../device.ts";
import type { Packing } from "./packing.ts";

/** Addresses of a buffer that was freed, and of one whose contents lie in ordinary memory. */
export const FREED = -1, AWAY = -2;

/** A buffer of the cpu device. */
export class CpuStorage implements Storage {
  readonly bytes: number;
  /** Address, FREED or AWAY. */
  at: number;
  /** Bytes that were asked of the allocator. */
  held: number;
  packing: Packing | null = null;
  /** The contents while the buffer is away. */
  contents: Uint8Array | null = null;
  constructor(at: number, bytes: number) {
    this.at = at;
    this.bytes = this.held = bytes;
  }
}
