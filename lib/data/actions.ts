/**
 * Actions out of a file: one integer per frame.
 *
 * @module
 */
import { FileFormatError, quote, show } from "../io/errors.ts";
import { toInt32 } from "../io/host.ts";
import { openTensorFile } from "../io/open.ts";
import type { TensorFile } from "../io/tensor_file.ts";
import { readJson, readText } from "../io/text.ts";

/** Names under which archives hold actions. */
const NAMES: readonly string[] = ["actions", "action"];

/** Files that {@linkcode readActionFile} reads, by their endings. */
export const ACTION_FILE = /\.(csv|json|npy|npz|safetensors|txt)$/i;

/** Endings of files that hold actions when they stand beside a clip under its name. */
export const ACTION_ENDINGS: readonly string[] = [".csv", ".npy", ".npz", ".txt"];

/** Whether an open archive holds actions beside other arrays. */
export const hasActions = (file: TensorFile): boolean => NAMES.some((name) => file.tensors.has(name));

/**
 * The actions in an open archive, or undefined when it has none.
 *
 * @param file An npz, npy or safetensors file.
 * @throws {FileFormatError} If they are not one integer per frame.
 */
export function namedActions(file: TensorFile): Int32Array | undefined {
  const name = NAMES.find((n) => file.tensors.has(n));
  return name === undefined ? undefined : oneAFrame(file, name);
}

function oneAFrame(file: TensorFile, name: string): Int32Array {
  const tensor = file.tensors.get(name)!, { shape, dtype } = tensor;
  if (shape.length === 0 || shape.filter((size) => size !== 1).length > 1 || /^B?F/.test(dtype)) {
    throw new FileFormatError(
      file.path,
      `${quote(name)}: expected one integer per frame, found ${dtype} [${shape}]`,
    );
  }
  return toInt32(tensor.read());
}

/**
 * Reads a file of actions.
 *
 * An npz, npy or safetensors file holds them as the array `actions`, or as its only one. A `.json` file is a list. Other
 * text has one action per line; a `.txt` file may have several, with white space or commas between them. A head names
 * columns: `action` or `actions` counts, and a column `frame`, if there is one, must count up from 0.
 *
 * @param path The file.
 * @throws {FileFormatError} If it holds anything else: line, expected, found.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function readActionFile(path: string): Int32Array {
  if (/\.(npz|npy|safetensors)$/i.test(path)) {
    using file = openTensorFile(path);
    const names = [...file.tensors.keys()], found = namedActions(file);
    if (found) return found;
    if (names.length === 1) return oneAFrame(file, names[0]);
    throw new FileFormatError(path, `expected an array "actions", found ${names.join(", ") || "none"}`);
  }
  return /\.json$/i.test(path) ? fromList(path) : fromLines(path, readText(path));
}

function fromList(path: string): Int32Array {
  const list = readJson(path, "a list of whole numbers");
  if (!Array.isArray(list)) {
    throw new FileFormatError(path, `expected a list of whole numbers in JSON, found ${show(list)}`);
  }
  const wrong = list.findIndex((v) => !Number.isInteger(v) || v < 0 || v > 999_999_999);
  if (wrong >= 0) throw new FileFormatError(path, `expected whole numbers, found ${show(list[wrong])}`);
  return Int32Array.from(list);
}

function fromLines(path: string, text: string): Int32Array {
  const body = text.trimEnd(), lines = body === "" ? [] : body.split(/\r?\n/);
  const columns = (line: string) => line.split(/[,;\t]/).map((word) => word.trim());
  const head = lines.length > 0 && !/^\s*-?\d/.test(lines[0])
    ? columns(lines.shift()!.toLowerCase())
    : undefined;
  const where = (i: number) => `line ${i + (head ? 2 : 1)}`;
  const number = (word: string, line: string, i: number): number => {
    if (/^\d{1,9}$/.test(word)) return Number(word);
    throw new FileFormatError(path, `${where(i)}: expected a whole number, found ${quote(line)}`);
  };
  if (!head && /\.txt$/i.test(path)) {
    const words = (line: string) => line.split(/[\s,]+/).filter((word) => word !== "");
    return Int32Array.from(lines.flatMap((line, i) => words(line).map((word) => number(word, line, i))));
  }
  const column = head?.findIndex((word) => NAMES.includes(word)) ?? 0, frame = head?.indexOf("frame") ?? -1;
  if (column < 0) throw new FileFormatError(path, `expected a column "action", found ${head!.join(", ")}`);
  return Int32Array.from(lines, (line, i) => {
    const row = columns(line);
    const action = number(head ? row[column] ?? "" : line.trim(), line, i);
    if (frame >= 0 && row[frame] !== String(i)) {
      throw new FileFormatError(path, `${where(i)}: expected frame ${i}, found ${quote(row[frame])}`);
    }
    return action;
  });
}
