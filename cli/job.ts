/**
 * The runner of every verb that writes a result folder: it claims the folder before any work, opens the device, listens
 * for Ctrl-C, knows the job's fingerprint, and puts the result in place.
 *
 * @module
 */
import { createHash } from "node:crypto";
import type { Device } from "../kernels/device.ts";
import { isFile } from "../lib/io/paths.ts";
import { OwnedFolder } from "../lib/io/owned_folder.ts";
import type { DeviceName } from "../kernels/device.ts";
import type { Flags } from "./args.ts";
import { openChosen } from "./flags.ts";
import { fileHash } from "../lib/io/hash.ts";
import { InterruptListener } from "./interrupt.ts";
import { Progress, progressMode } from "./progress.ts";
import { Interrupted } from "./report.ts";
import type { Stage, Watch } from "../lib/pipeline/watch.ts";

/** Flag values that every job has. */
export interface JobFlags {
  readonly device?: DeviceName | "auto";
  readonly threads?: number;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly restart: boolean;
}

/** A verb's call that writes a folder. */
export interface JobCall {
  /** The verb, which is also the kind of its folders. */
  readonly verb: string;
  /** The verb's flags as declared: those that only concern presentation are not part of the fingerprint. */
  readonly declared: Flags;
  /** Their values. */
  readonly flags: JobFlags;
  /** Words after the verb. */
  readonly operands: readonly string[];
  /** The result folder, and the flag that names it. */
  readonly out: { readonly path: string; readonly flag: string };
  /** Files and folders that are read, beside operands and flags that name one. */
  readonly sources?: readonly string[];
  /** What Ctrl-C does, e.g. `stopping after this frame`. */
  readonly stopping: string;
}

const valueOf = (flags: JobFlags, name: string) => (flags as unknown as Record<string, unknown>)[name];

/** The parts of a call that may decide a byte of the result: operands, flags, and the files that they name. */
function parsedSettings({ verb, declared, flags, operands }: JobCall) {
  const deciding = Object.keys(declared).filter((name) => !declared[name].presentation).sort();
  const values = Object.fromEntries(deciding.map((name) => [name, valueOf(flags, name)]));
  const named: [string, unknown][] = [
    ...operands.map((operand, i): [string, unknown] => [`operand ${i + 1}`, operand]),
    ...deciding.filter((name) => declared[name].file).map((
      name,
    ): [string, unknown] => [`--${name}`, values[name]]),
  ];
  const files = named.flatMap(([name, value]) =>
    typeof value === "string" && isFile(value) ? [[name, fileHash(value)] as const] : []
  );
  return { verb, operands, flags: values, files: Object.fromEntries(files) };
}

/** A device's description without the number of its threads, which changes no bit. */
export const deviceOf = (device: Device) => device.info.description.replace(/\d+ threads?/, "threads");

/** Flag values that every run has. */
export type RunFlags = Omit<JobFlags, "restart">;

/** One run of a verb on a device, watched by its caller. */
export class Run implements Watch {
  /** What the user sees. */
  readonly progress: Progress;
  readonly seconds: Record<string, number> = {};
  readonly #flags: RunFlags;
  readonly #interrupts: InterruptListener;
  #device: { readonly device: Device; readonly reason: string } | null = null;

  /** Made by {@linkcode runAlone} and {@linkcode runJob}. */
  constructor(flags: RunFlags, progress: Progress, interrupts: InterruptListener) {
    [this.#flags, this.progress, this.#interrupts] = [flags, progress, interrupts];
  }

  /** The device; {@linkcode openDevice} comes first. */
  get device(): Device {
    return this.#device!.device;
  }

  /** Why this device was chosen. */
  get reason(): string {
    return this.#device!.reason;
  }

  /** Whether a device was opened. */
  get hasDevice(): boolean {
    return this.#device !== null;
  }

  /** Whether the user wants to stop. */
  get interrupted(): boolean {
    return this.#interrupts.signal !== null;
  }

  /** What stands when the user stops the run. */
  protected get kept(): string {
    return "nothing was written";
  }

  /** See {@linkcode Progress.say}. */
  say(line: string): void {
    this.progress.say(line);
  }

  /** See {@linkcode Progress.stage}. */
  stage(what: string, total: number, unit: string, from?: number): Stage {
    return this.progress.stage(what, total, unit, from);
  }

  /** Opens the device that the flags ask for. */
  async openDevice(): Promise<Device> {
    this.#device = await openChosen(this.#flags);
    this.say(`device: ${this.device.info.description} (${this.reason})`);
    return this.device;
  }

  /** Lets timers and signals run, and throws when the user wants to stop. */
  async pause(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve));
    const { signal } = this.#interrupts;
    if (signal !== null) throw new Interrupted(signal, this.kept);
  }

  /** Closes the device. */
  close(): void {
    this.#device?.device.close();
  }
}

