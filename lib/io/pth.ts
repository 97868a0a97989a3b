/**
 * Checkpoints as `torch.save` writes them (`.pth`, `.pt`): today's zip archives and the older stream format. Nothing in
 * them is run: the pickle is read as data, and whatever it refers to besides tensors is refused by name.
 *
 * @module
 */
import { FileFormatError, quote } from "./errors.ts";
import { byteLength, elementSize, gatherStrided, type HostTensor } from "./host.ts";
import { PickleEnd, readPickle } from "./pickle.ts";
import { NamedValues } from "./pth_names.ts";
import { type ByteSource, openSource } from "./source.ts";
import { type FileTensor, TensorFile } from "./tensor_file.ts";
import { torchResolvers, type TorchStorage, type TorchTensor } from "./torch_objects.ts";
import { readZip } from "./zip.ts";

/** The pickle of a checkpoint holds names and shapes only; 64 MiB are enough for a hundred thousand tensors. */
const LONGEST_PICKLE = 2 ** 26;

/** The older stream begins with this number and this version, each as a pickle of its own. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
const LEGACY_VERSION = 1001;

/** The number as the textual pickle protocols write it. */
const TEXTUAL_MAGIC = `L${LEGACY_MAGIC}L`;

/** Bytes that hold the pickled number in every protocol. */
const MAGIC_LENGTH = 64;

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
  const magic = readPickle(path, bytes, 0, resolvers),
    version = readPickle(path, bytes, magic.end, resolvers);
  if (version.value !== LEGACY_VERSION) {
    throw new FileFormatError(path, `expected version ${LEGACY_VERSION} of the older format, found another`);
  }
  const system = readPickle(path, bytes, version.end, resolvers);
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
 * Nested dictionaries and lists become dotted names (`state_dict.x_embedder.weight`; keys that are no text are written as
 * Python prints them, `True` or `(0, 1)`), and texts and numbers between the tensors become
 * {@linkcode TensorFile.metadata}; `stateDict()` picks the weights out of them. No tensor is lost and none has other values
 * than in PyTorch: one with a negative or conjugate bit, or without a name, is refused with its name.
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
    const { tensors: views, texts, groups } = new NamedValues(source.path, checkpoint.value, source.size);
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

/** Whether bytes begin with the older format's number, in any binary protocol. */
function isLegacy(path: string, start: Uint8Array): boolean {
  try {
    return readPickle(path, start, 0, torchResolvers(path)).value === LEGACY_MAGIC;
  } catch {
    return false;
  }
}

function openCheckpoint(source: ByteSource): Checkpoint {
  const { path, size } = source;
  const start = source.read(0, Math.min(size, MAGIC_LENGTH)), head = latin1(start);
  if (head.startsWith("PK\x03\x04") || head.startsWith("PK\x05\x06")) return openZip(source);
  if (head.startsWith(TEXTUAL_MAGIC)) {
    throw new FileFormatError(
      path,
      "is a checkpoint of torch.save with pickle protocol 0 or 1, expected 2 to 5: save it again",
    );
  }
  if (head.startsWith("\x80") && isLegacy(path, start)) return openLegacy(source);
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
