/**
 * Random numbers: counter-based (Philox 4x32-10), made on the host, the same bits on every device.
 *
 * A stream is named by a seed and a purpose; number i of a stream does not depend on how many were drawn before it.
 *
 * @module
 */

const M0 = 0xd2511f53, M1 = 0xcd9e8d57, W0 = 0x9e3779b9, W1 = 0xbb67ae85;

/** Upper 32 bits of the product of two 32-bit integers, by halves: no partial sum exceeds 32 bits. */
function mulHigh(a: number, b: number): number {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const mid = (Math.imul(a1, b0) + (Math.imul(a0, b0) >>> 16)) | 0;
  const low = (Math.imul(a0, b1) + (mid & 0xffff)) | 0;
  return (Math.imul(a1, b1) + (mid >>> 16) + (low >>> 16)) | 0;
}

/** One block into `out`, without making anything: checkpoints' worth of numbers are drawn at a time. */
function philoxInto(
  out: Uint32Array,
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
): void {
  for (let round = 0; round < 10; round++) {
    const high0 = mulHigh(M0, c0), low0 = Math.imul(M0, c0);
    const high1 = mulHigh(M1, c2), low1 = Math.imul(M1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + W0) | 0;
    k1 = (k1 + W1) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** One Philox 4x32-10 block: four 32-bit integers from a 128-bit counter and a 64-bit key. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): Uint32Array {
  const out = new Uint32Array(4);
  philoxInto(out, ...counter, ...key);
  return out;
}

/** A key of random streams: a seed and a purpose. */
export interface Key {
  /** Seed, an integer below 2^53. */
  readonly seed: number;
  /** Purpose of the numbers. */
  readonly purpose: string;
  /** Hash of the purpose (FNV-1a). */
  readonly stream: number;
}

/**
 * The key of a purpose, from a seed or from the key of a wider one: `streamOf(streamOf(0, "step 5"), "noise")` is
 * `streamOf(0, "noise of step 5")`.
 */
export function streamOf(from: number | Key, purpose: string): Key {
  if (typeof from !== "number") return streamOf(from.seed, `${purpose} of ${from.purpose}`);
  let hash = 0x811c9dc5;
  for (const char of new TextEncoder().encode(purpose)) hash = Math.imul(hash ^ char, 0x01000193) >>> 0;
  return { seed: from, purpose, stream: hash };
}

function block(key: Key, index: number, out: Uint32Array): void {
  const high = Math.floor(index / 4294967296), seedHigh = Math.floor(key.seed / 4294967296);
  philoxInto(out, index | 0, high | 0, seedHigh | 0, 0, key.seed | 0, key.stream | 0);
}

/** `count` uniform numbers in [0, 1) with 32 random bits, starting at number `from` of the stream. */
export function uniform(key: Key, count: number, from = 0): Float64Array {
  const out = new Float64Array(count);
  const four = new Uint32Array(4);
  let at = -1;
  for (let i = 0; i < count; i++) {
    const index = Math.floor((from + i) / 4);
    if (index !== at) block(key, at = index, four);
    out[i] = four[(from + i) % 4] / 4294967296;
  }
  return out;
}

/** `count` standard normal numbers (Box-Muller in f64, rounded once to f32), starting at number `from` of the stream. */
export function normal(key: Key, count: number, from = 0): Float32Array {
  const out = new Float32Array(count);
  const four = new Uint32Array(4);
  let at = -1, pair: number[] = [];
  for (let i = 0; i < count; i++) {
    const index = Math.floor((from + i) / 4);
    if (index !== at) {
      block(key, at = index, four);
      pair = [];
      for (let j = 0; j < 4; j += 2) {
        const radius = Math.sqrt(-2 * Math.log((four[j] + 0.5) / 4294967296));
        const angle = 2 * Math.PI * (four[j + 1] / 4294967296);
        pair.push(radius * Math.cos(angle), radius * Math.sin(angle));
      }
    }
    out[i] = pair[(from + i) % 4];
  }
  return out;
}
