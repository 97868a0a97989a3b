/**
 * Where the readers take their bytes from: a file that is sought, or bytes that are already in memory.
 *
 * @module
 */
import { accessError, FileAccessError, FileFormatError } from "./errors.ts";

/** Random access to the bytes of a file. Offsets may exceed 4 GiB. */
export interface ByteSource extends Disposable {
  /** The file's path, or a word for bytes in memory; starts every error message. */
  readonly path: string;
  /** Length in bytes. */
  readonly size: number;
  /**
   * Reads exactly `length` bytes at `offset`. The result may be a view of the source.
   *
   * @throws {FileFormatError} If the range leaves the file.
   */
  read(offset: number, length: number): Uint8Array<ArrayBuffer>;
  /** Closes the file; later reads throw. */
  close(): void;
}

/** One system call reads at most this much: Linux stops at 2 GiB - 4 KiB. */
const LARGEST_READ = 2 ** 30;

function checkRange(source: ByteSource, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (!whole || offset < 0 || length < 0 || offset + length > source.size) {
    throw new FileFormatError(
      source.path,
      `expected ${length} bytes at offset ${offset}, the file ends at ${source.size} (truncated or damaged)`,
    );
  }
}

class BytesSource implements ByteSource {
  readonly path: string;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(bytes: Uint8Array<ArrayBuffer>, path: string) {
    this.#bytes = bytes;
    this.path = path;
  }
  get size(): number {
    return this.#bytes.byteLength;
  }
  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    checkRange(this, offset, length);
    return this.#bytes.subarray(offset, offset + length);
  }
  close(): void {}
  [Symbol.dispose](): void {}
}

/** Describes what is at a path instead of a regular file. */
function kindOf(info: Deno.FileInfo): string {
  if (info.isDirectory) return "a folder";
  if (info.isFifo) return "a pipe";
  if (info.isSocket) return "a socket";
  return "a device";
}

/**
 * Opens a regular file, at the end of links, for reading. Looks before it opens, because opening a pipe waits until somebody
 * writes into it, and opening a device may do anything; and looks again afterwards, at what was opened.
 *
 * @param path The file.
 * @throws {FileAccessError} If it is missing, not permitted, or no regular file: what is there instead.
 */
export function openFile(path: string): Deno.FsFile {
  let file: Deno.FsFile | undefined;
  try {
    for (const look of [() => Deno.statSync(path), () => file!.statSync()]) {
      const info = look();
      if (!info.isFile) throw new FileAccessError(path, `expected a regular file, found ${kindOf(info)}`);
      file ??= Deno.openSync(path);
    }
    return file!;
  } catch (error) {
    file?.close();
    throw accessError(path, "cannot open", error);
  }
}

class FileSource implements ByteSource {
  readonly path: string;
  readonly size: number;
  #file: Deno.FsFile | undefined;

  constructor(path: string) {
    this.path = path;
    this.#file = openFile(path);
    this.size = this.#file.statSync().size;
  }
  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const file = this.#file;
    if (file === undefined) throw new FileAccessError(this.path, "cannot read: the file was closed");
    checkRange(this, offset, length);
    const bytes = new Uint8Array(length);
    try {
      file.seekSync(offset, Deno.SeekMode.Start);
      for (let done = 0; done < length;) {
        const count = file.readSync(bytes.subarray(done, Math.min(length, done + LARGEST_READ)));
        if (count === null || count === 0) {
          throw new FileFormatError(this.path, `became shorter while it was read: ended at ${offset + done}`);
        }
        done += count;
      }
    } catch (error) {
      throw accessError(this.path, "cannot read", error);
    }
    return bytes;
  }
  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Opens the file for every read, so that it can be kept without holding it open. */
class VisitedSource implements ByteSource {
  readonly path: string;
  readonly size: number;

  constructor(path: string) {
    this.path = path;
    using file = new FileSource(path);
    this.size = file.size;
  }
  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    using file = new FileSource(this.path);
    if (file.size !== this.size) {
      throw new FileFormatError(
        this.path,
        `changed while in use: had ${this.size} bytes, found ${file.size}`,
      );
    }
    return file.read(offset, length);
  }
  close(): void {}
  [Symbol.dispose](): void {}
}

/**
 * A file that is opened for every read: for those that are kept for long, such as the shards of a data set.
 *
 * @param path The file.
 * @throws {FileAccessError} If the file is missing, not permitted or no regular file.
 */
export function visitSource(path: string): ByteSource {
  return new VisitedSource(path);
}

/**
 * Opens a file, or wraps bytes, for random access.
 *
 * @param from A path, or the whole content.
 * @param name What to call bytes in messages.
 * @throws {FileAccessError} If the file is missing, not permitted or no regular file.
 */
export function openSource(from: string | Uint8Array, name = "(bytes in memory)"): ByteSource {
  if (typeof from === "string") return new FileSource(from);
  // A view of shared memory would change under the reader, and TextDecoder and zlib refuse it.
  const own = from.buffer instanceof ArrayBuffer ? from as Uint8Array<ArrayBuffer> : new Uint8Array(from);
  return new BytesSource(own, name);
}
