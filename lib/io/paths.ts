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
