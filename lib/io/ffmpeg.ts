/**
 * Finds an ffmpeg binary that may be run, and runs it: pipes with back pressure, no process left behind.
 *
 * @module
 */
import { join } from "node:path";
import { accessError, FileAccessError } from "./errors.ts";
import { type Ended, FfmpegLog } from "./ffmpeg_log.ts";
import { isFile } from "./paths.ts";

/** An ffmpeg binary that runs. */
export interface FfmpegBinary {
  /** A path, or `ffmpeg` where the system's search path finds it. */
  readonly path: string;
  /** The version that the binary reports, as in `5.1.9-0+deb12u1`. */
  readonly version: string;
}

function environment(name: string): string | undefined {
  try {
    if (Deno.permissions.querySync({ name: "env", variable: name }).state !== "granted") return undefined;
    return Deno.env.get(name) || undefined;
  } catch {
    return undefined; // hidden by the permission set: as if it were not set
  }
}

const EXE = Deno.build.os === "windows" ? ".exe" : "";

/** Whether Deno lets us run it without a question. */
const mayRun = (path: string): boolean =>
  Deno.permissions.querySync({ name: "run", command: path }).state === "granted";

/** The version of a binary; undefined if there is none at this path, or it may not be run. */
async function versionOf(path: string): Promise<string | undefined> {
  if (!mayRun(path)) return undefined;
  try {
    const run = new Deno.Command(path, {
      args: ["-version"],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    });
    const { success, stdout } = await run.output();
    return success ? /version (\S+)/.exec(new TextDecoder().decode(stdout))?.[1] ?? "unknown" : undefined;
  } catch {
    return undefined; // not there, no program, or for another system
  }
}

async function find(named: string | undefined): Promise<FfmpegBinary | undefined> {
  if (named === "none") return undefined;
  if (named !== undefined) {
    const version = await versionOf(named);
    if (version !== undefined) return { path: named, version };
    throw new FileAccessError(
      named,
      mayRun(named)
        ? "named by FAR_FFMPEG or FFMPEG_BIN, but no ffmpeg runs there"
        : `named by FAR_FFMPEG or FFMPEG_BIN, but not permitted by Deno to run it, add --allow-run=${named}`,
    );
  }
  const beside = join("node_modules", "ffmpeg-static", `ffmpeg${EXE}`);
  for (const path of [...isFile(beside) ? [beside] : [], "ffmpeg"]) {
    const version = await versionOf(path);
    if (version !== undefined) return { path, version };
  }
}

/** Search results, by the program that the environment named at the time. */
const found = new Map<string | undefined, Promise<FfmpegBinary | undefined>>();

/**
 * An ffmpeg that may be run: `FAR_FFMPEG` or `FFMPEG_BIN` if set (`none` for no ffmpeg at all), npm:ffmpeg-static in node_modules if its binary is there,
 * `ffmpeg` on the search path. Never asks for a permission. Looked for once.
 *
 * @returns Undefined if there is none: video is then read and written in-process.
 * @throws {FileAccessError} If the variable is set and that program does not run, or may not.
 */
export function findFfmpeg(): Promise<FfmpegBinary | undefined> {
  const named = environment("FAR_FFMPEG") ?? environment("FFMPEG_BIN");
  const before = found.get(named);
  if (before !== undefined) return before;
  const search = find(named).catch((error) => {
    found.delete(named); // the next call may find what was installed since
    throw error;
  });
  found.set(named, search);
  return search;
}

/** An ffmpeg at work, in a process of its own or in this one. Must be awaited with `end` or stopped. */
export interface Running {
  /** The next piece of its output; undefined at the end. */
  read(): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Gives it a piece of its input, when it has room. */
  write(bytes: Uint8Array): Promise<void>;
  /** Says that the input ends here. */
  close(): Promise<void>;
  /** Waits until it has ended by itself. */
  end(): Promise<Ended>;
  /** Ends it if it still runs, and waits until it is gone. */
  stop(): Promise<void>;
}

/** An ffmpeg in a process. */
export class FfmpegProcess implements Running {
  readonly #child: Deno.ChildProcess;
  readonly #stderr: Promise<void>;
  readonly #log = new FfmpegLog();
  readonly #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBufferLike>> | undefined;
  #ended = false;

  /**
   * Starts it.
   *
   * @param binary The binary.
   * @param args Its arguments.
   * @param stdin Whether something will be written to its standard input.
   * @throws {FileAccessError} If it cannot be run.
   */
  constructor(binary: string, args: readonly string[], stdin: boolean) {
    try {
      const pipes = { stdin: stdin ? "piped" : "null", stdout: "piped", stderr: "piped" } as const;
      this.#child = new Deno.Command(binary, { args: [...args], ...pipes }).spawn();
    } catch (error) {
      throw accessError(binary, "cannot run", error);
    }
    this.#stderr = this.#collect();
    this.#reader = this.#child.stdout.getReader();
    this.#writer = stdin ? this.#child.stdin.getWriter() : undefined;
  }

  async #collect(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const chunk of this.#child.stderr) this.#log.push(decoder.decode(chunk, { stream: true }));
    } catch {
      // Killed while it spoke: what was heard so far is enough.
    }
  }

  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return (await this.#reader.read()).value;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#writer!.write(bytes);
  }

  async close(): Promise<void> {
    await this.#writer!.close();
  }

  async end(): Promise<Ended> {
    const { success } = await this.#child.status;
    this.#ended = true;
    await this.#stderr;
    return { success, said: this.#log.said };
  }

  async stop(): Promise<void> {
    await this.#writer?.abort().catch(() => {});
    if (!this.#ended) {
      try {
        this.#child.kill("SIGKILL");
      } catch {
        // It has just ended by itself.
      }
    }
    await this.end();
    await this.#reader.cancel().catch(() => {});
  }
}
