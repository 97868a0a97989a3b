/**
 * ffmpeg in this process, for machines without one: npm:@ffmpeg/core in a worker.
 *
 * @module
 */
import { FileAccessError } from "./errors.ts";
import type { Running } from "./ffmpeg.ts";
import { type Ended, FfmpegLog } from "./ffmpeg_log.ts";

/** The package: ffmpeg 5.1 with its codec libraries as WebAssembly, GPL-2.0-or-later, 20 MB. */
export const CORE_PACKAGE = "npm:@ffmpeg/core@0.12.10";

/** The job of a worker. */
export interface Job {
  readonly module: WebAssembly.Module;
  readonly args: readonly string[];
  /** A file, or a ring of bytes with the counts of bytes written and read and a flag for the end. */
  readonly input: { readonly path: string } | {
    readonly control: SharedArrayBuffer;
    readonly ring: SharedArrayBuffer;
  };
  /** Count of output bytes that nobody has taken yet. */
  readonly output: SharedArrayBuffer;
  /** Whether the output is a file that ffmpeg seeks in, sent when it is complete. */
  readonly whole: boolean;
}

/** Messages from a worker. */
export type FromWorker =
  | { readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly line: string }
  | { readonly code: number }
  | { readonly error: string };

const RING = 1 << 23; // divides 2^32, so that counts may wrap around

let compiled: Promise<WebAssembly.Module> | undefined;

/** The compiled program: fetched by Deno into its own cache when first needed, compiled once (0.3 s). */
function coreModule(): Promise<WebAssembly.Module> {
  return compiled ??= (async () => {
    const name: string = CORE_PACKAGE; // no literal in import(): Deno would fetch it with every command
    try {
      await import(name);
      const url = new URL(import.meta.resolve(`${name}/wasm`));
      if (Deno.permissions.querySync({ name: "read", path: url }).state !== "granted") {
        throw new Error("reading Deno's cache is not permitted, add --allow-read");
      }
      return await WebAssembly.compile(Deno.readFileSync(url));
    } catch (error) {
      compiled = undefined;
      throw new FileAccessError(
        CORE_PACKAGE,
        "is needed to read or write this video where there is no ffmpeg, and cannot be loaded " +
          `(${error instanceof Error ? error.message.split("\n")[0] : error}): ` +
          "let Deno fetch it once with a network, or install ffmpeg",
        { cause: error },
      );
    }
  })();
}

/** An ffmpeg in a worker. One worker does one job, so nothing is left of the one before. */
export class FfmpegCore implements Running {
  readonly #worker: Worker;
  readonly #log = new FfmpegLog();
  readonly #output = new SharedArrayBuffer(4);
  readonly #control = new SharedArrayBuffer(12);
  readonly #ring: Uint8Array<SharedArrayBuffer> | undefined;
  readonly #parts: Uint8Array<ArrayBuffer>[] = [];
  readonly #over: PromiseWithResolvers<void> = Promise.withResolvers();
  #code: number | undefined;
  #wake: () => void = () => {};

  private constructor(
    module: WebAssembly.Module,
    args: readonly string[],
    path: string | undefined,
    whole: boolean,
  ) {
    this.#worker = new Worker(new URL("./ffmpeg_worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if ("bytes" in data) this.#parts.push(data.bytes);
      else if ("line" in data) this.#log.push(`${data.line}\n`);
      else if ("error" in data) this.#finish(-1, data.error);
      else this.#finish(data.code);
      this.#wake();
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#finish(-1, event.message);
    };
    if (path === undefined) this.#ring = new Uint8Array(new SharedArrayBuffer(RING));
    const input = path === undefined ? { control: this.#control, ring: this.#ring!.buffer } : { path };
    const job: Job = { module, args, input, output: this.#output, whole };
    this.#worker.postMessage(job);
  }

  /**
   * Starts it.
   *
   * @param args Arguments; the input is `/input`, the output `/output`.
   * @param path The file behind `/input`; what is written to this object when absent.
   * @param whole Whether the output is a file that ffmpeg seeks in.
   * @throws {FileAccessError} If the package cannot be loaded.
   */
  static async start(args: readonly string[], path: string | undefined, whole: boolean): Promise<FfmpegCore> {
    return new FfmpegCore(await coreModule(), args, path, whole);
  }

  #finish(code: number, error?: string): void {
    if (this.#code !== undefined) return;
    if (error !== undefined) this.#log.push(`[error] ${error.split("\n")[0]}\n`);
    this.#code = code;
    this.#worker.terminate();
    this.#over.resolve();
    this.#wake();
  }

  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    while (this.#parts.length === 0 && this.#code === undefined) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    const bytes = this.#parts.shift();
    if (bytes === undefined) return undefined;
    const waiting = new Int32Array(this.#output);
    Atomics.sub(waiting, 0, bytes.byteLength);
    Atomics.notify(waiting, 0);
    return bytes;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const counts = new Int32Array(this.#control), ring = this.#ring!;
    for (let done = 0; done < bytes.length;) {
      if (this.#code !== undefined) throw new Deno.errors.BrokenPipe("ffmpeg has ended");
      const written = Atomics.load(counts, 0), read = Atomics.load(counts, 1);
      const at = (written >>> 0) % RING, room = RING - ((written - read) >>> 0);
      if (room === 0) {
        const { async, value } = Atomics.waitAsync(counts, 1, read);
        if (async) await Promise.race([value, this.#over.promise]);
        continue;
      }
      const count = Math.min(bytes.length - done, room, RING - at);
      ring.set(bytes.subarray(done, done + count), at);
      Atomics.store(counts, 0, (written + count) | 0);
      Atomics.notify(counts, 0);
      done += count;
    }
  }

  close(): Promise<void> {
    const counts = new Int32Array(this.#control);
    Atomics.store(counts, 2, 1);
    Atomics.notify(counts, 0);
    return Promise.resolve();
  }

  async end(): Promise<Ended> {
    await this.#over.promise;
    return { success: this.#code === 0, said: this.#log.said };
  }

  stop(): Promise<void> {
    this.#finish(-1);
    return Promise.resolve();
  }
}
