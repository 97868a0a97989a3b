/**
 * Frames in files of arrays, as games and simulators record them.
 *
 * @module
 */
import { FileFormatError, quote } from "./errors.ts";
import { type Frames, makeFrames } from "./frames.ts";
import { toFloat32 } from "./host.ts";
import type { FileTensor, TensorFile } from "./tensor_file.ts";

/** Names under which archives hold frames, the first one that is there counts. */
const NAMES: readonly string[] = ["video", "frames", "clip", "images", "obs", "observations", "arr_0"];

/** Frames that are still in their file. */
export interface FrameArray {
  /** The array's name. */
  readonly name: string;
  /** Number of frames. */
  readonly frames: number;
  /** Rows. */
  readonly height: number;
  /** Columns. */
  readonly width: number;
  /**
   * Reads them all.
   *
   * @throws {FileFormatError} If floats lie outside 0 to 1.
   */
  read(): Frames;
}

interface Layout {
  readonly frames: number;
  readonly height: number;
  readonly width: number;
  /** Whether colours are planes, `[F, 3, H, W]`. */
  readonly planes: boolean;
}

/** `[F, H, W, 3]`, or `[F, 3, H, W]` where the last size is not 3; an outer size of one is left out. */
function layoutOf({ dtype, shape }: FileTensor): Layout | undefined {
  if (dtype !== "U8" && !/^B?F(16|32|64)$/.test(dtype)) return undefined;
  const sizes = shape.length === 5 && shape[0] === 1 ? shape.slice(1) : shape;
  if (sizes.length !== 4 || sizes.includes(0)) return undefined;
  const [frames, a, b, c] = sizes;
  if (c === 3) return { frames, height: a, width: b, planes: false };
  return a === 3 ? { frames, height: b, width: c, planes: true } : undefined;
}

/** Returns a hint on how to get an accepted array in Python. */
function conversion({ dtype, shape }: FileTensor): string {
  if (shape.length === 4 && shape[3] === 4) return "drop the fourth channel: video[..., :3]";
  if (shape.length === 4 && shape[3] === 1) return "repeat the gray channel: video.repeat(3, axis=-1)";
  if (shape.length === 3) return "repeat gray three times: video[..., None].repeat(3, axis=-1)";
  if (shape.length === 5) return "save one clip per file: np.savez(f'{i}.npz', video=video[i])";
  if (dtype !== "U8") return "video.astype(np.uint8) if its colours are 0 to 255";
  return "video.transpose(...) to [frames, height, width, 3]";
}

const listed = (file: TensorFile): string =>
  [...file.tensors].slice(0, 12).map(([name, { dtype, shape }]) => `${quote(name)} ${dtype} [${shape}]`)
    .join(", ") || "no array";

function chosen(file: TensorFile, name?: string): [string, FileTensor] {
  const known = name ?? NAMES.find((one) => file.tensors.has(one));
  if (known !== undefined) {
    const tensor = file.tensors.get(known);
    if (tensor !== undefined) return [known, tensor];
    file.read(known); // says which names are near
  }
  const fitting = [...file.tensors].filter(([, tensor]) => layoutOf(tensor) !== undefined);
  if (fitting.length === 1) return fitting[0];
  throw new FileFormatError(
    file.path,
    `expected an array named ${NAMES.join(", ")}, or one that holds frames [frames, height, width, 3], ` +
      `found ${fitting.length === 0 ? "" : `${fitting.length} that may be meant: `}${listed(file)}`,
  );
}

/** Floats as 8 bits, rounded; all of them must be 0 to 1. */
function fromFloats(path: string, name: string, values: Float32Array): Uint8Array {
  const out = new Uint8Array(values.length);
  let [least, most] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    [least, most] = [Math.min(least, value), Math.max(most, value)]; // NaN stays NaN
    out[i] = Math.round(value * 255);
  }
  if (least >= 0 && most <= 1) return out;
  throw new FileFormatError(
    path,
    `${quote(name)}: expected floats from 0 to 1, found ${least} to ${most}: save 8-bit colours, ` +
      (least < 0 && least >= -1 && most <= 1
        ? "((video + 1) * 127.5).round().astype(np.uint8) if they are -1 to 1"
        : "video.round().astype(np.uint8) if they are 0 to 255"),
  );
}

/** Planes of colours as pixels. */
function interleaved(planes: Uint8Array, { frames, height, width }: Layout): Uint8Array {
  const out = new Uint8Array(planes.length), plane = height * width;
  for (let f = 0; f < frames; f++) {
    for (let c = 0; c < 3; c++) {
      for (let i = 0, from = (f * 3 + c) * plane; i < plane; i++) {
        out[(f * plane + i) * 3 + c] = planes[from + i];
      }
    }
  }
  return out; // [F, H, W, 3]
}

/**
 * The frames in a tensor file (`.npz`, `.npy`, safetensors): the array called `name`; else `video`, `frames`, `clip`, `images`,
 * `obs`, `observations` or `arr_0`; else the only array that can be frames.
 *
 * 8-bit colours or floats from 0 to 1, which are rounded to 8 bits; `[F, H, W, 3]`, or `[F, 3, H, W]` where the last size is not
 * 3. Anything else is refused, with the line of Python that converts it.
 *
 * @param file An open file.
 * @param name The array, where there are several.
 * @throws {FileFormatError} If there is no such array, or several: what there is; if it is of another type or shape.
 */
export function frameArray(file: TensorFile, name?: string): FrameArray {
  const [found, tensor] = chosen(file, name), layout = layoutOf(tensor);
  if (layout === undefined) {
    throw new FileFormatError(
      file.path,
      `${
        quote(found)
      }: expected 8-bit colours [frames, height, width, 3], found ${tensor.dtype} [${tensor.shape}]: ` +
        conversion(tensor),
    );
  }
  const { planes, frames, height, width } = layout;
  return {
    ...{ name: found, frames, height, width },
    read() {
      const values = tensor.read();
      const bytes = values.dtype === "U8" ? values.data : fromFloats(file.path, found, toFloat32(values));
      return makeFrames(frames, height, width, planes ? interleaved(bytes, layout) : bytes);
    },
  };
}
