/**
 * The authors' list files: which clips belong to a part of a data set.
 *
 * A list is JSON, `[{"video_path": ..., "label": ...}, ...]`, with `action_path` and `latent_path` where a data set has
 * them. For UCF-101 its own lists are read too: `trainlist03.txt` and `testlist03.txt` beside `classInd.txt`.
 *
 * @module
 */
import { dirname, isAbsolute, join, resolve } from "node:path";
import { didYouMean } from "../nearest.ts";
import { FileFormatError, quote, show } from "../io/errors.ts";
import { isThere } from "../io/paths.ts";
import { readJson, readText } from "../io/text.ts";

/** Entry of a list. */
const KEYS = ["video_path", "action_path", "latent_path", "label"] as const;

/** One clip of a list. */
export interface ListEntry {
  /** The video. */
  readonly video_path?: string;
  /** Its actions. */
  readonly action_path?: string;
  /** Its latents. */
  readonly latent_path?: string;
  /** Its class, from 0. */
  readonly label?: number;
}

/**
 * The folder from which a list's relative paths count. The lists were written on the authors' machines; the first of these
 * in which the first clip is there counts for all: the current folder, the list's own, and the three above it.
 */
function baseOf(list: string, first: string): string {
  if (isAbsolute(first)) return "";
  const own = dirname(resolve(list));
  const places = [".", own, join(own, ".."), join(own, "../.."), join(own, "../../..")];
  const base = places.find((place) => isThere(join(place, first)));
  if (base === undefined) {
    throw new FileFormatError(
      list,
      `its first clip ${
        quote(first)
      } is not there, neither below the current folder nor below ${own} or the three ` +
        "folders above it: unpack the archives of the data set, or correct the list",
    );
  }
  return base;
}

function checkEntry(list: string, entry: unknown, index: number, needed: readonly string[]): ListEntry {
  const fail = (detail: string): never => {
    throw new FileFormatError(list, `clip ${index}: ${detail}`);
  };
  if (typeof entry !== "object" || entry === null) return fail(`expected an object, found ${show(entry)}`);
  for (const [key, value] of Object.entries(entry)) {
    if (!(KEYS as readonly string[]).includes(key)) fail(`unknown key ${quote(key)}${didYouMean(key, KEYS)}`);
    if (value === null) continue;
    if (
      key === "label" ? !Number.isSafeInteger(value) || value < 0 : typeof value !== "string" || value === ""
    ) {
      fail(
        `expected ${quote(key)} to be ${key === "label" ? "a class number" : "a path"}, found ${show(value)}`,
      );
    }
  }
  const missing = needed.find((key) => (entry as Record<string, unknown>)[key] == null);
  return missing === undefined ? entry as ListEntry : fail(`expected a ${quote(missing)}, found none`);
}

/**
 * Reads a list. Paths in the result can be opened as they are.
 *
 * @param list The list file: JSON, or one of UCF-101's own in text.
 * @param needed Keys that every clip must have.
 * @throws {FileFormatError} If the list is damaged, empty, or names a clip twice; if no folder has its first clip.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function readList(list: string, needed: readonly (keyof ListEntry)[]): ListEntry[] {
  if (list.endsWith(".txt")) return readUcfList(list);
  const parsed = readJson(list, "a list of clips");
  if (!Array.isArray(parsed) || parsed.length === 0) {
    throw new FileFormatError(list, `expected a list of clips in JSON, found ${show(parsed)}`);
  }
  const entries = parsed.map((entry, index) => checkEntry(list, entry, index, needed));
  const path = (entry: ListEntry) => entry.latent_path ?? entry.video_path ?? "";
  const base = baseOf(list, path(entries[0])), seen = new Map<string, number>();
  entries.forEach((entry, i) => {
    const before = seen.get(path(entry));
    if (before !== undefined) {
      throw new FileFormatError(list, `clips ${before} and ${i} are both ${quote(path(entry))}`);
    }
    seen.set(path(entry), i);
  });
  const at = (path: string | undefined | null) =>
    path == null ? undefined : isAbsolute(path) ? path : join(base, path);
  return entries.map(({ label, ...paths }) => ({
    video_path: at(paths.video_path),
    action_path: at(paths.action_path),
    latent_path: at(paths.latent_path),
    label: label ?? undefined,
  }));
}

/** Classes of UCF-101, as `classInd.txt` numbers them. */
function readClasses(path: string): Map<string, number> {
  const classes = new Map<string, number>();
  for (const [i, line] of readText(path).split(/\r?\n/).entries()) {
    if (line.trim() === "") continue;
    const match = /^(\d+)\s+(\S+)$/.exec(line.trim());
    if (match === null) {
      throw new FileFormatError(path, `line ${i + 1}: expected "1 ApplyEyeMakeup", found ${quote(line)}`);
    }
    classes.set(match[2], Number(match[1]) - 1); // the file counts from 1, models from 0
  }
  return classes;
}

/** UCF-101's own lists: `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1`, the class only in training lists. */
function readUcfList(list: string): ListEntry[] {
  const folder = dirname(list), classes = readClasses(join(folder, "classInd.txt"));
  const lines = readText(list).split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== "");
  const names = lines.map((line, i) => {
    const [name] = line.split(/\s+/), label = classes.get(name.split("/")[0]);
    if (label === undefined) {
      throw new FileFormatError(
        list,
        `line ${i + 1}: class ${quote(name.split("/")[0])} is not in classInd.txt`,
      );
    }
    return { name, label };
  });
  if (names.length === 0) throw new FileFormatError(list, "expected a list of clips, found an empty file");
  const { name: first } = names[0];
  for (const place of ["", "UCF-101", "videos", "../UCF-101", "../videos"]) {
    for (const ending of [".avi", ".mp4"]) {
      if (!isThere(join(folder, place, first.replace(/\.avi$/, ending)))) continue;
      return names.map(({ name, label }) => ({
        video_path: join(folder, place, name.replace(/\.avi$/, ending)),
        label,
      }));
    }
  }
  throw new FileFormatError(
    list,
    `its first clip ${quote(first)} is not there: expected ${join(folder, "UCF-101", first)}`,
  );
}
