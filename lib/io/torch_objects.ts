/**
 * Objects that a checkpoint's pickle may refer to, and what they become here: the allow-list, and the views that tensors are.
 *
 * @module
 */
import { FileFormatError, quote } from "./errors.ts";
import { elementCount, elementSize, type HostDType } from "./host.ts";
import type { PickleResolvers } from "./pickle.ts";

/** Element types by the word in a storage's class, as in FloatStorage. */
const STORAGE_WORDS: Readonly<Record<string, HostDType>> = {
  Double: "F64",
  Float: "F32",
  Half: "F16",
  BFloat16: "BF16",
  Long: "I64",
  Int: "I32",
  Short: "I16",
  Char: "I8",
  Byte: "U8",
  Bool: "BOOL",
};

/** Element types by the name of torch's dtype object. */
const TORCH_DTYPES: Readonly<Record<string, HostDType>> = {
  float64: "F64",
  double: "F64",
  float32: "F32",
  float: "F32",
  float16: "F16",
  half: "F16",
  bfloat16: "BF16",
  int64: "I64",
  long: "I64",
  int32: "I32",
  int: "I32",
  int16: "I16",
  short: "I16",
  int8: "I8",
  uint8: "U8",
  uint16: "U16",
  uint32: "U32",
  uint64: "U64",
  bool: "BOOL",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
};

/** Torch's words for a tensor of this type: its storage's class if it has one of its own, and its dtype object. */
export function torchWords(
  dtype: HostDType,
): { readonly storage: string | undefined; readonly dtype: string } {
  const word = Object.keys(STORAGE_WORDS).find((key) => STORAGE_WORDS[key] === dtype);
  const name = Object.keys(TORCH_DTYPES).find((key) => TORCH_DTYPES[key] === dtype)!;
  return { storage: word && `${word}Storage`, dtype: name };
}

class StorageClass {
  /** @param dtype The element type; undefined for bytes of any type. */
  constructor(readonly dtype: HostDType | undefined) {}
}

class DTypeObject {
  constructor(readonly dtype: HostDType) {}
}

/** A stretch of memory that tensors are views of. */
export class TorchStorage {
  /**
   * As the pickle describes it.
   *
   * @param key Its name in the file.
   * @param dtype The element type; undefined for bytes of any type.
   * @param byteLength Bytes in all.
   */
  constructor(
    readonly key: string,
    readonly dtype: HostDType | undefined,
    readonly byteLength: number,
  ) {}
}

/** A tensor: a strided view of a storage. Checked to stay inside it. */
export class TorchTensor {
  /**
   * A view that the caller has checked.
   *
   * @param storage The memory.
   * @param dtype Element type.
   * @param offset First element, in elements.
   * @param shape Sizes, outermost first.
   * @param strides Steps between neighbours along each axis, in elements.
   * @param lazily What PyTorch still does to the elements when it reads them: "negative bit" and the like.
   */
  constructor(
    readonly storage: TorchStorage,
    readonly dtype: HostDType,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
    readonly lazily?: string,
  ) {}
}

/** Something that is no tensor and is not looked into. Each is an object of its own, so that it can be a key. */
export class Inert {
  /** @param what Its kind, for messages. */
  constructor(readonly what: string) {}
}

/** Bits that PyTorch sets on a tensor instead of changing its elements (`x.imag` of a conjugate, `torch._neg_view`). */
const BITS: Readonly<Record<string, string>> = { neg: "negative bit", conj: "conjugate bit" };

/** The last argument of a rebuilt tensor: which bits are set. The key alone sets one, whatever its value. */
function bitsOf(metadata: unknown): string | undefined {
  if (metadata === undefined || metadata === null) return undefined;
  const keys = metadata instanceof Map ? [...metadata.keys()] : [metadata];
  return keys.length === 0
    ? undefined
    : keys.map((key) => Object.hasOwn(BITS, String(key)) ? BITS[String(key)] : `metadata ${quote(key)}`).join(
      " and ",
    );
}

/**
 * A view that repeats elements (stride 0) may be larger than its storage, up to 64 MiB; without a bound a few bytes of file
 * would claim any amount of memory.
 */
const MOST_EXPANDED = 2 ** 26;

function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isIndexList(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= 64 && value.every(isIndex);
}

