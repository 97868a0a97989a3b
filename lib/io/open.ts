/**
 * Opens any tensor file by looking at its first bytes, whatever its name ends in.
 *
 * @module
 */
import { FileFormatError } from "./errors.ts";
import { openNpy, openNpz } from "./npz.ts";
import { openPth } from "./pth.ts";
import { openSafetensors } from "./safetensors.ts";
import { openSource } from "./source.ts";
import type { TensorFile } from "./tensor_file.ts";
import { readZip } from "./zip.ts";

/**
 * Opens a safetensors, `.pth`, `.npz` or `.npy` file. The format is found in the content.
 *
 * @param path The file.
 * @throws {FileFormatError} If it is none of these, or damaged: one line with what was expected and found.
 * @throws {FileAccessError} If the file cannot be opened.
 *
 * @example
 * ```ts
 * import { fromFloat32 } from "./host.ts";
 * import { openTensorFile } from "./open.ts";
 * import { writeNpz } from "./npz.ts";
 * const path = `${Deno.makeTempDirSync()}/actions`;
 * await writeNpz(path, { actions: fromFloat32(new Float32Array(2), [2]) });
 * using file = openTensorFile(path);
 * console.assert(file.format === "npz");
 * ```
 */
export function openTensorFile(path: string): TensorFile {
  using source = openSource(path);
  if (source.size === 0) throw new FileFormatError(path, "expected a tensor file, found an empty one");
  const head = String.fromCharCode(...source.read(0, Math.min(16, source.size)));
  if (head.startsWith("\x93NUMPY")) return openNpy(path);
  if (head.startsWith("PK")) {
    const names = [...readZip(source).keys()];
    return names.some((name) => /^[^/]+\/data\.pkl$/.test(name)) ? openPth(path) : openNpz(path);
  }
  // Pickles begin with their protocol; the textual protocols with torch.save's number, which openPth names.
  if (head.startsWith("\x80") || /^L\d{15}/.test(head)) return openPth(path);
  if (head[8] === "{") return openSafetensors(path);
  if (/^(<!DOCTYPE|<html|version https:\/\/git)/i.test(head)) {
    throw new FileFormatError(
      path,
      "is a web page or a Git LFS pointer, expected the file itself: download it again",
    );
  }
  throw new FileFormatError(path, "expected a safetensors, pth, npz or npy file, found none of them");
}
