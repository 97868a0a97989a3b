/**
 * Checks of a path. Whatever cannot be looked at counts as not there.
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

/** Bytes of a name, with room for an ending below the 255 of most file systems. */
const LONGEST_SEGMENT = 200;

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
  /^[^\p{Cc}\\/]+$/u.test(name) && new TextEncoder().encode(name).length <= LONGEST_SEGMENT &&
  name.trim() === name &&
  !/^\.+$/.test(name);

/** Whether two paths lead to the same file or folder, at the end of links. */
export const isSame = (a: string, b: string): boolean =>
  isThere(a) && isThere(b) && Deno.realPathSync(a) === Deno.realPathSync(b);
