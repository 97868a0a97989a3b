/**
 * Batches of a data set, in an order that a seed decides and a single number takes up again.
 *
 * @module
 */
import { streamOf } from "../random.ts";
import { chooseFrames, type Clip, type DataSet } from "./clip.ts";
import { permutation, RandomStream } from "./random_stream.ts";
import { chooseCrop, scaledSize, transformFrames } from "./transform.ts";

/** Contents and order of batches. */
export interface BatchOptions {
  /** B: clips in a batch. */
  readonly batch: number;
  /** F: frames of a clip, `n_frames` or `num_frames` in the authors' option files. */
  readonly frames: number;
  /** Frames from one to the next, `frame_interval`; 1 unless given. */
  readonly interval?: number;
  /** Mirror half of the training clips, `use_flip`. */
  readonly flip?: boolean;
  /** `training`: shuffled epochs without end, random parts of clips. `validation`: once through, in order. */
  readonly split: "training" | "validation";
  /** Seed of order, starts, crops and mirroring in training; 0 unless given. */
  readonly seed?: number;
  /** Batches that were taken before: where to resume; 0 unless given. */
  readonly position?: number;
  /** Batches that are read ahead while earlier ones are in use; 2 unless given. */
  readonly prefetch?: number;
}

/** Clips side by side. */
export interface Batch {
  /** Frames 0 to 1, `[B, F, 3, H, W]`, or latents (not multiplied by the scaling factor), `[B, F, C, H, W]`. */
  readonly data: Float32Array;
  /** Roll-outs of the clips that have one, `[B]` of `[F, C, H, W]`; absent where none has. */
  readonly history?: readonly (Float32Array | null)[];
  /** The kind of `data`. */
  readonly holds: "frames" | "latents";
  /** B, F, C, H, W. */
  readonly shape: readonly [number, number, number, number, number];
  /** `[B, F]`, where the data set has actions. */
  readonly actions?: Int32Array;
  /** `[B]`, where the data set has labels. */
  readonly label?: Int32Array;
  /** Camera poses, `[B, F, 3]`, where the data set has them: walks through the built-in world. */
  readonly poses?: Int32Array;
  /** Clip numbers in the data set, `[B]`. */
  readonly indices: readonly number[];
  /** Files or walks, `[B]`. */
  readonly sources: readonly string[];
  /** Position behind this batch: save it, and `batches` resumes with the next one. */
  readonly position: number;
  /** Times that the whole set was gone through before this batch. */
  readonly epoch: number;
}

/** Random numbers kept for each clip of each batch: start, two of the crop, mirroring. */
const DRAWS_A_CLIP = 4;

/**
 * Returns the clips of the batch at a position, and its epoch.
 *
 * A training epoch is a permutation of all clips, of which whole batches are taken (the authors' `shuffle=True,
 * drop_last=True`): at most B - 1 clips are left out of an epoch, others each time.
 */
function clipsAt(set: DataSet, options: BatchOptions, orders: Map<number, Uint32Array>, position: number): {
  readonly indices: number[];
  readonly epoch: number;
} {
  const { batch, split, seed = 0 } = options;
  if (split === "validation") {
    const first = position * batch, count = Math.min(batch, set.length - first);
    return { indices: Array.from({ length: Math.max(0, count) }, (_, i) => first + i), epoch: 0 };
  }
  const perEpoch = Math.floor(set.length / batch), epoch = Math.floor(position / perEpoch);
  let order = orders.get(epoch);
  if (order === undefined) {
    for (const old of orders.keys()) if (old < epoch - 1) orders.delete(old);
    orders.set(epoch, order = permutation(streamOf(seed, `order of epoch ${epoch}`), set.length));
  }
  const first = position % perEpoch * batch;
  return { indices: Array.from(order.subarray(first, first + batch)), epoch };
}

function check(set: DataSet, options: BatchOptions): void {
  const { batch, frames, interval = 1, position = 0, prefetch = 2, seed = 0 } = options;
  const least = { batch: [batch, 1], frames: [frames, 1], interval: [interval, 1], position: [position, 0] };
  for (
    const [name, [value, from]] of Object.entries({ ...least, prefetch: [prefetch, 0], seed: [seed, 0] })
  ) {
    if (!Number.isSafeInteger(value) || value < from) {
      throw new RangeError(`batches: ${name} must be a whole number of at least ${from}, found ${value}`);
    }
  }
  if (options.split === "training" && set.length < batch) {
    throw new RangeError(
      `batches: ${set.name} has ${set.length} clips, expected at least one batch of ${batch}`,
    );
  }
  if (options.flip && set.holds === "latents") {
    throw new RangeError(`batches: ${set.name} holds latents, which cannot be mirrored: leave use_flip out`);
  }
}

