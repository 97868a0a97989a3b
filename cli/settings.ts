/**
 * Settings of an earlier run, to repeat it.
 *
 * @module
 */
import { FileFormatError, quote } from "../lib/io/errors.ts";
import { readJson } from "../lib/io/text.ts";
import type { Call, Flags } from "./args.ts";

/** Settings of a run, for result.json. */
export interface Settings {
  readonly verb: string;
  readonly operands: readonly string[];
  readonly flags: Readonly<Record<string, unknown>>;
}

/**
 * A call with the settings of `--from FILE` below its own flags; those that only concern presentation are not taken.
 *
 * @throws {FileFormatError} If the file is not a result of this verb.
 */
export function readSettings(verb: string, declared: Flags, call: Call<Flags>): Call<Flags> {
  const file = call.flags.from as string | undefined;
  if (file === undefined) return call;
  const result = readJson(file, `the result.json of a ${verb}`) as { settings?: Settings } | null;
  const settings = result?.settings;
  if (
    settings?.verb !== verb || !Array.isArray(settings.operands) || typeof settings.flags !== "object" ||
    settings.flags === null || !settings.operands.every((word) => typeof word === "string")
  ) {
    throw new FileFormatError(
      file,
      `expected the result.json of a ${verb}, found ${
        typeof settings?.verb === "string" ? `that of a ${quote(settings.verb)}` : "something else"
      }`,
    );
  }
  const flags: Record<string, unknown> = { ...call.flags };
  for (const [name, value] of Object.entries(settings.flags)) {
    if (!(name in flags)) {
      throw new FileFormatError(file, `has a setting ${quote(name)} that ${verb} does not know`);
    }
    if (!call.given.has(name) && !declared[name].presentation) flags[name] = value;
  }
  return { ...call, flags, operands: call.operands.length > 0 ? call.operands : settings.operands };
}
