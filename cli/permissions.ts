/**
 * Without permissions, Deno would ask about one file and one variable after another: says what to type instead.
 *
 * @module
 */
import { UsageError } from "./args.ts";
import { commandOf } from "./help.ts";

/** A word as a shell takes it. */
const quoted = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

/**
 * Returns when far.ts may read some files and its own environment variables. Whoever grants less than `-P` on purpose is
 * asked by Deno for the rest.
 *
 * @param verb The verb that is about to run.
 * @param args The whole command line, to be offered again.
 * @throws {UsageError} Otherwise: one line with the command to type.
 */
export function checkPermissions(verb: string, args: readonly string[]): void {
  const granted = (p: Deno.PermissionDescriptor) => Deno.permissions.querySync(p).state === "granted";
  const reads = granted({ name: "read" }) || granted({ name: "read", path: "." });
  if (reads && granted({ name: "env", variable: "FAR_DEVICE" })) return;
  throw new UsageError(
    `far.ts ${verb} needs permission to ${
      reads ? "read FAR_DEVICE" : "read files"
    }; with those that it needs, type: ` +
      [commandOf(verb), ...args.map(quoted)].join(" "),
  );
}
