/**
 * The cpu device: WebAssembly SIMD kernels on one shared memory, the calling thread together with its workers.
 *
 * Results do not depend on the number of threads: a launch is split into tasks by its shapes alone, and each task writes
 * what no other task writes. Of linear, convolution, norm and elementwise kernels a row's result does not depend on the
 * rows beside it (an image's, of a convolution, not on the batch), and of attention a query's result depends on its own ranges
 * only. Where a BLAS computes the products of linear layers, convolutions and attention, the first still holds; of those a row
 * may differ in its last bits with the rows beside it, as a library chooses its loops by the number of rows.
 *
 * @module
 */
import { Worker } from "node:worker_threads";
import type { Device, DeviceInfo, DeviceStats, Launch, PackRequest, Storage } from "../device.ts";
import { hasRelaxedSimd } from "./relaxed.ts";
import type { Kernel } from "../spec.ts";
import { Allocator } from "./allocator.ts";
import {
  ARGS,
  ARGS_WORDS,
  CONTROL,
  ERROR_TEXT,
  ERROR_UNITS,
  functionsOf,
  HEAP,
  instantiate,
  type KernelFunction,
  pause,
  type WorkerStart,
} from "./control.ts";
import { type BlasChoice, chooseBlas } from "./choose_blas.ts";
import {
  packedBytes,
  type Packing,
  packingOf,
  packRows,
  panelBytes,
  type PanelMemory,
  readRows,
} from "./packing.ts";
import { AWAY, CpuStorage, FREED } from "./storage.ts";
import { type Binding, bindingOf, type Work, workOf } from "./work.ts";

/** How to open the cpu device. */
export interface CpuOptions {
  /** Threads, the calling one included. Default: the number of logical cores. */
  readonly threads?: number;
  /**
   * `relaxed` uses fused multiply-adds, `plain` rounds twice; `auto` (default) takes relaxed SIMD where the runtime has
   * it. The two differ in the last bits.
   */
  readonly simd?: "relaxed" | "plain" | "auto";
  /** Limit of the memory in bytes, default and at most 4 GiB. */
  readonly maxBytes?: number;
  /** As in `OpenOptions` (kernels/open.ts): `off` (default), `auto`, or the path of a library. */
  readonly blas?: string;
}

const PAGE = 65536;
const MAX_PAGES = 65536;
/** The calling thread looks this often whether its workers are done before it sleeps. */
const SPIN = 4000;

/** Opens the cpu device. Needs read access to the module's own folder, nothing else. */
export async function openCpuDevice(options: CpuOptions = {}): Promise<Device> {
  const threads = options.threads ?? navigator.hardwareConcurrency;
  if (!Number.isInteger(threads) || threads < 1 || threads > 256) {
    throw new RangeError(`openCpuDevice: threads is ${threads}, expected an integer from 1 to 256`);
  }
  const relaxed = options.simd === undefined || options.simd === "auto"
    ? hasRelaxedSimd()
    : options.simd === "relaxed";
  const pages = Math.floor(Math.min(options.maxBytes ?? Infinity, PAGE * MAX_PAGES) / PAGE);
  if (!(pages >= 2)) {
    throw new RangeError(
      `openCpuDevice: maxBytes is ${options.maxBytes}, expected at least ${2 * PAGE} (two pages)`,
    );
  }
  const url = new URL(relaxed ? "./kernels.wasm" : "./kernels_simd.wasm", import.meta.url);
  const bytes = url.protocol === "file:"
    ? await Deno.readFile(url)
    : new Uint8Array(await (await fetch(url)).arrayBuffer());
  const module = new WebAssembly.Module(bytes);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: MAX_PAGES, shared: true });
  const choice = chooseBlas(options.blas ?? "off", module, memory, threads);
  const workers = Array.from({ length: threads - 1 }, (_, i) => {
    const workerData: WorkerStart = { module, memory, thread: i + 1, blas: choice.blas?.path ?? null };
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData });
    // A process that forgets close() still ends.
    worker.unref();
    return worker;
  });
  // Nobody waits for the workers, which take 40 ms or more to start: until then the calling thread does their tasks too.
  return new CpuDevice(module, memory, pages, workers, relaxed, choice);
}

