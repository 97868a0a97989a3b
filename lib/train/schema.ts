/**
 * Strict reading of option files: a schema says every key, its type and its default once; unknown keys and wrong types are
 * errors that name the path.
 *
 * @module
 */
import { isSegment } from "../io/paths.ts";
import type { YamlValue } from "../io/yaml.ts";
import { didYouMean } from "../nearest.ts";

/** An option that does not fit: one line with its path. */
export class OptionError extends Error {
  /** For `catch`. */
  override readonly name = "OptionError";
}

/** Reader of one option. */
export interface Field<T> {
  /** The value of an option that may be missing. */
  read(value: YamlValue | undefined, at: string): T;
  /** Expected value, in words. */
  readonly expects: string;
  /** Affects presentation only, no bit of the result: see {@linkcode presentation}. */
  readonly presentation?: true;
  /** Names a file or folder: see {@linkcode file}. */
  readonly file?: true;
  /** Keys inside, for a group. */
  readonly fields?: Readonly<Record<string, Field<unknown>>>;
}

/** The value that a field gives. */
export type ValueOf<F> = F extends Field<infer T> ? T : never;

const show = (value: YamlValue): string =>
  value !== null && typeof value === "object"
    ? Array.isArray(value) ? "a list" : "a mapping"
    : JSON.stringify(value);

function field<T>(expects: string, parse: (value: YamlValue) => T | undefined, missing?: T): Field<T> {
  return {
    expects,
    read(value, at) {
      if (value === undefined) {
        if (missing !== undefined) return missing;
        throw new OptionError(`${at}: is missing, expected ${expects}`);
      }
      const parsed = parse(value);
      if (parsed === undefined) throw new OptionError(`${at}: expected ${expects}, found ${show(value)}`);
      return parsed;
    },
  };
}

/** Smallest and largest value, both inclusive. */
export interface Range {
  readonly min?: number;
  readonly max?: number;
}

const inRange = (v: number, { min = -Infinity, max = Infinity }: Range) => v >= min && v <= max;
const words = ({ min, max }: Range) =>
  min !== undefined && max !== undefined
    ? ` from ${min} to ${max}`
    : min !== undefined
    ? ` of at least ${min}`
    : "";

/** A number. */
export const number = (missing?: number, range: Range = {}): Field<number> =>
  field(
    `a number${words(range)}`,
    (v) => typeof v === "number" && Number.isFinite(v) && inRange(v, range) ? v : undefined,
    missing,
  );

/** A whole number. */
export const whole = (missing?: number, range: Range = { min: 0 }): Field<number> =>
  field(
    `a whole number${words(range)}`,
    (v) => Number.isSafeInteger(v) && inRange(v as number, range) ? v as number : undefined,
    missing,
  );

/** Text. */
export const text = (missing?: string): Field<string> =>
  field("text", (v) => typeof v === "string" ? v : undefined, missing);

/** A name that becomes a folder or a file: one segment of a path, so that it cannot lead out of where it belongs. */
export const segment = (missing?: string): Field<string> =>
  field(
    "the name of a folder, without slashes and of at most 200 bytes",
    (v) => typeof v === "string" && isSegment(v) ? v : undefined,
    missing,
  );

/** True or false. */
export const flag = (missing?: boolean): Field<boolean> =>
  field("true or false", (v) => typeof v === "boolean" ? v : undefined, missing);

/** One of several words. */
export function word<const W extends readonly string[]>(choices: W, missing?: W[number]): Field<W[number]> {
  const any = text(missing), expects = choices.join(", ");
  return {
    expects,
    read(value, at) {
      const found = any.read(value, at);
      if (choices.includes(found)) return found as W[number];
      throw new OptionError(`${at}: expected ${expects}, found ${found}${didYouMean(found, choices)}`);
    },
  };
}

/** A list. */
export const list = <T>(item: Field<T>, missing?: readonly T[], length?: number): Field<readonly T[]> => ({
  expects: `a list of ${length ?? ""}${length ? " x " : ""}${item.expects}`,
  read(value, at) {
    if (value === undefined && missing) return missing;
    if (!Array.isArray(value) || (length !== undefined && value.length !== length)) {
      throw new OptionError(
        `${at}: expected ${this.expects}, found ${value === undefined ? "nothing" : show(value)}`,
      );
    }
    return value.map((v, i) => item.read(v, `${at}[${i}]`));
  },
});

