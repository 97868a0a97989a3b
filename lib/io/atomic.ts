/**
 * The one way in which anything is written: into a temporary file or folder beside the target, then renamed over it.
 * A reader of the target sees the old content or the new, never a part; after a failure the old content is still there
 * and the temporary one is gone.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { accessError, FileAccessError } from "./errors.ts";

/** Where the content of a file goes while it is being written. */
export interface FileWriter {
  /** Appends all of `bytes`. */
  write(bytes: Uint8Array): void;
  /** Bytes written so far. */
  readonly position: number;
}

/**
 * Temporary files and folders of this process, with a locked handle on each: the lock tells other processes that somebody
 * still writes, and ends with this process, however that ends.
 */
const live = new Map<string, Deno.FsFile | null>();

const TEMPORARY = /^\..+\.\d+-[0-9a-f]{8}\.tmp$/;

/** Whether a name in a folder is one that unfinished files and folders get here. */
export const isTemporary = (name: string): boolean => TEMPORARY.test(name);

function forget(path: string): void {
  live.get(path)?.close();
  live.delete(path);
}

function removeQuietly(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch {
    // Already gone, or the system refuses: there is nothing better to do, and the first error is the one to report.
  }
  forget(path);
}

/** A locked handle on a file or folder; null where the system has no locks on it. */
function lockOf(path: string): Deno.FsFile | null | "taken" {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path);
  } catch {
    return null; // Windows cannot open a folder as a file
  }
  try {
    if (file.tryLockSync(true)) return file;
    file.close();
    return "taken";
  } catch {
    file.close();
    return null; // no locks on this file system
  }
}

/** Without locks, a temporary file this old belongs to no process that still writes to it. */
const STALE_MS = 3_600_000;

/** Removes a temporary file or folder of a process that has ended; leaves that of one that still writes. */
function removeAbandoned(path: string): void {
  const lock = live.has(path) ? "taken" : lockOf(path);
  if (lock === "taken") return;
  lock?.close();
  const age = Date.now() - (Deno.statSync(path).mtime?.getTime() ?? Date.now());
  if (lock !== null || age > STALE_MS) Deno.removeSync(path, { recursive: true });
}

/** Removes what killed processes left in a folder: all of it, or what they left for one target. */
export function sweepAbandoned(folder: string, target = ""): void {
  try {
    for (const { name } of Deno.readDirSync(folder)) {
      if (name.startsWith(`.${target}`) && isTemporary(name)) removeAbandoned(join(folder, name));
    }
  } catch {
    // Listing the folder may not be permitted; abandoned files are a nuisance, not an error.
  }
}

/** Where a link leads; a path that does not exist stays as it is. */
function resolved(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    return path;
  }
}

function existing(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Makes an empty temporary file or folder beside the target, locked by this process. */
function temporary(target: string, kind: "file" | "folder"): string {
  if (live.size === 0) globalThis.addEventListener("unload", removeLive, { once: true });
  const folder = dirname(target);
  Deno.mkdirSync(folder, { recursive: true });
  sweepAbandoned(folder, `${basename(target)}.`);
  for (;;) {
    const path = join(
      folder,
      `.${basename(target)}.${Deno.pid}-${crypto.randomUUID().slice(0, 8)}.tmp`,
    );
    if (kind === "folder") Deno.mkdirSync(path);
    else Deno.openSync(path, { write: true, createNew: true }).close();
    const lock = lockOf(path);
    // Between making and locking it, another process may have taken it for abandoned.
    if (lock !== "taken" && existing(path) !== undefined) {
      live.set(path, lock);
      return path;
    }
    if (lock !== "taken") lock?.close();
  }
}

function removeLive(): void {
  for (const path of [...live.keys()]) removeQuietly(path);
}

/** Makes a rename survive a power cut, where the system can flush a folder. */
function syncFolder(folder: string): void {
  try {
    using handle = Deno.openSync(folder);
    handle.syncSync();
  } catch {
    // Windows cannot open a folder as a file; the rename is still atomic, only later on disk.
  }
}

class OpenFile implements FileWriter {
  position = 0;
  readonly #file: Deno.FsFile;

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }
  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.byteLength;) {
      done += this.#file.writeSync(bytes.subarray(done, Math.min(bytes.byteLength, done + 2 ** 30)));
    }
    this.position += bytes.byteLength;
  }
}

