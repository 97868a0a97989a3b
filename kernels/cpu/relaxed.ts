/**
 * Whether this runtime has relaxed SIMD.
 *
 * @module
 */

/** A module whose one function is `f32x4.relaxed_madd` of zeros, in hexadecimal. */
const PROBE = "0061736d01000000" + "0105016000017b" + "03020100" + "0a13011100" +
  "4100fd0f".repeat(3) + "fd8502" + "0b";

/** True where a module with a relaxed multiply-add is valid. */
export function hasRelaxedSimd(): boolean {
  return WebAssembly.validate(Uint8Array.from(PROBE.match(/../g)!, (byte) => parseInt(byte, 16)));
}
