import { assert, assertEquals, assertThrows } from "@std/assert";
import { generator } from "../kernels/check.ts";
import {
  bfloat16ToFloat32,
  byteLength,
  elements,
  float32ToBfloat16,
  float32ToHalf,
  fromFloat32,
  halfToFloat32,
  type HostDType,
  hostDTypes,
  toFloat32,
  toInt32,
} from "../lib/io/host.ts";
import { firstNotFinite } from "../lib/io/finite.ts";
import { pick, randomTensor } from "./io_helpers.ts";

/** The value of a half, by definition. */
function halfValue(bits: number): number {
  const [sign, exponent, mantissa] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25));
}

function scalar(dtype: HostDType, bytes: ArrayBuffer | Uint8Array): Parameters<typeof toFloat32>[0] {
  return { shape: [1], dtype, data: new Uint8Array(bytes) };
}

Deno.test("halfToFloat32() gives the defined value of all 65,536 halves", () => {
  const bits = new Uint16Array(65536).map((_, i) => i);
  const values = halfToFloat32(bits);
  for (let i = 0; i < 65536; i++) {
    if (!Object.is(values[i], halfValue(i))) {
      throw new Error(`half ${i}: ${values[i]}, expected ${halfValue(i)}`);
    }
  }
});

Deno.test("float32ToHalf() rounds to the nearest, ties to even, between all neighbouring halves", () => {
  for (let bits = 0; bits < 0x7bff; bits++) {
    const [low, high] = [halfValue(bits), halfValue(bits + 1)];
    const middle = (low + high) / 2; // exact in double and, with 13 spare bits, in single
    const step = (high - low) / 4;
    const even = bits % 2 === 0 ? bits : bits + 1;
    const got = float32ToHalf(new Float32Array([middle, middle - step, middle + step, -middle]));
    assertEquals([...got], [even, bits, bits + 1, even | 0x8000]);
  }
  const edge = float32ToHalf(new Float32Array([65504, 65519.996, 65520, 1e30, NaN, -0]));
  assertEquals([edge[0], edge[1], edge[2], edge[3], edge[5]], [0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x8000]);
  assert((edge[4] & 0x7fff) > 0x7c00, "NaN stays NaN");
});

Deno.test("bfloat16 decodes exactly and encodes to the nearest, ties to even", () => {
  const bits = new Uint16Array(65536).map((_, i) => i);
  const values = bfloat16ToFloat32(bits);
  const again = float32ToBfloat16(values);
  for (let i = 0; i < 65536; i++) {
    if (Number.isNaN(values[i])) assert((again[i] & 0x7fff) > 0x7f80 && (again[i] ^ i) >> 15 === 0);
    else assertEquals(again[i], i);
  }
  const random = generator(1);
  const words = new Uint32Array(100_000).map(() => Math.floor(random() * 2 ** 32));
  const encoded = float32ToBfloat16(new Float32Array(words.buffer));
  const singles = new Float32Array(words.buffer);
  for (let i = 0; i < words.length; i++) {
    if (Number.isNaN(singles[i])) continue;
    const low = words[i] & 0xffff;
    const up = low > 0x8000 || (low === 0x8000 && (words[i] >>> 16) % 2 === 1) ? 1 : 0;
    assertEquals(encoded[i], ((words[i] >>> 16) + up) & 0xffff);
  }
});

Deno.test("toFloat32() converts every type exactly or to the nearest", () => {
  const near = (dtype: HostDType, buffer: ArrayBuffer) => toFloat32(scalar(dtype, buffer))[0];
  assertEquals(near("F64", new Float64Array([0.1]).buffer), Math.fround(0.1));
  assertEquals(near("I16", new Int16Array([-300]).buffer), -300);
  assertEquals(near("U16", new Uint16Array([65535]).buffer), 65535);
  assertEquals(near("I32", new Int32Array([16777217]).buffer), 16777216);
  assertEquals(near("U32", new Uint32Array([0xffffffff]).buffer), 2 ** 32);
  assertEquals(near("I8", new Int8Array([-7]).buffer), -7);
  assertEquals(near("U8", new Uint8Array([200]).buffer), 200);
  assertEquals(near("BOOL", new Uint8Array([1]).buffer), 1);
  assertEquals(near("I64", new BigInt64Array([-5n]).buffer), -5);
  assertEquals(near("F8_E4M3", new Uint8Array([0b0_1111_110]).buffer), 448);
  assertEquals(near("F8_E4M3", new Uint8Array([0b1_0000_001]).buffer), -(2 ** -9));
  assertEquals(near("F8_E4M3", new Uint8Array([0x7f]).buffer), NaN);
  assertEquals(near("F8_E5M2", new Uint8Array([0b0_11110_11]).buffer), 57344);
  assertEquals(near("F8_E5M2", new Uint8Array([0b0_11111_00]).buffer), Infinity);
});

