/** The part of `@std/cli/parse-args` that we use; its npm copy carries no types. */

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions {
  readonly string?: readonly string[];
  readonly boolean?: readonly string[];
  readonly collect?: readonly string[];
  readonly negatable?: readonly string[];
  readonly alias?: Readonly<Record<string, string>>;
  /** Called for words that no other option names; `false` drops the word. */
  readonly unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Parses command-line words into flags by name and the remaining words under `_`. */
export function parseArgs(
  args: string[],
  options?: ParseOptions,
): Record<string, unknown> & { _: (string | number)[] };
