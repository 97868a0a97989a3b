/**
 * Single clips in files: videos, folders of images, npz archives, latents.
 *
 * @module
 */
import { FileFormatError } from "../io/errors.ts";
import { frameArray } from "../io/frame_array.ts";
import { type Frames, makeFrames } from "../io/frames.ts";
import { toFloat32 } from "../io/host.ts";
import { openTensorFile } from "../io/open.ts";
import type { FileTensor, TensorFile } from "../io/tensor_file.ts";
import { collectFrames, imageNames, probeVideo, readFrames } from "../io/video.ts";
import { namedActions, readActionFile } from "./actions.ts";
import { type Clip, type ClipRange, type DataSet, framesThere, takeRange } from "./clip.ts";

/** A clip that is still in its file. */
export interface Item {
  /** The file. */
  readonly source: string;
  /** The file or folder, and that of the actions beside it. */
  readonly files: readonly string[];
  /** Class of the clip. */
  readonly label?: number;
  /** Number of frames. */
  frames(): Promise<number>;
  /** Reads a range of frames; all when absent. */
  read(range?: ClipRange): Promise<Clip>;
}

/** Data that accompany a clip. */
export interface Beside {
  /** File of the actions. */
  readonly actions?: string;
  /** Class of the clip. */
  readonly label?: number;
}

/** The actions of a range, which must be there for every frame that is. */
function actionsIn(path: string, all: Int32Array, total: number, range: ClipRange): Int32Array {
  if (all.length < total) {
    throw new FileFormatError(path, `expected ${total} actions, one a frame, found ${all.length}`);
  }
  return takeRange(all.subarray(0, total), 1, range);
}

const filesOf = (path: string, { actions }: Beside) => actions === undefined ? [path] : [path, actions];

const whole = (total: number): ClipRange => ({ start: 0, interval: 1, count: total });

/** Frames with black ones behind them up to the wanted number. */
function padded(frames: Frames, count: number): Frames {
  if (frames.frames === count) return frames;
  const out = makeFrames(count, frames.height, frames.width);
  out.data.set(frames.data);
  return out;
}

/**
 * A video file or a folder of images. A video's frames are counted by decoding it, once: headers are wrong where the rate
 * varies, where an edit list hides frames, and where the file is damaged.
 *
 * @param path The file or folder.
 * @param beside Actions and class.
 */
export function videoItem(path: string, beside: Beside = {}): Item {
  let known: Promise<number> | undefined;
  const count = async () =>
    Deno.statSync(path).isDirectory ? imageNames(path).length : (await probeVideo(path)).frames;
  const frames = () => known ??= count();
  return {
    source: path,
    files: filesOf(path, beside),
    label: beside.label,
    frames,
    async read(asked) {
      const there = asked && framesThere(asked, await frames());
      const select = asked ? { start: asked.start, every: asked.interval, count: there } : {};
      const found = await collectFrames(readFrames(path, select));
      if (there !== undefined && found.frames !== there) {
        throw new FileFormatError(
          path,
          `expected ${there} frames from ${asked!.start} on, found ${found.frames}: it has changed`,
        );
      }
      const total = await (asked ? frames() : known ??= Promise.resolve(found.frames));
      const range = asked ?? whole(total);
      const actions = beside.actions === undefined
        ? undefined
        : actionsIn(beside.actions, readActionFile(beside.actions), total, range);
      return { frames: padded(found, range.count), actions, label: beside.label, source: path };
    },
  };
}

/** Content of a file of arrays: a number of frames or latents, which are read on demand. */
interface Content {
  readonly total: number;
  read(range: ClipRange): Pick<Clip, "frames" | "latents">;
}

/** A clip in a file of arrays: frames or latents in one, actions in another or in a file beside it. */
function arrayItem(
  path: string,
  beside: Beside,
  contentOf: (file: TensorFile) => Content,
): Item {
  const opened = <T>(body: (file: TensorFile) => T): Promise<T> =>
    Promise.try(() => {
      using file = openTensorFile(path);
      return body(file);
    });
  return {
    source: path,
    files: filesOf(path, beside),
    label: beside.label,
    frames: () => opened((file) => contentOf(file).total),
    read: (asked) =>
      opened((file) => {
        const content = contentOf(file), { total } = content, range = asked ?? whole(total);
        const own = namedActions(file);
        const from = own || beside.actions === undefined ? path : beside.actions;
        const actions = own ?? (beside.actions === undefined ? undefined : readActionFile(beside.actions));
        return {
          ...content.read(range),
          actions: actions && actionsIn(from, actions, total, range),
          label: beside.label,
          source: path,
        };
      }),
  };
}

/**
 * An npz archive in DMLab's layout: `video` as 8-bit `[F, H, W, 3]` and `actions` as integers `[F]`; the action of frame f
 * leads from frame f to frame f + 1. {@linkcode frameArray} says what else is taken.
 *
 * @param path The file.
 * @param beside Class; a file of actions, where the archive has none.
 */
export const npzItem = (path: string, beside: Beside = {}): Item =>
  arrayItem(path, beside, (file) => {
    const array = frameArray(file);
    return {
      total: array.frames,
      read(range) {
        const { height, width, data } = array.read();
        return { frames: makeFrames(range.count, height, width, takeRange(data, height * width * 3, range)) };
      },
    };
  });

/** The array of latents in a file: the only one besides actions and label, whatever its name. */
function latentArray(file: TensorFile): FileTensor {
  const names = [...file.tensors.keys()].filter((name) => !/^(actions?|label)$/.test(name));
  const tensor = names.length === 1 ? file.tensors.get(names[0]) : undefined;
  if (tensor?.shape.length !== 4 || tensor.shape.includes(0) || !/^B?F(16|32|64)$/.test(tensor.dtype)) {
    const found = tensor ? `${tensor.dtype} [${tensor.shape}]` : names.join(", ") || "none";
    throw new FileFormatError(file.path, `expected one array of latents [F, C, H, W], found ${found}`);
  }
  return tensor;
}

/**
 * Latents of one clip in a file of their own: a tensor `[F, C, H, W]` as `torch.save` writes it, npy, npz or safetensors.
 *
 * @param path The file.
 * @param beside Class; a file of actions, where the file of latents has none.
 */
export const latentItem = (path: string, beside: Beside = {}): Item =>
  arrayItem(path, beside, (file) => {
    const array = latentArray(file), [F, C, H, W] = array.shape;
    return {
      total: F,
      read(range) {
        const data = takeRange(toFloat32(array.read()), C * H * W, range);
        return { latents: { shape: [range.count, C, H, W], data } };
      },
    };
  });

/**
 * A data set of such clips.
 *
 * @param set All but the clips.
 * @param items The clips.
 */
export function itemSet(
  set: Omit<DataSet, "length" | "source" | "files" | "frames" | "read">,
  items: readonly Item[],
): DataSet {
  const at = (index: number): Item => {
    const item = items[index];
    if (item === undefined) {
      throw new RangeError(`${set.name}: expected a clip from 0 to ${items.length - 1}, found ${index}`);
    }
    return item;
  };
  return {
    ...set,
    length: items.length,
    source: (index) => at(index).source,
    files: (index) => at(index).files,
    frames: (index) => Promise.try(() => at(index).frames()),
    read: (index, range) => Promise.try(() => at(index).read(range)),
  };
}