class CpuDevice implements Device {
  readonly info: DeviceInfo;
  readonly stats: DeviceStats = {
    liveBytes: 0,
    peakBytes: 0,
    heldBytes: PAGE,
    dispatches: 0,
    submits: 0,
    waits: 0,
    pipelines: 0,
  };
  readonly #memory: WebAssembly.Memory;
  readonly #limit: number;
  readonly #workers: Worker[];
  readonly #threads: number;
  /** Whether linear layers, convolutions and attention go through a BLAS. */
  readonly #blas: boolean;
  readonly #exports: WebAssembly.Exports;
  readonly #functions: [string, KernelFunction][];
  readonly #allocator: Allocator;
  readonly #bindings = new Map<Kernel, Binding>();
  /** Buffers that may leave the memory, the one that was not used for longest first. */
  readonly #aside = new Set<CpuStorage>();
  readonly #control: Int32Array;
  readonly #words: Int32Array;
  #view: Uint8Array;
  #scratch = 0;
  #scratchStride = 0;
  #closed = false;
  /** Why a worker ended. */
  #lost: unknown = null;

  constructor(
    module: WebAssembly.Module,
    memory: WebAssembly.Memory,
    pages: number,
    workers: Worker[],
    relaxed: boolean,
    { blas, report }: BlasChoice,
  ) {
    this.#memory = memory;
    this.#limit = pages * PAGE;
    this.#workers = workers;
    this.#threads = workers.length + 1;
    for (const worker of workers) worker.once("error", (error) => this.#lost = error);
    this.#blas = blas !== null;
    this.#exports = instantiate(module, memory, blas?.sgemm ?? null);
    this.#functions = functionsOf(this.#exports);
    this.#control = new Int32Array(memory.buffer, 0, ARGS / 4);
    this.#words = new Int32Array(memory.buffer, ARGS, ARGS_WORDS);
    this.#view = new Uint8Array(memory.buffer);
    const length = () => this.#view.length;
    this.#allocator = new Allocator({
      grow: (bytes) => this.#grow(bytes),
      get length() {
        return length();
      },
    }, HEAP);
    const plural = this.#threads === 1 ? "thread" : "threads";
    this.info = {
      name: "cpu",
      description: `cpu, ${this.#threads} ${plural}, ${relaxed ? "relaxed" : "plain"} SIMD${
        blas ? `, ${blas.name}` : ""
      }`,
      blas: report,
      software: false,
      limits: { maxBytes: this.#limit },
      features: relaxed ? ["simd128", "relaxed-simd", "threads"] : ["simd128", "threads"],
      threads: this.#threads,
    };
  }

  #grow(bytes: number): boolean {
    if (bytes > this.#limit) return false;
    try {
      this.#memory.grow(Math.ceil((bytes - this.#view.length) / PAGE));
    } catch {
      return false; // the system has no room for the pages
    }
    this.#view = new Uint8Array(this.#memory.buffer);
    this.stats.heldBytes = this.#view.length;
    return true;
  }

  /** Takes a block. Where there is none, buffers that were set aside leave, except those `inUse`. */
  #take(bytes: number, inUse: readonly (Storage | null)[] = []): number {
    if (this.#closed) throw new Error("cpu device: used after close()");
    let at = this.#allocator.alloc(bytes);
    for (const storage of at < 0 ? this.#aside : []) {
      if (storage.at < 0 || inUse.includes(storage)) continue;
      storage.contents = this.#view.slice(storage.at, storage.at + storage.bytes);
      this.#give(storage.at, storage.held);
      storage.at = AWAY;
      at = this.#allocator.alloc(bytes);
      if (at >= 0) break;
    }
    if (at < 0) {
      throw new Error(
        `cpu device: out of memory: ${bytes} bytes needed, ${
          this.#allocator.largest(this.#limit)
        } available ` +
          `in one piece (${this.stats.liveBytes} of ${this.#limit} in use)`,
      );
    }
    this.stats.liveBytes += Allocator.rounded(bytes);
    this.stats.peakBytes = Math.max(this.stats.peakBytes, this.stats.liveBytes);
    return at;
  }

