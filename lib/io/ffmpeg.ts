/**
 * Finds the ffmpeg binary and runs it: pipes with back pressure, the end of what it says on stderr, no process left behind.
 *
 * @module
 */
import { basename, dirname, join } from "node:path";
import { accessError, FileAccessError } from "./errors.ts";
import { isFile } from "./paths.ts";

/** An ffmpeg binary that runs. */
export interface FfmpegBinary {
  /** A path, or `ffmpeg` where the system's search path finds it. */
  readonly path: string;
  /** What the binary calls itself, as in `5.1.9-0+deb12u1`. */
  readonly version: string;
}

/** Platform packages of @ffmpeg-installer, with the binary inside; the newest version of each. */
const INSTALLERS: Readonly<Record<string, string>> = {
  "linux-x86_64": "@ffmpeg-installer/linux-x64@4.1.0",
  "linux-aarch64": "@ffmpeg-installer/linux-arm64@4.1.4",
  "darwin-x86_64": "@ffmpeg-installer/darwin-x64@4.1.0",
  "darwin-aarch64": "@ffmpeg-installer/darwin-arm64@4.1.5",
  "windows-x86_64": "@ffmpeg-installer/win32-x64@4.1.0",
};

function environment(name: string): string | undefined {
  try {
    return Deno.env.get(name) || undefined;
  } catch {
    return undefined; // not permitted to look: as if it were not set
  }
}

const EXE = Deno.build.os === "windows" ? ".exe" : "";

/** The version of a binary, or undefined if there is none at this path. */
async function versionOf(path: string): Promise<string | undefined> {
  try {
    const run = new Deno.Command(path, {
      args: ["-version"],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    });
    const { success, stdout } = await run.output();
    return success ? /version (\S+)/.exec(new TextDecoder().decode(stdout))?.[1] ?? "unknown" : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw runError(path, error);
  }
}

function runError(path: string, error: unknown): Error {
  if (error instanceof Deno.errors.NotCapable) {
    return new FileAccessError(path, `not permitted by Deno to run it, add --allow-run=${path}`, {
      cause: error,
    });
  }
  return accessError(path, "cannot run", error);
}

/** Downloads the platform's package (about 70 MB, once) into Deno's cache and returns where its binary lies. */
async function installed(): Promise<string | undefined> {
  const name = INSTALLERS[`${Deno.build.os}-${Deno.build.arch}`];
  if (name === undefined || environment("FAR_OFFLINE") !== undefined) return undefined;
  const file = `npm:${name}/package.json`;
  try {
    // Not a literal, so that nobody downloads it who has another ffmpeg.
    await import(file, { with: { type: "json" } });
    const url = new URL(import.meta.resolve(file));
    return url.protocol === "file:"
      ? join(dirname(decodeURIComponent(url.pathname)), `ffmpeg${EXE}`)
      : undefined;
  } catch {
    return undefined;
  }
}

async function find(named: string | undefined): Promise<FfmpegBinary> {
  if (named !== undefined) {
    const version = await versionOf(named);
    if (version !== undefined) return { path: named, version };
    throw new FileAccessError(named, "named by FAR_FFMPEG or FFMPEG_BIN, but no ffmpeg runs there");
  }
  const beside = join("node_modules", "ffmpeg-static", `ffmpeg${EXE}`);
  const candidates = [() => isFile(beside) ? beside : undefined, () => "ffmpeg", installed];
  let refused: unknown;
  for (const candidate of candidates) {
    const path = await candidate();
    try {
      const version = path && await versionOf(path);
      if (path && version) return { path, version };
    } catch (error) {
      refused ??= error; // another candidate may be permitted
    }
  }
  throw refused ?? new FileAccessError(
    "ffmpeg",
    "not found: install it (apt install ffmpeg, brew install ffmpeg, winget install ffmpeg) or name it in FAR_FFMPEG",
  );
}

/** What was found, by what the environment named then. */
const found = new Map<string | undefined, Promise<FfmpegBinary>>();

/**
 * The ffmpeg binary: `FAR_FFMPEG` or `FFMPEG_BIN` if set, npm:ffmpeg-static in node_modules if its binary is there, `ffmpeg`
 * on the search path, else @ffmpeg-installer's, which is downloaded once (not when `FAR_OFFLINE` is set). Looked for once.
 *
 * @throws {FileAccessError} If none runs: what to install, or which binary to permit.
 */
export function ffmpegPath(): Promise<FfmpegBinary> {
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

/** The ffprobe that belongs to an ffmpeg; it need not exist. */
export function ffprobePath(ffmpeg: string): string {
  return ffmpeg === basename(ffmpeg) ? "ffprobe" : join(dirname(ffmpeg), `ffprobe${EXE}`);
}

/** What ffmpeg says after it has said what is wrong. */
const EMPTY_TALK =
  /^(Conversion failed!|Error while |Error marking filters|Press \[q\]|Exiting normally|At least one output)/;

/** The last lines of a process's stderr that say something, without the addresses of ffmpeg's objects. */
function lastWords(text: string): string {
  const lines = text.split(/[\r\n]+/)
    .map((line) => line.replace(/\[([\w,-]+)[^\]]*? @ 0x[0-9a-f]+\]\s*/gi, "$1: ").trim())
    .filter((line) => line !== "" && !EMPTY_TALK.test(line));
  return lines.slice(-2).join("; ").slice(-300);
}

/** An ffmpeg that runs. Must be awaited with {@linkcode RunningFfmpeg.end} or stopped. */
export class RunningFfmpeg {
  readonly #child: Deno.ChildProcess;
  readonly #stderr: Promise<void>;
  #text = "";
  #ended = false;

  /**
   * Starts it.
   *
   * @param binary The binary.
   * @param args Its arguments.
   * @param stdin Whether something will be written to its standard input.
   * @throws {FileAccessError} If it cannot be run.
   */
  constructor(binary: string, args: readonly string[], stdin = false) {
    try {
      const pipes = { stdin: stdin ? "piped" : "null", stdout: "piped", stderr: "piped" } as const;
      this.#child = new Deno.Command(binary, { args: [...args], ...pipes }).spawn();
    } catch (error) {
      throw runError(binary, error);
    }
    this.#stderr = this.#collect();
  }

  /** Its standard output. */
  get stdout(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#child.stdout;
  }

  /** Its standard input, if it was asked for. */
  get stdin(): WritableStream<Uint8Array<ArrayBufferLike>> {
    return this.#child.stdin;
  }

  async #collect(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const chunk of this.#child.stderr) {
        this.#text = (this.#text + decoder.decode(chunk, { stream: true })).slice(-8192);
      }
    } catch {
      // Killed while it spoke: what was heard so far is enough.
    }
  }

  /** Waits until it has ended by itself. */
  async end(): Promise<{ readonly success: boolean; readonly said: string }> {
    const { success } = await this.#child.status;
    this.#ended = true;
    await this.#stderr;
    return { success, said: lastWords(this.#text) };
  }

  /** Ends it if it still runs, and waits until it is gone. */
  async stop(): Promise<void> {
    if (!this.#ended) {
      try {
        this.#child.kill("SIGKILL");
      } catch {
        // It has just ended by itself.
      }
    }
    await this.end();
  }
}
