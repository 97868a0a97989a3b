/**
 * Times of launches on the GPU, by timestamp queries around a pass of each.
 *
 * @module
 */
import type { Profile } from "../profile.ts";

/** Bytes of a timestamp. */
const STAMP = 8;

/** Times the passes of one batch after the other. */
export class LaunchTimes {
  readonly #gpu: GPUDevice;
  readonly #profile: Profile;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #pending = new Set<Promise<void>>();
  #names: string[] = [];
  /** Host seconds minus GPU seconds, from the first batch: the GPU's clock starts anywhere. */
  #offset: number | null = null;

  /** @param batchSize Most passes of a batch. */
  constructor(gpu: GPUDevice, batchSize: number, profile: Profile) {
    [this.#gpu, this.#profile] = [gpu, profile];
    this.#queries = gpu.createQuerySet({
      label: "times of launches",
      type: "timestamp",
      count: 2 * batchSize,
    });
    this.#resolved = gpu.createBuffer({
      label: "times of launches",
      size: 2 * batchSize * STAMP,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
  }

  /** Describes the pass of the next launch. */
  pass(kernel: string): GPUComputePassDescriptor {
    const at = 2 * this.#names.length;
    this.#names.push(kernel);
    return {
      timestampWrites: {
        querySet: this.#queries,
        beginningOfPassWriteIndex: at,
        endOfPassWriteIndex: at + 1,
      },
    };
  }

  /**
   * Ends a batch that is about to be submitted.
   *
   * @returns What to call right after the submission; null where nothing was launched.
   */
  resolve(encoder: GPUCommandEncoder): (() => void) | null {
    const names = this.#names, bytes = 2 * names.length * STAMP;
    this.#names = [];
    if (names.length === 0) return null;
    const staging = this.#gpu.createBuffer({
      label: "times of launches",
      size: bytes,
      usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    encoder.resolveQuerySet(this.#queries, 0, 2 * names.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, staging, 0, bytes);
    return () => {
      const submitted = this.#profile.now;
      const read = this.#read(staging, names, submitted).finally(() => this.#pending.delete(read));
      this.#pending.add(read);
    };
  }

  async #read(staging: GPUBuffer, names: readonly string[], submitted: number): Promise<void> {
    await staging.mapAsync(GPUMapMode.READ);
    const stamps = new BigUint64Array(staging.getMappedRange().slice(0));
    staging.destroy();
    const seconds = (stamp: bigint) => Number(stamp) / 1e9;
    this.#offset ??= submitted - seconds(stamps[0]);
    names.forEach((name, i) => {
      const [from, to] = [seconds(stamps[2 * i]), seconds(stamps[2 * i + 1])];
      this.#profile.add({
        kind: "kernel",
        name,
        start: this.#offset! + from,
        seconds: Math.max(0, to - from),
      });
    });
  }

  /** Waits for the times of all batches that were submitted. */
  async settled(): Promise<void> {
    await Promise.all(this.#pending);
  }

  /** Gives the queries back. */
  close(): void {
    this.#queries.destroy();
    this.#resolved.destroy();
  }
}