/** A run that writes a folder. */
export class Job extends Run {
  /** The result folder, which this process alone writes into. */
  readonly folder: OwnedFolder;
  readonly #call: JobCall;
  #digest = "";

  /** Made by {@linkcode runJob}. */
  constructor(call: JobCall, progress: Progress, folder: OwnedFolder, interrupts: InterruptListener) {
    super(call.flags, progress, interrupts);
    [this.#call, this.folder] = [call, folder];
  }

  /** SHA-256 of the fingerprint, which files of the unfinished run carry. */
  get digest(): string {
    return this.#digest;
  }

  protected override get kept(): string {
    return this.#digest === ""
      ? super.kept
      : `${this.folder.path} holds what is done; the same command resumes it`;
  }

  /**
   * Starts writing, or resumes what an interrupted process with the same fingerprint has left.
   *
   * @param decides What decides the result beside the call itself and the device: models, content of the clip.
   * @param working Patterns of the names of all files that are written under `part/`.
   * @returns Whether unfinished files of the same run are there.
   */
  async begin(decides: Readonly<Record<string, unknown>>, working: readonly string[]): Promise<boolean> {
    const device = this.hasDevice ? deviceOf(this.device) : null;
    const fingerprint = { ...parsedSettings(this.#call), device, ...decides };
    this.#digest = createHash("sha256").update(JSON.stringify(fingerprint)).digest("hex");
    const resumed = await this.folder.begin(fingerprint, { working, restart: this.#call.flags.restart });
    if (resumed) this.say("resuming an interrupted run");
    return resumed;
  }
}

/**
 * Runs a verb that writes no folder.
 *
 * @param flags Device and presentation.
 * @param stopping What Ctrl-C does, e.g. `stopping`.
 * @param body Does the work.
 * @throws {Interrupted} After Ctrl-C.
 */
export async function runAlone(
  flags: RunFlags,
  stopping: string,
  body: (run: Run) => Promise<void>,
): Promise<void> {
  const progress = new Progress(progressMode(flags));
  using interrupts = new InterruptListener((line) => progress.say(line), stopping);
  const run = new Run(flags, progress, interrupts);
  try {
    await body(run);
  } finally {
    run.close();
  }
}

/**
 * Runs a job. Its folder is claimed first, so that a folder that must not be written into is refused before any work.
 *
 * @param call What the user asked for.
 * @param body Does the work.
 * @throws {OwnershipError} If the folder is not new, empty, or an earlier result of this verb, or holds another interrupted run.
 * @throws {Interrupted} After Ctrl-C.
 */
export async function runJob(call: JobCall, body: (job: Job) => Promise<void>): Promise<void> {
  const { verb, declared, flags, operands, out, sources = [] } = call;
  const read = Object.keys(declared).filter((name) => declared[name].file && !declared[name].presentation)
    .flatMap((name) => [valueOf(flags, name)].flat()).filter((value) => typeof value === "string");
  using folder = await OwnedFolder.claim(out.path, {
    kind: verb,
    flag: out.flag,
    sources: [...operands, ...read, ...sources],
  });
  const progress = new Progress(progressMode(flags));
  using interrupts = new InterruptListener((line) => progress.say(line), call.stopping);
  const job = new Job(call, progress, folder, interrupts);
  try {
    await body(job);
  } finally {
    job.close();
  }
}
