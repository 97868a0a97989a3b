/**
 * One NumPy array: the `.npy` format, versions 1 to 3. Reading and writing of files is in npz.ts.
 *
 * @module
 */
import { FileFormatError, quote } from "./errors.ts";
import { byteLength, elementSize, gatherStrided, type HostDType, type HostTensor } from "./host.ts";

const MAGIC = "\x93NUMPY";

/** NumPy itself refuses headers beyond 10,000 bytes unless told to trust the file. */
const LONGEST_HEADER = 65536;

/** Bytes that are enough to hold any header that {@linkcode parseNpyHeader} accepts. */
export const NPY_HEAD: number = 12 + LONGEST_HEADER;

const DTYPES: Readonly<Record<string, HostDType>> = {
  b1: "BOOL",
  i1: "I8",
  u1: "U8",
  i2: "I16",
  u2: "U16",
  f2: "F16",
  i4: "I32",
  u4: "U32",
  f4: "F32",
  i8: "I64",
  u8: "U64",
  f8: "F64",
};

/** Contents of a `.npy` header. */
export interface NpyHeader {
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** The element type, or undefined when it has no counterpart here. */
  readonly dtype: HostDType | undefined;
  /** NumPy's own word for the element type. */
  readonly descr: string;
  /** Whether every element has its highest byte first. */
  readonly bigEndian: boolean;
  /** Column-major: the first index runs fastest. */
  readonly fortran: boolean;
  /** Where the elements begin. */
  readonly dataOffset: number;
}

type Literal = string | number | boolean | null | Literal[] | Map<Literal, Literal>;

/** The Python literals that NumPy writes into a header: a recursive descent over strings, numbers, tuples, lists, dicts. */
class LiteralParser {
  readonly #tokens: string[];
  #next = 0;

