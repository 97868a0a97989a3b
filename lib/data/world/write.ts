/**
 * Clips of the built-in world as files in DMLab's own layout, with a list as the authors write them.
 *
 * @module
 */
import { join } from "node:path";
import { writeAtomic } from "../../io/atomic.ts";
import type { HostTensor } from "../../io/host.ts";
import { isFile } from "../../io/paths.ts";
import { writeNpz } from "../../io/npz.ts";
import type { Steps } from "./pose.ts";
import { worldClip, type WorldOptions } from "./world.ts";

const int64 = (values: Int32Array, shape: readonly number[]): HostTensor => ({
  shape,
  dtype: "I64",
  data: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
});

/**
 * Writes one clip: `video` as 8-bit `[F, H, W, 3]`, `actions` as 64-bit integers `[F]`, and, which DMLab's files lack,
 * `poses` `[F, 3]`.
 *
 * @param path The npz file; replaced if it exists.
 * @param options Which walk, and how many frames.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writeWorldClip(
  path: string,
  options: WorldOptions & { readonly frames: number },
): Promise<void> {
  const { frames, actions, poses, size } = worldClip(options), count = actions.length;
  await writeNpz(path, {
    video: { shape: [count, size, size, 3], dtype: "U8", data: frames },
    actions: int64(actions, [count]),
    poses: int64(poses, [count, 3]),
  }, { compress: true });
}

/** Selection of the clips to write. */
export interface WorldFiles extends Omit<WorldOptions, "index"> {
  /** First walk; 0 unless given. */
  readonly first?: number;
  /** Number of clips. */
  readonly clips: number;
  /** Frames of a clip. */
  readonly frames: number;
  /** Keeps clips that are there: those of an interrupted call with the same options. */
  readonly resume?: boolean;
}

/** Names of the files of {@linkcode writeWorld}: the clip `index` and the list. */
export function worldFileNames(
  index: number | "*",
  split: string,
  steps: Steps = "smooth",
): readonly [clip: string, list: string] {
  const grid = steps === "grid";
  return [`${grid ? "grid_" : ""}${split}/${index}.npz`, `${grid ? "grid" : "world"}_${split}.json`];
}

/**
 * Writes clips `SPLIT/0.npz`, `SPLIT/1.npz`, ... and the list `world_SPLIT.json` (with grid steps `grid_SPLIT/0.npz`, ... and `grid_SPLIT.json`) of all clips that this call asks for. Each
 * file is there in full or not at all; the list comes last, so an interrupted call leaves no list with missing clips.
 *
 * @param folder The folder.
 * @param files Which clips.
 * @param onClip Told how many clips are written; may wait, and may throw to stop.
 * @returns Names of all files, the list last.
 * @throws {RangeError} If an option is out of range.
 * @throws {FileAccessError} If the system refuses.
 */
export async function writeWorld(
  folder: string,
  files: WorldFiles,
  onClip: (done: number) => void | Promise<void> = () => {},
): Promise<string[]> {
  const { first = 0, clips, resume = false, ...options } = files,
    { split, steps } = options,
    [, list] = worldFileNames("*", split, steps);
  const names = Array.from({ length: clips }, (_, i) => worldFileNames(first + i, split, steps)[0]);
  for (const [i, name] of names.entries()) {
    const path = join(folder, name);
    if (!(resume && isFile(path))) await writeWorldClip(path, { ...options, index: first + i });
    await onClip(i + 1);
  }
  const entries = names.map((video_path) => ({ video_path }));
  await writeAtomic(join(folder, list), `${JSON.stringify(entries, null, 1)}\n`);
  return [...names, list];
}
