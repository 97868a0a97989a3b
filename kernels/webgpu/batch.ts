/**
 * Recorded launches: one encoder, one compute pass, the scalars of all of them in one uniform buffer.
 *
 * @module
 */
import type { DeviceStats } from "../device.ts";
import { oneLine } from "./adapter.ts";
import { type Layout, type Prepared, UNIFORM_BYTES, type Work } from "./pipelines.ts";
import type { PooledBuffer } from "./pool.ts";
import type { LaunchTimes } from "./timing.ts";

/** Bind groups kept; the oldest quarter goes when there are more. */
const MAX_BIND_GROUPS = 8192;

/** The device interface that a batch needs. */
export interface BatchOwner {
  readonly gpu: GPUDevice;
  readonly stats: DeviceStats;
  /** Launches after which a batch is submitted on its own. */
  readonly batchSize: number;
  readonly uniformAlignment: number;
  readonly maxBindingBytes: number;
  fail(message: string): void;
}

/** See the module text. */
export class Batch {
  readonly #owner: BatchOwner;
  /** Scalars of the recorded launches. */
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #arena: GPUBuffer;
  readonly #stride: number;
  readonly #offset = new Uint32Array(1);
  readonly #groups = new Map<string, GPUBindGroup>();
  /** Keys of the bind groups that hold a buffer, by buffer id. */
  readonly #keys = new Map<number, Set<string>>();
  readonly #dummies: GPUBuffer[] = [];
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #launches = 0;
  #names = new Set<string>();

  /** Grows by one with every submission. */
  serial = 0;
  /** Times every launch, which then has a pass of its own. */
  times: LaunchTimes | null = null;

  constructor(owner: BatchOwner) {
    this.#owner = owner;
    this.#stride = Math.ceil(UNIFORM_BYTES / owner.uniformAlignment) * owner.uniformAlignment;
    const bytes = owner.batchSize * this.#stride;
    this.#words = new Uint32Array(bytes / 4);
    this.#arena = owner.gpu.createBuffer({
      label: "scalars of a batch",
      size: bytes,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    owner.stats.heldBytes += bytes;
  }

