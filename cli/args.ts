/**
 * Arguments of a verb, declared once: parsing, checking, `--help` and shell completion are all read from the declaration.
 *
 * @module
 */
// @ts-types="./std_cli.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { didYouMean } from "../lib/nearest.ts";

/** The user wrote something that the command does not take: one line, exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** One flag of a verb. Made by {@linkcode text}, {@linkcode integer}, {@linkcode real}, {@linkcode choice} or {@linkcode toggle}. */
export interface Flag<T> {
  readonly kind: "text" | "integer" | "real" | "choice" | "toggle";
  /** Its effect, for `--help`. One sentence without a full stop. */
  readonly help: string;
  /** Value when the flag is not given. */
  readonly default?: T;
  /** Placeholder of the value in `--help`, e.g. `FILE`. */
  readonly value?: string;
  /** Smallest and largest number that is taken, both inclusive. */
  readonly min?: number;
  readonly max?: number;
  /** Words that are taken. */
  readonly choices?: readonly string[];
  /** Completed as a file name by the shell. */
  readonly file?: boolean;
  /** May be given several times; the value is the list of all. */
  readonly many?: boolean;
  /**
   * Changes no byte of a result: where it goes, how progress is shown. All other flags are part of a run's fingerprint, so
   * an interrupted run is not resumed with another value.
   */
  readonly presentation?: boolean;
}

type Details = Pick<Flag<unknown>, "value" | "min" | "max" | "file" | "presentation">;

interface Make<T> {
  (help: string, more: Details & { readonly default: T }): Flag<T>;
  (help: string, more?: Details): Flag<T | undefined>;
}

const make =
  <T>(kind: Flag<T>["kind"], value: string): Make<T> =>
  (help: string, more: Details & { readonly default?: T } = {}) =>
    ({ kind, help, value, ...more }) as Flag<T>;

/** A flag that takes any text. */
export const text: Make<string> = make<string>("text", "TEXT");
/** A flag that takes any text and may be given several times. */
export const texts = (help: string, more: Details = {}): Flag<readonly string[]> => ({
  ...text(help, more),
  default: [],
  many: true,
} as Flag<readonly string[]>);
/** A flag that takes a path, completed by the shell. */
export const path: Make<string> = (help: string, more: object = {}) =>
  text(help, { value: "FILE", file: true, ...more }) as Flag<string>;
/** A flag that takes a whole number. */
export const integer: Make<number> = make<number>("integer", "N");
/** A flag that takes a number. */
export const real: Make<number> = make<number>("real", "X");

/** A flag that takes one of several words. */
export function choice<const C extends readonly string[]>(
  choices: C,
  help: string,
  more: { readonly default: C[number]; readonly value?: string; readonly presentation?: boolean },
): Flag<C[number]>;
/** A flag that takes one of several words or is left out. */
export function choice<const C extends readonly string[]>(
  choices: C,
  help: string,
  more?: { readonly value?: string; readonly presentation?: boolean },
): Flag<C[number] | undefined>;
export function choice(choices: readonly string[], help: string, more: object = {}): Flag<string> {
  return { kind: "choice", help, choices, value: choices.join("|"), ...more };
}

/** A flag that is on when given and off otherwise. */
export function toggle(help: string, more: Pick<Details, "presentation"> = {}): Flag<boolean> {
  return { kind: "toggle", help, default: false, ...more };
}

/** Flags by name, as written after the two dashes. */
// deno-lint-ignore no-explicit-any -- a flag of any value type
export type Flags = Readonly<Record<string, Flag<any>>>;

/** Values by flag name. */
export type Values<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never };

/** A word that follows the verb without dashes. */
export interface Operand {
  readonly name: string;
  readonly help: string;
  readonly optional?: boolean;
  /** May be repeated; only the last one. */
  readonly many?: boolean;
  readonly choices?: readonly string[];
}

/** A line that a user can type, with what it does. */
export interface Example {
  readonly does: string;
  /** The words after `deno run -P far.ts`. */
  readonly line: string;
}

/** Argument of a verb's `run`. */
export interface Call<F extends Flags> {
  readonly flags: Values<F>;
  readonly operands: readonly string[];
  /** Names of the flags that stood on the command line. */
  readonly given: ReadonlySet<string>;
}

/** One command of far.ts. */
export interface Verb<F extends Flags = Flags> {
  readonly name: string;
  /** One line for the list of verbs. */
  readonly summary: string;
  /** Paragraphs for `far.ts VERB --help`. */
  readonly about?: string;
  readonly operands?: readonly Operand[];
  readonly flags: F;
  readonly examples: readonly Example[];
  /** Does the work. Resolves to the exit code; nothing means 0. */
  readonly run: (call: Call<F>) => Promise<number | void>;
}

