/**
 * Error output for the user, and the exit code that follows.
 *
 * @module
 */
import { FolderLockedError } from "../lib/io/folder_lock.ts";
import { OwnershipError } from "../lib/io/owned_folder.ts";
import { printable } from "../lib/io/errors.ts";
import { UsageError } from "./args.ts";
import { environment } from "../lib/io/environment.ts";
import { ChoiceError } from "../lib/pipeline/choice.ts";
import { paintFor } from "./colour.ts";
import { STOP_SIGNALS, type StopSignal } from "./interrupt.ts";

/** The user pressed Ctrl-C (130), the system asked to stop (143), or the terminal went away (129). What was finished is kept. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  /** Exit code: 128 plus the number of the signal. */
  readonly code: number;

  /** @param signal The signal that came. @param kept One clause on what stands and how to resume it. */
  constructor(signal: StopSignal, kept: string) {
    super(`interrupted: ${kept}`);
    this.code = STOP_SIGNALS[signal];
  }
}

/** The whole of what went wrong, in one line; names in it cannot write anything else to a terminal. */
export const oneLine = (error: unknown): string => printable(reasonOf(error));

/** Prints JSON for programs, with the same care for a terminal; indented where a person may look at it. */
export function printJson(value: unknown, indent?: number): void {
  console.log(JSON.stringify(value, null, indent).split("\n").map(printable).join("\n"));
}

/** Lines of rows in columns as wide as their longest cell; the last one, which may be a sentence, is left as it is. */
export function columnLines(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.slice(0, -1).forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  }
  const padded = (row: readonly string[]) =>
    row.map((cell, i) => i < row.length - 1 ? cell.padEnd(widths[i]) : cell);
  return rows.map((row) => padded(row).join("  ").trimEnd());
}

function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotCapable) {
    const asked = /Requires (\w+) access(?: to (.+?))?, run again/.exec(error.message);
    if (asked?.[1] === "all") return `permission: Deno itself protects ${asked[2]}: choose another place`;
    const what = asked ? `${asked[1]} access${asked[2] ? ` to ${asked[2]}` : ""}` : error.message;
    return `permission: no ${what}; run as: deno run -P far.ts ...`;
  }
  const message = error instanceof ChoiceError
    ? error.forCommandLine
    : error instanceof Error
    ? error.message || error.name
    : String(error);
  const line = message.split("\n").map((s) => s.trim()).filter((s) => s !== "").join(" ");
  // Our own errors name who failed; an error of the runtime does not, so its kind is of use.
  const native = error instanceof TypeError || error instanceof ReferenceError;
  return native ? `${(error as Error).name}: ${line}` : line;
}

/** Prints an error for a person on stderr (the stack with FAR_DEBUG=1) and returns the exit code for it. */
export function report(error: unknown): number {
  const debug = environment("FAR_DEBUG");
  const stack = debug !== undefined && debug !== "0" && debug !== "" && error instanceof Error;
  console.error(`${paintFor(Deno.stderr)("error", "far:")} ${oneLine(error)}`);
  if (stack) console.error(error.stack?.split("\n").map(printable).join("\n"));
  if (error instanceof Interrupted) return error.code;
  // A folder that must not be written into is a value that the flag does not take.
  const usage = [UsageError, ChoiceError, OwnershipError, FolderLockedError].some((kind) =>
    error instanceof kind
  );
  return usage ? 2 : 1;
}
