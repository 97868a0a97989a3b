/**
 * The WebGPU device: launches are recorded and sent in batches, memory comes from a pool, only `read` and `sync` wait.
 *
 * @module
 */
import type { Device, DeviceInfo, DeviceStats, Launch, PackRequest, Storage } from "../device.ts";
import type { Profile, TimesLaunches } from "../profile.ts";
import type { Kernel, Params, Target } from "../spec.ts";
import { type AdapterDescription, describeAdapter, oneLine, openAdapter, truncatesLoops } from "./adapter.ts";
import { Batch } from "./batch.ts";
import { PipelineCache, type Prepared, type Work } from "./pipelines.ts";
import { stepsOf } from "./programs.ts";
import { BufferPool, GpuStorage, type PooledBuffer } from "./pool.ts";
import { Readback } from "./readback.ts";
import { LaunchTimes } from "./timing.ts";

export { type AdapterDescription, describeAdapter };

/** How to open the device. */
export interface WebGpuOptions {
  /** Take a software adapter even where there is a hardware one. */
  readonly software?: boolean;
  /** Shader variants to run; default: those that suit the adapter. */
  readonly variant?: "hardware" | "software";
  /** Bytes that the device may hold, all together. Default: no limit but the driver's. */
  readonly memoryLimit?: number;
  /** Launches after which a batch is submitted on its own. Default 128. */
  readonly batchSize?: number;
}

/** Mesa 22.3's llvmpipe stops an invocation after so many loop iterations without a word. */
const LOOP_LIMIT = 65_535;

/** Bytes of one upload, and the bytes of staging memory after which an empty submission releases it. */
const UPLOAD_BYTES = 16 * 1024 * 1024;

/**
 * Opens the WebGPU device.
 *
 * @throws {Error} If there is no adapter or it cannot be opened: one line.
 */
export async function openWebGpuDevice(options: WebGpuOptions = {}): Promise<WebGpuDevice> {
  const { gpu, description } = await openAdapter(options.software ?? false);
  const truncates = description.software && await truncatesLoops(gpu);
  return new WebGpuDevice(gpu, description, truncates, options);
}

/** Values derived from the sizes, scalars and flags of a launch. */
interface LaunchPlan {
  readonly works: readonly Work[];
  /** Bytes of each piece of scratch memory. */
  readonly scratch: readonly number[];
}

/** See the module text. Made by {@linkcode openWebGpuDevice}. */
export class WebGpuDevice implements Device, TimesLaunches {
  /** The adapter in words and numbers. */
  readonly info: DeviceInfo;
  /** Counters since the device was opened. */
  readonly stats: DeviceStats = {
    liveBytes: 0,
    peakBytes: 0,
    heldBytes: 0,
    dispatches: 0,
    submits: 0,
    waits: 0,
    pipelines: 0,
  };
  /** The GPU device itself, for kernels/webgpu and its tests. */
  readonly gpu: GPUDevice;
  /** Whether the driver stops long loops early. */
  readonly truncatesLoops: boolean;
  /** Bytes that the device may hold, all together. */
  readonly memoryLimit: number;
  /** Largest block in bytes. */
  readonly maxBytes: number;
  /** Largest block that a kernel may use. */
  readonly maxBindingBytes: number;
  /** Bytes between the scalars of two launches are a multiple of this. */
  readonly uniformAlignment: number;
  /** Launches after which a batch is submitted on its own. */
  readonly batchSize: number;
  readonly #maxGroups: number;
  readonly #target: Target;
  readonly #pool: BufferPool;
  readonly #pipelines: PipelineCache;
  readonly #batch: Batch;
  readonly #readback: Readback;
  /** By params object: lib/launch.ts passes the same one for the same launch. */
  readonly #plans = new WeakMap<Kernel, WeakMap<Params, LaunchPlan>>();
  #failure: string | null = null;
  #gone: string | null = null;
  #uploaded = 0;