/** Reads one clip of a batch and writes it to its place. */
async function readClip(
  set: DataSet,
  options: BatchOptions,
  index: number,
  number: number,
): Promise<{ clip: Clip; size: readonly [number, number, number]; write: (out: Float32Array) => void }> {
  const { frames, interval = 1, split, seed = 0 } = options;
  const draws = split === "training"
    ? new RandomStream(streamOf(seed, "parts of clips"), number * DRAWS_A_CLIP)
    : undefined;
  const range = chooseFrames(set, index, await set.frames(index), frames, interval, draws);
  const clip = await set.read(index, range);
  if (clip.latents) {
    const { shape: [, C, H, W], data } = clip.latents;
    return { clip, size: [C, H, W], write: (out) => out.set(data) };
  }
  const { resolution, crop: crops } = set.fit, raw = clip.frames!;
  if (resolution !== undefined && !crops && (raw.height !== resolution || raw.width !== resolution)) {
    throw new RangeError(
      `${clip.source}: frames are ${raw.height}x${raw.width}, expected ${resolution}x${resolution}`,
    );
  }
  const crop = resolution !== undefined && crops
    ? chooseCrop(scaledSize(raw, resolution), resolution, draws)
    : undefined;
  const flip = draws !== undefined && options.flip === true &&
    new RandomStream(draws.key, number * DRAWS_A_CLIP + 3).chance(0.5);
  const [H, W] = [resolution ?? raw.height, resolution ?? raw.width];
  return { clip, size: [3, H, W], write: (out) => transformFrames(raw, out, { resolution, crop, flip }) };
}

async function readBatch(
  set: DataSet,
  options: BatchOptions,
  position: number,
  { indices, epoch }: { readonly indices: number[]; readonly epoch: number },
): Promise<Batch> {
  const { frames: F, batch } = options, B = indices.length;
  const clips = await Promise.all(
    indices.map((index, i) => readClip(set, options, index, position * batch + i)),
  );
  const [C, H, W] = clips[0].size;
  const other = clips.find(({ size }) => size.some((side, i) => side !== clips[0].size[i]));
  if (other !== undefined) {
    throw new RangeError(
      `${other.clip.source}: clips are [${other.size}], expected [${clips[0].size}] as in ${
        clips[0].clip.source
      }`,
    );
  }
  const each = F * C * H * W, data = new Float32Array(B * each); // [B, F, C, H, W]
  clips.forEach(({ write }, i) => write(data.subarray(i * each, (i + 1) * each)));
  const actions = set.actions ? new Int32Array(B * F) : undefined; // [B, F]
  if (actions) clips.forEach(({ clip }, i) => actions.set(clip.actions!, i * F));
  const poses = clips.every(({ clip }) => clip.poses) ? new Int32Array(3 * B * F) : undefined; // [B, F, 3]
  if (poses) clips.forEach(({ clip }, i) => poses.set(clip.poses!, 3 * i * F));
  const history = clips.map(({ clip }) => clip.latents?.history ?? null);
  return {
    data,
    ...(history.some((made) => made !== null) ? { history } : {}),
    holds: set.holds,
    shape: [B, F, C, H, W],
    actions,
    label: set.classes === undefined ? undefined : Int32Array.from(clips, ({ clip }) => clip.label!),
    poses,
    indices,
    sources: clips.map(({ clip }) => clip.source),
    position: position + 1,
    epoch,
  };
}

/**
 * Batches of clips. Training never ends: shuffled epoch after shuffled epoch, each clip with a random start, crop and
 * mirroring. Everything random depends on the seed and the position alone, so a run that is taken up again at a saved
 * position sees exactly the batches it would have seen.
 *
 * @param set The data set.
 * @param options What and in which order.
 * @returns Batches; some are read ahead while the caller works. Ending the loop early drops those.
 * @throws {RangeError} If an option is out of range, the set is smaller than a batch, or clips differ in size.
 * @throws {FileFormatError} If a file is broken. No clip is ever left out.
 *
 * @example
 * ```ts
 * import { batches } from "./batches.ts";
 * import { worldSet } from "./world_set.ts";
 * const set = worldSet({ split: "train", frames: 16, clips: 8 });
 * for await (const { data, shape, position } of batches(set, { batch: 2, frames: 8, split: "training" })) {
 *   console.assert(data.length === shape.reduce((a, b) => a * b) && shape.join() === "2,8,3,64,64");
 *   if (position === 3) break;
 * }
 * ```
 */
export async function* batches(set: DataSet, options: BatchOptions): AsyncGenerator<Batch, void> {
  check(set, options);
  const { prefetch = 2 } = options, orders = new Map<number, Uint32Array>();
  const ahead: Promise<Batch>[] = [];
  let next = options.position ?? 0;
  const start = () => {
    const clips = clipsAt(set, options, orders, next);
    if (clips.indices.length === 0) return false;
    const promise = readBatch(set, options, next++, clips);
    promise.catch(() => {}); // reported when its turn comes, or never needed
    ahead.push(promise);
    return true;
  };
  for (;;) {
    while (ahead.length <= prefetch && start());
    const batch = ahead.shift();
    if (batch === undefined) return;
    yield await batch;
  }
}
