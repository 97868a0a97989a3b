/**
 * The marker of a result folder: whose it is, and which files in it are.
 *
 * @module
 */
import { join } from "node:path";
import { isTemporary } from "./atomic.ts";

/** Name of the marker. */
export const MARKER_FILE = "far-job.json";
/** Name of the folder for unfinished files. */
export const PART_FOLDER = "part";

/** A folder that must not be written into, or a run in it that must not be resumed. */
export class OwnershipError extends Error {
  /** Tells this error from others where classes cannot be compared. */
  override readonly name = "OwnershipError";
}

/** Files by name below the folder, with `/`; in a pattern, `*` stands for any characters but `/`. */
export type Names = readonly string[];

/** Contents of the marker. */
export interface Marker {
  /** Kind of job that writes the folder, e.g. `predict`. */
  readonly kind: string;
  /** Files of the standing result. */
  readonly files: Names;
  /** Fingerprint of the present result; null while there is none. */
  readonly fingerprint: unknown;
  /** A run that has not finished, and patterns of its files under `part/`. */
  readonly run: { readonly fingerprint: unknown; readonly working: Names } | null;
  /** Files that are on their way from `part/` into the folder; null but for that moment. */
  readonly placing: Names | null;
}

/** The marker of a folder that holds nothing yet. */
export const EMPTY = (kind: string): Marker => ({
  kind,
  files: [],
  fingerprint: null,
  run: null,
  placing: null,
});

/** Whether a name fits one of the patterns. */
export function matcher(patterns: Names): (name: string) => boolean {
  const escaped = patterns.map((p) => p.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", "[^/]*"));
  const all = new RegExp(`^(?:${escaped.join("|")})$`);
  return (name) => patterns.length > 0 && all.test(name);
}

/** Whether a name out of a marker stays inside the folder. */
const isInside = (name: unknown): name is string =>
  typeof name === "string" && name !== "" && !name.includes("\\") &&
  name.split("/").every((part) => part !== "" && part !== "." && part !== "..") && !/^[a-z]:/i.test(name);

/** Returns the status of a path itself, without following links; undefined if nothing is there. */
export const lstat = (path: string): Deno.FileInfo | undefined => {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
};

/**
 * Reads the marker of a folder.
 *
 * @param root The folder. @param shown As the user named it.
 * @returns Null where there is none.
 * @throws {OwnershipError} If it is damaged, or names files outside the folder.
 */
export function readMarker(root: string, shown: string): Marker | null {
  const path = join(root, MARKER_FILE), info = lstat(path);
  if (info === undefined) return null;
  const damaged = (): never => {
    throw new OwnershipError(
      `${shown}/${MARKER_FILE}: is damaged, so what is in the folder is unknown: choose another`,
    );
  };
  if (!info.isFile || info.size > 2 ** 28) return damaged();
  let value: Partial<Marker> | null;
  try {
    value = JSON.parse(Deno.readTextFileSync(path));
  } catch {
    return damaged();
  }
  const names = (list: unknown): list is Names => Array.isArray(list) && list.every(isInside);
  const { kind, files, fingerprint = null, run = null, placing = null } = value ?? {};
  const fits = typeof kind === "string" && names(files) && (placing === null || names(placing)) &&
    (run === null || typeof run === "object" && names(run.working) && "fingerprint" in run);
  return fits ? { kind, files, fingerprint, run, placing } : damaged();
}

/** A marker that a killed process had begun to write. */
export const isUnfinishedMarker = (name: string) => isTemporary(name) && name.startsWith(`.${MARKER_FILE}.`);
