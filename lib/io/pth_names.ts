/**
 * Names for the tensors of a checkpoint: the path of keys that leads to each through dictionaries and lists.
 *
 * @module
 */
import { FileFormatError, quote } from "./errors.ts";
import { byteLength } from "./host.ts";
import { Inert, TorchStorage, TorchTensor } from "./torch_objects.ts";

/** How deep dictionaries may be nested, and how many values they may hold in all. */
const DEEPEST = 32;
const MOST_VALUES = 2_000_000;

/** Name of a tensor that was saved without any dictionary. */
const LONE_TENSOR = "tensor";

/**
 * All tensors together may be so many times the file, and 64 MiB more. Tensors may share memory (tied weights), and views
 * may repeat it; without a bound a megabyte of file would claim any amount of memory.
 */
const MOST_REPEATED = 16;
const ALWAYS_ALLOWED = 2 ** 26;

/** Python's `str(key)`: text as it is, `True`, `None`, `(0, 'a')`; undefined for a key of any other type. */
function keyName(key: unknown, depth = 0): string | undefined {
  if (typeof key === "string") return depth > 0 ? `'${key}'` : key;
  if (typeof key === "number" || typeof key === "bigint") return String(key);
  if (typeof key === "boolean") return key ? "True" : "False";
  if (key === null) return "None";
  if (!Array.isArray(key) || key.length > 8 || depth > 2) return undefined;
  const parts = key.map((part) => keyName(part, depth + 1));
  if (parts.includes(undefined)) return undefined;
  return parts.length === 1 ? `(${parts[0]},)` : `(${parts.join(", ")})`;
}

/** Where a value stands. */
interface Place {
  /** Path of keys, joined by dots; empty at the top. */
  readonly name: string;
  /** Path of the dictionary or list that holds the value. */
  readonly group: string;
  /** The last key has a type that no path can name. */
  readonly nameless: boolean;
  readonly depth: number;
}

/** Tensors and short texts of nested dictionaries and lists, by the path that leads to them. */
export class NamedValues {
  /** Views by path. */
  readonly tensors = new Map<string, TorchTensor>();
  /** Settings beside the weights, such as the iteration. */
  readonly texts = new Map<string, string>();
  /** Paths of the dictionaries and lists that hold tensors themselves. */
  readonly groups = new Set<string>();
  readonly #path: string;
  #values = 0;

  /**
   * Names everything in a checkpoint.
   *
   * @param path The file, for messages.
   * @param value What its pickle holds.
   * @param size Bytes of the whole file.
   * @throws {FileFormatError} If a tensor would be lost or come out with other values: it is named, with the reason.
   */
  constructor(path: string, value: unknown, size: number) {
    this.#path = path;
    this.#visit(value, { name: "", group: "", nameless: false, depth: 0 });
    const claimed = this.tensors.values().reduce((sum, view) => sum + byteLength(view), 0);
    const most = MOST_REPEATED * size + ALWAYS_ALLOWED;
    if (claimed > most) {
      throw new FileFormatError(
        path,
        `its ${this.tensors.size} tensors are views that repeat memory and take ${claimed} bytes, expected at most ${most} ` +
          `for a file of ${size} bytes: save copies (tensor.clone())`,
      );
    }
  }

  #refuse(name: string, detail: string): never {
    throw new FileFormatError(this.#path, `${quote(name === "" ? LONE_TENSOR : name)}: ${detail}`);
  }

  #visit(value: unknown, at: Place): void {
    const { name, depth } = at;
    if (depth > DEEPEST) this.#refuse(name, `nested more than ${DEEPEST} deep, or inside itself`);
    if (++this.#values > MOST_VALUES) {
      throw new FileFormatError(this.#path, `holds more than ${MOST_VALUES} values`);
    }
    if (value instanceof TorchTensor) this.#tensor(value, at);
    else if (value instanceof TorchStorage) {
      this.#refuse(name, "is a bare storage without shape, expected a tensor: save a tensor of it");
    } else if (value === undefined) {
      this.#refuse(name, "the pickle refers to a value that is not there (damaged)");
    } else if (value instanceof Map || Array.isArray(value)) {
      const inside = name === "" ? "" : `${name}.`;
      for (const [key, item] of value.entries()) {
        const word = keyName(key);
        this.#visit(item, {
          name: inside + (word ?? kindOf(key)),
          group: name,
          nameless: at.nameless || word === undefined,
          depth: depth + 1,
        });
      }
    } else if (
      ["string", "number", "boolean", "bigint"].includes(typeof value) && name !== "" && !at.nameless
    ) {
      this.texts.set(name, String(value).slice(0, 1000)); // a long text is cut
    }
  }

  #tensor(tensor: TorchTensor, { name, group, nameless }: Place): void {
    if (nameless) {
      this.#refuse(
        name,
        "is a tensor under a key that has no name, expected text, a number, a bool, None or a tuple of them",
      );
    }
    if (tensor.lazily !== undefined) {
      this.#refuse(
        name,
        `is a tensor whose ${tensor.lazily} is still to be applied to what is stored: save ` +
          "tensor.resolve_neg().resolve_conj()",
      );
    }
    name = name === "" ? LONE_TENSOR : name;
    if (this.tensors.has(name)) {
      throw new FileFormatError(this.#path, `two tensors are called ${quote(name)}`);
    }
    this.tensors.set(name, tensor);
    this.groups.add(group);
  }
}

/** A word for a key that cannot be part of a path. */
function kindOf(key: unknown): string {
  const kind = key instanceof Inert
    ? key.what
    : key instanceof TorchTensor
    ? "tensor"
    : Array.isArray(key)
    ? "tuple"
    : key instanceof Uint8Array
    ? "bytes"
    : "object";
  return `<${kind}>`;
}
