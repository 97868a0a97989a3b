/**
 * Animated GIFs, read by npm:omggif.
 *
 * @module
 */
// @ts-types="./omggif.d.ts"
// deno-lint-ignore no-import-prefix -- lib/ is also imported where no import map is
import omggif from "npm:omggif@1.0.10";
import { FileFormatError } from "./errors.ts";
import { type Frames, makeFrames } from "./frames.ts";
import { checkLzw } from "./gif_lzw.ts";
import { MOST_PIXELS } from "./image.ts";
import { openSource } from "./source.ts";

/** A frame of an animation. */
export interface GifFrame {
  /** The picture as shown, over black where nothing was drawn. */
  readonly image: Frames;
  /** Seconds from the start of the animation. */
  readonly time: number;
  /** Seconds that it is shown. */
  readonly duration: number;
}

/** omggif only prints what is wrong with a picture's data: here it throws. Nothing else runs meanwhile. */
function strictly(body: () => void): void {
  const log = console.log;
  console.log = (text) => {
    throw new Error(String(text).replace(/^Warning, /, ""));
  };
  try {
    body();
  } finally {
    console.log = log;
  }
}

/** Browsers and ffmpeg take a delay below two hundredths of a second for a tenth. */
const seconds = (delay: number) => (delay < 2 ? 10 : delay) / 100;

/**
 * The frames of a GIF, one by one, as a viewer shows them: each drawn over those before it.
 *
 * @param path The file.
 * @throws {FileFormatError} If it is no GIF, or damaged or cut off.
 * @throws {FileAccessError} If it cannot be opened.
 */
export function* gifFrames(path: string): Generator<GifFrame> {
  using source = openSource(path);
  const bytes = source.read(0, source.size);
  const fail = (error: unknown): never => {
    throw new FileFormatError(
      path,
      `truncated or damaged: expected a whole GIF, found ${
        error instanceof Error ? error.message : String(error)
      }`,
    );
  };
  const open = () => {
    try {
      const reader = new omggif.GifReader(bytes), count = reader.numFrames();
      if (count === 0) throw new Error("no picture");
      const { data_offset, data_length } = reader.frameInfo(count - 1);
      if (bytes.indexOf(0x3b, data_offset + data_length) < 0) throw new Error("no trailer");
      if (!(reader.width * reader.height <= MOST_PIXELS)) {
        throw new Error(`${reader.width}x${reader.height} pixels`);
      }
      return reader;
    } catch (error) {
      return fail(error);
    }
  };
  const reader = open(), { width, height } = reader, canvas = new Uint8Array(width * height * 4);
  let time = 0;
  for (let i = 0; i < reader.numFrames(); i++) {
    const info = reader.frameInfo(i), before = info.disposal === 3 ? canvas.slice() : undefined;
    try {
      if (info.x + info.width > width || info.y + info.height > height) {
        throw new Error(`frame ${i} outside the picture`);
      }
      checkLzw(bytes, info.data_offset, info.width * info.height); // some damage would keep the reader busy for ever
      strictly(() => reader.decodeAndBlitFrameRGBA(i, canvas));
    } catch (error) {
      fail(error);
    }
    const image = makeFrames(1, height, width);
    for (let at = 0, to = 0; at < canvas.length; at += 4, to += 3) {
      image.data[to] = canvas[at];
      image.data[to + 1] = canvas[at + 1];
      image.data[to + 2] = canvas[at + 2];
    }
    yield { image, time, duration: seconds(info.delay) };
    time += seconds(info.delay);
    if (before !== undefined) canvas.set(before);
    else if (info.disposal === 2) {
      for (let y = info.y; y < info.y + info.height; y++) {
        canvas.fill(0, (y * width + info.x) * 4, (y * width + info.x + info.width) * 4);
      }
    }
  }
}