/**
 * Writes a file: all of it, or nothing. Missing folders on the way are made.
 *
 * @param path The file; replaced if it exists. A symbolic link is followed.
 * @param content The content, or a function that writes it piece by piece.
 * @throws {FileAccessError} If the system refuses (disk full, no permission, path below a file): one line that says so.
 *
 * @example
 * ```ts
 * import { writeAtomic } from "./atomic.ts";
 * const folder = Deno.makeTempDirSync();
 * await writeAtomic(`${folder}/settings.json`, "{}\n");
 * console.assert(Deno.readTextFileSync(`${folder}/settings.json`) === "{}\n");
 * Deno.removeSync(folder, { recursive: true });
 * ```
 */
export async function writeAtomic(
  path: string,
  content: string | Uint8Array | ((file: FileWriter) => void | Promise<void>),
): Promise<void> {
  await renamed(path, async (temp) => {
    using file = Deno.openSync(temp, { write: true });
    const writer = new OpenFile(file);
    if (typeof content === "function") await content(writer);
    else writer.write(typeof content === "string" ? new TextEncoder().encode(content) : content);
    file.syncSync();
  });
}

/**
 * Lets another program or library write a file: it gets a temporary path beside the target, which is renamed when
 * `write` has returned, and removed when it has thrown.
 *
 * @param path The file; replaced if it exists.
 * @param write Writes the whole file over the empty one at the path that it is given. The name ends in `.tmp`, whatever
 * the format.
 * @throws {FileAccessError} If the system refuses, or nothing was written.
 */
export async function writeAtomicAt(
  path: string,
  write: (temp: string) => void | Promise<void>,
): Promise<void> {
  await renamed(path, async (temp) => {
    await write(temp);
    using file = Deno.openSync(temp, { read: true, write: true });
    if (file.statSync().size === 0) throw new FileAccessError(path, "cannot write: nothing was written");
    file.syncSync();
  });
}

async function renamed(path: string, write: (temp: string) => Promise<void>): Promise<void> {
  let temp: string | undefined;
  try {
    const target = resolved(path);
    const before = existing(target);
    if (before !== undefined && !before.isFile) {
      // Renaming over /dev/null would replace it, for root.
      throw new FileAccessError(path, "cannot write: exists and is not a regular file");
    }
    temp = temporary(target, "file");
    await write(temp);
    Deno.renameSync(temp, target);
    forget(temp);
    syncFolder(dirname(target));
  } catch (error) {
    if (temp !== undefined) removeQuietly(temp);
    throw systemError(path, error);
  }
}

/** Errors of the system get one plain line with the path; an error of the caller's own code passes unchanged. */
function systemError(path: string, error: unknown): unknown {
  const fromSystem = typeof (error as { code?: unknown } | null)?.code === "string" ||
    error instanceof Deno.errors.NotCapable;
  return fromSystem ? accessError(path, "cannot write", error) : error;
}

/**
 * Writes a new folder: all of it, or nothing. What is there already is never replaced.
 *
 * @param path The folder; it must not exist, or be empty.
 * @param fill Fills the empty temporary folder that it is given.
 * @throws {FileAccessError} If the system refuses, or `path` exists and is not an empty folder.
 */
export async function writeFolderAtomic(
  path: string,
  fill: (temp: string) => void | Promise<void>,
): Promise<void> {
  let temp: string | undefined;
  try {
    const target = resolved(path);
    const before = existing(target);
    if (before !== undefined && !before.isDirectory) {
      throw new FileAccessError(path, "cannot write: exists and is not a folder");
    }
    if (before !== undefined && [...Deno.readDirSync(target)].length > 0) {
      throw new FileAccessError(path, "cannot write: exists and is not empty");
    }
    temp = temporary(target, "folder");
    await fill(temp);
    Deno.renameSync(temp, target); // fails where the target is not empty by now
    forget(temp);
    syncFolder(dirname(target));
  } catch (error) {
    if (temp !== undefined) removeQuietly(temp);
    throw systemError(path, error);
  }
}