  constructor(text: string) {
    const pattern = /\s*('[^'\\]*'|"[^"\\]*"|\d+L?|True|False|None|[()[\]{}:,])/y;
    const tokens: string[] = [];
    let at = 0;
    while (at < text.length && text.slice(at).trim() !== "") {
      pattern.lastIndex = at;
      const match = pattern.exec(text);
      if (match === null) throw new SyntaxError(`cannot read ${quote(text.slice(at, at + 20))}`);
      tokens.push(match[1]);
      at = pattern.lastIndex;
    }
    this.#tokens = tokens;
  }
  parse(): Literal {
    const value = this.#value(0);
    if (this.#next !== this.#tokens.length) throw new SyntaxError("something follows the dictionary");
    return value;
  }
  #value(depth: number): Literal {
    if (depth > 16) throw new SyntaxError("nested too deeply");
    const token = this.#tokens[this.#next++];
    if (token === "(") return this.#items(")", depth);
    if (token === "[") return this.#items("]", depth);
    if (token === "{") return this.#dict(depth);
    if (token === "True" || token === "False") return token === "True";
    if (token === "None") return null;
    if (token?.startsWith("'") || token?.startsWith('"')) return token.slice(1, -1);
    if (token !== undefined && /^\d/.test(token)) return Number(token.replace("L", ""));
    throw new SyntaxError(`expected a value, found ${token === undefined ? "the end" : quote(token)}`);
  }
  #separator(close: string): boolean {
    const token = this.#tokens[this.#next++];
    if (token === close) return false;
    if (token !== ",") throw new SyntaxError(`expected a comma or ${close}`);
    return this.#tokens[this.#next] !== close || (this.#next++, false);
  }
  #items(close: string, depth: number): Literal[] {
    const items: Literal[] = [];
    if (this.#tokens[this.#next] === close) return (this.#next++, items);
    do items.push(this.#value(depth + 1)); while (this.#separator(close));
    return items;
  }
  #dict(depth: number): Map<Literal, Literal> {
    const dict = new Map<Literal, Literal>();
    if (this.#tokens[this.#next] === "}") return (this.#next++, dict);
    do {
      const key = this.#value(depth + 1);
      if (this.#tokens[this.#next++] !== ":") throw new SyntaxError("expected a colon");
      if (dict.has(key)) throw new SyntaxError(`key ${quote(key)} occurs twice`);
      dict.set(key, this.#value(depth + 1));
    } while (this.#separator("}"));
    return dict;
  }
}

/**
 * Reads the header of a `.npy` array.
 *
 * @param path The file, for messages.
 * @param label What to call the array in messages, as in `array "video"`.
 * @param head The first {@linkcode NPY_HEAD} bytes, or all if there are fewer.
 * @throws {FileFormatError} If it is none: expected, found.
 */
export function parseNpyHeader(path: string, label: string, head: Uint8Array): NpyHeader {
  const fail = (detail: string, cause?: unknown): never => {
    throw new FileFormatError(path, `${label}: ${detail}`, { cause });
  };
  const magic = String.fromCharCode(...head.subarray(0, 6));
  if (head.byteLength < 10 || magic !== MAGIC) fail("expected an .npy header, found something else");
  const [major, data] = [head[6], new DataView(head.buffer, head.byteOffset, head.byteLength)];
  if (major < 1 || major > 3) fail(`expected .npy version 1, 2 or 3, found ${major}.${head[7]}`);
  const start = major === 1 ? 10 : 12;
  if (head.byteLength < start) fail("ends within its .npy header (truncated)");
  const length = major === 1 ? data.getUint16(8, true) : data.getUint32(8, true);
  if (length > LONGEST_HEADER) fail(`expected a header of at most ${LONGEST_HEADER} bytes, found ${length}`);
  if (start + length > head.byteLength) fail("ends within its .npy header (truncated)");
  let fields: Literal;
  try {
    // Versions 1 and 2 are Latin-1, version 3 is UTF-8; only field names can tell, and those are not used.
    const encoding = major === 3 ? "utf-8" : "latin1";
    fields = new LiteralParser(
      new TextDecoder(encoding, { fatal: true }).decode(head.subarray(start, start + length)),
    )
      .parse();
  } catch (error) {
    return fail(`expected a Python dictionary as header, found damage: ${(error as Error).message}`, error);
  }
  if (!(fields instanceof Map) || fields.size !== 3) {
    return fail("expected a header with descr, fortran_order and shape only");
  }
  const [descr, fortran, shape] = ["descr", "fortran_order", "shape"].map((key) => fields.get(key));
  if (typeof fortran !== "boolean") return fail("fortran_order: expected True or False");
  const sizes = Array.isArray(shape)
    ? shape.filter((size) => Number.isSafeInteger(size)) as number[]
    : undefined;
  if (sizes === undefined || sizes.length !== (shape as Literal[]).length) {
    return fail("shape: expected a tuple of non-negative integers");
  }
  if (typeof descr !== "string" && !Array.isArray(descr)) return fail("descr: expected the element type");
  const word = typeof descr === "string" ? descr : "structured records";
  const order = word[0];
  const dtype = "<>|=".includes(order) && Object.hasOwn(DTYPES, word.slice(1))
    ? DTYPES[word.slice(1)]
    : undefined;
  return { shape: sizes, dtype, descr: word, bigEndian: order === ">", fortran, dataOffset: start + length };
}

/** Why an array with this header cannot be a tensor; undefined if it can. */
export function npyRefusal(header: NpyHeader): string | undefined {
  if (header.dtype !== undefined) return undefined;
  if (header.descr.slice(1).startsWith("O") || header.descr === "O") {
    return "holds pickled Python objects, which are never loaded; save it again as a plain numeric array";
  }
  return `has element type ${quote(header.descr)}, expected booleans, integers or floats of 1 to 8 bytes`;
}

/**
 * Checks that as many bytes follow a header as its shape and type need.
 *
 * @param path The file, for messages.
 * @param label What to call the array in messages.
 * @param header A header of a type that is not refused.
 * @param found Bytes after the header.
 * @throws {FileFormatError} If not: expected, found.
 */
export function checkNpySize(path: string, label: string, header: NpyHeader, found: number): void {
  const { shape, descr } = header;
  const expected = byteLength({ shape, dtype: header.dtype! });
  if (found === expected) return;
  throw new FileFormatError(
    path,
    `${label}: expected ${expected} bytes for ${descr} of shape [${shape}], found ${found}`,
  );
}

/**
 * The tensor of a header and the bytes that follow it: little-endian and row-major, whatever the file's order.
 *
 * @param path The file, for messages.
 * @param label What to call the array in messages.
 * @param header A header of a type that is not refused.
 * @param data Everything after the header.
 * @throws {FileFormatError} If the bytes do not fit shape and type.
 */
export function npyTensor(path: string, label: string, header: NpyHeader, data: Uint8Array): HostTensor {
  checkNpySize(path, label, header, data.byteLength);
  const { shape } = header;
  const dtype = header.dtype!;
  const size = elementSize(dtype);
  const ordered = header.fortran && shape.length > 1 ? rowMajor(data, shape, size) : data;
  return { shape, dtype, data: header.bigEndian && size > 1 ? swapped(ordered, size) : ordered };
}

/** Reverses the bytes of every element. */
function swapped(data: Uint8Array, size: number): Uint8Array {
  const out = new Uint8Array(data.byteLength);
  for (let i = 0; i < data.byteLength; i += size) {
    for (let b = 0; b < size; b++) out[i + b] = data[i + size - 1 - b];
  }
  return out;
}

/** Column-major elements in row-major order. */
function rowMajor(data: Uint8Array, shape: readonly number[], size: number): Uint8Array {
  const strides: number[] = [];
  shape.reduce((stride, length) => (strides.push(stride), stride * length), size);
  return gatherStrided(data, 0, shape, strides, size);
}

/**
 * The content of a `.npy` file, byte for byte as NumPy writes it.
 *
 * @param tensor The array; row-major.
 * @throws {RangeError} If NumPy has no such element type (BF16, 8-bit floats), or the bytes do not fit the shape.
 */
export function encodeNpy(tensor: HostTensor): Uint8Array<ArrayBuffer> {
  const { shape, dtype, data } = tensor;
  const word = Object.keys(DTYPES).find((key) => DTYPES[key] === dtype);
  if (word === undefined) throw new RangeError(`npy: NumPy has no type for ${dtype}, convert to F32 first`);
  if (data.byteLength !== byteLength(tensor)) {
    throw new RangeError(
      `npy: ${dtype} of shape [${shape}] needs ${byteLength(tensor)} bytes, found ${data.byteLength}`,
    );
  }
  const order = elementSize(dtype) === 1 ? "|" : "<";
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const text = `{'descr': '${order}${word}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const start = text.length + 1 + 10 > 65535 ? 12 : 10;
  const dataOffset = Math.ceil((start + text.length + 1) / 64) * 64;
  const out = new Uint8Array(dataOffset + data.byteLength);
  const header = new DataView(out.buffer);
  const padded = MAGIC + String.fromCharCode(start === 10 ? 1 : 2, 0);
  for (let i = 0; i < padded.length; i++) out[i] = padded.charCodeAt(i);
  if (start === 10) header.setUint16(8, dataOffset - start, true);
  else header.setUint32(8, dataOffset - start, true);
  out.fill(0x20, start, dataOffset - 1);
  for (let i = 0; i < text.length; i++) out[start + i] = text.charCodeAt(i);
  out[dataOffset - 1] = 0x0a;
  out.set(data, dataOffset);
  return out;
}
