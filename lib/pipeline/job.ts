/**
 * Long work that writes a result folder: stopped at any point, the same job resumes from what its folder keeps.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { type Device, deviceOf } from "../../kernels/device.ts";
import { OwnedFolder } from "../io/owned_folder.ts";
import { unwatched, type Watch } from "./watch.ts";

/** The call of a job, as result.json records it. */
export interface Settings {
  /** The verb, which is also the kind of its folders. */
  readonly verb: string;
  /** Words after the verb: what it reads. */
  readonly operands: readonly string[];
  /** Options by name. */
  readonly flags: Readonly<Record<string, unknown>>;
}

/** Start of a job. */
export interface JobOptions {
  /** The call, as result.json records it. */
  readonly settings: Settings;
  /** The part of it that decides a byte of the result, with what it reads; the settings unless given. */
  readonly call?: Readonly<Record<string, unknown>>;
  /** Name of the option that names the folder, for messages; `folder` unless given. */
  readonly flag?: string;
  /** Files and folders that are read; none of them may lie in the folder. */
  readonly sources?: readonly string[];
  /** Discards an interrupted job with other settings instead of refusing. */
  readonly restart?: boolean;
  /** Observer of the run; nobody unless given. */
  readonly watch?: Watch;
}

/** Unfinished files of a job. Processes that share a job write into it side by side, each its own names. */
export interface PartStore {
  /** SHA-256 of everything that decides the result: unfinished files carry it, and those with another one are made again. */
  readonly digest: string;
  /** The path of an unfinished file. */
  part(name: string): string;
}

/**
 * A folder that gets one result, and what decides that result.
 *
 * @example
 * ```ts
 * import { writeAtomic } from "../io/atomic.ts";
 * import { Job } from "./job.ts";
 * const folder = Deno.makeTempDirSync();
 * using job = await Job.open(folder, { settings: { verb: "count", operands: [], flags: { to: 3 } } });
 * const resumed = await job.begin(null, {}, ["*.txt"]); // false: nothing was left unfinished here
 * await writeAtomic(job.part("3.txt"), "1 2 3\n");
 * await job.place(["3.txt"]);
 * console.assert(!resumed && Deno.readTextFileSync(`${folder}/3.txt`) === "1 2 3\n");
 * Deno.removeSync(folder, { recursive: true });
 * ```
 */
export class Job implements PartStore, Disposable {
  /** The call, as result.json records it. */
  readonly settings: Settings;
  /** Observer of the run. */
  readonly watch: Watch;
  readonly #folder: OwnedFolder;
  readonly #call: Readonly<Record<string, unknown>>;
  readonly #restart: boolean;
  #digest = "";

  private constructor(folder: OwnedFolder, options: JobOptions) {
    const { settings, call = { ...settings }, restart = false, watch = unwatched() } = options;
    [this.#folder, this.settings, this.#call] = [folder, settings, call];
    [this.#restart, this.watch] = [restart, watch];
  }

  /**
   * Claims the folder, so that one that must not be written into is refused before any work.
   *
   * @param path The folder; made if it does not exist.
   * @param options What is asked for.
   * @throws {OwnershipError} If the folder is not new, empty, or an earlier result of this verb.
   * @throws {FolderLockedError} If another process writes into it.
   */
  static async open(path: string, options: JobOptions): Promise<Job> {
    const { settings: { verb }, flag = "folder", sources } = options;
    return new Job(await OwnedFolder.claim(path, { kind: verb, flag, sources }), options);
  }

  /** The folder as its caller named it. */
  get path(): string {
    return this.#folder.path;
  }

  /** See {@linkcode PartStore}; empty before {@linkcode begin}. */
  get digest(): string {
    return this.#digest;
  }

  /** Whether the folder holds something of this job that can be resumed. */
  get hasBegun(): boolean {
    return this.#digest !== "";
  }

  /**
   * Starts writing, or resumes what an interrupted process with the same fingerprint has left.
   *
   * @param device Where it computes, if it computes.
   * @param decides What decides the result beside the call and the device: models, content of the clip.
   * @param working Patterns of the names of all files that are written.
   * @returns Whether unfinished files of the same job are there.
   * @throws {OwnershipError} If the folder holds another interrupted job: the first difference, and what to do.
   */
  async begin(
    device: Device | null,
    decides: Readonly<Record<string, unknown>>,
    working: readonly string[],
  ): Promise<boolean> {
    const fingerprint = { ...this.#call, device: device && deviceOf(device), ...decides };
    this.#digest = createHash("sha256").update(JSON.stringify(fingerprint)).digest("hex");
    const resumed = await this.#folder.begin(fingerprint, { working, restart: this.#restart });
    if (resumed) this.watch.say("resuming an interrupted run");
    return resumed;
  }

  /** The path of an unfinished file, below `part/`. */
  part(name: string): string {
    return this.#folder.part(name);
  }

  /**
   * Puts files into the folder as its result, in the place of the earlier one, and removes everything unfinished.
   *
   * @param names Files that are complete; the last one is put in place last.
   * @param options `add` keeps the files of the earlier result that have other names.
   */
  async place(names: readonly string[], options: { readonly add?: boolean } = {}): Promise<void> {
    await this.#folder.place(names, options);
  }

  /** Gives the folder back. */
  [Symbol.dispose](): void {
    this.#folder[Symbol.dispose]();
  }
}
