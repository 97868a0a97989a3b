/**
 * Takes a stream of PPM pictures apart.
 *
 * @module
 */
import { FileFormatError } from "./errors.ts";
import { type Frames, makeFrames } from "./frames.ts";

const LONGEST_HEADER = 64;
const MOST_PIXELS = 2 ** 27;

/** Puts frames together from the pieces in which a pipe brings them. */
export class PpmReader {
  readonly #path: string;
  #header = "";
  #frame: Frames | undefined;
  #filled = 0;

  /**
   * Expects the first picture.
   *
   * @param path The file, for messages.
   */
  constructor(path: string) {
    this.#path = path;
  }

  /** Bytes of a picture that has begun and not ended. */
  get pending(): number {
    return this.#header.length + this.#filled;
  }

  /**
   * The frames that end within these bytes.
   *
   * @param bytes What the pipe brought next.
   * @throws {FileFormatError} If it is no PPM.
   */
  *push(bytes: Uint8Array): Generator<Frames> {
    for (let at = 0; at < bytes.byteLength;) {
      if (this.#frame === undefined) {
        this.#headerByte(bytes[at++]);
        continue;
      }
      const { data } = this.#frame;
      const part = bytes.subarray(at, at + data.byteLength - this.#filled);
      data.set(part, this.#filled);
      this.#filled += part.byteLength;
      at += part.byteLength;
      if (this.#filled === data.byteLength) {
        const frame = this.#frame;
        [this.#frame, this.#filled] = [undefined, 0];
        yield frame;
      }
    }
  }

  #headerByte(byte: number): void {
    this.#header += String.fromCharCode(byte);
    const match = /^P6\s(\d+)\s(\d+)\s255\s$/.exec(this.#header);
    if (match === null) {
      if (this.#header.length < LONGEST_HEADER) return;
      throw new FileFormatError(this.#path, "expected frames from ffmpeg, found something else");
    }
    const [width, height] = [Number(match[1]), Number(match[2])];
    if (width * height > MOST_PIXELS) {
      throw new FileFormatError(
        this.#path,
        `expected frames of at most ${MOST_PIXELS} pixels, found ${width}x${height}`,
      );
    }
    this.#frame = makeFrames(1, height, width);
    this.#header = "";
  }
}