/** Declares a verb; the types of its flag values follow from the declaration. */
export function verb<const F extends Flags>(declared: Verb<F>): Verb {
  return declared as unknown as Verb;
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** Joins `--guidance -1` to `--guidance=-1`: the parser would take the minus for a flag. */
function joinNegative(args: readonly string[], flags: Flags): string[] {
  const out: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const flag = args[i].startsWith("--") ? flags[args[i].slice(2)] : undefined;
    const next = args[i + 1];
    if (flag && flag.kind !== "toggle" && next !== undefined && /^-[\d.]/.test(next)) {
      out.push(`${args[i]}=${next}`);
      i++;
    } else out.push(args[i]);
  }
  return out;
}

/**
 * Checks the value of one flag.
 *
 * @throws {UsageError} On a wrong type or range: who, expected, found.
 */
function check(who: string, flag: Flag<unknown>, found: string): string | number {
  const refuse = (expected: string): never => {
    throw new UsageError(`${who}: expected ${expected}, found ${found === "" ? "nothing" : found}`);
  };
  if (found === "") {
    refuse(flag.choices?.join(" or ") ?? (flag.value === "FILE" ? "a path" : `a value (${flag.value})`));
  }
  if (flag.kind === "text") return found;
  if (flag.kind === "choice") {
    if (flag.choices!.includes(found)) return found;
    throw new UsageError(`${who}: expected ${flag.choices!.join(" or ")}, found ${found}`);
  }
  const number = Number(found);
  const kind = flag.kind === "integer" ? "a whole number" : "a number";
  const range = flag.min !== undefined && flag.max !== undefined
    ? `${kind} from ${flag.min} to ${flag.max}`
    : flag.min !== undefined
    ? `${kind}, at least ${flag.min}`
    : flag.max !== undefined
    ? `${kind}, at most ${flag.max}`
    : kind;
  const fits = NUMBER.test(found) && Number.isFinite(number) &&
    (flag.kind !== "integer" || Number.isSafeInteger(number)) &&
    number >= (flag.min ?? -Infinity) && number <= (flag.max ?? Infinity);
  return fits ? number : refuse(range);
}

/**
 * Reads the words after the verb by its declaration.
 *
 * @returns The call, or `"help"` when `--help` or `-h` is among the words.
 * @throws {UsageError} On an unknown flag (with the nearest match), a wrong value, or too many or too few operands.
 */
export function parseCall(declared: Verb, args: readonly string[]): Call<Flags> | "help" {
  const who = `far.ts ${declared.name}`;
  const { flags } = declared;
  const names = Object.keys(flags);
  const toggles = names.filter((n) => flags[n].kind === "toggle");
  const found = parseArgs(joinNegative(args, flags), {
    string: ["_", ...names.filter((n) => flags[n].kind !== "toggle")],
    boolean: ["help", "h", ...toggles],
    collect: names.filter((n) => flags[n].many),
    unknown: (word, key) => {
      if (key === undefined) return true;
      // `-steps` is what somebody wrote who meant `--steps`, though it reads as the letters s, t, e, p, s.
      const name = word.startsWith("--") ? `--${key}` : word.split("=")[0];
      const meant = didYouMean(name, [...names, "help"].map((n) => `--${n}`)).replaceAll('"', "");
      throw new UsageError(
        `${who}: there is no flag ${name}${meant} (far.ts ${declared.name} --help lists them)`,
      );
    },
  });
  if (found.help || found.h) return "help";
  const values: Record<string, unknown> = {};
  const given = new Set<string>();
  for (const name of names) {
    const flag = flags[name];
    const value = found[name];
    if (
      value === undefined || (flag.many && (value as unknown[]).length === 0) ||
      (flag.kind === "toggle" && !args.some((a) => a === `--${name}` || a.startsWith(`--${name}=`)))
    ) {
      values[name] = flag.default;
      continue;
    }
    given.add(name);
    if (flag.many) values[name] = (value as unknown[]).map((v) => check(`${who} --${name}`, flag, String(v)));
    else if (flag.kind !== "toggle") values[name] = check(`${who} --${name}`, flag, String(value));
    else if (typeof value === "boolean") values[name] = value;
    else throw new UsageError(`${who} --${name}: expected no value, true or false, found ${value}`);
  }
  const operands = found._.map(String);
  const wanted = declared.operands ?? [];
  wanted.forEach((operand, i) => {
    if (operands[i] === undefined && !operand.optional) {
      throw new UsageError(`${who}: expected ${operand.name} (${operand.help}), found nothing`);
    }
    const { choices } = operand;
    if (operands[i] !== undefined && choices && !choices.includes(operands[i])) {
      throw new UsageError(
        `${who}: expected ${choices.join(" or ")}, found ${operands[i]}${didYouMean(operands[i], choices)}`,
      );
    }
  });
  if (operands.length > wanted.length && !wanted.at(-1)?.many) {
    const usage = wanted.length === 0 ? "only flags" : wanted.map((o) => o.name).join(" ");
    throw new UsageError(`${who}: expected ${usage}, found also ${operands[wanted.length]}`);
  }
  return { flags: values, operands, given };
}
