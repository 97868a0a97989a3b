/**
 * Actions out of a file: one whole number a frame.
 *
 * @module
 */
import { accessError, FileFormatError, quote } from "../io/errors.ts";
import { toInt32 } from "../io/host.ts";
import { openTensorFile } from "../io/open.ts";
import type { TensorFile } from "../io/tensor_file.ts";

/** Names under which archives hold actions. */
const NAMES: readonly string[] = ["actions", "action"];

/** The array of actions in an open file, or undefined. A file with one array may call it anything. */
function nameOf(file: TensorFile): string | undefined {
  const found = NAMES.find((name) => file.tensors.has(name));
  return found ?? (file.tensors.size === 1 ? [...file.tensors.keys()][0] : undefined);
}

/**
 * The actions of an open npz, npy or safetensors file.
 *
 * @param file The file.
 * @throws {FileFormatError} If it has none, or they are not one whole number a frame.
 */
export function actionsOf(file: TensorFile): Int32Array {
  const name = nameOf(file), tensor = name === undefined ? undefined : file.tensors.get(name);
  if (name === undefined || tensor === undefined) {
    throw new FileFormatError(
      file.path,
      `expected an array "actions", found ${[...file.tensors.keys()].join(", ") || "none"}`,
    );
  }
  const shape = tensor.shape.filter((size, i) => i === 0 || size !== 1);
  if (shape.length !== 1 || /^B?F/.test(tensor.dtype)) {
    throw new FileFormatError(
      file.path,
      `${quote(name)}: expected one whole number a frame, found ${tensor.dtype} [${tensor.shape}]`,
    );
  }
  return toInt32(tensor.read());
}

/** Endings that {@linkcode readActionFile} takes. */
export const ACTION_ENDINGS: readonly string[] = [".csv", ".npy", ".npz", ".txt"];

/**
 * Reads a file of actions: npz (array `actions`), npy, or text with one action a line. A CSV may have a head; then the
 * column `action` or `actions` counts, and a column `frame`, if there is one, must count up from 0.
 *
 * @param path The file.
 * @throws {FileFormatError} If it holds anything else: line, expected, found.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function readActionFile(path: string): Int32Array {
  if (/\.(npz|npy|safetensors)$/i.test(path)) {
    using file = openTensorFile(path);
    return actionsOf(file);
  }
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    throw accessError(path, "cannot open", error);
  }
  const rows = text.split(/\r?\n/).map((line) => line.split(/[,;\t]/).map((word) => word.trim()));
  while (rows.length > 0 && rows[rows.length - 1].join("") === "") rows.pop();
  const head = rows.length > 0 && !/^-?\d/.test(rows[0][0])
    ? rows.shift()!.map((w) => w.toLowerCase())
    : undefined;
  const column = head ? head.findIndex((word) => NAMES.includes(word)) : 0,
    frame = head?.indexOf("frame") ?? -1;
  if (column < 0) throw new FileFormatError(path, `expected a column "action", found ${head!.join(", ")}`);
  const first = head ? 2 : 1;
  return Int32Array.from(rows, (row, i) => {
    const where = `line ${i + first}`, word = row[column] ?? "";
    if (!/^\d{1,9}$/.test(word) || (head === undefined && row.length > 1)) {
      throw new FileFormatError(path, `${where}: expected a whole number, found ${quote(row.join(","))}`);
    }
    if (frame >= 0 && row[frame] !== String(i)) {
      throw new FileFormatError(path, `${where}: expected frame ${i}, found ${quote(row[frame])}`);
    }
    return Number(word);
  });
}
