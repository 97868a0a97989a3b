/**
 * Frames in a notebook: an animation, or a picture when there is one.
 *
 * @module
 */
import { GifEncoder } from "../io/image_encode.ts";
import type { Frames } from "../io/frames.ts";
import { picture, pictureBundle, type Rgb, viewed } from "./pixels.ts";
import { counted } from "../units.ts";
import type { MediaBundle } from "./showing.ts";

/** Longer clips show evenly spaced frames, at the same speed. */
const MOST_FRAMES = 150;

/** Frames a second where nothing says another number. */
export const DEFAULT_FPS = 10;

/** `16 frames of 64 x 64`. */
export const framesText = ({ frames, height, width }: Frames): string =>
  `${counted(frames, "frame")} of ${height} x ${width}`;

/** Every `every`-th row and column of every `skip`-th frame. */
function thinned({ frames, height, width, data }: Frames, skip: number, every: number): Frames {
  if (skip === 1 && every === 1) return { frames, height, width, data };
  const [F, H, W] = [Math.ceil(frames / skip), Math.ceil(height / every), Math.ceil(width / every)];
  const out = new Uint8Array(F * H * W * 3);
  for (let f = 0, to = 0; f < F; f++) {
    for (let y = 0; y < H; y++) {
      for (let x = 0; x < W; x++, to += 3) {
        const from = ((f * skip * height + y * every) * width + x * every) * 3;
        out.set(data.subarray(from, from + 3), to);
      }
    }
  }
  return { frames: F, height: H, width: W, data: out };
}

/**
 * Returns a display of frames: an animated GIF, a PNG for a single frame, a line of text for none.
 *
 * @param text Beside the picture, for where there are none.
 */
export function framesBundle(frames: Frames, fps = DEFAULT_FPS, text = framesText(frames)): MediaBundle {
  const { height, width, data } = frames;
  if (frames.frames === 0) return { "text/plain": text };
  if (frames.frames === 1) {
    const colour = (y: number, x: number) => {
      const at = (y * width + x) * 3;
      return [data[at], data[at + 1], data[at + 2]] satisfies Rgb;
    };
    return pictureBundle(picture(height, width, colour), text);
  }
  const { every, scale } = viewed(height, width), skip = Math.ceil(frames.frames / MOST_FRAMES);
  const encoder = new GifEncoder(fps / skip, scale);
  const parts = [encoder.add(thinned(frames, skip, every)).slice(), encoder.finish()];
  const gif = new Uint8Array(parts[0].length + parts[1].length);
  gif.set(parts[0]);
  gif.set(parts[1], parts[0].length);
  return { "image/gif": gif.toBase64(), "text/plain": text };
}
