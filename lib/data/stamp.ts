/**
 * A fingerprint of the files of a data set, so that a resumed run is not given other clips than the one that was interrupted.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { accessError } from "../io/errors.ts";
import { CORE_PACKAGE } from "../io/ffmpeg_core.ts";
import { findFfmpeg } from "../io/ffmpeg.ts";
import type { DataSet } from "./clip.ts";

/** Size and time of change of a file, or of everything in a folder. */
function* stampsOf(path: string): Generator<string> {
  try {
    const { isDirectory, size, mtime } = Deno.statSync(path);
    if (!isDirectory) yield `${path} ${size} ${mtime?.getTime()}`;
    else {
      const names = [...Deno.readDirSync(path)].filter((e) => !e.isDirectory).map((e) => e.name).sort();
      for (const name of names) yield* stampsOf(join(path, name));
    }
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
}

/**
 * SHA-256 over the clips of a data set in their order: the name of each, and size and time of change of its files. Content is
 * not read, for a set may be of any size.
 *
 * @param set The data set.
 * @param count Clips that count, from the first on; all unless given.
 * @returns 64 hex digits.
 * @throws {FileAccessError} If a file is not there.
 */
export function stampOf(set: DataSet, count = set.length): string {
  const hash = createHash("sha256");
  for (let i = 0; i < count; i++) {
    hash.update(`${set.source(i)}\n`);
    for (const file of set.files(i)) for (const stamp of stampsOf(file)) hash.update(`${stamp}\n`);
  }
  return hash.digest("hex");
}

/** The files and folders that a data set is read from: its list or folder, and the files of its clips. */
export function sourcesOf(block: Readonly<Record<string, unknown>>, set: DataSet): string[] {
  const { data_list: list } = block;
  const files = Array.from({ length: set.length }, (_, i) => set.files(i)).flat();
  return [...new Set([...(typeof list === "string" ? [list] : []), ...files])];
}

/** Files that are read here, and not by an ffmpeg. */
const OWN = /\.(npz|npy|safetensors|json|csv|txt|png)$/i;

/**
 * Returns the program that decodes the videos and images of a data set, or null where none is needed: two versions may differ
 * in the last bit of a colour.
 *
 * @throws {FileAccessError} If FAR_FFMPEG names a program that does not run.
 */
export async function decoderOf(set: DataSet): Promise<string | null> {
  const all = Array.from({ length: set.length }, (_, i) => set.files(i)).flat();
  if (all.every((file) => OWN.test(file))) return null;
  const binary = await findFfmpeg();
  return binary === undefined ? CORE_PACKAGE : `ffmpeg ${binary.version}`;
}
