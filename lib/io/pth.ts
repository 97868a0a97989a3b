/**
 * Checkpoints as `torch.save` writes them (`.pth`, `.pt`): today's zip archives and the older stream format. Nothing in
 * them is run: the pickle is read as data, and whatever it refers to besides tensors is refused by name.
 *
 * @module
 */
import { FileFormatError, quote } from "./errors.ts";
import { byteLength, elementSize, gatherStrided, type HostTensor } from "./host.ts";
import { PickleEnd, readPickle } from "./pickle.ts";
import { type ByteSource, openSource } from "./source.ts";
import { type FileTensor, TensorFile } from "./tensor_file.ts";
import { torchResolvers, type TorchStorage, TorchTensor } from "./torch_objects.ts";
import { readZip } from "./zip.ts";

/** The pickle of a checkpoint holds names and shapes only; 64 MiB are enough for a hundred thousand tensors. */
const LONGEST_PICKLE = 2 ** 26;

/** How deep dictionaries may be nested, and how many values they may hold in all. */
const DEEPEST = 32;
const MOST_VALUES = 2_000_000;

/** What a tensor is called that was saved without any dictionary. */
const LONE_TENSOR = "tensor";

/** PROTO 2, the magic number as a ten-byte integer, STOP; then the version 1001 as a pickle of its own. */
const LEGACY_MAGIC = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";

type ReadStorage = (storage: TorchStorage) => Uint8Array<ArrayBuffer>;

interface Checkpoint {
  readonly value: unknown;
  readonly readStorage: ReadStorage;
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

function openZip(source: ByteSource): Checkpoint {
  const { path } = source;
  const members = readZip(source, { zerosAreUnchecked: true });
  const pickles = [...members.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) {
    throw new FileFormatError(
      path,
      `expected a checkpoint with one data.pkl, found ${pickles.length} in the zip archive`,
    );
  }
  const folder = pickles[0].slice(0, -"data.pkl".length);
  if (members.has(`${folder}constants.pkl`)) {
    throw new FileFormatError(
      path,
      "is a TorchScript program (torch.jit.save), expected torch.save of a state_dict()",
    );
  }
  const order = members.get(`${folder}byteorder`)?.read(16);
  if (order !== undefined && latin1(order) !== "little") {
    throw new FileFormatError(path, `expected little-endian data, found byte order ${quote(latin1(order))}`);
  }
  const pickle = members.get(pickles[0])!.read(LONGEST_PICKLE);
  const value = wholePickle(path, pickle);
  const readStorage: ReadStorage = ({ key, byteLength }) => {
    const member = members.get(`${folder}data/${key}`);
    if (member === undefined) {
      throw new FileFormatError(path, `storage ${quote(key)}: missing from the zip archive`);
    }
    if (member.size !== byteLength) {
      throw new FileFormatError(
        path,
        `storage ${quote(key)}: expected ${byteLength} bytes, found ${member.size}`,
      );
    }
    return member.read(byteLength);
  };
  return { value, readStorage };
}

function wholePickle(path: string, bytes: Uint8Array): unknown {
  try {
    return readPickle(path, bytes, 0, torchResolvers(path)).value;
  } catch (error) {
    if (!(error instanceof PickleEnd)) throw error;
    throw new FileFormatError(path, `the pickle ${error.message} (truncated or damaged)`, { cause: error });
  }
}

/** The stream format: four pickles (magic, version, system, value), the storages' names, then each storage's length and bytes. */
function openLegacy(source: ByteSource): Checkpoint {
  const { path, size } = source;
  // How long the pickles are is known only once they are read: try with more until they end within what was read.
  for (let length = 2 ** 20;; length *= 8) {
    const bytes = source.read(0, Math.min(length, size, LONGEST_PICKLE));
    try {
      return readLegacy(source, bytes);
    } catch (error) {
      if (!(error instanceof PickleEnd)) throw error;
      if (bytes.byteLength < Math.min(size, LONGEST_PICKLE)) continue;
      throw new FileFormatError(path, `the pickle ${error.message} (truncated or damaged)`, { cause: error });
    }
  }
}

function readLegacy(source: ByteSource, bytes: Uint8Array): Checkpoint {
  const { path } = source;
  const storages = new Map<string, TorchStorage>();
  const resolvers = torchResolvers(path);
  const collect = (id: unknown) => {
    const storage = resolvers.persistent(id) as TorchStorage;
    const before = storages.get(storage.key);
    if (
      before !== undefined && (before.dtype !== storage.dtype || before.byteLength !== storage.byteLength)
    ) {
      throw new FileFormatError(path, `storage ${quote(storage.key)}: described in two different ways`);
    }
    storages.set(storage.key, storage);
    return storage;
  };
  const system = readPickle(path, bytes, LEGACY_MAGIC.length, resolvers);
  if (!(system.value instanceof Map) || system.value.get("little_endian") !== true) {
    throw new FileFormatError(path, "expected a description of a little-endian system, found something else");
  }
  const value = readPickle(path, bytes, system.end, { ...resolvers, persistent: collect });
  const keys = readPickle(path, bytes, value.end, resolvers);
  const offsets = new Map<string, number>();
  let at = keys.end;
  if (!Array.isArray(keys.value)) {
    throw new FileFormatError(path, "expected the list of storages, found something else");
  }
  for (const key of keys.value) {
    const storage = storages.get(key);
    if (storage === undefined || offsets.has(key)) {
      throw new FileFormatError(path, `storage ${quote(key)}: expected each storage of the tensors once`);
    }
    const field = source.read(at, 8);
    const count = new DataView(field.buffer, field.byteOffset, 8).getBigInt64(0, true);
    const expected = storage.byteLength / (storage.dtype === undefined ? 1 : elementSize(storage.dtype));
    if (count !== BigInt(expected)) {
      throw new FileFormatError(path, `storage ${quote(key)}: expected ${expected} elements, found ${count}`);
    }
    offsets.set(key, at + 8);
    at += 8 + storage.byteLength;
  }
  if (at !== source.size) {
    throw new FileFormatError(
      path,
      `expected it to end at byte ${at}, found ${source.size} bytes (truncated or damaged)`,
    );
  }
  const readStorage: ReadStorage = ({ key, byteLength }) => {
    const offset = offsets.get(key);
    if (offset === undefined) throw new FileFormatError(path, `storage ${quote(key)}: missing from the file`);
    return source.read(offset, byteLength);
  };
  return { value: value.value, readStorage };
}

/** Tensors and short texts of nested dictionaries and lists, by the path that leads to them. */
class Flattened {
  readonly tensors = new Map<string, TorchTensor>();
  readonly texts = new Map<string, string>();
  readonly groups = new Set<string>();
  readonly #path: string;
  #values = 0;

