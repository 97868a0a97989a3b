/**
 * Frames of a video in host memory, and how they are resized and cropped.
 *
 * @module
 */

import { framesBundle } from "../display/frames.ts";
import { showing } from "../display/showing.ts";

/** Frames of 8-bit RGB. A notebook shows them as an animation, a single one as a picture. */
export interface Frames {
  /** Number of frames. */
  readonly frames: number;
  /** Rows. */
  readonly height: number;
  /** Columns. */
  readonly width: number;
  /** Colours 0 to 255, `[frames, height, width, 3]`. */
  readonly data: Uint8Array;
}

const shown = (frames: Frames): Frames => showing(frames, (f) => framesBundle(f));

/**
 * Frames of one size, checked.
 *
 * @param frames Number of frames.
 * @param height Rows.
 * @param width Columns.
 * @param data Colours, `[frames, height, width, 3]`; black when absent.
 * @throws {RangeError} If the sizes are no positive integers or the bytes are not as many as they need.
 */
export function makeFrames(frames: number, height: number, width: number, data?: Uint8Array): Frames {
  const sizes = [frames, height, width];
  const expected = frames * height * width * 3;
  if (!sizes.every((size, i) => Number.isSafeInteger(size) && size >= (i === 0 ? 0 : 1))) {
    throw new RangeError(`frames: expected positive sizes, found [${sizes}]`);
  }
  if (data !== undefined && data.byteLength !== expected) {
    throw new RangeError(`frames: [${sizes}, 3] needs ${expected} bytes, found ${data.byteLength}`);
  }
  return shown({ frames, height, width, data: data ?? new Uint8Array(expected) });
}

/** Draws some of the frames, `[count, height, width, 3]`. */
export type Draw = (first: number, count: number) => Uint8Array;

/** How frames that nobody has looked at come about. */
const drawers = new WeakMap<Frames, Draw>();

/**
 * Frames that are drawn when somebody first looks at their `data`; a part of them draws that part alone.
 *
 * @param frames Number of frames.
 * @param height Rows.
 * @param width Columns.
 * @param draw Draws some of them.
 */
export function drawnFrames(frames: number, height: number, width: number, draw: Draw): Frames {
  let data: Uint8Array | undefined;
  const made = shown({
    frames,
    height,
    width,
    get data() {
      return data ??= draw(0, frames);
    },
  });
  const size = height * width * 3;
  drawers.set(
    made,
    (first, count) => data?.subarray(first * size, (first + count) * size) ?? draw(first, count),
  );
  return made;
}

/**
 * Fills pixels with one colour.
 *
 * @param pixels Colours 0 to 255, `[pixels, 3]`.
 * @param colour Red, green and blue.
 */
export function fillColour(
  pixels: Uint8Array,
  colour: readonly [red: number, green: number, blue: number],
): void {
  pixels.set(colour.slice(0, pixels.length));
  for (let done = 3; done < pixels.length; done *= 2) pixels.copyWithin(done, 0, done);
}

/**
 * Some of the frames, sharing their memory.
 *
 * @param from The frames.
 * @param start First frame; negative counts from the end.
 * @param end One past the last; all that follow when absent.
 */
export function sliceFrames(from: Frames, start: number, end?: number): Frames {
  const [first, last] = [start, end ?? from.frames].map((at) =>
    Math.min(from.frames, at < 0 ? Math.max(0, from.frames + at) : at)
  );
  const { height, width } = from, size = height * width * 3, count = Math.max(0, last - first);
  const draw = drawers.get(from);
  if (draw) return drawnFrames(count, height, width, (f, some) => draw(first + f, some));
  return shown({
    frames: count,
    height,
    width,
    data: from.data.subarray(first * size, Math.max(first, last) * size),
  });
}

/**
 * Frames one after the other.
 *
 * @param parts Frames of one size.
 * @throws {RangeError} If there are none, or their sizes differ.
 */
export function concatFrames(parts: readonly Frames[]): Frames {
  if (parts.length === 0) throw new RangeError("concatFrames: expected at least one part, found none");
  const [{ height, width }] = parts;
  const other = parts.find((part) => part.height !== height || part.width !== width);
  if (other !== undefined) {
    throw new RangeError(
      `concatFrames: expected ${height}x${width} throughout, found ${other.height}x${other.width}`,
    );
  }
  const total = makeFrames(parts.reduce((sum, part) => sum + part.frames, 0), height, width);
  parts.reduce((at, part) => (total.data.set(part.data, at), at + part.data.byteLength), 0);
  return total;
}

