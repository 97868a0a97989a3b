/**
 * Errors of everything that reads or writes files: one class for bad content, one for what the system refuses.
 *
 * @module
 */

const LONGEST_NAME = 120;
const LONGEST_MESSAGE = 600;

/**
 * Characters that a terminal obeys or hides: control characters, formatting characters (which turn the writing direction or
 * have no width), line and paragraph separators, and halves of surrogate pairs.
 */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** The character as JSON and JavaScript write it. */
const escaped = (character: string): string =>
  Array.from(
    { length: character.length },
    (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`,
  ).join("");

/**
 * Text that may come out of a file, safe to print: what a terminal would obey or hide is written as `\u001b` and the like,
 * so that a name can neither colour the screen, nor forge a line, nor look like another name. Every name from a file that
 * is printed goes through this or through {@linkcode quote}. JSON stays JSON with the same value.
 *
 * @example
 * ```ts
 * import { printable } from "./errors.ts";
 * console.assert(printable("a\x1b[31m\nb") === "a\\u001b[31m\\u000ab");
 * ```
 */
export function printable(text: string): string {
  return text.replace(UNSAFE, escaped);
}

/** One line of bounded length: line breaks become spaces, whatever else is unsafe is escaped. */
function oneLine(text: string): string {
  const folded = printable(text.replace(/\s+/g, " ").trim());
  return folded.length > LONGEST_MESSAGE ? `${folded.slice(0, LONGEST_MESSAGE)}...` : folded;
}

/**
 * A name from a file, quoted and shortened for an error message.
 *
 * @example
 * ```ts
 * import { quote } from "./errors.ts";
 * console.assert(quote("a\nb") === '"a\\nb"');
 * ```
 */
export function quote(name: unknown): string {
  const text = typeof name === "string" ? name : describe(name);
  return printable(JSON.stringify(text.length > LONGEST_NAME ? `${text.slice(0, LONGEST_NAME)}...` : text));
}

/** The kind of a value that is not the string it should be; never calls into the value itself. */
function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return `list of ${value.length}`;
  if (typeof value === "object") return "object";
  return typeof value === "function" ? "function" : String(value);
}

/** A value out of a file's JSON, shortened for an error message. */
export function show(value: unknown): string {
  if (typeof value === "number") return String(value); // JSON has no infinity
  try {
    const text = printable(JSON.stringify(value) ?? "nothing");
    return text.length > LONGEST_NAME ? `${text.slice(0, LONGEST_NAME)}...` : text;
  } catch {
    return "a value nested too deeply"; // JSON.stringify recurses, JSON.parse does not
  }
}

/**
 * The content of a file is not what its format or its user demands. The message is one line that starts with the
 * file's path and says what was expected and what was found.
 */
export class FileFormatError extends Error {
  /** Tells this error from others where classes cannot be compared. */
  override readonly name = "FileFormatError";
  /** The file, as it was given to the reader. */
  readonly path: string;

  /**
   * Makes the one-line message.
   *
   * @param path The file, as the user named it.
   * @param detail Tensor or member, expected, found, what to do.
   * @param options The underlying error as `cause`.
   */
  constructor(path: string, detail: string, options?: ErrorOptions) {
    super(oneLine(`${path}: ${detail}`), options);
    this.path = path;
  }
}

/**
 * The system refuses a file or a program: missing, no permission, disk full, ended with a failure. The message is one
 * line that starts with the path.
 */
export class FileAccessError extends Error {
  /** Tells this error from others where classes cannot be compared. */
  override readonly name = "FileAccessError";
  /** The file, folder or program, as the user named it. */
  readonly path: string;

  /**
   * Makes the one-line message.
   *
   * @param path The file, folder or program, as the user named it.
   * @param detail What was tried, what happened, what to do.
   * @param options The underlying error as `cause`.
   */
  constructor(path: string, detail: string, options?: ErrorOptions) {
    super(oneLine(`${path}: ${detail}`), options);
    this.path = path;
  }
}

/** Whether an error says that something is not there. */
export const isMissing = (error: unknown): boolean =>
  error instanceof Deno.errors.NotFound ||
  error instanceof FileAccessError && error.cause instanceof Deno.errors.NotFound;

/** Meaning of the system's error codes for someone who only knows the path. */
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or folder",
  ENOTDIR: "a part of the path is a file, not a folder",
  EISDIR: "is a folder, expected a file",
  EACCES: "permission denied by the system",
  EPERM: "permission denied by the system",
  EROFS: "the file system is read-only",
  ENOSPC: "no space left on the device",
  EDQUOT: "disk quota exceeded",
  EFBIG: "file too large for this file system",
  ENAMETOOLONG: "file name too long",
  EMFILE: "too many open files",
  EEXIST: "already exists",
};

/**
 * Turns whatever the runtime threw on a file operation into a {@linkcode FileAccessError} with a plain reason; an error
 * of ours passes unchanged.
 *
 * @param path The file, as the user named it.
 * @param doing What was tried, as in "cannot open" or "cannot write".
 * @param error What was thrown.
 */
export function accessError(path: string, doing: string, error: unknown): Error {
  if (error instanceof FileFormatError || error instanceof FileAccessError) return error;
  if (error instanceof Deno.errors.NotCapable) {
    const flag = /--allow-[a-z]+/.exec(error.message)?.[0] ?? "--allow-read";
    return new FileAccessError(path, `${doing}: not permitted by Deno, add ${flag}=${path}`, {
      cause: error,
    });
  }
  const code = (error as { code?: unknown } | null)?.code;
  const reason = typeof code === "string" ? REASONS[code] : undefined;
  const text = error instanceof Error ? error.message : String(error);
  return new FileAccessError(path, `${doing}: ${reason ?? text}`, { cause: error });
}