/** The functions and classes of one file. Made anew for each, so that one file cannot leave anything for the next. */
export function torchResolvers(path: string): PickleResolvers {
  const fail = (detail: string): never => {
    throw new FileFormatError(path, detail);
  };

  function tensor(
    storage: unknown,
    offset: unknown,
    shape: unknown,
    strides: unknown,
    metadata: unknown,
    dtype?: HostDType,
  ): TorchTensor {
    if (!(storage instanceof TorchStorage)) return fail("a tensor: expected a storage, found something else");
    const label = `tensor in storage ${quote(storage.key)}`;
    const type = dtype ?? storage.dtype;
    if (type === undefined) return fail(`${label}: expected an element type, found none`);
    if (!isIndexList(shape) || !isIndexList(strides) || shape.length !== strides.length || !isIndex(offset)) {
      return fail(
        `${label}: expected shape, strides and offset as non-negative integers, found something else`,
      );
    }
    const capacity = storage.byteLength / elementSize(type);
    const count = elementCount(shape);
    const last = count === 0
      ? offset - 1
      : shape.reduce((at, size, i) => at + (size - 1) * strides[i], offset);
    if (!Number.isSafeInteger(last) || !Number.isSafeInteger(count) || last >= capacity) {
      return fail(
        `${label}: expected its ${
          Math.floor(capacity)
        } elements to hold shape [${shape}] with strides [${strides}] from ` +
          `element ${offset}, which needs ${last + 1}`,
      );
    }
    if (count * elementSize(type) > Math.max(storage.byteLength, MOST_EXPANDED)) {
      return fail(
        `${label}: shape [${shape}] with strides [${strides}] repeats ${storage.byteLength} bytes too often`,
      );
    }
    return new TorchTensor(storage, type, offset, shape, strides, bitsOf(metadata));
  }

  const same = (value: unknown) => value;
  const inert = (what: string) => () => new Inert(what);
  const list = (items: unknown = []) =>
    Array.isArray(items) ? items : fail("a set: expected a list, found something else");
  const dictionary = (pairs: unknown = []) => {
    if (pairs instanceof Map) return new Map(pairs);
    if (Array.isArray(pairs) && pairs.every((pair) => Array.isArray(pair) && pair.length === 2)) {
      return new Map(pairs);
    }
    return fail("an OrderedDict: expected pairs, found something else");
  };
  const globals = new Map<string, unknown>([
    ["collections.OrderedDict", dictionary],
    ["collections.Counter", dictionary],
    [
      "torch._utils._rebuild_tensor",
      (...[s, offset, shape, strides]: unknown[]) => tensor(s, offset, shape, strides, undefined),
    ],
    [
      "torch._utils._rebuild_tensor_v2",
      (...[s, offset, shape, strides, _grad, _hooks, metadata]: unknown[]) =>
        tensor(s, offset, shape, strides, metadata),
    ],
    [
      "torch._utils._rebuild_tensor_v3",
      (...[s, offset, shape, strides, _grad, _hooks, type, metadata]: unknown[]) =>
        tensor(
          s,
          offset,
          shape,
          strides,
          metadata,
          type instanceof DTypeObject ? type.dtype : fail("a tensor: expected a dtype"),
        ),
    ],
    ["torch._utils._rebuild_parameter", same],
    ["torch._utils._rebuild_parameter_with_state", same],
    [
      "torch._tensor._rebuild_from_type_v2",
      (rebuild: unknown, _type: unknown, args: unknown) =>
        typeof rebuild === "function" && Array.isArray(args)
          ? rebuild(...args)
          : fail("a tensor: expected a function and its arguments"),
    ],
    ["torch.nn.parameter.Parameter", same],
    // Named as the class of a rebuilt tensor; calling it is how PyTorch 0.3 and older made one.
    [
      "torch.Tensor",
      () => fail("a tensor of PyTorch 0.3 or older, expected a newer one: save the file again"),
    ],
    ["torch.Size", same],
    ["torch.device", inert("device")],
    ["_codecs.encode", inert("bytes")],
    ["builtins.set", list],
    ["__builtin__.set", list],
    ["builtins.bytearray", inert("bytes")],
    ["__builtin__.bytearray", inert("bytes")],
    ["torch.UntypedStorage", new StorageClass(undefined)],
    ["torch.storage.UntypedStorage", new StorageClass(undefined)],
    ...Object.entries(STORAGE_WORDS).map(([word, dtype]) =>
      [`torch.${word}Storage`, new StorageClass(dtype)] as const
    ),
    ...Object.entries(TORCH_DTYPES).map(([name, dtype]) =>
      [`torch.${name}`, new DTypeObject(dtype)] as const
    ),
  ]);

  return {
    global(module, name) {
      const words = [module, name].every((word) => typeof word === "string");
      const value = words ? globals.get(`${module}.${name}`) : undefined;
      return value ?? fail(
        `refers to ${
          quote(words ? `${module}.${name}` : name)
        }, which a checkpoint of tensors does not need: refused ` +
          `(save the model's state_dict() alone)`,
      );
    },
    state(object) {
      if (object instanceof TorchTensor) {
        return fail(
          `tensor in storage ${
            quote(object.storage.key)
          }: its state is set a second time, as PyTorch 0.3 and older did: ` +
            "save the file again",
        );
      }
      return object;
    },
    persistent(id) {
      const [word, type, key, _location, count, view] = Array.isArray(id) ? id : [];
      if (
        word !== "storage" || !(type instanceof StorageClass) || typeof key !== "string" || !isIndex(count)
      ) {
        return fail("a persistent identifier: expected a storage, found something else");
      }
      // A file of torch 0.3 and older may describe a storage as a part of another one.
      if (view !== undefined && view !== null) {
        return fail(`storage ${quote(key)}: is a view, save the file again`);
      }
      const bytes = count * (type.dtype === undefined ? 1 : elementSize(type.dtype));
      return new TorchStorage(
        key,
        type.dtype,
        Number.isSafeInteger(bytes) ? bytes : fail(`storage ${quote(key)}: too large`),
      );
    },
  };
}