  constructor(path: string, value: unknown) {
    this.#path = path;
    this.#visit(value, "", "", 0);
  }

  #visit(value: unknown, name: string, group: string, depth: number): void {
    if (depth > DEEPEST || ++this.#values > MOST_VALUES) {
      throw new FileFormatError(
        this.#path,
        depth > DEEPEST
          ? `${quote(name)}: nested more than ${DEEPEST} deep, or inside itself`
          : `holds more than ${MOST_VALUES} values`,
      );
    }
    if (value instanceof TorchTensor) {
      name = name === "" ? LONE_TENSOR : name;
      if (this.tensors.has(name)) {
        throw new FileFormatError(this.#path, `two tensors are called ${quote(name)}`);
      }
      this.tensors.set(name, value);
      this.groups.add(group);
    } else if (value instanceof Map || Array.isArray(value)) {
      const inside = name === "" ? "" : `${name}.`;
      for (const [key, item] of value.entries()) {
        if (typeof key !== "string" && typeof key !== "number") continue; // no path can name it
        this.#visit(item, `${inside}${key}`, name, depth + 1);
      }
    } else if (["string", "number", "boolean", "bigint"].includes(typeof value) && name !== "") {
      // Settings beside the weights, such as the iteration; a long text is cut.
      this.texts.set(name, String(value).slice(0, 1000));
    }
  }
}

/** A view's elements without gaps, row-major. */
function gather(storage: Uint8Array<ArrayBuffer>, tensor: TorchTensor): Uint8Array {
  const { shape, strides, offset } = tensor;
  const size = elementSize(tensor.dtype);
  const total = byteLength(tensor);
  if (total === 0) return new Uint8Array(0);
  let step = 1;
  let contiguous = true;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) contiguous = false;
    step *= shape[axis];
  }
  if (contiguous) {
    const view = storage.subarray(offset * size, offset * size + total);
    // A small part must not keep a large storage in memory.
    return 2 * total < storage.byteLength ? view.slice() : view;
  }
  return gatherStrided(storage, offset * size, shape, strides.map((stride) => stride * size), size);
}

