/**
 * Recordings of walks: numbered files in a result folder, to which every saving adds.
 *
 * @module
 */
import { writeAtomic } from "../io/atomic.ts";
import { fileHash } from "../io/hash.ts";
import { writeNpz } from "../io/npz.ts";
import { OwnedFolder } from "../io/owned_folder.ts";
import { writeVideo } from "../io/video_write.ts";
import type { Model } from "./model.ts";
import { FPS, VIEWED } from "./pictures.ts";
import type { PlaySession } from "./play.ts";

/** Says on what a recorded walk rests. */
export interface PlayedBy {
  /** The models. */
  readonly models: Pick<Model, "far" | "vae">;
  /** Source of the context. */
  readonly clip: string;
}

/** A folder for recordings, which belongs to the program alone. */
export class PlayRecordings implements Disposable {
  readonly #folder: OwnedFolder;
  readonly #by: PlayedBy;
  /** The saving that was asked for last; the next one waits for it. */
  #saving: Promise<unknown> = Promise.resolve();

  private constructor(folder: OwnedFolder, by: PlayedBy) {
    [this.#folder, this.#by] = [folder, by];
  }

  /**
   * Claims the folder. It is made if it does not exist, and removed again if nothing is recorded.
   *
   * @param path The folder.
   * @param by The models and the clip; the clip does not lie in the folder.
   * @throws {OwnershipError} If the folder is not new, empty, or an earlier result of `play`.
   * @throws {FolderLockedError} If another process writes into it.
   */
  static async open(path: string, by: PlayedBy): Promise<PlayRecordings> {
    return new PlayRecordings(
      await OwnedFolder.claim(path, { kind: "play", flag: "--out", sources: [by.clip] }),
      by,
    );
  }

  /**
   * Writes a walk so far: `walk_N.npz` with its frames and actions, which every verb reads as a clip; `walk_N.mp4` to look
   * at; and `walk_N.json`, which says how it came about. All three or none.
   *
   * @returns The paths.
   * @throws {FileAccessError} If the system refuses.
   */
  save(session: PlaySession): Promise<string[]> {
    const { first, frames, actions } = session.clip(), { context, index, sampler } = session;
    const saved = this.#saving.then(async () => {
      const folder = this.#folder, { far, vae } = this.#by.models;
      const numbers = folder.files.map((name) => Number(/^walk_(\d+)\./.exec(name)?.[1] ?? 0));
      const name = `walk_${Math.max(0, ...numbers) + 1}`, { frames: count, height, width, data } = frames;
      const names = [`${name}.npz`, `${name}.mp4`, `${name}.json`];
      // What an interrupted saving has left is of no use to the next one.
      await folder.begin({ name }, { working: names, restart: true });
      await writeNpz(folder.part(names[0]), {
        video: { shape: [count, height, width, 3], dtype: "U8", data },
        ...(actions === undefined
          ? {}
          : { actions: { shape: [count], dtype: "I32", data: new Uint8Array(actions.buffer) } }),
      }, { compress: true });
      await writeVideo(folder.part(names[1]), frames, { fps: FPS, least: VIEWED });
      const model = ({ name, weights: { path } }: typeof far | typeof vae) => ({
        name,
        weights: path,
        sha256: path === null ? null : fileHash(path),
      });
      const facts = {
        clip: this.#by.clip,
        context,
        first_frame: first,
        frames: count,
        predicted: index - context,
        sampler,
        far: model(far),
        vae: model(vae),
        random_weights: far.weights.path === null || vae.weights.path === null,
      };
      await writeAtomic(folder.part(names[2]), `${JSON.stringify(facts, null, 2)}\n`);
      await folder.place(names, { add: true });
      return names.map((file) => `${folder.path}/${file}`);
    });
    this.#saving = saved.catch(() => {}); // told to its own caller; the next saving tries again
    return saved;
  }

  /** Description of the folder's contents. */
  get kept(): string {
    const { files, path } = this.#folder;
    return files.length === 0 ? "nothing was recorded" : `${path} holds the recordings`;
  }

  /** Waits for a saving that is under way. */
  async finish(): Promise<void> {
    await this.#saving;
  }

  /** Gives the folder back. */
  [Symbol.dispose](): void {
    this.#folder[Symbol.dispose]();
  }
}
