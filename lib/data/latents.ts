/**
 * Pre-computed latents of many clips in a few safetensors files, for training without the autoencoder.
 *
 * The folder holds `index.json` (number of clips, files, and whatever the writer says about where the latents come from)
 * and the shards `latents-00000.safetensors`, ...; clip i is `i.latents` `[F, C, H, W]`, with `i.actions` `[F]`, `i.label`
 * and `i.history` (a model's roll-out, in the shape of the latents) where there are any. Latents are not multiplied by the
 * autoencoder's scaling factor, as in the authors' files.
 *
 * @module
 */
import { join } from "node:path";
import { writeAtomic, writeFolderAtomic } from "../io/atomic.ts";
import { FileFormatError, show } from "../io/errors.ts";
import { fromFloat32, type HostTensor, toFloat32, toInt32 } from "../io/host.ts";
import { isSegment } from "../io/paths.ts";
import { openSafetensors, writeSafetensors } from "../io/safetensors.ts";
import { visitSource } from "../io/source.ts";
import type { TensorFile } from "../io/tensor_file.ts";
import { readJsonObject } from "../io/text.ts";
import { type Clip, type ClipRange, type DataSet, takeRange } from "./clip.ts";

const INDEX = "index.json";
const SHARD_BYTES = 256 * 2 ** 20;

interface Index {
  readonly clips: number;
  readonly actions: boolean;
  readonly classes?: number;
  readonly rollouts: number;
  readonly shards: readonly { readonly file: string; readonly first: number; readonly clips: number }[];
  readonly about: Readonly<Record<string, string>>;
}

/** Options of writing latents. */
export interface LatentOptions {
  /** Element type; F16 unless given. */
  readonly dtype?: "F32" | "F16" | "BF16";
  /** A file is closed when it has so many bytes; 256 MiB unless given. */
  readonly shardBytes?: number;
  /** Number of classes, where clips have labels. */
  readonly classes?: number;
  /** Origin of the latents: data set, autoencoder, its hash. */
  readonly about?: Readonly<Record<string, string>>;
}

const int32 = (values: Int32Array, shape: readonly number[]): HostTensor => ({
  shape,
  dtype: "I32",
  data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
});

/**
 * Writes the latents of clips into a new folder: all of them, or nothing.
 *
 * @param folder The folder; it must not exist, or be empty.
 * @param clips Clips with latents; either all have actions or none, and so for labels.
 * @param options Element type, size of the files, what to note.
 * @returns Number of clips.
 * @throws {RangeError} If a clip has no latents, or only some have actions or labels.
 * @throws {FileAccessError} If the system refuses, or the folder is not empty.
 */
export async function writeLatents(
  folder: string,
  clips: Iterable<Clip> | AsyncIterable<Clip>,
  options: LatentOptions = {},
): Promise<number> {
  let count = 0;
  await writeFolderAtomic(folder, async (temp) => {
    ({ count } = await writeLatentFiles(temp, clips, options));
  });
  return count;
}

/** Names of the files of a set of latents; `*` stands for digits. */
export const LATENT_FILES = ["latents-*.safetensors", INDEX];

/**
 * Writes the files of a set of latents, each one atomically, the index last. {@linkcode writeLatents} does so in a new folder.
 *
 * @param folder A folder that exists.
 * @returns Number of clips, and the files in the order of writing.
 */