  /** For {@linkcode openWebGpuDevice}. */
  constructor(
    gpu: GPUDevice,
    description: AdapterDescription,
    truncates: boolean,
    options: WebGpuOptions,
  ) {
    this.gpu = gpu;
    this.truncatesLoops = truncates;
    this.memoryLimit = options.memoryLimit ?? Infinity;
    this.batchSize = options.batchSize ?? 128;
    this.maxBytes = Math.floor(gpu.limits.maxBufferSize / 256) * 256;
    this.maxBindingBytes = Math.floor(gpu.limits.maxStorageBufferBindingSize / 16) * 16;
    this.uniformAlignment = gpu.limits.minUniformBufferOffsetAlignment;
    this.#maxGroups = gpu.limits.maxComputeWorkgroupsPerDimension;
    this.#target = {
      software: options.variant ? options.variant === "software" : description.software,
      sharedBytes: gpu.limits.maxComputeWorkgroupStorageSize,
    };
    this.info = {
      name: "webgpu",
      description: description.description,
      software: description.software,
      limits: description.limits,
      features: [...gpu.features],
      threads: 0,
    };
    gpu.addEventListener("uncapturederror", (event) => {
      this.fail(oneLine((event as GPUUncapturedErrorEvent).error));
    });
    gpu.lost.then((lost) => {
      this.#gone ??= `the device was lost (${lost.reason}: ${oneLine(lost.message)}); open it again`;
    });
    this.#pool = new BufferPool(this);
    this.#pipelines = new PipelineCache(gpu, this.#target, (message) => this.fail(message));
    this.#batch = new Batch(this);
    this.#readback = new Readback(this);
  }

  /** Remembers the first failure since the last wait; what follows from it would only hide it. */
  fail(message: string): void {
    this.#failure ??= message;
  }

  /** Throws what went wrong since the last wait, once; `failed` is what the wait itself met. */
  async check(failed: unknown): Promise<void> {
    // A lost device is reported one turn of the event loop after the wait that it ends.
    if (failed) await new Promise((resolve) => setTimeout(resolve, 0));
    if (this.#gone) throw new Error(`webgpu: ${this.#gone}`);
    const failure = this.#failure;
    this.#failure = null;
    if (failure) throw new Error(`webgpu: ${failure}`);
    if (failed) throw new Error(`webgpu: waiting for the device failed: ${oneLine(failed)}`);
  }

  #alive(): void {
    if (this.#gone) throw new Error(`webgpu: ${this.#gone}`);
  }

  #pooled(storage: Storage, who: string): PooledBuffer {
    if (!(storage instanceof GpuStorage) || storage.pool !== this.#pool) {
      throw new Error(`webgpu: ${who} was given a block of another device`);
    }
    if (!storage.pooled) throw new Error(`webgpu: ${who} was given a block that was freed`);
    return storage.pooled;
  }

  /** Takes a block from the pool. Its contents are undefined. */
  alloc(bytes: number): Storage {
    this.#alive();
    return this.#pool.alloc(bytes);
  }

  /** Gives a block back; launches recorded before still see its contents. */
  free(storage: Storage): void {
    if (this.#gone) return;
    this.#pooled(storage, "free");
    this.#pool.free(storage as GpuStorage);
  }

  /** Copies host bytes in, between the launches before and after it. Offset and length in multiples of 4, but any length at the end. */
  write(storage: Storage, data: ArrayBufferView, byteOffset = 0): void {
    this.#alive();
    const pooled = this.#pooled(storage, "write");
    const bytes = data.byteLength;
    if (byteOffset < 0 || byteOffset + bytes > storage.bytes) {
      throw new RangeError(
        `webgpu: write of ${bytes} bytes at ${byteOffset}, expected within ${storage.bytes} bytes`,
      );
    }
    if (byteOffset % 4 !== 0 || (bytes % 4 !== 0 && byteOffset + bytes !== storage.bytes)) {
      throw new RangeError(
        `webgpu: write of ${bytes} bytes at ${byteOffset}, expected multiples of 4 (any length at the end)`,
      );
    }
    // The queue would run the write before launches that are recorded but not submitted.
    if (pooled.batch === this.#batch.serial) this.#batch.submit();
    let source = new Uint8Array(data.buffer, data.byteOffset, bytes);
    if (bytes % 4 !== 0 || source.buffer instanceof SharedArrayBuffer) {
      const copy = new Uint8Array(Math.ceil(bytes / 4) * 4);
      copy.set(source);
      source = copy;
    }
    for (let at = 0; at < source.length; at += UPLOAD_BYTES) {
      const length = Math.min(UPLOAD_BYTES, source.length - at);
      this.gpu.queue.writeBuffer(
        pooled.buffer,
        byteOffset + at,
        source as Uint8Array<ArrayBuffer>,
        at,
        length,
      );
      this.#uploaded += length;
      if (this.#uploaded >= UPLOAD_BYTES) {
        this.gpu.queue.submit([]);
        this.#uploaded = 0;
      }
    }
  }

  /** Copies bytes out, after everything recorded so far. Reads of one turn of the event loop share one wait. */
  async read(storage: Storage, byteOffset = 0, bytes = storage.bytes - byteOffset): Promise<ArrayBuffer> {
    this.#alive();
    const pooled = this.#pooled(storage, "read");
    if (byteOffset < 0 || bytes < 0 || byteOffset + bytes > storage.bytes) {
      throw new RangeError(
        `webgpu: read of ${bytes} bytes at ${byteOffset}, expected within ${storage.bytes} bytes`,
      );
    }
    if (bytes === 0) return new ArrayBuffer(0);
    return await this.#readback.read(pooled, byteOffset, bytes);
  }

  /** Records a launch. */
  run({ kernel, buffers, params }: Launch): void {
    this.#alive();
    const contracts = kernel.buffers;
    if (buffers.length !== contracts.length) {
      const names = contracts.map((b) => b.name);
      throw new Error(`${kernel.name}: found ${buffers.length} buffers, expected ${names.length} (${names})`);
    }
    const bound: (PooledBuffer | null)[] = new Array(buffers.length);
    for (let i = 0; i < buffers.length; i++) {
      const storage = buffers[i];
      bound[i] = storage ? this.#pooled(storage, `${kernel.name}: ${contracts[i].name}`) : null;
      if (storage) this.#fits(kernel.name, contracts[i].name, storage.bytes);
    }
    for (let o = 0; o < buffers.length; o++) {
      if (!bound[o] || !contracts[o].output) continue;
      for (let i = 0; i < o; i++) {
        if (bound[i] === bound[o]) {
          throw new Error(
            `${kernel.name}: ${contracts[i].name} and ${
              contracts[o].name
            } share one block, expected an output of its own`,
          );
        }
      }
    }
    let plans = this.#plans.get(kernel);
    if (!plans) this.#plans.set(kernel, plans = new WeakMap());
    let plan = plans.get(params);
    if (!plan) plans.set(params, plan = this.#plan(kernel, params));
    const error = plan.works.find((work) => work.compiled.error)?.compiled.error;
    if (error) throw new Error(error);
    if (plan.scratch.length === 0) {
      for (const work of plan.works) this.#batch.dispatch(work, bound);
      return;
    }
    const scratch = plan.scratch.map((bytes) => this.#pool.alloc(bytes));
    const all = [...bound, ...scratch.map((s) => s.pooled)];
    for (const work of plan.works) this.#batch.dispatch(work, work.binds.map((at) => all[at]));
    for (const each of scratch) this.#pool.free(each);
  }

  #fits(kernel: string, name: string, bytes: number): void {
    if (bytes <= this.maxBindingBytes) return;
    throw new RangeError(
      `${kernel}: ${name} has ${bytes} bytes, the adapter binds at most ${this.maxBindingBytes}; ` +
        "split the tensor",
    );
  }

  /** Returns the plan of a launch, derived from its params. */
  #plan(kernel: Kernel, params: Params): LaunchPlan {
    const { steps, scratch } = stepsOf(kernel, params, this.#target), names = Object.keys(scratch);
    for (const name of names) this.#fits(kernel.name, name, scratch[name]);
    const place = (at: number | string) =>
      typeof at === "number" ? at : kernel.buffers.length + names.indexOf(at);
    const works: Work[] = [];
    for (const { program, binds } of steps) {
      const work = this.#work(this.#pipelines.prepare(program), params, binds.map(place));
      if (work) works.push(work);
    }
    return { works, scratch: Object.values(scratch) };
  }

  /** Returns the work of a dispatch, derived from its params; null when there is nothing to do. */
  #work(prepared: Prepared, params: Params, binds: readonly number[]): Work | null {
    const { kernel } = prepared;
    const groups = this.#groupsOf(kernel.name, kernel.wgsl.groups(params, this.#target));
    if (!groups) return null;
    if (this.truncatesLoops) this.#checkLoops(kernel.name, kernel.wgsl.loops(params, this.#target), params);
    const words = new Uint32Array(prepared.params.length);
    const ints = new Int32Array(words.buffer), floats = new Float32Array(words.buffer);
    prepared.params.forEach(([name, type], i) => {
      const value = params[name];
      if (value === undefined) throw new Error(`${kernel.name}: parameter ${name} is missing`);
      (type === "f32" ? floats : type === "i32" ? ints : words)[i] = value;
    });
    const compiled = this.#pipelines.get(prepared, params);
    this.stats.pipelines = this.#pipelines.size;
    return { prepared, compiled, groups, words, binds };
  }

  /** Folds a plain number of workgroups into x and y; null when there is nothing to do. */
  #groupsOf(
    name: string,
    asked: number | readonly [number, number, number],
  ): readonly [number, number, number] | null {
    const max = this.#maxGroups;
    let groups: readonly [number, number, number];
    if (typeof asked !== "number") groups = asked;
    else if (asked <= max) groups = [asked, 1, 1];
    else {
      const y = Math.ceil(asked / max);
      groups = [Math.ceil(asked / y), y, 1];
    }
    if (groups.some((g) => g === 0)) return null;
    if (!groups.every((g) => Number.isInteger(g) && g > 0 && g <= max)) {
      throw new RangeError(`${name}: needs [${groups}] workgroups, the adapter allows ${max} a dimension`);
    }
    return groups;
  }

  #checkLoops(name: string, loops: number, params: Params): void {
    if (loops < LOOP_LIMIT) return;
    throw new RangeError(
      `${name}: needs ${loops} loop iterations with ${
        JSON.stringify(params)
      }, this driver (${this.info.description}) ` +
        `stops silently after ${LOOP_LIMIT}; use smaller sizes or another device`,
    );
  }

  /** Does nothing: weights are read in the authors' layout. */
  pack(_storage: Storage, _request: PackRequest): void {}

  setAside(_storage: Storage): void {}

  /** For reading: records a copy. */
  copy(from: PooledBuffer, at: number, to: GPUBuffer, bytes: number): void {
    this.#batch.copy(from, at, to, bytes);
  }

  /** For the pool and for reading: submits what was recorded. */
  submit(): void {
    if (this.#batch.submit()) this.#uploaded = 0;
  }

  /** For the pool: drops the bind groups of a buffer that is about to be destroyed. */
  forget(buffer: PooledBuffer): void {
    this.#batch.forget(buffer);
  }

  /** Number of cached bind groups. */
  get bindGroups(): number {
    return this.#batch.bindGroups;
  }

  /** Submits what was recorded, without waiting. */
  flush(): void {
    this.#alive();
    this.submit();
  }

  /** Gives the time of every later launch to a profile, where the adapter has timestamp queries. */
  timeLaunches(profile: Profile): boolean {
    if (!this.gpu.features.has("timestamp-query")) return false;
    this.submit();
    this.#batch.times = new LaunchTimes(this.gpu, this.batchSize, profile);
    return true;
  }

  /** Waits for everything recorded so far and throws what went wrong meanwhile. */
  async sync(): Promise<void> {
    this.#alive();
    this.submit();
    this.stats.waits++;
    let failed: unknown = null;
    await this.gpu.queue.onSubmittedWorkDone().catch((error) => failed = error);
    await this.#batch.times?.settled().catch((error) => failed ??= error);
    await this.check(failed);
  }

  /** Destroys the memory that is not in use. */
  trim(): void {
    this.#alive();
    this.#pool.trim();
    this.#readback.trim();
  }

  /** Destroys everything. Closing twice does nothing. */
  close(): void {
    if (this.#gone) return;
    this.#gone = "the device is closed";
    this.#batch.close();
    this.#readback.trim();
    this.#pool.close();
    this.gpu.destroy();
  }
}
