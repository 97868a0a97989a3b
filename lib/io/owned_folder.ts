/**
 * The one rule for every folder that this program writes results into: it must be new, empty, or the program's own.
 *
 * A folder is the program's own when its marker `far-job.json` says so: which kind of job wrote it, which files it holds,
 * and the fingerprint of the job, i.e. everything that decides the bytes of the result. Anything else in the folder is
 * refused before any work starts. Only files that the marker names are ever removed, and links are never followed. A lock
 * keeps a second process out.
 *
 * While a job runs, its unfinished files are under `part/`. When the result is complete, the marker notes which files go
 * where, they are renamed into the folder, and the files of the previous result are removed: a process that is killed in
 * between leaves a folder whose next user completes those steps.
 *
 * @module
 */
import { dirname, join, resolve } from "node:path";
import { isTemporary, writeAtomic } from "./atomic.ts";
import { asJson, type Difference, firstDifference } from "./difference.ts";
import { accessError, FileAccessError, quote } from "./errors.ts";
import { FolderLock, LOCK_FILE } from "./folder_lock.ts";
import {
  EMPTY,
  isUnfinishedMarker,
  lstat,
  type Marker,
  MARKER_FILE,
  matcher,
  type Names,
  OwnershipError,
  PART_FOLDER,
  readMarker,
} from "./owned_marker.ts";

export { MARKER_FILE, OwnershipError, PART_FOLDER };

/** Whose folder, and what may be in it. */
export interface Claim {
  /** Kind of job that writes the folder. */
  readonly kind: string;
  /** The flag that names the folder, for messages. */
  readonly flag: string;
  /** Files and folders that the job reads: none of them may lie in the folder. */
  readonly sources?: Names;
  /** Treatment of entries of the folder that the marker does not name; `refuse` unless given. */
  readonly others?: "refuse" | "keep";
}

/** Start of a run. */
export interface Begin {
  /** Patterns of all names that the run writes under `part/`, its result files included. */
  readonly working: Names;
  /** Discards an interrupted run with another fingerprint instead of refusing. */
  readonly restart?: boolean;
}

/** Files that desktops leave in folders on their own. */
const IGNORED = new Set([".DS_Store", "Thumbs.db", "desktop.ini"]);

/** Makes a folder and all above it; returns those that were not there, the deepest first. */
function makeFolders(path: string): string[] {
  const missing: string[] = [];
  for (let at = path; lstat(at) === undefined; at = dirname(at)) missing.push(at);
  Deno.mkdirSync(path, { recursive: true });
  return missing;
}

/** All entries below a folder that are not plain folders, by name; links are named, not followed. */
function* entriesBelow(
  root: string,
  below = "",
): Generator<{ readonly name: string; readonly isFile: boolean }> {
  for (const entry of Deno.readDirSync(join(root, below))) {
    const name = below === "" ? entry.name : `${below}/${entry.name}`;
    if (!entry.isDirectory) yield { name, isFile: entry.isFile };
    else {
      let empty = true;
      for (const inner of entriesBelow(root, name)) {
        empty = false;
        yield inner;
      }
      if (empty && name !== PART_FOLDER) yield { name: `${name}/`, isFile: false };
    }
  }
}

/** A name as it is where it is plain, else quoted. */
const named = (name: string) => /^[\w.+@/-]{1,100}$/.test(name) ? name : quote(name);

const isTemporaryName = (name: string) => isTemporary(name.slice(name.lastIndexOf("/") + 1));

/** A folder that this process alone writes into, until it is disposed of. */
export class OwnedFolder implements Disposable {
  /** The folder as the user named it. */
  readonly path: string;
  readonly #root: string;
  readonly #claim: Claim;
  readonly #made: readonly string[];
  #marker: Marker | null;
  #lock: FolderLock | null = null;
  #wrote = false;

