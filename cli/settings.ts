/**
 * Settings of an earlier run, to repeat it.
 *
 * @module
 */
import { readText } from "./files.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import type { Call, Flags } from "./args.ts";

/** What result.json says about how it was made. */
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
  let settings: Settings | undefined;
  try {
    settings = JSON.parse(readText(file)).settings;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  if (settings?.verb !== verb || !Array.isArray(settings.operands) || typeof settings.flags !== "object") {
    throw new FileFormatError(
      file,
      `expected the result.json of a ${verb}, found ${settings?.verb ?? "something else"}`,
    );
  }
  const flags: Record<string, unknown> = { ...call.flags };
  for (const [name, value] of Object.entries(settings.flags)) {
    if (!(name in flags)) throw new FileFormatError(file, `has a setting ${name} that ${verb} does not know`);
    if (!call.given.has(name) && !declared[name].presentation) flags[name] = value;
  }
  return { ...call, flags, operands: call.operands.length > 0 ? call.operands : settings.operands };
}