  #give(at: number, bytes: number): void {
    this.#allocator.free(at, bytes);
    this.stats.liveBytes -= Allocator.rounded(bytes);
  }

  /** Makes the private areas of all threads at least `bytes` long. */
  #needScratch(bytes: number): void {
    if (bytes <= this.#scratchStride) return;
    if (this.#scratchStride > 0) this.#give(this.#scratch, this.#scratchStride * this.#threads);
    this.#scratchStride = 0;
    const stride = Math.ceil(bytes / 4096) * 4096 + 64; // an odd number of lines: areas fall on different cache sets
    this.#scratch = this.#take(stride * this.#threads);
    this.#scratchStride = stride;
  }

  alloc(bytes: number): Storage {
    if (!(bytes >= 0)) throw new RangeError(`cpu device: alloc got ${bytes} bytes, expected 0 or more`);
    return new CpuStorage(this.#take(bytes), bytes);
  }

  free(storage: Storage): void {
    const s = this.#own(storage, "free");
    if (s.at !== AWAY) this.#give(s.at, s.held);
    s.at = FREED;
    s.contents = null;
    this.#aside.delete(s);
  }

  setAside(storage: Storage): void {
    const s = this.#own(storage, "setAside");
    if (!s.packing) this.#aside.add(s);
  }

  /** The buffer with its contents in the memory; `inUse` have to stay there. */
  #present(storage: Storage, what: string, inUse: readonly (Storage | null)[] = []): CpuStorage {
    const s = this.#own(storage, what);
    if (this.#aside.delete(s)) this.#aside.add(s); // used last
    if (s.at !== AWAY) return s;
    s.at = this.#take(s.held, inUse);
    this.#view.set(s.contents!, s.at);
    s.contents = null;
    return s;
  }

  #own(storage: Storage, what: string): CpuStorage {
    if (!(storage instanceof CpuStorage)) {
      throw new TypeError(`cpu device: ${what} got a buffer of another device`);
    }
    if (storage.at === FREED) throw new Error(`cpu device: ${what} got a buffer that was freed`);
    return storage;
  }

  write(storage: Storage, data: ArrayBufferView, byteOffset = 0): void {
    const s = this.#present(storage, "write");
    if (byteOffset < 0 || byteOffset + data.byteLength > s.bytes) {
      throw new RangeError(
        `cpu device: write of ${data.byteLength} bytes at ${byteOffset}, expected within ${s.bytes} bytes`,
      );
    }
    const packing = s.packing;
    if (packing) this.#unpack(s);
    this.#view.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), s.at + byteOffset);
    if (packing) this.#packAs(s, packing);
  }

  read(storage: Storage, byteOffset = 0, bytes?: number): Promise<ArrayBuffer> {
    try {
      this.stats.waits++;
      const s = this.#present(storage, "read");
      const count = bytes ?? s.bytes - byteOffset;
      if (byteOffset < 0 || !(count >= 0) || byteOffset + count > s.bytes) {
        throw new RangeError(
          `cpu device: read of ${count} bytes at ${byteOffset}, expected within ${s.bytes} bytes`,
        );
      }
      if (s.packing) return Promise.resolve(this.#readPacked(s, s.packing, byteOffset, count));
      const result = new Uint8Array(count);
      result.set(this.#view.subarray(s.at + byteOffset, s.at + byteOffset + count));
      return Promise.resolve(result.buffer);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  run(launch: Launch): void {
    const { kernel, params } = launch;
    if (this.#closed) throw new Error(`${kernel.name}: the cpu device is closed`);
    if (this.#lost !== null) {
      throw new Error(`${kernel.name}: a worker of the cpu device ended: ${this.#lost}`);
    }
    const binding = this.#binding(kernel);
    let work = binding.work.get(params);
    if (!work) binding.work.set(params, work = workOf(kernel, binding, params, this.#threads, this.#blas));
    const { scratch, shared } = work;
    if (scratch > this.#scratchStride) this.#needScratch(scratch);
    this.stats.dispatches++;
    if (shared === 0) return this.#phases(work, binding, launch, 0);
    const at = this.#take(shared);
    try {
      this.#phases(work, binding, launch, at);
    } finally {
      this.#give(at, shared);
    }
  }

  /** Runs the phases of a launch one after the other; `shared` is the address of what they share. */
  #phases(work: Work, binding: Binding, launch: Launch, shared: number): void {
    this.#pass(work, launch, shared);
    let first = 0;
    for (const tasks of work.phases) {
      if (work.alone) {
        for (let task = first; task < first + tasks; task++) binding.fn(ARGS, task, this.#scratch);
      } else if (tasks > 0) this.#share(launch.kernel, binding, first, tasks);
      first += tasks;
    }
  }

  #binding(kernel: Kernel): Binding {
    let binding = this.#bindings.get(kernel);
    if (!binding) {
      this.#bindings.set(kernel, binding = bindingOf(kernel, this.#functions));
      this.stats.pipelines = this.#bindings.size;
    }
    return binding;
  }

  /** Writes the arguments of a launch. Bit 0 of a weight's address tells the kernel that it is packed. */
  #pass(work: Work, { kernel, buffers }: Launch, shared: number): void {
    const count = kernel.buffers.length;
    if (buffers.length !== count) {
      throw new RangeError(`${kernel.name}: ${buffers.length} buffers, expected ${count}`);
    }
    const words = this.#words;
    for (let i = 0; i < count; i++) {
      const buffer = buffers[i];
      if (!buffer) {
        words[i] = 0;
        continue;
      }
      const s = this.#present(buffer, kernel.name, buffers);
      words[i] = s.at;
      if (!s.packing) continue;
      const wanted = work.packed[kernel.buffers[i].name];
      const { rows, length, taps } = s.packing;
      if (wanted && wanted[0] === rows && wanted[1] === length && wanted[2] === taps) words[i] = s.at | 1;
      else {
        this.#unpack(s);
        words[i] = s.at;
      }
    }
    words.set(work.words, count);
    words[count + work.words.length] = shared;
  }

  /** Runs tasks first ... first+tasks-1 of the launch whose arguments are set on all threads. */
  #share(kernel: Kernel, binding: Binding, first: number, tasks: number): void {
    const control = this.#control;
    control[CONTROL.FN] = binding.index;
    control[CONTROL.TASKS] = tasks;
    control[CONTROL.FIRST] = first;
    control[CONTROL.SCRATCH] = this.#scratch;
    control[CONTROL.SCRATCH_STRIDE] = this.#scratchStride;
    Atomics.store(control, CONTROL.DONE, 0);
    Atomics.store(control, CONTROL.TICKETS, tasks);
    Atomics.add(control, CONTROL.WAKE, 1);
    if (Atomics.load(control, CONTROL.SLEEPERS) > 0) Atomics.notify(control, CONTROL.WAKE, tasks - 1);
    let failure: unknown = null;
    let ticket: number;
    while ((ticket = Atomics.sub(control, CONTROL.TICKETS, 1)) > 0) {
      try {
        if (failure === null) binding.fn(ARGS, first + tasks - ticket, this.#scratch);
      } catch (error) {
        failure = error;
      }
      Atomics.add(control, CONTROL.DONE, 1);
    }
    for (let i = 0; i < SPIN && Atomics.load(control, CONTROL.DONE) < tasks; i++) pause();
    if (Atomics.load(control, CONTROL.DONE) < tasks) {
      Atomics.store(control, CONTROL.WAITING, 1);
      for (let done; (done = Atomics.load(control, CONTROL.DONE)) < tasks;) {
        Atomics.wait(control, CONTROL.DONE, done, 100);
      }
      Atomics.store(control, CONTROL.WAITING, 0);
    }
    if (failure === null && Atomics.load(control, CONTROL.ERROR) !== 0) {
      const text = new Uint16Array(this.#memory.buffer, ERROR_TEXT, ERROR_UNITS + 1);
      failure = new Error(String.fromCharCode(...text.subarray(1, 1 + text[0])));
    }
    Atomics.store(control, CONTROL.ERROR, 0);
    if (failure !== null) {
      throw new Error(
        `${kernel.name}: the kernel failed: ${failure instanceof Error ? failure.message : failure}`,
        {
          cause: failure,
        },
      );
    }
  }

  pack(storage: Storage, request: PackRequest): void {
    const s = this.#present(storage, "pack");
    if (s.packing) return;
    this.#aside.delete(s); // a packed weight stays where it is
    const packing = packingOf(request, s.bytes);
    if (!packing || (this.#blas && request.kind === "linear")) return; // a BLAS reads rows as they are
    this.#packAs(s, packing);
  }

  #packAs(s: CpuStorage, packing: Packing): void {
    const padded = packedBytes(packing);
    if (Allocator.rounded(padded) > Allocator.rounded(s.held)) {
      // The last panel is padded to 8 rows and needs more room than the block has.
      const at = this.#take(padded);
      this.#view.copyWithin(at, s.at, s.at + s.bytes);
      this.#give(s.at, s.held);
      s.at = at;
      s.held = padded;
    }
    packRows(this.#panels(packing), s.at, packing);
    s.packing = packing;
  }

  /** The memory, with scratch for a panel. */
  #panels(packing: Packing): PanelMemory {
    this.#needScratch(panelBytes(packing));
    return { view: this.#view, scratch: this.#scratch, exports: this.#exports };
  }

  #unpack(s: CpuStorage): void {
    this.#view.set(new Uint8Array(this.#readPacked(s, s.packing!, 0, s.bytes)), s.at);
    s.packing = null;
  }

  #readPacked(s: CpuStorage, packing: Packing, byteOffset: number, bytes: number): ArrayBuffer {
    return readRows(this.#panels(packing), s.at, packing, byteOffset, bytes);
  }

  flush(): void {}

  sync(): Promise<void> {
    this.stats.waits++;
    return Promise.resolve();
  }

  /** A WebAssembly memory cannot shrink: freed blocks stay with the device and are used again. */
  trim(): void {}

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    Atomics.store(this.#control, CONTROL.CLOSED, 1);
    Atomics.add(this.#control, CONTROL.WAKE, 1);
    Atomics.notify(this.#control, CONTROL.WAKE);
    for (const worker of this.#workers) worker.terminate();
  }
}