Deno.test("toFloat32() rounds 64-bit integers once, where rounding to double first would go wrong", () => {
  // Halfway between two singles in double, but one above in 64 bits: must round up to odd.
  const base = 2n ** 60n;
  const half = 2n ** 36n; // half a single's step at 2^60
  const value = base + half + 1n;
  const single = toFloat32(scalar("I64", new BigInt64Array([value]).buffer))[0];
  assertEquals(BigInt(single), base + 2n * half);
  assertEquals(Math.fround(Number(value)), Number(base), "the naive way is wrong here");
  const negative = toFloat32(scalar("I64", new BigInt64Array([-value]).buffer))[0];
  assertEquals(negative, -single);
  const random = generator(2);
  for (let i = 0; i < 2000; i++) {
    const u = BigInt(pick(random, 2 ** 32)) << 32n | BigInt(pick(random, 2 ** 32));
    const got = BigInt(toFloat32(scalar("U64", new BigUint64Array([u]).buffer))[0]);
    const error = got > u ? got - u : u - got;
    assert(error * 2n <= 2n ** BigInt(Math.max(0, u.toString(2).length - 24)), `${u} became ${got}`);
  }
});

Deno.test("toInt32() refuses what does not fit, and floats", () => {
  assertEquals([...toInt32(scalar("I64", new BigInt64Array([-2147483648n]).buffer))], [-2147483648]);
  assertEquals([...toInt32(scalar("U8", new Uint8Array([255])))], [255]);
  assertEquals([...toInt32(scalar("BOOL", new Uint8Array([9])))], [1]);
  assertThrows(
    () => toInt32(scalar("I64", new BigInt64Array([2147483648n]).buffer)),
    RangeError,
    "element 0 is 2147483648, expected -2147483648 to 2147483647",
  );
  assertThrows(() => toInt32(scalar("U32", new Uint32Array([2 ** 31]).buffer)), RangeError);
  assertThrows(() => toInt32(scalar("BF16", new Uint8Array(2))), TypeError, "found BF16");
});

Deno.test("elements() reads unaligned bytes of every type", () => {
  const random = generator(3);
  for (const dtype of hostDTypes) {
    const tensor = randomTensor(random, [3, 5], dtype);
    const shifted = new Uint8Array(tensor.data.length + 1);
    shifted.set(tensor.data, 1);
    const unaligned = { ...tensor, data: shifted.subarray(1) };
    assertEquals(elements(unaligned), elements(tensor), dtype);
    assertEquals(toFloat32(unaligned), toFloat32(tensor), dtype);
  }
});

Deno.test("elements() says how many bytes shape and type need", () => {
  assertThrows(
    () => elements({ shape: [2, 3], dtype: "F32", data: new Uint8Array(23) }),
    RangeError,
    "F32 of shape [2,3] needs 24 bytes, found 23",
  );
});

Deno.test("fromFloat32() and toFloat32() are inverse for values that the type holds", () => {
  const values = new Float32Array([0, -1.5, 2 ** -14, 240, -0.09375]);
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    const tensor = fromFloat32(values, [5], dtype);
    assertEquals(tensor.data.byteLength, byteLength(tensor));
    assertEquals(toFloat32(tensor), values);
  }
  assertThrows(() => fromFloat32(values, [4]), RangeError, "shape [4] has 4 elements, found 5 values");
});

Deno.test("firstNotFinite() finds the first infinity or NaN of every float type, at both signs", () => {
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    const of = (values: number[]) =>
      firstNotFinite(fromFloat32(new Float32Array(values), [values.length], dtype));
    const largest = dtype === "F16" ? 65504 : 3e38;
    assertEquals(of([0, -0, 1, -largest, largest, 1e-7]), -1, dtype);
    for (const bad of [Infinity, -Infinity, NaN]) assertEquals(of([1, 2, bad, 3, NaN]), 2, `${dtype} ${bad}`);
  }
  const double = new Uint8Array(new Float64Array([1e300, NaN]).buffer);
  assertEquals(firstNotFinite({ shape: [2], dtype: "F64", data: double }), 1);
  assertEquals(firstNotFinite({ shape: [2], dtype: "I16", data: new Uint8Array(4).fill(255) }), -1);
  // Bit patterns of integers are no exponents, and 8-bit floats have a NaN too.
  assertEquals(firstNotFinite({ shape: [2], dtype: "U16", data: new Uint8Array(4).fill(255) }), -1);
  assertEquals(firstNotFinite({ shape: [2], dtype: "F8_E4M3", data: new Uint8Array([1, 127]) }), 1);
});
