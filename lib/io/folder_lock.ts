/**
 * A lock on a folder: one process at a time writes into it.
 *
 * The lock is the operating system's lock on a file in the folder, so it ends with its process, however that ends. The
 * file names the process, for the message to the one that comes second; it is removed when the lock is given back.
 *
 * @module
 */
import { join } from "node:path";
import { accessError, FileAccessError } from "./errors.ts";
import { readText } from "./text.ts";

/** Name of the file. */
export const LOCK_FILE = "far-job.lock";

/** Holder of a lock. */
interface Holder {
  readonly pid: number;
  readonly host: string;
  readonly since: string;
}

/** Another process holds the folder, or may hold it from another machine. */
export class FolderLockedError extends Error {
  /** Tells this error from others where classes cannot be compared. */
  override readonly name = "FolderLockedError";
}

function hostName(): string {
  // Without the permission (and never with a question) a lock from another machine is not recognised.
  const { state } = Deno.permissions.querySync({ name: "sys", kind: "hostname" });
  return state === "granted" ? Deno.hostname() : "";
}

function readHolder(path: string): Partial<Holder> {
  try {
    const { pid, host, since } = JSON.parse(readText(path));
    return {
      ...(Number.isSafeInteger(pid) ? { pid } : {}),
      ...(typeof host === "string" ? { host } : {}),
      ...(typeof since === "string" ? { since } : {}),
    };
  } catch {
    return {}; // empty, cut off, or just removed: the lock itself decides
  }
}

const describe = ({ pid, host, since }: Partial<Holder>) =>
  `process ${pid ?? "unknown"}${host ? ` on ${host}` : ""}${since ? ` since ${since}` : ""}`;

/** A lock that is held until it is disposed of. */
export class FolderLock implements Disposable {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  #held = true;

  private constructor(path: string, file: Deno.FsFile) {
    this.#path = path;
    this.#file = file;
  }

  /**
   * Takes the lock of a folder. The lock of a process that has ended is taken over.
   *
   * @param folder The folder, which exists.
   * @throws {FolderLockedError} If another process holds it: which one, and what to do.
   * @throws {FileAccessError} If the lock file cannot be written.
   */
  static take(folder: string): FolderLock {
    const path = join(folder, LOCK_FILE);
    for (;;) {
      let file: Deno.FsFile;
      try {
        refuseOther(path); // opening would follow a link
        file = Deno.openSync(path, { read: true, write: true, create: true });
      } catch (error) {
        throw accessError(folder, "cannot write", error);
      }
      try {
        const before = readHolder(path), host = hostName();
        if (!file.tryLockSync(true)) {
          throw new FolderLockedError(
            `${folder}: ${describe(before)} is writing into it: wait for it, or choose another folder`,
          );
        }
        // The holder before us may have removed the file that we opened: then our lock is on nothing.
        if (!sameFile(path, file)) {
          file.close();
          continue;
        }
        if (before.host && host && before.host !== host) {
          // A shared file system need not pass locks from one machine to another.
          throw new FolderLockedError(
            `${folder}: ${
              describe(before)
            } may be writing into it: wait for it, or remove ${path} if that process is gone`,
          );
        }
        const holder: Holder = { pid: Deno.pid, host, since: new Date().toISOString() };
        const text = new TextEncoder().encode(`${JSON.stringify(holder)}\n`);
        file.truncateSync(0);
        file.writeSync(text);
        return new FolderLock(path, file);
      } catch (error) {
        file.close();
        throw error instanceof FolderLockedError ? error : accessError(folder, "cannot lock", error);
      }
    }
  }

  /** Gives the lock back and removes its file. */
  [Symbol.dispose](): void {
    if (!this.#held) return;
    this.#held = false;
    try {
      if (sameFile(this.#path, this.#file)) Deno.removeSync(this.#path);
    } catch {
      // The folder is gone or read-only by now; the lock ends with the file's handle.
    }
    this.#file.close();
  }
}

/** Refuses a link or a folder where the lock file belongs. */
function refuseOther(path: string): void {
  try {
    if (Deno.lstatSync(path).isFile) return;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  throw new FileAccessError(path, "expected a lock file, found a link or a folder: remove it");
}

/** Whether the path still leads to the open file. */
function sameFile(path: string, file: Deno.FsFile): boolean {
  try {
    const [at, open] = [Deno.lstatSync(path), file.statSync()];
    return at.isFile && at.ino === open.ino && at.dev === open.dev;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
