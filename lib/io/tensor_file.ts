/**
 * The common interface of all open tensor files: names, shapes and types, and elements on demand.
 *
 * @module
 */
import { didYouMean } from "../nearest.ts";
import { FileFormatError, quote } from "./errors.ts";
import { byteLength, elementSize, type HostTensor, type LazyTensor } from "./host.ts";
import type { ByteSource } from "./source.ts";

/** A tensor inside an open file. */
export interface FileTensor extends LazyTensor {
  /** Reads the elements from the file. */
  read(): HostTensor;
}

/** The formats that {@linkcode TensorFile} reads. */
export type TensorFormat = "safetensors" | "pth" | "npz" | "npy";

/**
 * An open tensor file. Opening reads names, shapes and types only; the elements of a tensor are read when asked for, so
 * a file may be larger than memory.
 *
 * @example
 * ```ts
 * import { fromFloat32 } from "./host.ts";
 * import { encodeSafetensors, openSafetensors } from "./safetensors.ts";
 * const bytes = await encodeSafetensors({ x: fromFloat32(new Float32Array([1, 2]), [2]) });
 * using file = openSafetensors(bytes);
 * console.assert(file.tensors.get("x")?.shape[0] === 2);
 * ```
 */
export class TensorFile implements Disposable {
  /** The format that was found. */
  readonly format: TensorFormat;
  /** The tensors in file order. */
  readonly tensors: ReadonlyMap<string, FileTensor>;
  /** Text that the file carries besides its tensors; empty for formats that have none. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Contents of the file besides tensors and text, with the reason why it is not read; never an error by itself. */
  readonly refused: ReadonlyMap<string, string>;
  /** The nested dictionaries that hold tensors themselves, as paths; `""` is the file's top level. */
  readonly groups: ReadonlySet<string>;
  readonly #source: ByteSource;

  /**
   * For the readers; users get one from `openSafetensors` and its like.
   *
   * @param format The format.
   * @param source Where the bytes come from; closed with this file.
   * @param tensors The tensors in file order.
   * @param besides Text, what is refused with its reason, and the nested dictionaries.
   */
  constructor(
    format: TensorFormat,
    source: ByteSource,
    tensors: ReadonlyMap<string, FileTensor>,
    besides: {
      readonly metadata?: Readonly<Record<string, string>>;
      readonly refused?: ReadonlyMap<string, string>;
      readonly groups?: ReadonlySet<string>;
    } = {},
  ) {
    this.format = format;
    this.tensors = tensors;
    this.metadata = besides.metadata ?? {};
    this.refused = besides.refused ?? new Map();
    this.groups = besides.groups ?? new Set([""]);
    this.#source = source;
  }

  /** The file, as it was given to the reader. */
  get path(): string {
    return this.#source.path;
  }

  /** Bytes of the whole file. */
  get size(): number {
    return this.#source.size;
  }

  /**
   * Reads one tensor.
   *
   * @param name The tensor's name.
   * @throws {FileFormatError} If there is no such tensor, or its bytes are damaged.
   */
  read(name: string): HostTensor {
    const tensor = this.tensors.get(name);
    const refusal = this.refused.get(name);
    if (refusal !== undefined) throw new FileFormatError(this.path, `${quote(name)}: ${refusal}`);
    if (tensor === undefined) {
      const hint = didYouMean(name, this.tensors.keys());
      throw new FileFormatError(this.path, `no tensor ${quote(name)} among its ${this.tensors.size}${hint}`);
    }
    return tensor.read();
  }

  /** Reads all tensors, in file order. Everything is in memory at once. */
  readAll(): Map<string, HostTensor> {
    return new Map(this.tensors.entries().map(([name, tensor]) => [name, tensor.read()]));
  }

  /** Closes the file; tensors that were not read yet can no longer be. */
  close(): void {
    this.#source.close();
  }

  /** Closes the file at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Input of the writers: tensors by name, in memory or still to be loaded. */
export type TensorsToWrite =
  | Readonly<Record<string, HostTensor | LazyTensor>>
  | Iterable<readonly [string, HostTensor | LazyTensor]>;

/** Plain objects and maps alike, as a list. */
export function tensorEntries(tensors: TensorsToWrite): (readonly [string, HostTensor | LazyTensor])[] {
  return Symbol.iterator in tensors
    ? [...tensors as Iterable<readonly [string, HostTensor | LazyTensor]>]
    : Object.entries(tensors);
}

/**
 * Brings a tensor's bytes and checks that they are as many as its announced shape and type need.
 *
 * @param who The writer, for the message.
 * @param name The tensor's name, for the message.
 * @param tensor In memory, or still to be brought.
 * @throws {RangeError} If they are not.
 */
export async function tensorBytes(
  who: string,
  name: string,
  tensor: HostTensor | LazyTensor,
): Promise<Uint8Array> {
  const data = "data" in tensor ? tensor.data : (await tensor.read()).data;
  const expected = byteLength(tensor);
  if (data.byteLength !== expected) {
    throw new RangeError(
      `${who}: tensor ${quote(name)}: ${tensor.dtype} of shape [${tensor.shape}] needs ${expected} bytes ` +
        `(${elementSize(tensor.dtype)} an element), found ${data.byteLength}`,
    );
  }
  return data;
}
