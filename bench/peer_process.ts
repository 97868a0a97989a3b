/**
 * A Python program that is asked for one timing a line, so that it and ours take turns on the same machine.
 *
 * @module
 */

import process from "node:process";

/** Seconds that this process has computed, all threads together: other work on the machine disturbs them less than the clock. */
export const processSeconds = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

/** How long work took, by the clock and of all threads of its process. */
export interface PeerSeconds {
  clock: number;
  process: number;
}

/** A running peer. The first line that it prints describes it. */
export class PeerProcess {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  #text = "";
  /** The peer's description of itself. */
  info: Record<string, unknown> = {};

  private constructor(python: string, args: readonly string[], env: Readonly<Record<string, string>>) {
    this.#child = new Deno.Command(python, {
      args: [...args],
      env: { ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.#input = this.#child.stdin.getWriter();
  }

  /** Starts a peer and waits until it is ready. */
  static async start(
    python: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ): Promise<PeerProcess> {
    const peer = new PeerProcess(python, args, env);
    peer.info = await peer.#line();
    return peer;
  }

  /** One run of the peer's work, in seconds. */
  async seconds(): Promise<number> {
    await this.#input.write(new TextEncoder().encode("\n"));
    return (await this.#line()).seconds as number;
  }

  /** The same, by the clock and in seconds of its process: other work on the machine counts less in those. */
  async bothSeconds(): Promise<PeerSeconds> {
    await this.#input.write(new TextEncoder().encode("\n"));
    const { seconds, process_seconds } = await this.#line();
    return { clock: seconds as number, process: process_seconds as number };
  }

  /** Ends the peer. */
  async end(): Promise<void> {
    await this.#input.close();
    await this.#child.status;
  }

  async #line(): Promise<Record<string, unknown>> {
    while (!this.#text.includes("\n")) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error("the peer ended before it answered");
      this.#text += value;
    }
    const at = this.#text.indexOf("\n");
    const line = this.#text.slice(0, at);
    this.#text = this.#text.slice(at + 1);
    return JSON.parse(line);
  }
}

/**
 * Variables of a peer that computes with some threads. Page faults and spinning pools cost it up to a factor of two with
 * the defaults of the allocator and of OpenMP.
 */
export function peerEnvironment(threads: number): Readonly<Record<string, string>> {
  return {
    OPENBLAS_NUM_THREADS: String(threads),
    OMP_NUM_THREADS: String(threads),
    OMP_WAIT_POLICY: "PASSIVE",
    MALLOC_MMAP_THRESHOLD_: "1073741824",
    MALLOC_TRIM_THRESHOLD_: "4294967296",
    MALLOC_TOP_PAD_: "268435456",
  };
}

/** Median of some numbers. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Writes results beside those of the other benchmarks. */
export async function saveResults(name: string, results: unknown): Promise<void> {
  const file = new URL(`results/${name}.json`, import.meta.url);
  await Deno.mkdir(new URL(".", file), { recursive: true });
  await Deno.writeTextFile(file, JSON.stringify(results, null, 2) + "\n");
}