/** The same, or null, which is also what a missing one is. */
export const nullable = <T>(inner: Field<T>): Field<T | null> => ({
  ...inner,
  expects: `${inner.expects}, or null`,
  read: (value, at) => value === undefined || value === null ? null : inner.read(value, at),
});

/**
 * The same, declared to affect presentation only and no bit of the result. Every other option belongs to the
 * fingerprint of a run, {@linkcode fingerprintOf}.
 */
export const presentation = <T>(inner: Field<T>): Field<T> => ({ ...inner, presentation: true });

/** The same, declared to name a file or folder: the content belongs to the fingerprint of a run, the path does not. */
export const file = <T extends string | null>(inner: Field<T>): Field<T> => ({ ...inner, file: true });

/** A mapping whose keys are checked elsewhere. */
export const open: Field<Readonly<Record<string, YamlValue>>> = field(
  "a mapping",
  (v) => v !== null && typeof v === "object" && !Array.isArray(v) ? v : undefined,
  {},
);

/** A mapping with these keys and no others. A missing group is read as an empty one. */
export function group<F extends Readonly<Record<string, Field<unknown>>>>(
  fields: F,
): Field<{ readonly [K in keyof F]: ValueOf<F[K]> }> {
  return {
    expects: "a mapping",
    fields,
    read(value, at) {
      const given = value === undefined ? {} : value;
      if (given === null || typeof given !== "object" || Array.isArray(given)) {
        throw new OptionError(`${at}: expected a mapping, found ${show(given)}`);
      }
      const inside = at === "" ? "" : `${at}.`, keys = Object.keys(fields);
      for (const key of Object.keys(given)) {
        if (fields[key] === undefined || !Object.hasOwn(fields, key)) {
          throw new OptionError(
            `${inside}${key}: there is no such option${
              didYouMean(key, keys) || `; here are ${keys.join(", ")}`
            }`,
          );
        }
      }
      return Object.fromEntries(
        keys.map((key) => [key, fields[key].read(given[key], inside + key)]),
      ) as { readonly [K in keyof F]: ValueOf<F[K]> };
    },
  };
}

/**
 * Options with one value replaced: `train.optim_g.lr` and the like. Whether the path exists in the schema is checked when
 * the options are read.
 *
 * @throws {OptionError} If the path leads through something that is not a mapping.
 */
export function setPath(options: YamlValue, path: string, value: YamlValue): YamlValue {
  const names = path.split(".");
  if (names.some((n) => n === "")) throw new OptionError(`--set ${path}: expected names joined by dots`);
  const place = (here: YamlValue | undefined, depth: number): YamlValue => {
    if (depth === names.length) return value;
    const name = names[depth];
    if (Array.isArray(here)) {
      const index = Number(name);
      if (!Number.isInteger(index) || index < 0 || index >= here.length) {
        throw new OptionError(
          `--set ${path}: ${names.slice(0, depth).join(".")} is a list of ${here.length}, found ${name}`,
        );
      }
      return here.with(index, place(here[index], depth + 1));
    }
    if (here !== undefined && here !== null && typeof here !== "object") {
      throw new OptionError(
        `--set ${path}: ${names.slice(0, depth).join(".")} is ${show(here)}, not a mapping`,
      );
    }
    return { ...here, [name]: place(here?.[name], depth + 1) };
  };
  return place(options, 0);
}

/** The options of a schema that are no groups, by their paths. */
export function optionsOf(field: Field<unknown>, at = ""): [path: string, option: Field<unknown>][] {
  const { fields } = field;
  if (fields === undefined) return [[at, field]];
  return Object.entries(fields).flatMap(([key, inner]) =>
    optionsOf(field.presentation ? presentation(inner) : inner, at === "" ? key : `${at}.${key}`)
  );
}

/**
 * The options that decide the bits of a run, by path.
 *
 * @param contentOf Identifies the content of a file or folder that an option names.
 */
export function fingerprintOf(
  field: Field<unknown>,
  value: unknown,
  contentOf: (path: string, option: string) => unknown,
  at = "",
): Record<string, unknown> {
  if (field.presentation) return {};
  if (field.file) return { [at]: typeof value === "string" ? contentOf(value, at) : value };
  if (typeof value !== "object" || value === null || Array.isArray(value)) return { [at]: value };
  const inside = Object.entries(value).map(([key, inner]) =>
    fingerprintOf(field.fields?.[key] ?? open, inner, contentOf, at === "" ? key : `${at}.${key}`)
  );
  return Object.assign({}, ...inside);
}