  private constructor(path: string, root: string, claim: Claim, made: readonly string[]) {
    [this.path, this.#root, this.#claim, this.#made] = [path, root, claim, made];
    this.#marker = this.#checked();
  }

  /**
   * Claims a folder: checks that it may be written into, locks it, and clears away what a killed process left half done.
   * Nothing in it is changed before that is clear.
   *
   * @param path The folder; made if it does not exist.
   * @param claim Whose it is to be.
   * @throws {OwnershipError} If it holds something else, or something that the job reads.
   * @throws {FolderLockedError} If another process writes into it.
   * @throws {FileAccessError} If the system refuses, or a part of the path is no folder.
   */
  static async claim(path: string, claim: Claim): Promise<OwnedFolder> {
    let made: string[] = [], owned: OwnedFolder | undefined;
    try {
      const info = lstat(path);
      if (info?.isSymlink) {
        try {
          Deno.statSync(path);
        } catch {
          throw new FileAccessError(path, "cannot write: is a link that leads nowhere");
        }
      }
      if (info !== undefined && !Deno.statSync(path).isDirectory) {
        throw new FileAccessError(path, "cannot write: exists and is not a folder");
      }
      if (info === undefined) made = makeFolders(resolve(path));
      const root = Deno.realPathSync(path);
      owned = new OwnedFolder(path, root, claim, made);
      owned.#refuseSources();
      owned.#lock = FolderLock.take(root);
      owned.#marker = owned.#checked(); // another process may have finished in between
      await owned.#tidy();
      return owned;
    } catch (error) {
      if (owned !== undefined) owned[Symbol.dispose]();
      else removeEmpty(made);
      const own = error instanceof OwnershipError || error instanceof FileAccessError;
      throw own || (error as Error)?.name === "FolderLockedError"
        ? error
        : accessError(path, "cannot write", error);
    }
  }

  /** Names of the files of the standing result. */
  get files(): Names {
    return this.#marker?.files ?? [];
  }

  /** The path of an unfinished file, below `part/`. */
  part(name: string): string {
    return join(this.#root, PART_FOLDER, name);
  }

  /** Refuses everything that is not the program's own, and returns the marker. */
  #checked(): Marker | null {
    const { kind, flag, others = "refuse" } = this.#claim, shown = `${flag} ${this.path}`;
    const marker = readMarker(this.#root, this.path);
    if (marker !== null && marker.kind !== kind) {
      throw new OwnershipError(
        `${shown}: holds what ${
          named(marker.kind)
        } wrote, expected a new folder, an empty one, or an earlier result of ${kind}`,
      );
    }
    if (marker === null && others === "keep") {
      const [first] = Deno.readDirSync(this.#root).filter(({ name }) =>
        name !== LOCK_FILE && !IGNORED.has(name) && !isUnfinishedMarker(name)
      );
      if (first === undefined) return null;
      throw new OwnershipError(
        `${shown}: exists and holds ${
          named(first.name)
        }, expected a new folder, an empty one, or an earlier run of ${kind}`,
      );
    }
    const files = new Set([...marker?.files ?? [], ...marker?.placing ?? [], MARKER_FILE, LOCK_FILE]);
    const parts = (marker?.run?.working ?? []).map((name) => `${PART_FOLDER}/${name}`);
    const working = matcher(parts), names = [...files, ...parts];
    const foreign: string[] = [];
    for (const { name, isFile } of others === "refuse" ? entriesBelow(this.#root) : []) {
      if (IGNORED.has(name.slice(name.lastIndexOf("/") + 1))) continue;
      const known = name.endsWith("/")
        ? names.some((file) => file.startsWith(name)) // our own folder, emptied
        : isFile && (files.has(name) || working(name) || isUnfinishedMarker(name) ||
          marker !== null && isTemporaryName(name));
      if (!known) foreign.push(name);
    }
    if (foreign.length > 0) {
      const more = foreign.length > 1 ? ` and ${foreign.length - 1} more` : "";
      throw new OwnershipError(
        marker === null
          ? `${shown}: exists and holds ${
            named(foreign[0])
          }${more}, expected a new folder, an empty one, or an earlier result of ${kind}`
          : `${shown}: holds ${
            named(foreign[0])
          }${more} beside an earlier result of ${kind}, which did not write ` +
            `${foreign.length > 1 ? "them" : "it"}: move ${
              foreign.length > 1 ? "them" : "it"
            } away, or choose another folder`,
      );
    }
    return marker;
  }

  #refuseSources(): void {
    for (const source of this.#claim.sources ?? []) {
      let real: string;
      try {
        real = Deno.realPathSync(source);
      } catch {
        continue; // not a file, or one whose reader will say that it is missing
      }
      const inside = real === this.#root || real.startsWith(this.#root.replace(/\/?$/, "/"));
      const around = this.#root.startsWith(real.replace(/\/?$/, "/"));
      if (inside || around) {
        throw new OwnershipError(
          `${this.#claim.flag} ${this.path}: ${
            inside ? "holds" : "lies in"
          } ${source}, which is read: choose another folder`,
        );
      }
    }
  }

  /** Completes what a killed process was putting in place, and removes its temporary files. */
  async #tidy(): Promise<void> {
    for (const { name, isFile } of [...entriesBelow(this.#root)]) {
      const left = this.#marker === null ? isUnfinishedMarker(name) : isTemporaryName(name);
      if (isFile && left) Deno.removeSync(join(this.#root, name));
    }
    if (this.#marker === null) return;
    this.#wrote = true;
    if (this.#marker.placing !== null) await this.#finish(this.#marker.placing);
    else if (this.#marker.run === null) this.#clear([]);
  }

  async #write(marker: Marker): Promise<void> {
    await writeAtomic(
      join(this.#root, MARKER_FILE),
      `${JSON.stringify({ written_by: "far.ts", ...marker }, null, 2)}\n`,
    );
    this.#marker = marker;
    this.#wrote = true;
  }

  /** Marks the folder as the job's, for one that keeps its own state in it. */
  async mark(): Promise<void> {
    if (this.#marker === null) await this.#write(EMPTY(this.#claim.kind));
  }

  /**
   * Starts a run, or resumes the one that an interrupted process left.
   *
   * @param fingerprint Everything that decides the bytes of the result, as JSON.
   * @returns Whether unfinished files of the same run are there.
   * @throws {OwnershipError} If the interrupted run has another fingerprint: the first difference, and what to do.
   */
  async begin(fingerprint: unknown, { working, restart = false }: Begin): Promise<boolean> {
    const marker = this.#marker ?? EMPTY(this.#claim.kind), { run } = marker, now = asJson(fingerprint);
    const difference = run === null ? null : firstDifference(run.fingerprint, now);
    if (run !== null && difference !== null && !restart) {
      throw new OwnershipError(differs(`${this.#claim.flag} ${this.path}`, difference));
    }
    const resumed = run !== null && difference === null && !restart;
    if (run !== null && !resumed) this.#clear(run.working);
    await this.#write({ ...marker, run: { fingerprint: now, working } });
    Deno.mkdirSync(join(this.#root, PART_FOLDER), { recursive: true });
    return resumed;
  }

  /**
   * Puts files into the folder as its result, in the place of the earlier one, and removes everything unfinished.
   *
   * @param names Files under `part/`, complete; the last one is put in place last.
   * @param options `add` keeps the files of the earlier result that have other names.
   * @throws {OwnershipError} If somebody has put a file in the place of one meanwhile; the run can be resumed.
   */
  async place(names: Names, { add = false }: { readonly add?: boolean } = {}): Promise<void> {
    const { run, files } = this.#marker!, all = [...new Set([...files, ...names])];
    const taken = names.find((name) => !files.includes(name) && lstat(join(this.#root, name)) !== undefined);
    if (taken !== undefined) {
      throw new OwnershipError(
        `${this.#claim.flag} ${this.path}: ${
          named(taken)
        } has appeared during the run, which did not write it: ` +
          "move it away, and the same command puts the result in place",
      );
    }
    const placing = add ? [...all.filter((name) => !names.includes(name)), ...names] : names;
    await this.#write({ ...this.#marker!, files: all, run, placing });
    await this.#finish(placing);
  }

  async #finish(names: Names): Promise<void> {
    const { run, files } = this.#marker!, made = new Set<string>();
    try {
      for (const name of names) {
        if (lstat(this.part(name)) === undefined) continue; // in place already
        const target = join(this.#root, name), folder = dirname(target);
        if (!made.has(folder)) Deno.mkdirSync(folder, { recursive: true });
        made.add(folder);
        Deno.renameSync(this.part(name), target);
      }
      const kept = new Set(names);
      for (const name of files) if (!kept.has(name)) removeFile(this.#root, name);
      this.#clear(run?.working ?? []);
      await this.#write({ ...EMPTY(this.#claim.kind), files: names, fingerprint: run?.fingerprint ?? null });
    } catch (error) {
      throw accessError(this.path, "cannot write", error);
    }
  }

  /** Removes unfinished files, and `part/` when nothing else is in it. */
  #clear(working: Names): void {
    const matches = matcher(working), part = join(this.#root, PART_FOLDER);
    if (!lstat(part)?.isDirectory) return;
    for (const { name, isFile } of [...entriesBelow(part)]) {
      if (isFile && matches(name)) removeFile(part, name);
      else if (name.endsWith("/")) removeEmpty([join(part, name)]); // its files were put in place
    }
    removeEmpty([part]);
  }

  /** Gives the folder back: the lock goes, and so does a folder that was made and got nothing. */
  [Symbol.dispose](): void {
    this.#lock?.[Symbol.dispose]();
    this.#lock = null;
    if (!this.#wrote) removeEmpty(this.#made);
  }
}

const differs = (shown: string, { path, before, now }: Difference) =>
  `${shown}: holds an interrupted run with another ${path} (${before}, now ${now}): repeat that command to resume it, ` +
  "give --restart to discard it, or choose another folder";

/** Removes a file, and the folders below `root` that it leaves empty. */
function removeFile(root: string, name: string): void {
  try {
    Deno.removeSync(join(root, name));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  for (let at = dirname(name); at !== "."; at = dirname(at)) removeEmpty([join(root, at)]);
}

/** Removes folders that are empty, the deepest first; others stay. */
function removeEmpty(folders: readonly string[]): void {
  for (const folder of folders) {
    try {
      Deno.removeSync(folder);
    } catch {
      return; // holds something, or is gone
    }
  }
}
