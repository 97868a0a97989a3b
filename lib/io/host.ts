/**
 * Tensors in host memory, as files hold them, and exact conversions between their element types.
 *
 * @module
 */

/** Element types, named as safetensors names them. */
export type HostDType =
  | "F64"
  | "F32"
  | "F16"
  | "BF16"
  | "I64"
  | "I32"
  | "I16"
  | "I8"
  | "U8"
  | "BOOL"
  | "U16"
  | "U32"
  | "U64"
  | "F8_E4M3"
  | "F8_E5M2";

/** A tensor in host memory: shape, element type and raw bytes. */
export interface HostTensor {
  /** Sizes, outermost first; `[]` is a scalar. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: HostDType;
  /** Little-endian row-major elements without gaps. The start need not be aligned to the element size. */
  readonly data: Uint8Array;
}

/** A tensor that is not in memory yet: shape and type are known, the elements come when asked for. */
export interface LazyTensor {
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: HostDType;
  /** Brings the elements. The result's shape and dtype equal the ones announced. */
  read(): HostTensor | Promise<HostTensor>;
}

const SIZES: Readonly<Record<HostDType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
  U16: 2,
  U32: 4,
  U64: 8,
  F8_E4M3: 1,
  F8_E5M2: 1,
};

/** All element types. */
export const hostDTypes: readonly HostDType[] = Object.keys(SIZES) as HostDType[];

/** Whether a word from a file is one of our element types. */
export function isHostDType(name: unknown): name is HostDType {
  return typeof name === "string" && Object.hasOwn(SIZES, name);
}

/** Bytes of one element. */
export function elementSize(dtype: HostDType): number {
  return SIZES[dtype];
}

/**
 * Product of the sizes; 1 for a scalar. Not a safe integer where the product is too large to be exact, which callers
 * that take shapes from files must check.
 */
export function elementCount(shape: readonly number[]): number {
  // A zero anywhere makes the tensor empty, also where the other sizes would overflow.
  return shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1);
}

/** Bytes of a whole tensor. */
export function byteLength(tensor: { readonly shape: readonly number[]; readonly dtype: HostDType }): number {
  return elementCount(tensor.shape) * SIZES[tensor.dtype];
}

/**
 * The elements of a view without gaps, row-major.
 *
 * @param data Where they lie.
 * @param offset Byte at which the first one begins.
 * @param shape Sizes of the view.
 * @param strides Bytes between neighbours along each axis.
 * @param size Bytes of one element.
 */