  /** Records one dispatch. Null buffers are absent. */
  dispatch(work: Work, buffers: readonly (PooledBuffer | null)[]): void {
    const { prepared } = work;
    const word = this.#launches * this.#stride / 4, [x, y, z] = work.groups;
    this.#offset[0] = word * 4;
    this.#words.set(work.words, word);
    const group = this.#bindGroup(prepared, buffers);
    const { gpu, stats, batchSize } = this.#owner;
    this.#encoder ??= gpu.createCommandEncoder();
    if (this.times) this.#pass?.end();
    this.#pass = this.times
      ? this.#encoder.beginComputePass(this.times.pass(prepared.kernel.name))
      : this.#pass ?? this.#encoder.beginComputePass();
    this.#pass.setPipeline(work.compiled.pipeline);
    this.#pass.setBindGroup(0, group, this.#offset, 0, 1);
    this.#pass.dispatchWorkgroups(x, y, z);
    for (const pooled of buffers) if (pooled) pooled.batch = this.serial;
    this.#names.add(prepared.kernel.name);
    stats.dispatches++;
    if (++this.#launches === batchSize) this.submit();
  }

  /** Records a copy to a staging buffer, after every launch recorded so far. */
  copy(from: PooledBuffer, at: number, to: GPUBuffer, bytes: number): void {
    this.#pass?.end();
    this.#pass = null;
    this.#encoder ??= this.#owner.gpu.createCommandEncoder();
    this.#encoder.copyBufferToBuffer(from.buffer, at, to, 0, bytes);
    from.batch = this.serial;
  }

  /** Submits what was recorded; false when nothing was. */
  submit(): boolean {
    if (!this.#encoder) return false;
    const { gpu, stats } = this.#owner;
    const names = [...this.#names].join(", ");
    gpu.pushErrorScope("validation");
    this.#pass?.end();
    const collect = this.times?.resolve(this.#encoder);
    if (this.#launches > 0) {
      // In queue order: after the previous batch read its scalars, before this one does.
      gpu.queue.writeBuffer(this.#arena, 0, this.#words, 0, this.#launches * this.#stride / 4);
    }
    gpu.queue.submit([this.#encoder.finish()]);
    collect?.();
    gpu.popErrorScope().then((error) => {
      if (error) this.#owner.fail(`a batch of launches (${names || "copies"}) failed: ${oneLine(error)}`);
    }, () => {});
    this.#encoder = null;
    this.#pass = null;
    this.#launches = 0;
    this.#names = new Set();
    this.serial++;
    stats.submits++;
    return true;
  }

  #bindGroup({ kernel, layout }: Prepared, buffers: readonly (PooledBuffer | null)[]): GPUBindGroup {
    let key = `${layout.id}`;
    for (const pooled of buffers) key += pooled ? `,${pooled.id}` : ",";
    const known = this.#groups.get(key);
    if (known) return known;
    if (this.#groups.size >= MAX_BIND_GROUPS) this.#evict();
    const { gpu, maxBindingBytes } = this.#owner;
    const entries: GPUBindGroupEntry[] = buffers.map((pooled, binding) => {
      const buffer = pooled?.buffer ?? this.#dummy(binding, layout);
      return { binding, resource: { buffer, size: Math.min(buffer.size, maxBindingBytes) } };
    });
    entries.push({ binding: buffers.length, resource: { buffer: this.#arena, size: UNIFORM_BYTES } });
    gpu.pushErrorScope("validation");
    const group = gpu.createBindGroup({ label: kernel.name, layout: layout.bindings, entries });
    gpu.popErrorScope().then((error) => {
      if (error) this.#owner.fail(`${kernel.name}: its buffers cannot be bound: ${oneLine(error)}`);
    }, () => {});
    this.#groups.set(key, group);
    for (const pooled of buffers) {
      if (!pooled) continue;
      const keys = this.#keys.get(pooled.id);
      if (keys) keys.add(key);
      else this.#keys.set(pooled.id, new Set([key]));
    }
    return group;
  }

  /** Stands for an absent buffer: all inputs share one, each output has its own, since writable bindings must not. */
  #dummy(binding: number, layout: Layout): GPUBuffer {
    const slot = binding < layout.inputs ? 0 : binding - layout.inputs + 1;
    if (!this.#dummies[slot]) {
      const usage = GPUBufferUsage.STORAGE;
      this.#dummies[slot] = this.#owner.gpu.createBuffer({ label: "absent", size: 256, usage });
      this.#owner.stats.heldBytes += 256;
    }
    return this.#dummies[slot];
  }

  #drop(key: string): void {
    this.#groups.delete(key);
    for (const id of key.split(",").slice(1)) {
      if (id === "") continue;
      const keys = this.#keys.get(Number(id));
      keys?.delete(key);
      if (keys?.size === 0) this.#keys.delete(Number(id));
    }
  }

  #evict(): void {
    let left = MAX_BIND_GROUPS / 4;
    for (const key of this.#groups.keys()) {
      if (left-- === 0) break;
      this.#drop(key);
    }
  }

  /** Number of cached bind groups. */
  get bindGroups(): number {
    return this.#groups.size;
  }

  /** Drops the bind groups of a buffer that is about to be destroyed. */
  forget(pooled: PooledBuffer): void {
    for (const key of [...this.#keys.get(pooled.id) ?? []]) this.#drop(key);
  }

  /** Destroys what the batch owns. Recorded launches are dropped. */
  close(): void {
    this.#encoder = null;
    this.#pass = null;
    this.#groups.clear();
    this.#keys.clear();
    this.times?.close();
    this.#arena.destroy();
    for (const dummy of this.#dummies) dummy?.destroy();
  }
}
