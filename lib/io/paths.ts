/**
 * What is at a path. Whatever cannot be looked at counts as not there.
 *
 * @module
 */

function look(path: string | URL): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined;
  }
}

/** Whether anything is there, at the end of links. */
export const isThere = (path: string | URL): boolean => look(path) !== undefined;

/** Whether a regular file is there, at the end of links. */
export const isFile = (path: string | URL): boolean => look(path)?.isFile ?? false;

/** Whether a folder is there, at the end of links. */
export const isFolder = (path: string | URL): boolean => look(path)?.isDirectory ?? false;

/**
 * Whether a name out of a file can only name something inside the folder that it is joined to: one segment of a path, which
 * is neither the folder itself nor the one above, with nothing that a terminal or another system takes as more.
 *
 * @example
 * ```ts
 * import { isSegment } from "./paths.ts";
 * console.assert(isSegment("far_b.v2") && !isSegment("../x") && !isSegment("..") && !isSegment("a/b"));
 * ```
 */
export const isSegment = (name: string): boolean =>
  // deno-lint-ignore no-control-regex -- control characters are exactly what is refused
  /^[^\u0000-\u001f\u007f-\u009f\\/]{1,200}$/.test(name) && name.trim() === name && !/^\.+$/.test(name);
