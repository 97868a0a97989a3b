/**
 * The folder of a long run: numbered checkpoints, of which the last ones are kept, and a log of one JSON object a line.
 *
 * @module
 */
import { join } from "node:path";
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

/** Where the checkpoint after so many steps lies. */
export const stepFolder = (folder: string, step: number): string =>
  join(folder, `step-${String(step).padStart(8, "0")}`);

/**
 * The checkpoints of a folder, the oldest first. A folder that does not exist has none.
 *
 * @throws {FileAccessError} If the system refuses to list it.
 */
export function listSteps(folder: string): StepFolder[] {
  try {
    return [...Deno.readDirSync(folder)]
      .filter((e) => e.isDirectory && NAME.test(e.name))
      .map((e) => ({ step: Number(NAME.exec(e.name)![1]), path: join(folder, e.name) }))
      .sort((a, b) => a.step - b.step);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw accessError(folder, "cannot list", error);
  }
}

/** Removes all checkpoints but the last `count`. */
export function keepLast(folder: string, count: number): void {
  for (const { path } of listSteps(folder).slice(0, -count)) {
    try {
      // Renamed first: a kill in the middle of the removal must not leave half a checkpoint under its name.
      const gone = join(folder, `.${path.slice(path.lastIndexOf("step-"))}.removed`);
      Deno.renameSync(path, gone);
      Deno.removeSync(gone, { recursive: true });
    } catch (error) {
      throw accessError(path, "cannot remove", error);
    }
  }
}

/** A log of one JSON object a line, each with the number of its step. */
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
    const text = isThere(this.#path) ? readText(this.#path) : "";
    return text.split("\n").flatMap((line) => {
      try {
        const value = JSON.parse(line);
        return typeof value?.step === "number" ? [value] : [];
      } catch {
        return []; // empty, or cut off by a kill
      }
    });
  }

  /** Drops what was logged from a step on: a run that goes on from a checkpoint computes those steps again. */
  async cutFrom(step: number): Promise<void> {
    const lines = this.lines(), kept = lines.filter((l) => l.step < step);
    if (lines.length === 0) return;
    await writeAtomic(this.#path, kept.map((l) => JSON.stringify(l) + "\n").join(""));
  }
}