/** Keeps the last storage that several tensors share, which are often read one after the other; others are read once. */
function cached(readStorage: ReadStorage, views: Iterable<TorchTensor>): ReadStorage {
  const users = new Map<string, number>();
  for (const { storage } of views) users.set(storage.key, (users.get(storage.key) ?? 0) + 1);
  let last: { readonly key: string; readonly bytes: Uint8Array<ArrayBuffer> } | undefined;
  return (storage) => {
    if (last?.key === storage.key && last.bytes.byteLength === storage.byteLength) return last.bytes;
    const bytes = readStorage(storage);
    last = (users.get(storage.key) ?? 0) > 1 ? { key: storage.key, bytes } : undefined;
    return bytes;
  };
}

/**
 * Opens a checkpoint of `torch.save`. Only the pickle is read; a tensor's bytes come, checked against the archive's CRC-32,
 * when asked for.
 *
 * Nested dictionaries and lists become dotted names (`state_dict.x_embedder.weight`), and texts and numbers between the
 * tensors become {@linkcode TensorFile.metadata}; `stateDict()` picks the weights out of them.
 *
 * @param from A path, or the whole content.
 * @param name What to call bytes in messages.
 * @throws {FileFormatError} If the content is damaged, or refers to anything that is not on the list: which is named.
 * @throws {FileAccessError} If the file cannot be opened.
 *
 * @example
 * ```ts
 * import { fromFloat32, toFloat32 } from "./host.ts";
 * import { openPth } from "./pth.ts";
 * import { writePth } from "./pth_write.ts";
 * const path = `${Deno.makeTempDirSync()}/ema.pth`;
 * await writePth(path, { "proj.bias": fromFloat32(new Float32Array([1, 2]), [2]) });
 * using file = openPth(path);
 * console.assert(toFloat32(file.read("proj.bias"))[1] === 2);
 * ```
 */
export function openPth(from: string | Uint8Array, name?: string): TensorFile {
  const source = openSource(from, name);
  try {
    const checkpoint = openCheckpoint(source);
    const { tensors: views, texts, groups } = new Flattened(source.path, checkpoint.value);
    const readStorage = cached(checkpoint.readStorage, views.values());
    const tensors = new Map<string, FileTensor>();
    for (const [name, view] of views) {
      const { shape, dtype } = view;
      const read = (): HostTensor => ({ shape, dtype, data: gather(readStorage(view.storage), view) });
      tensors.set(name, { shape, dtype, read });
    }
    return new TensorFile("pth", source, tensors, { metadata: Object.fromEntries(texts), groups });
  } catch (error) {
    source.close();
    throw error;
  }
}

function openCheckpoint(source: ByteSource): Checkpoint {
  const { path, size } = source;
  const head = latin1(source.read(0, Math.min(size, LEGACY_MAGIC.length)));
  if (head.startsWith("PK\x03\x04") || head.startsWith("PK\x05\x06")) return openZip(source);
  if (head === LEGACY_MAGIC) return openLegacy(source);
  if (head.startsWith("\x80") || /^[c(\]}]/.test(head)) {
    // A bare pickle, as a hostile file may be: reading it names what it refers to.
    wholePickle(path, source.read(0, Math.min(size, LONGEST_PICKLE)));
    throw new FileFormatError(path, "is a bare pickle without tensors, expected a checkpoint of torch.save");
  }
  throw new FileFormatError(
    path,
    "expected a checkpoint of torch.save (a zip archive or its older stream), found neither",
  );
}
