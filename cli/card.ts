/**
 * Values of flags from a bundled model's card.
 *
 * @module
 */
import { BUNDLED } from "../lib/pipeline/bundled.ts";
import type { Call, Flags } from "./args.ts";

/**
 * A call whose flags have the values of the model's card where they were not given. A call that repeats an earlier run
 * (`--from`) has all its values from there.
 */
export function withCard(verb: string, call: Call<Flags>): Call<Flags> {
  const { clip, ...defaults } = BUNDLED[call.flags.model as string]?.defaults[verb] ?? {};
  if (call.flags.from !== undefined) return call;
  const chosen = Object.entries(defaults).filter(([name]) => !call.given.has(name));
  const operands = call.operands.length === 0 && clip !== undefined ? [String(clip)] : call.operands;
  return { ...call, operands, flags: { ...call.flags, ...Object.fromEntries(chosen) } };
}

/** Note on a flag's default in `--help`: the values on the cards. */
export function cardNote(verb: string, flag: string): string {
  return Object.entries(BUNDLED).flatMap(([name, { defaults }]) => {
    const value = defaults[verb]?.[flag];
    return value === undefined ? [] : [`${value} for ${name}`];
  }).join(", ");
}
