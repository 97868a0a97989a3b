/**
 * `--profile`: where the time of a run goes, as a table on the terminal and as a trace in a file.
 *
 * @module
 */
import type { Opened } from "../kernels/open.ts";
import { Profile, profiled, type SpanKind } from "../kernels/profile.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { duration } from "../lib/units.ts";
import { columnLines } from "./report.ts";

/** A profile that `--profile` asked for. */
export class ProfileFile {
  readonly #path: string;
  readonly #profile = new Profile();

  private constructor(path: string) {
    this.#path = path;
  }

  /** Null without the flag. */
  static of(flags: { readonly profile?: string }): ProfileFile | null {
    return flags.profile === undefined ? null : new ProfileFile(flags.profile);
  }

  /** The same device, profiled. */
  open(opened: Opened): Opened {
    return { ...opened, device: profiled(opened.device, this.#profile) };
  }

  /** Writes the trace and prints the table. */
  async finish(say: (line: string) => void): Promise<void> {
    const wall = this.#profile.now;
    await writeAtomic(this.#path, this.#profile.trace());
    for (const line of profileLines(this.#profile, wall)) say(line);
    say(`wrote ${this.#path}`);
  }
}

/** Rows of the table. */
const MOST_ROWS = 16;

const WORDS: Readonly<Record<SpanKind, string>> = {
  kernel: "kernel",
  launch: "host, launching",
  copy: "host, copying",
  wait: "host, waiting",
};

/**
 * A profile in words: the share of each kind, then the largest rows. Kernels of a GPU run beside the host.
 *
 * @param wall Seconds of the whole run.
 */
export function profileLines(profile: Profile, wall: number): string[] {
  const share = (seconds: number) => `${(100 * seconds / wall).toFixed(0)} %`;
  const kinds = (["kernel", "launch", "copy", "wait"] as const).map((kind) =>
    [kind, profile.seconds(kind)] as const
  );
  const sums = kinds.filter(([, seconds]) => seconds > 0).map(([kind, seconds]) =>
    `${kind === "kernel" ? "kernels" : WORDS[kind]} ${duration(seconds)} (${share(seconds)})`
  );
  // A GPU computes beside the host.
  const host = kinds.filter(([kind]) => kind !== "kernel" || profile.seconds("launch") === 0);
  const rest = wall - host.reduce((sum, [, seconds]) => sum + seconds, 0);
  sums.push(`host, other work ${duration(rest)} (${share(rest)})`);
  const rows = profile.rows();
  const cells = rows.slice(0, MOST_ROWS).map(({ kind, name, count, seconds }) => [
    WORDS[kind],
    name,
    seconds.toFixed(3) + " s",
    share(seconds),
    `${count} times`,
  ]);
  const more = rows.length > MOST_ROWS ? [`  and ${rows.length - MOST_ROWS} more, in the trace`] : [];
  return [`profile of ${duration(wall)}: ${sums.join(", ")}`, ...columnLines(cells), ...more];
}
