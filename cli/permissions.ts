/**
 * Off a terminal nobody can answer a question: says what to type instead of failing at the first file.
 *
 * @module
 */
import { UsageError } from "./args.ts";

/**
 * Returns when far.ts may read files and its own environment variables, or when Deno can ask on a terminal.
 *
 * @param verb The verb that is about to run; it names the permission set.
 * @throws {UsageError} Otherwise: one line that says what to type.
 */
export function checkPermissions(verb: string): void {
  const wanted = [{ name: "read" }, { name: "env", variable: "FAR_DEVICE" }] as const;
  const missing = wanted.filter((p) => Deno.permissions.querySync(p).state !== "granted");
  if (missing.length === 0) return;
  const refused = missing.some((p) => Deno.permissions.querySync(p).state === "denied");
  if (!refused && Deno.stdin.isTerminal() && Deno.stderr.isTerminal()) return; // Deno asks
  throw new UsageError(
    `far.ts ${verb} needs permission to ${
      missing.map((p) => p.name === "read" ? "read files" : "read FAR_DEVICE").join(" and ")
    };` +
      ` type: deno run -P far.ts ${verb} ...   (-P=${verb} for what this verb needs and no more)`,
  );
}
