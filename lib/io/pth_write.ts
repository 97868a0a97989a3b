/**
 * Writes what `torch.load(path, weights_only=True)` reads: a flat dictionary of tensors, in the zip format of PyTorch 1.6
 * and later.
 *
 * @module
 */
import { writeAtomic } from "./atomic.ts";
import { quote } from "./errors.ts";
import { byteLength, elementCount, type HostDType } from "./host.ts";
import { tensorBytes, tensorEntries, type TensorsToWrite } from "./tensor_file.ts";
import { torchWords } from "./torch_objects.ts";
import { ZipWriter } from "./zip_write.ts";

/** Storages begin at multiples of this, so that PyTorch can map them. */
const ALIGN = 64;

/** Writes opcodes of pickle protocol 2. */
class PickleWriter {
  #bytes = new Uint8Array(1024);
  #length = 0;

  raw(...bytes: number[]): this {
    return this.#append(Uint8Array.from(bytes));
  }
  opcode(letter: string): this {
    return this.raw(letter.charCodeAt(0));
  }
  text(value: string): this {
    const utf8 = new TextEncoder().encode(value);
    return this.opcode("X").#little(utf8.byteLength, 4).#append(utf8);
  }
  global(module: string, name: string): this {
    return this.#append(new TextEncoder().encode(`c${module}\n${name}\n`));
  }
  integer(value: number): this {
    if (value < 2 ** 8) return this.opcode("K").#little(value, 1);
    if (value < 2 ** 16) return this.opcode("M").#little(value, 2);
    if (value < 2 ** 31) return this.opcode("J").#little(value, 4);
    return this.raw(0x8a, 8).#little(value, 8);
  }
  tuple(values: readonly number[]): this {
    this.opcode("(");
    for (const value of values) this.integer(value);
    return this.opcode("t");
  }
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
  #little(value: number, count: number): this {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
    return this.#append(bytes.subarray(0, count));
  }
  #append(bytes: Uint8Array): this {
    if (this.#length + bytes.length > this.#bytes.length) {
      const larger = new Uint8Array(2 * (this.#length + bytes.length));
      larger.set(this.bytes());
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }
}

function rowMajorStrides(shape: readonly number[]): number[] {
  return shape.map((_, axis) => elementCount(shape.slice(axis + 1).map((size) => Math.max(1, size))));
}

/** One tensor as PyTorch pickles it: a function that rebuilds it from a storage, which the file holds by number. */
function writeTensor(pickle: PickleWriter, key: string, shape: readonly number[], dtype: HostDType): void {
  const words = torchWords(dtype);
  // Types without a storage class of their own are bytes, and the tensor says what they mean.
  const untyped = words.storage === undefined;
  pickle.global("torch._utils", untyped ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2");
  pickle.opcode("(").opcode("(").text("storage");
  pickle.global(untyped ? "torch.storage" : "torch", words.storage ?? "UntypedStorage");
  pickle.text(key).text("cpu").integer(untyped ? byteLength({ shape, dtype }) : elementCount(shape));
  pickle.opcode("t").opcode("Q").integer(0).tuple(shape).tuple(rowMajorStrides(shape));
  pickle.raw(0x89).global("collections", "OrderedDict").opcode(")").opcode("R");
  if (untyped) pickle.global("torch", words.dtype);
  pickle.opcode("t").opcode("R");
}

/**
 * Writes a checkpoint that PyTorch loads with `weights_only=True`: all of it or nothing, one tensor in memory at a time, the
 * same bytes for the same tensors.
 *
 * @param path The file; replaced if it exists.
 * @param tensors Tensors by name, in memory or lazy; their order is kept.
 * @throws {RangeError} If a name occurs twice, or bytes do not fit their shape.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writePth(path: string, tensors: TensorsToWrite): Promise<void> {
  const entries = tensorEntries(tensors);
  const names = new Set<string>();
  const pickle = new PickleWriter().raw(0x80, 2).opcode("}").opcode("(");
  entries.forEach(([name, { shape, dtype }], i) => {
    if (names.has(name)) throw new RangeError(`pth: two tensors are called ${quote(name)}`);
    names.add(name);
    writeTensor(pickle.text(name), String(i), shape, dtype);
  });
  pickle.opcode("u").opcode(".");
  await writeAtomic(path, async (file) => {
    const zip = new ZipWriter(file);
    const text = (value: string) => new TextEncoder().encode(value);
    zip.add("archive/data.pkl", pickle.bytes(), { align: ALIGN });
    zip.add("archive/byteorder", text("little"), { align: ALIGN });
    for (const [i, [name, tensor]] of entries.entries()) {
      zip.add(`archive/data/${i}`, await tensorBytes("pth", name, tensor), { align: ALIGN });
    }
    zip.add("archive/version", text("3\n"), { align: ALIGN });
    zip.finish();
  });
}
