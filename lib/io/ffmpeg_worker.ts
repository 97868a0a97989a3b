/**
 * The worker in which npm:@ffmpeg/core runs: ffmpeg 5.1 as WebAssembly, on one thread. It sees two devices and nothing else:
 * `/input`, the one file that it was given or the frames that are handed to it, and `/output`.
 *
 * Only this module names the package, so that nobody downloads it whose command reads no video.
 *
 * @module
 */
// deno-lint-ignore no-import-prefix -- lib/ is also imported where no import map is
import createCore from "npm:@ffmpeg/core@0.12.10";
import type { FromWorker, Job } from "./ffmpeg_core.ts";

/** The part of Emscripten's file system that is used. */
interface FileSystem {
  makedev(major: number, minor: number): number;
  registerDevice(device: number, operations: Record<string, unknown>): void;
  mkdev(path: string, device: number): void;
  create(path: string): {
    usedBytes: number;
    stream_ops: Record<string, unknown>;
  };
  readFile(path: string): Uint8Array<ArrayBuffer>;
}
interface Core {
  readonly FS: FileSystem;
  exec(...args: string[]): number;
  setLogger(logger: (line: { message: string }) => void): void;
}
interface Worker {
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  onmessage: (event: MessageEvent<Job>) => void;
}

const worker = self as unknown as Worker;

/** The bytes that Emscripten means: it gives its heap as signed ones. */
const bytesOf = (heap: Int8Array<ArrayBuffer>, offset: number, length: number): Uint8Array<ArrayBuffer> =>
  new Uint8Array(heap.buffer, heap.byteOffset + offset, length);

/** Bytes that may wait for the reader of the output. */
const AHEAD = 32 << 20;

/** Sends a piece of the output, and waits while the reader is far behind. */
function sender({ output }: Job): (bytes: Uint8Array<ArrayBuffer>) => void {
  const waiting = new Int32Array(output);
  return (bytes) => {
    Atomics.add(waiting, 0, bytes.byteLength);
    worker.postMessage({ bytes }, [bytes.buffer]);
    for (let now; (now = Atomics.load(waiting, 0)) > AHEAD;) Atomics.wait(waiting, 0, now);
  };
}

/**
 * The file as `/input`: read piece by piece when ffmpeg asks, so its length does not matter. Some damaged files send ffmpeg back
 * and forth without end; nothing intact is read 64 times.
 */
function mountFile(fs: FileSystem, path: string): Deno.FsFile {
  const file = Deno.openSync(path), node = fs.create("/input"), { size } = file.statSync();
  let left = 64 * size + 2 ** 28; // bytes; a read of nothing counts as 4 KiB
  node.usedBytes = size;
  node.stream_ops = {
    ...node.stream_ops,
    read(_: unknown, heap: Int8Array<ArrayBuffer>, offset: number, length: number, position: number): number {
      file.seekSync(position, Deno.SeekMode.Start);
      const count = file.readSync(bytesOf(heap, offset, length)) ?? 0;
      left -= Math.max(count, 4096);
      if (left < 0) throw new Error("the file is read again and again without an end");
      return count;
    },
  };
  return file;
}

/** Frames from the other side as `/input`, through a ring: how much was written, how much was read, whether it ends. */
function mountRing(
  fs: FileSystem,
  { control, ring }: { control: SharedArrayBuffer; ring: SharedArrayBuffer },
): void {
  const counts = new Int32Array(control), bytes = new Uint8Array(ring);
  const device = fs.makedev(64, 1);
  fs.registerDevice(device, {
    open() {},
    close() {},
    read(_: unknown, heap: Int8Array<ArrayBuffer>, offset: number, length: number): number {
      let written = Atomics.load(counts, 0);
      const read = Atomics.load(counts, 1);
      while (written === read) {
        if (Atomics.load(counts, 2) === 1) return 0;
        Atomics.wait(counts, 0, written, 50); // the end is announced elsewhere, so it may be missed once
        written = Atomics.load(counts, 0);
      }
      const at = (read >>> 0) % bytes.length,
        count = Math.min(length, (written - read) >>> 0, bytes.length - at);
      bytesOf(heap, offset, count).set(bytes.subarray(at, at + count));
      Atomics.store(counts, 1, (read + count) | 0);
      Atomics.notify(counts, 1);
      return count;
    },
  });
  fs.mkdev("/input", device);
}

worker.onmessage = async ({ data: job }) => {
  try {
    const core = await (createCore as (options: unknown) => Promise<Core>)({
      instantiateWasm(
        imports: WebAssembly.Imports,
        receive: (instance: WebAssembly.Instance) => void,
      ): unknown {
        receive(new WebAssembly.Instance(job.module, imports));
        return {};
      },
    });
    core.setLogger(({ message }) => {
      if (message !== "Aborted()") worker.postMessage({ line: message }); // how it leaves main(), always
    });
    const send = sender(job);
    using _file = "path" in job.input ? mountFile(core.FS, job.input.path) : undefined;
    if ("ring" in job.input) mountRing(core.FS, job.input);
    if (!job.whole) {
      const device = core.FS.makedev(64, 0);
      core.FS.registerDevice(device, {
        open() {},
        close() {},
        write(_: unknown, heap: Int8Array<ArrayBuffer>, offset: number, length: number): number {
          send(bytesOf(heap, offset, length).slice());
          return length;
        },
      });
      core.FS.mkdev("/output", device);
    }
    const code = core.exec(...job.args);
    if (job.whole && code === 0) send(core.FS.readFile("/output"));
    worker.postMessage({ code });
  } catch (error) {
    worker.postMessage({ error: error instanceof Error ? error.message : String(error) });
  }
};
