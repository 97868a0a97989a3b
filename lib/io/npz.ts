/**
 * NumPy's files: `.npy`, one array, and `.npz`, a zip archive of them. Pickled objects are never loaded.
 *
 * @module
 */
import { writeAtomic } from "./atomic.ts";
import { FileFormatError, quote } from "./errors.ts";
import type { HostTensor } from "./host.ts";
import {
  checkNpySize,
  encodeNpy,
  NPY_HEAD,
  type NpyHeader,
  npyRefusal,
  npyTensor,
  parseNpyHeader,
} from "./npy.ts";
import { type ByteSource, openSource } from "./source.ts";
import {
  type FileTensor,
  tensorBytes,
  tensorEntries,
  TensorFile,
  type TensorsToWrite,
} from "./tensor_file.ts";
import { readZip, type ZipMember } from "./zip.ts";
import { ZipWriter } from "./zip_write.ts";

/** The name that NumPy gives to an array without one. */
export const NPY_NAME = "arr_0";

/** An array that inflates to more than this is a zip bomb until the caller says otherwise: 2 GiB. */
const MOST_INFLATED = 2 ** 31;

/** Options of {@linkcode openNpz}. */
export interface NpzOptions {
  /** Name of the bytes in messages. */
  readonly name?: string;
  /** Refuses a deflated array that declares more bytes than this; 2 GiB unless given. */
  readonly maxInflatedBytes?: number;
}

/** The header of an array whose bytes, `size` in all with the header, are as many as it says; or why it is no tensor. */
function checkedHeader(path: string, label: string, head: Uint8Array, size: number): NpyHeader | string {
  const header = parseNpyHeader(path, label, head);
  const refusal = npyRefusal(header);
  if (refusal === undefined) checkNpySize(path, label, header, size - header.dataOffset);
  return refusal ?? header;
}

function npzTensor(source: ByteSource, name: string, member: ZipMember, limit: number): FileTensor | string {
  const label = `array ${quote(name)}`;
  const header = checkedHeader(source.path, label, member.head(NPY_HEAD), member.size);
  if (typeof header === "string") return header;
  const { shape, dataOffset } = header;
  const read = (): HostTensor => {
    const bytes = member.read(member.deflated ? limit : undefined);
    return npyTensor(source.path, label, header, bytes.subarray(dataOffset));
  };
  return { shape, dtype: header.dtype!, read };
}

/**
 * Opens an `.npz` archive, as `numpy.savez` and `numpy.savez_compressed` write it. Only the directory and the arrays'
 * headers are read; an array is inflated, checked and brought to row-major little-endian order when asked for. An array
 * that is no tensor (Python objects, text) is listed in {@linkcode TensorFile.refused} and does not keep the others from
 * being read.
 *
 * @param from A path, or the whole content.
 * @param options The limit on inflating.
 * @throws {FileFormatError} If the content is damaged: file, array, expected, found.
 * @throws {FileAccessError} If the file cannot be opened.
 *
 * @example
 * ```ts
 * import { fromFloat32, toFloat32 } from "./host.ts";
 * import { openNpz, writeNpz } from "./npz.ts";
 * const path = `${Deno.makeTempDirSync()}/clip.npz`;
 * await writeNpz(path, { actions: fromFloat32(new Float32Array([0, 2]), [2]) });
 * using file = openNpz(path);
 * console.assert(toFloat32(file.read("actions"))[1] === 2);
 * ```
 */
export function openNpz(from: string | Uint8Array, options: NpzOptions = {}): TensorFile {
  const source = openSource(from, options.name);
  try {
    const tensors = new Map<string, FileTensor>();
    const refused = new Map<string, string>();
    for (const [path, member] of readZip(source)) {
      if (!path.endsWith(".npy")) {
        refused.set(path, "is not an .npy array");
        continue;
      }
      const name = path.slice(0, -4);
      const tensor = npzTensor(source, name, member, options.maxInflatedBytes ?? MOST_INFLATED);
      if (typeof tensor === "string") refused.set(name, tensor);
      else tensors.set(name, tensor);
    }
    return new TensorFile("npz", source, tensors, { refused });
  } catch (error) {
    source.close();
    throw error;
  }
}

/**
 * Opens an `.npy` file. Its one tensor is called `arr_0`.
 *
 * @param from A path, or the whole content.
 * @param name What to call bytes in messages.
 * @throws {FileFormatError} If the content is damaged or no tensor: expected, found.
 * @throws {FileAccessError} If the file cannot be opened.
 */
export function openNpy(from: string | Uint8Array, name?: string): TensorFile {
  const source = openSource(from, name);
  try {
    const { path, size } = source;
    const header = checkedHeader(path, "array", source.read(0, Math.min(NPY_HEAD, size)), size);
    if (typeof header === "string") throw new FileFormatError(path, `array: ${header}`);
    const read = () =>
      npyTensor(path, "array", header, source.read(header.dataOffset, size - header.dataOffset));
    return new TensorFile(
      "npy",
      source,
      new Map([[NPY_NAME, { shape: header.shape, dtype: header.dtype!, read }]]),
    );
  } catch (error) {
    source.close();
    throw error;
  }
}

/**
 * Writes an `.npz` archive that `numpy.load` reads: all of it or nothing, the same bytes for the same tensors.
 *
 * @param path The file; replaced if it exists.
 * @param tensors Arrays by name, in memory or lazy.
 * @param options `compress` deflates, as `numpy.savez_compressed` does.
 * @throws {RangeError} If NumPy has no such element type, a name occurs twice, or bytes do not fit their shape.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writeNpz(
  path: string,
  tensors: TensorsToWrite,
  options: { readonly compress?: boolean } = {},
): Promise<void> {
  const entries = tensorEntries(tensors);
  const twice = entries.find(([name], i) => entries.findIndex(([other]) => other === name) !== i);
  if (twice !== undefined) throw new RangeError(`npz: two arrays are called ${quote(twice[0])}`);
  await writeAtomic(path, async (file) => {
    const zip = new ZipWriter(file);
    for (const [name, tensor] of entries) {
      const data = await tensorBytes("npz", name, tensor);
      const { shape, dtype } = tensor;
      zip.add(`${name}.npy`, encodeNpy({ shape, dtype, data }), { deflate: options.compress });
    }
    zip.finish();
  });
}

/**
 * Writes an `.npy` file: all of it or nothing.
 *
 * @param path The file; replaced if it exists.
 * @param tensor The array.
 * @throws {RangeError} If NumPy has no such element type, or the bytes do not fit the shape.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writeNpy(path: string, tensor: HostTensor): Promise<void> {
  await writeAtomic(path, encodeNpy(tensor));
}