/**
 * How frames of another shape fill the wanted size: `crop` scales the shorter side and cuts the longer one evenly, `pad`
 * scales the longer side and adds black bars, `stretch` scales both sides on their own.
 */
export type Fit = "crop" | "pad" | "stretch";

/** A part of the source and where it goes, in pixels. */
export interface FitPlan {
  /** Size to scale the whole source to. */
  readonly scaled: { readonly height: number; readonly width: number };
  /** First row and column of the scaled source that is kept (crop) or of the target that is covered (pad). */
  readonly offset: { readonly top: number; readonly left: number };
}

/**
 * The arithmetic of a {@linkcode Fit}, shared by every reader of frames.
 *
 * @param from Size of the source.
 * @param to Wanted size.
 * @param fit How to fill it.
 */
export function planFit(
  from: { readonly height: number; readonly width: number },
  to: { readonly height: number; readonly width: number },
  fit: Fit,
): FitPlan {
  if (fit === "stretch") {
    return { scaled: { height: to.height, width: to.width }, offset: { top: 0, left: 0 } };
  }
  const ratios = [to.height / from.height, to.width / from.width];
  const ratio = fit === "crop" ? Math.max(...ratios) : Math.min(...ratios);
  const limit = fit === "crop" ? Math.max : Math.min;
  const height = Math.max(1, limit(to.height, Math.round(from.height * ratio)));
  const width = Math.max(1, limit(to.width, Math.round(from.width * ratio)));
  return {
    scaled: { height, width },
    offset: {
      top: Math.floor(Math.abs(height - to.height) / 2),
      left: Math.floor(Math.abs(width - to.width) / 2),
    },
  };
}

/** For each output place along one axis, the source places and weights of a triangle filter that widens when shrinking. */
export function axisWeights(from: number, to: number): { first: number; weights: Float32Array }[] {
  const scale = from / to;
  const radius = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - radius));
    const end = Math.min(from, Math.ceil(centre + radius));
    const weights = new Float32Array(end - first).map((_, j) =>
      Math.max(0, 1 - Math.abs(first + j + 0.5 - centre) / radius)
    );
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** One frame scaled with antialiased bilinear weights, as PIL and torchvision do. */
function scaleFrame(source: Uint8Array, from: Frames, height: number, width: number): Uint8Array {
  const columns = axisWeights(from.width, width);
  const rows = axisWeights(from.height, height);
  const across = new Float32Array(from.height * width * 3); // [source rows, width, 3]
  for (let y = 0; y < from.height; y++) {
    for (let x = 0; x < width; x++) {
      const { first, weights } = columns[x];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) {
          sum += weights[j] * source[(y * from.width + first + j) * 3 + c];
        }
        across[(y * width + x) * 3 + c] = sum;
      }
    }
  }
  const out = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const { first, weights } = rows[y];
    for (let i = 0; i < width * 3; i++) {
      let sum = 0;
      for (let j = 0; j < weights.length; j++) sum += weights[j] * across[(first + j) * width * 3 + i];
      out[y * width * 3 + i] = Math.min(255, Math.max(0, Math.round(sum)));
    }
  }
  return out;
}

/**
 * Frames at another size.
 *
 * @param from The frames.
 * @param to Wanted size.
 * @param fit How to fill it.
 * @returns The same frames when they have that size already.
 */
export function fitFrames(
  from: Frames,
  to: { readonly height: number; readonly width: number },
  fit: Fit,
): Frames {
  if (from.height === to.height && from.width === to.width) return from;
  const { scaled, offset } = planFit(from, to, fit);
  const out = makeFrames(from.frames, to.height, to.width);
  const size = from.height * from.width * 3;
  const crop = fit === "crop";
  const [height, width] = [Math.min(scaled.height, to.height), Math.min(scaled.width, to.width)];
  for (let f = 0; f < from.frames; f++) {
    const image = scaleFrame(from.data.subarray(f * size, (f + 1) * size), from, scaled.height, scaled.width);
    for (let y = 0; y < height; y++) {
      const start = ((y + (crop ? offset.top : 0)) * scaled.width + (crop ? offset.left : 0)) * 3;
      const target = ((f * to.height + y + (crop ? 0 : offset.top)) * to.width + (crop ? 0 : offset.left)) *
        3;
      out.data.set(image.subarray(start, start + width * 3), target);
    }
  }
  return out;
}
