/**
 * Checks the compressed pixels of a GIF before a decoder that trusts them is let loose on them.
 *
 * @module
 */

/** Codes have at most so many bits. */
const MOST_BITS = 12;

/**
 * Walks the codes of a picture without decoding them.
 *
 * @param bytes The file.
 * @param start Where the picture's data begin: the size of a literal, then blocks of at most 255 bytes, then an empty one.
 * @param pixels Pixels of the picture.
 * @throws {Error} If a code means nothing, or they make up another number of pixels: what was found.
 */
export function checkLzw(bytes: Uint8Array, start: number, pixels: number): void {
  const literal = bytes[start];
  if (!(literal >= 1 && literal <= 8)) throw new Error(`literals of ${literal} bits`);
  const clear = 1 << literal, end = clear + 1;
  /** Pixels that a code of the table stands for. */
  const lengths = new Uint32Array(1 << MOST_BITS);
  let bits = literal + 1, next = end + 1, before = -1, count = 0;
  let at = start + 1, left = 0, held = 0, holds = 0;
  const code = (): number => {
    while (holds < bits) {
      if (left === 0) {
        left = bytes[at++];
        if (!(left > 0)) throw new Error("data that end too early");
      }
      if (at >= bytes.length) throw new Error("data that end too early");
      held |= bytes[at++] << holds;
      holds += 8;
      left--;
    }
    const value = held & ((1 << bits) - 1);
    held >>>= bits;
    holds -= bits;
    return value;
  };
  const lengthOf = (value: number) => value < clear ? 1 : lengths[value];
  for (;;) {
    const value = code();
    if (value === end) break;
    if (value === clear) {
      [bits, next, before] = [literal + 1, end + 1, -1];
      continue;
    }
    if (before < 0 ? value >= clear : value > next || value === next && next > lengths.length - 1) {
      throw new Error(`code ${value} of ${next}`);
    }
    if (before >= 0 && next < lengths.length) {
      lengths[next++] = lengthOf(before) + 1;
      if (next === 1 << bits && bits < MOST_BITS) bits++;
    }
    count += lengthOf(value);
    if (count > pixels) break; // refused below
    before = value;
  }
  if (count !== pixels) throw new Error(`${count} pixels, not ${pixels}`);
}
