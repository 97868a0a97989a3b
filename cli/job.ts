/**
 * The runner of every verb that takes long: it shows progress, listens for Ctrl-C, opens the device, and claims the result
 * folder before any work.
 *
 * @module
 */
import type { DeviceName } from "../kernels/device.ts";
import type { Opened } from "../kernels/open.ts";
import { fileHash } from "../lib/io/hash.ts";
import { isFile } from "../lib/io/paths.ts";
import { Job } from "../lib/pipeline/job.ts";
import type { Stage, Watch } from "../lib/pipeline/watch.ts";
import type { Flags } from "./args.ts";
import { openChosen } from "./flags.ts";
import { InterruptListener } from "./interrupt.ts";
import { ProfileFile } from "./profile.ts";
import { Progress, progressMode } from "./progress.ts";
import { Interrupted } from "./report.ts";

/** Flag values that every run has. */
export interface RunFlags {
  readonly device?: DeviceName | "auto";
  readonly threads?: number;
  readonly blas?: string;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly profile?: string;
}

/** A verb's call that writes a folder. */
export interface JobCall {
  /** The verb, which is also the kind of its folders. */
  readonly verb: string;
  /** The verb's flags as declared: those that only concern presentation are not part of the fingerprint. */
  readonly declared: Flags;
  /** Their values. */
  readonly flags: RunFlags & { readonly restart: boolean };
  /** Words after the verb. */
  readonly operands: readonly string[];
  /** The flag that names the result folder. */
  readonly out: "out" | "to";
  /** Files and folders that are read, beside operands and flags that name one. */
  readonly sources?: readonly string[];
  /** Announcement after Ctrl-C, e.g. `stopping after this frame`. */
  readonly stopping: string;
}

const valueOf = (flags: object, name: string) => (flags as Record<string, unknown>)[name];

/** The parts of a call that may decide a byte of the result: operands, flags, and the files that they name. */
function decidingCall({ verb, declared, flags, operands }: JobCall) {
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

/** One run of a verb, as its user sees it. */
export class Run implements Watch, Disposable {
  /** Messages and progress. */
  readonly progress: Progress;
  readonly seconds: Record<string, number> = {};
  /** Says what stands when the user stops the run. */
  kept: () => string = () => "nothing was written";
  readonly #flags: RunFlags;
  readonly #interrupts: InterruptListener;
  readonly #profile: ProfileFile | null;
  #opened: Opened | null = null;

  /** @param flags Device and presentation. @param stopping What Ctrl-C does, e.g. `stopping`. */
  constructor(flags: RunFlags, stopping: string) {
    const progress = new Progress(progressMode(flags));
    [this.#flags, this.progress, this.#profile] = [flags, progress, ProfileFile.of(flags)];
    this.#interrupts = new InterruptListener((line) => progress.say(line), stopping);
  }

  get warnings(): readonly string[] {
    return this.progress.warnings;
  }

  get interrupted(): boolean {
    return this.#interrupts.signal !== null;
  }

  say(line: string): void {
    this.progress.say(line);
  }

  warn(line: string): void {
    this.progress.warn(line);
  }

  event(kind: string, values: Readonly<Record<string, unknown>>): void {
    this.progress.event(kind, values);
  }

  stage(what: string, total: number, unit: string, from?: number): Stage {
    return this.progress.stage(what, total, unit, from);
  }

  /** Opens the device that the flags ask for; the run closes it. */
  async openDevice(): Promise<Opened> {
    const opened = await openChosen(this.#flags);
    this.#opened = this.#profile?.open(opened) ?? opened;
    this.say(`device: ${this.#opened.device.info.description} (${this.#opened.reason})`);
    return this.#opened;
  }

  /** Lets timers and signals run, and throws when the user wants to stop. */
  async pause(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve));
    const { signal } = this.#interrupts;
    if (signal !== null) throw new Interrupted(signal, this.kept());
  }

  /** Prints the profile and writes its trace, with `--profile`. */
  async finish(): Promise<void> {
    await this.#profile?.finish((line) => this.say(line));
  }

  /** Closes the device and stops listening. */
  [Symbol.dispose](): void {
    this.#opened?.device.close();
    this.#interrupts[Symbol.dispose]();
  }
}

/**
 * Runs a verb that writes a result folder.
 *
 * @param call What the user asked for.
 * @param body Does the work.
 * @throws {OwnershipError} If the folder is not new, empty, or an earlier result of this verb, or holds another interrupted run.
 * @throws {Interrupted} After Ctrl-C.
 */
export async function runJob(call: JobCall, body: (job: Job, run: Run) => Promise<void>): Promise<void> {
  const { verb, declared, flags, operands, out, sources = [] } = call;
  const read = Object.keys(declared).filter((name) => declared[name].file && !declared[name].presentation)
    .flatMap((name) => [valueOf(flags, name)].flat()).filter((value) => typeof value === "string");
  using run = new Run(flags, call.stopping);
  using job = await Job.open(valueOf(flags, out) as string, {
    settings: { verb, operands, flags: { ...flags } },
    call: decidingCall(call),
    flag: `--${out}`,
    sources: [...operands, ...read, ...sources],
    restart: flags.restart,
    watch: run,
  });
  run.kept = () =>
    job.hasBegun ? `${job.path} holds what is done; the same command resumes it` : "nothing was written";
  try {
    await body(job, run);
  } finally {
    await run.finish();
  }
}