export async function writeLatentFiles(
  folder: string,
  clips: Iterable<Clip> | AsyncIterable<Clip>,
  options: LatentOptions = {},
): Promise<{ readonly count: number; readonly files: readonly string[] }> {
  const { dtype = "F16", shardBytes = SHARD_BYTES, classes, about = {} } = options;
  const shards: Index["shards"][number][] = [];
  let count = 0, rollouts = 0, actions = false, first = 0, bytes = 0;
  let tensors: [string, HostTensor][] = [];
  const flush = async () => {
    const file = `latents-${String(shards.length).padStart(5, "0")}.safetensors`;
    await writeSafetensors(join(folder, file), tensors);
    shards.push({ file, first, clips: count - first });
    [first, tensors, bytes] = [count, [], 0];
  };
  for await (const clip of clips) {
    if (clip.latents === undefined) throw new RangeError(`writeLatents: ${clip.source} has no latents`);
    if (count === 0) actions = clip.actions !== undefined;
    if (
      actions !== (clip.actions !== undefined) || (classes === undefined) !== (clip.label === undefined)
    ) {
      throw new RangeError(
        `writeLatents: ${clip.source}: actions or label are there, or not, unlike before`,
      );
    }
    const { shape, data, history } = clip.latents, latents = fromFloat32(data, shape, dtype);
    tensors.push([`${count}.latents`, latents]);
    if (history) {
      rollouts++;
      tensors.push([`${count}.history`, fromFloat32(history, shape, dtype)]);
    }
    if (clip.actions) tensors.push([`${count}.actions`, int32(clip.actions, [clip.actions.length])]);
    if (clip.label !== undefined) tensors.push([`${count}.label`, int32(Int32Array.of(clip.label), [])]);
    count++;
    bytes += latents.data.byteLength * (history ? 2 : 1);
    if (bytes >= shardBytes) await flush();
  }
  if (count === 0) throw new RangeError("writeLatents: expected at least one clip, found none");
  if (tensors.length > 0) await flush();
  const index: Index = { clips: count, actions, classes, rollouts, shards, about };
  await writeAtomic(join(folder, INDEX), `${JSON.stringify(index, null, 2)}\n`);
  return { count, files: [...shards.map(({ file }) => file), INDEX] };
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;

function readIndex(folder: string): Index {
  const path = join(folder, INDEX), index = readJsonObject(path, "an index of latents");
  const { clips, actions, classes, rollouts, shards } = index;
  const expect = (fits: boolean, key: string, expected: string) => {
    if (fits) return;
    throw new FileFormatError(path, `${key}: expected ${expected}, found ${show(index[key])}`);
  };
  expect(isCount(clips), "clips", "a positive whole number");
  expect(typeof actions === "boolean", "actions", "true or false");
  expect(classes === undefined || isCount(classes), "classes", "a positive whole number");
  expect(
    rollouts === 0 || isCount(rollouts) && rollouts <= (clips as number),
    "rollouts",
    `a whole number up to ${clips}`,
  );
  let total = 0;
  const inOrder = Array.isArray(shards) && shards.every((shard) => {
    const fits = typeof shard?.file === "string" && isSegment(shard.file) && isCount(shard.clips) &&
      shard.first === total;
    total += fits ? shard.clips : 0;
    return fits;
  });
  if (!inOrder || total !== clips) {
    throw new FileFormatError(path, `expected shards with all ${clips} clips, found ${total}`);
  }
  return index as unknown as Index;
}

/** Origin of latents, as the writer noted it. */
export const latentsAbout = (folder: string): Readonly<Record<string, string>> => readIndex(folder).about;

/**
 * Opens latents that {@linkcode writeLatents} wrote. A shard's head is read once; latents only when a clip is asked for.
 *
 * @param folder The folder.
 * @throws {FileFormatError} If the index or a shard is damaged, or a clip is missing.
 * @throws {FileAccessError} If a file cannot be opened: none is left out.
 */
export function latentSet(folder: string): DataSet {
  const { clips, actions, classes, rollouts, shards } = readIndex(folder);
  for (const { file } of shards) {
    const path = join(folder, file);
    visitSource(path).close();
  }
  const heads = new Map<string, TensorFile>(); // checking the head of hundreds of clips takes longer than reading one
  const open = (index: number) => {
    const shard = shards.findLast(({ first }) => first <= index);
    if (shard === undefined || !Number.isSafeInteger(index) || index >= clips) {
      throw new RangeError(`latents ${folder}: expected a clip from 0 to ${clips - 1}, found ${index}`);
    }
    let file = heads.get(shard.file);
    if (file === undefined) {
      file = openSafetensors(visitSource(join(folder, shard.file)));
      heads.set(shard.file, file);
    }
    return file;
  };
  const shapeOf = (file: ReturnType<typeof open>, index: number) => {
    const shape = file.tensors.get(`${index}.latents`)?.shape;
    if (shape?.length !== 4) {
      throw new FileFormatError(
        file.path,
        `expected ${index}.latents as [F, C, H, W], found ${shape ? `[${shape}]` : "none"}`,
      );
    }
    return shape;
  };
  const source = (index: number) => `${folder} clip ${index}`;
  const read = (index: number, asked?: ClipRange): Clip => {
    const file = open(index);
    const [F, C, H, W] = shapeOf(file, index), range = asked ?? { start: 0, interval: 1, count: F };
    const values = (name: string) => takeRange(toFloat32(file.read(`${index}.${name}`)), C * H * W, range);
    const rolledOut = file.tensors.has(`${index}.history`);
    return {
      latents: {
        shape: [range.count, C, H, W],
        data: values("latents"),
        ...(rolledOut ? { history: values("history") } : {}),
      },
      actions: actions ? takeRange(toInt32(file.read(`${index}.actions`)), 1, range) : undefined,
      label: classes === undefined ? undefined : toInt32(file.read(`${index}.label`))[0],
      source: source(index),
    };
  };
  return {
    name: `latents ${folder}`,
    length: clips,
    holds: "latents",
    actions,
    classes,
    rollouts,
    rule: { short: "refuse" },
    fit: { crop: false },
    source,
    files: (index) => [join(folder, INDEX), open(index).path],
    frames: (index) => Promise.try(() => shapeOf(open(index), index)[0]),
    read: (index, range) => Promise.try(read, index, range),
  };
}