export function gatherStrided(
  data: Uint8Array,
  offset: number,
  shape: readonly number[],
  strides: readonly number[],
  size: number,
): Uint8Array {
  const count = elementCount(shape), out = new Uint8Array(count * size), index = shape.map(() => 0);
  for (let i = 0, from = offset; i < count; i++) {
    for (let b = 0; b < size; b++) out[i * size + b] = data[from + b];
    // Step the last index; carry to the ones before it.
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return out;
}

/** The elements in their own type; 16-bit and 8-bit floats as their bit patterns. */
export type Elements =
  | Float64Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>;

/** The buffer and offset of a tensor's bytes at an aligned address; copies where they are not. */
function aligned(tensor: HostTensor): [buffer: ArrayBuffer, offset: number, count: number] {
  const size = SIZES[tensor.dtype];
  const count = elementCount(tensor.shape);
  if (tensor.data.byteLength !== count * size) {
    throw new RangeError(
      `host tensor: ${tensor.dtype} of shape [${tensor.shape}] needs ${count * size} bytes, ` +
        `found ${tensor.data.byteLength}`,
    );
  }
  const { buffer, byteOffset } = tensor.data;
  if (buffer instanceof ArrayBuffer && byteOffset % size === 0) return [buffer, byteOffset, count];
  return [new Uint8Array(tensor.data).buffer, 0, count];
}

/**
 * The elements in their own type, without conversion: `Float32Array` for F32, `BigInt64Array` for I64, and bit patterns
 * for the float types that have no typed array (F16 and BF16 as `Uint16Array`, 8-bit floats and BOOL as `Uint8Array`).
 * A view of the tensor's memory where that is aligned, else a copy.
 *
 * @throws {RangeError} If the bytes do not fit shape and dtype.
 *
 * @example
 * ```ts
 * import { elements } from "./host.ts";
 * const data = new Uint8Array([0, 0, 128, 63]);
 * console.assert(elements({ shape: [1], dtype: "F32", data })[0] === 1);
 * ```
 */
export function elements(tensor: HostTensor): Elements {
  const [buffer, offset, count] = aligned(tensor);
  switch (tensor.dtype) {
    case "F64":
      return new Float64Array(buffer, offset, count);
    case "F32":
      return new Float32Array(buffer, offset, count);
    case "I64":
      return new BigInt64Array(buffer, offset, count);
    case "U64":
      return new BigUint64Array(buffer, offset, count);
    case "I32":
      return new Int32Array(buffer, offset, count);
    case "U32":
      return new Uint32Array(buffer, offset, count);
    case "I16":
      return new Int16Array(buffer, offset, count);
    case "U16":
    case "F16":
    case "BF16":
      return new Uint16Array(buffer, offset, count);
    case "I8":
      return new Int8Array(buffer, offset, count);
    default:
      return new Uint8Array(buffer, offset, count);
  }
}

let halfTable: Float32Array<ArrayBuffer> | undefined;

/** All 65,536 values of a half: a look-up decodes ten million in 14 ms, `Float32Array.set` in 115 (2026-11, 2 cores). */
function halves(): Float32Array<ArrayBuffer> {
  if (halfTable === undefined) {
    const bits = new Uint16Array(65536).map((_, i) => i);
    halfTable = new Float32Array(new Float16Array(bits.buffer));
  }
  return halfTable;
}

/**
 * Decodes IEEE half-precision bit patterns; exact.
 *
 * @param bits One half each.
 * @param out Where to write; made when absent.
 */
export function halfToFloat32(
  bits: Uint16Array,
  out: Float32Array<ArrayBuffer> = new Float32Array(bits.length),
): Float32Array<ArrayBuffer> {
  const table = halves();
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]];
  return out;
}

/**
 * Encodes floats as IEEE halves, to the nearest, ties to even; beyond 65,504 to infinity.
 *
 * @param values Any floats.
 * @returns Bit patterns, as many as `values`.
 */
export function float32ToHalf(values: Float32Array | Float64Array): Uint16Array<ArrayBuffer> {
  return new Uint16Array(new Float16Array(values).buffer);
}

/**
 * Decodes bfloat16 bit patterns; exact.
 *
 * @param bits One bfloat16 each.
 * @param out Where to write; made when absent.
 */
export function bfloat16ToFloat32(
  bits: Uint16Array,
  out: Float32Array<ArrayBuffer> = new Float32Array(bits.length),
): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
  return out;
}

/**
 * Encodes floats as bfloat16, to the nearest, ties to even. A NaN stays a NaN with its sign.
 *
 * @param values Any single-precision floats.
 * @returns Bit patterns, as many as `values`.
 */
export function float32ToBfloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const own = values.buffer instanceof ArrayBuffer ? values : new Float32Array(values);
  const words = new Uint32Array(own.buffer, own.byteOffset, own.length);
  const bits = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    // Rounding a NaN could carry into the sign or end in infinity: keep its top half and set the quiet bit.
    if ((word & 0x7fffffff) > 0x7f800000) bits[i] = (word >>> 16) | 0x40;
    else bits[i] = (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}

/** All values of an 8-bit float. E4M3 is the "fn" kind: no infinities, NaN only at all ones. */
function byteFloats(dtype: "F8_E4M3" | "F8_E5M2"): Float32Array<ArrayBuffer> {
  // E5M2 is the upper byte of a half.
  if (dtype === "F8_E5M2") return halfToFloat32(new Uint16Array(256).map((_, i) => i << 8));
  return new Float32Array(256).map((_, byte) => {
    const [exponent, mantissa] = [(byte >> 3) & 15, byte & 7];
    const magnitude = (byte & 127) === 127
      ? NaN
      : exponent === 0
      ? mantissa * 2 ** -9
      : (1 + mantissa / 8) * 2 ** (exponent - 7);
    return byte & 128 ? -magnitude : magnitude;
  });
}

