/**
 * The folder of a long run: numbered checkpoints, of which the last ones are kept, and a log of one JSON object per line.
 *
 * @module
 */
import { basename, join } from "node:path";
import { crc32 } from "node:zlib";
import { writeAtomic } from "./atomic.ts";
import { accessError } from "./errors.ts";
import { isThere } from "./paths.ts";
import { readText } from "./text.ts";

const NAME = /^step-(\d+)$/;

/** A checkpoint in a run's folder. */
export interface StepFolder {
  /** Steps that were done when it was written. */
  readonly step: number;
  /** Its folder. */
  readonly path: string;
}

/** Path of the checkpoint after this many steps. */
export const stepFolder = (folder: string, step: number): string =>
  join(folder, `step-${String(step).padStart(8, "0")}`);

/**
 * The checkpoints of a folder, the oldest first; whatever has the name of one is one, whole or not. A folder that does not
 * exist has none.
 *
 * @throws {FileAccessError} If the system refuses to list it.
 */
export function listSteps(folder: string): StepFolder[] {
  try {
    return [...Deno.readDirSync(folder)]
      .filter((e) => NAME.test(e.name))
      .map((e) => ({ step: Number(NAME.exec(e.name)![1]), path: join(folder, e.name) }))
      .sort((a, b) => a.step - b.step);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw accessError(folder, "cannot list", error);
  }
}

/**
 * Removes all checkpoints but the last `count`. One that is a link, or holds anything besides the files that it should, stays.
 *
 * @param filesOf Names of the files of a checkpoint.
 */
export function keepLast(folder: string, count: number, filesOf: (path: string) => readonly string[]): void {
  for (const { path } of listSteps(folder).slice(0, -count)) {
    try {
      if (!Deno.lstatSync(path).isDirectory) continue;
      const own = new Set(filesOf(path));
      if ([...Deno.readDirSync(path)].some((e) => !e.isFile || !own.has(e.name))) continue;
      // Renamed first: a kill in the middle of the removal must not leave half a checkpoint under its name. The new name is
      // that of an unfinished folder, which the next start of the run clears away.
      const gone = join(folder, `.${basename(path)}.${Deno.pid}-${crypto.randomUUID().slice(0, 8)}.tmp`);
      Deno.renameSync(path, gone);
      Deno.removeSync(gone, { recursive: true });
    } catch (error) {
      throw accessError(path, "cannot remove", error);
    }
  }
}

/** Size and checksum of a file when it was written. */
export interface FileSum {
  /** Its size. */
  readonly bytes: number;
  /** CRC-32 of all of it. */
  readonly crc32: number;
}

/**
 * Size and checksum of a file, read in pieces.
 *
 * @throws {FileAccessError} If it cannot be read.
 */
export function fileSum(path: string): FileSum {
  try {
    using file = Deno.openSync(path);
    const piece = new Uint8Array(2 ** 20);
    let bytes = 0, sum = 0;
    for (let count; (count = file.readSync(piece)) !== null; bytes += count) {
      sum = crc32(piece.subarray(0, count), sum);
    }
    return { bytes, crc32: sum };
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
}

/** Largest log that fits a string, in bytes; a step takes some 300. */
const LONGEST_LOG = 2 ** 29 - 2 ** 10;

/** A log of one JSON object per line, each with the number of its step. */
export class StepLog {
  readonly #path: string;

  /** @param path The file; made when the first line comes. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Appends a line. A killed process loses at most the line that it was writing. */
  append(values: { readonly step: number } & Readonly<Record<string, unknown>>): void {
    try {
      Deno.writeTextFileSync(this.#path, JSON.stringify(values) + "\n", { append: true });
    } catch (error) {
      throw accessError(this.#path, "cannot write", error);
    }
  }

  /** All lines that are whole. */
  lines(): ({ step: number } & Record<string, unknown>)[] {
    return this.#text().split("\n").flatMap((line) => {
      try {
        const value = JSON.parse(line);
        return typeof value?.step === "number" ? [value] : [];
      } catch {
        return []; // empty, or cut off by a kill
      }
    });
  }

  /** Drops what was logged from a step on, which a resumed run computes again, and what a kill has cut off. */
  async cutFrom(step: number): Promise<void> {
    const kept = this.lines().filter((l) => l.step < step).map((l) => JSON.stringify(l) + "\n").join("");
    if (kept !== this.#text()) await writeAtomic(this.#path, kept);
  }

  #text(): string {
    return isThere(this.#path) ? readText(this.#path, LONGEST_LOG) : "";
  }
}
