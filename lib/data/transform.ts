/**
 * From 8-bit frames to what a model takes: scaled, cut, mirrored, planes of floats.
 *
 * @module
 */
import { axisWeights, type Frames } from "../io/frames.ts";
import { writePlanes } from "../io/planes.ts";
import type { RandomStream } from "./random_stream.ts";

/** The part of a scaled frame that is kept. */
export interface Crop {
  /** First row. */
  readonly top: number;
  /** First column. */
  readonly left: number;
}

/** Rounds halves to even, as Python's `round` does. */
function roundEven(value: number): number {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + floor % 2 : Math.round(value);
}

/**
 * Size after scaling the shorter side to `resolution`. The longer side is cut to a whole number, as torchvision's `Resize`
 * does.
 */
export function scaledSize(
  from: { readonly height: number; readonly width: number },
  resolution: number,
): { height: number; width: number } {
  const { height, width } = from;
  return height <= width
    ? { height: resolution, width: Math.trunc(resolution * width / height) }
    : { height: Math.trunc(resolution * height / width), width: resolution };
}

/**
 * Where to cut a square out of a scaled frame: anywhere (torchvision's `RandomCrop`) or the middle (`CenterCrop`).
 *
 * @param size Of the scaled frame.
 * @param resolution Rows and columns to keep.
 * @param draws Random numbers for training: two are drawn. The middle when absent.
 */
export function chooseCrop(
  size: { readonly height: number; readonly width: number },
  resolution: number,
  draws?: RandomStream,
): Crop {
  const [down, across] = [size.height - resolution, size.width - resolution];
  return draws === undefined
    ? { top: roundEven(down / 2), left: roundEven(across / 2) }
    : { top: draws.below(down + 1), left: draws.below(across + 1) };
}

/** Options of {@linkcode transformFrames}. */
export interface TransformOptions {
  /** Rows and columns of the result; the frames' own when absent. */
  readonly resolution?: number;
  /** The crop to cut out of the scaled frames; the middle when absent. */
  readonly crop?: Crop;
  /** Whether to mirror left and right. */
  readonly flip?: boolean;
}

/**
 * Frames as planes of floats: scaled with antialiased bilinear weights so that the shorter side fits, cut, mirrored,
 * divided by 255. One clip is treated alike throughout.
 *
 * @param frames 8-bit frames, `[F, H, W, 3]`.
 * @param out Where to write `[F, 3, resolution, resolution]`, 0 to 1.
 * @param options What to do.
 * @throws {RangeError} If `out` has another size.
 */
export function transformFrames(frames: Frames, out: Float32Array, options: TransformOptions = {}): void {
  const { flip = false, resolution } = options;
  const scaled = resolution === undefined
    ? { height: frames.height, width: frames.width }
    : scaledSize(frames, resolution);
  const height = resolution ?? frames.height, width = resolution ?? frames.width, size = height * width * 3;
  if (out.length !== frames.frames * size) {
    throw new RangeError(
      `transformFrames: [${frames.frames}, 3, ${height}, ${width}] needs ${
        frames.frames * size
      } values, found ${out.length}`,
    );
  }
  const crop = options.crop ?? chooseCrop(scaled, resolution ?? Math.min(height, width));
  const { top, left } = resolution === undefined ? { top: 0, left: 0 } : crop;
  const same = scaled.height === frames.height && scaled.width === frames.width;
  const scale = same ? undefined : makeScaler(frames, scaled, top, left, height, width);
  const part = scale
    ? { top: 0, left: 0, height, width, stride: width, flip } // the scaler cuts
    : { top, left, height, width, stride: frames.width, flip };
  const raw = frames.height * frames.width * 3;
  for (let f = 0; f < frames.frames; f++) {
    const source = frames.data.subarray(f * raw, (f + 1) * raw);
    writePlanes(scale?.(source) ?? source, part, [0, 1], out.subarray(f * size, (f + 1) * size));
  }
}

/** Scales one frame after the other to the part that is kept, without rounding in between. */
function makeScaler(
  from: { readonly height: number; readonly width: number },
  scaled: { readonly height: number; readonly width: number },
  top: number,
  left: number,
  height: number,
  width: number,
): (source: Uint8Array) => Float32Array {
  const columns = axisWeights(from.width, scaled.width).slice(left, left + width);
  const rows = axisWeights(from.height, scaled.height).slice(top, top + height);
  const across = new Float32Array(from.height * width * 3), out = new Float32Array(height * width * 3);
  return (source) => {
    for (let y = 0; y < from.height; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights } = columns[x];
        let [r, g, b] = [0, 0, 0], at = (y * from.width + first) * 3;
        for (let j = 0; j < weights.length; j++, at += 3) {
          r += weights[j] * source[at];
          g += weights[j] * source[at + 1];
          b += weights[j] * source[at + 2];
        }
        across.set([r, g, b], (y * width + x) * 3);
      }
    }
    for (let y = 0; y < height; y++) {
      const { first, weights } = rows[y];
      for (let i = 0; i < width * 3; i++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * across[(first + j) * width * 3 + i];
        out[y * width * 3 + i] = sum;
      }
    }
    return out;
  };
}