/**
 * A 64-bit integer rounded once to single precision. `Number(v)` alone would round to double first, and twice is wrong
 * for one in some billion values: above 2^53 the bits that double cannot hold are folded into its last one.
 */
function bigToFloat32(value: bigint): number {
  const magnitude = value < 0n ? -value : value;
  if (magnitude <= 0x1fffffffffffffn) return Math.fround(Number(value));
  const sticky = magnitude & 0x7ffn ? 0x800n : 0n;
  const rounded = Math.fround(Number((magnitude & ~0x7ffn) | sticky));
  return value < 0n ? -rounded : rounded;
}

/**
 * The elements as single-precision floats. Halves, bfloat16, 8-bit floats, booleans and integers up to 24 bits convert
 * exactly; wider types round to the nearest, ties to even. For F32 at an aligned address the result is a view of the
 * tensor's memory, else a copy.
 *
 * @throws {RangeError} If the bytes do not fit shape and dtype.
 *
 * @example
 * ```ts
 * import { fromFloat32, toFloat32 } from "./host.ts";
 * const half = fromFloat32(new Float32Array([0.1]), [1], "F16");
 * console.assert(toFloat32(half)[0] === 0.0999755859375);
 * ```
 */
export function toFloat32(tensor: HostTensor): Float32Array<ArrayBuffer> {
  const values = elements(tensor);
  if (values instanceof Float32Array) return values;
  if (values instanceof BigInt64Array || values instanceof BigUint64Array) {
    const out = new Float32Array(values.length);
    for (let i = 0; i < values.length; i++) out[i] = bigToFloat32(values[i]);
    return out;
  }
  switch (tensor.dtype) {
    case "F16":
      return halfToFloat32(values as Uint16Array);
    case "BF16":
      return bfloat16ToFloat32(values as Uint16Array);
    case "F8_E4M3":
    case "F8_E5M2": {
      const table = byteFloats(tensor.dtype);
      return new Float32Array(values.length).map((_, i) => table[values[i] as number]);
    }
    case "BOOL":
      return new Float32Array(values.length).map((_, i) => values[i] === 0 ? 0 : 1);
    default:
      return new Float32Array(values);
  }
}

/**
 * The elements of an integer or boolean tensor as 32-bit integers.
 *
 * @throws {RangeError} If a value does not fit 32 bits, or the bytes do not fit shape and dtype.
 * @throws {TypeError} If the tensor holds floats.
 */
export function toInt32(tensor: HostTensor): Int32Array<ArrayBuffer> {
  if (tensor.dtype.startsWith("F") || tensor.dtype === "BF16") {
    throw new TypeError(`toInt32: expected an integer or boolean tensor, found ${tensor.dtype}`);
  }
  const values = elements(tensor);
  if (values instanceof Int32Array) return values;
  const out = new Int32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value > 0x7fffffff || value < -0x80000000) {
      throw new RangeError(`toInt32: element ${i} is ${value}, expected -2147483648 to 2147483647`);
    }
    out[i] = tensor.dtype === "BOOL" ? (value === 0 ? 0 : 1) : Number(value);
  }
  return out;
}

/**
 * A host tensor of floats, rounded to the nearest, ties to even, where `dtype` is narrower. F32 shares the memory of
 * `values`.
 *
 * @param values Row-major elements.
 * @param shape Sizes whose product is the number of values.
 * @param dtype Element type of the result.
 * @throws {RangeError} If the number of values is not the product of the shape.
 */
export function fromFloat32(
  values: Float32Array,
  shape: readonly number[],
  dtype: "F32" | "F16" | "BF16" = "F32",
): HostTensor {
  if (values.length !== elementCount(shape)) {
    throw new RangeError(
      `fromFloat32: shape [${shape}] has ${elementCount(shape)} elements, found ${values.length} values`,
    );
  }
  const stored = dtype === "F32"
    ? values
    : dtype === "F16"
    ? float32ToHalf(values)
    : float32ToBfloat16(values);
  return {
    shape: [...shape],
    dtype,
    data: new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength),
  };
}
