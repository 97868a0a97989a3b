/**
 * Latents that a job has made so far, kept in its folder so that the same job resumes from them.
 *
 * @module
 */
import { fromFloat32, toFloat32 } from "../io/host.ts";
import { isFile } from "../io/paths.ts";
import { openSafetensors, writeSafetensors } from "../io/safetensors.ts";
import type { PartStore } from "./job.ts";

/** Latents of a clip, `[F, C, H, W]`. */
export interface SavedClip {
  /** Row-major elements. */
  readonly values: Float32Array;
  /** F, C, H, W. */
  readonly shape: readonly number[];
}

/** The file below `part/`. */
export const STATE_FILE = "state.safetensors";

/** Milliseconds of work between two saves: a kill loses no more than that. */
const BETWEEN_SAVES = 1000;

/** Latents in one file, which carries the fingerprint of the job that it belongs to. */
export class SavedLatents {
  /** The latents so far by name, those of an interrupted run included. */
  readonly latents: Record<string, SavedClip>;
  readonly #path: string;
  readonly #digest: string;
  #saved = -Infinity;

  /** Reads what is there. @param store A job that has begun. */
  constructor(store: PartStore) {
    [this.#path, this.#digest] = [store.part(STATE_FILE), store.digest];
    this.latents = this.#load();
  }

  #load(): Record<string, SavedClip> {
    if (!isFile(this.#path)) return {};
    using file = openSafetensors(this.#path);
    if (file.metadata.fingerprint !== this.#digest) return {};
    return Object.fromEntries(
      [...file.tensors].map(([name, t]) => [name, { values: toFloat32(t.read()).slice(), shape: t.shape }]),
    );
  }

  /**
   * Writes latents, when the last save is a while ago.
   *
   * @param name Their name in the file.
   * @param values `[F, C, H, W]`; asked for only when they are written.
   * @param shape `[C, H, W]`.
   * @param now Writes them in any case, because the run is about to stop.
   */
  async save(
    name: string,
    values: () => Float32Array,
    shape: readonly number[],
    now: boolean,
  ): Promise<void> {
    if (performance.now() - this.#saved < BETWEEN_SAVES && !now) return;
    const all = values(), [C, H, W] = shape;
    this.latents[name] = { values: all, shape: [all.length / (C * H * W), C, H, W] };
    const tensors = Object.entries(this.latents).map(([name, { values, shape }]) =>
      [name, fromFloat32(values, shape)] as const
    );
    await writeSafetensors(this.#path, Object.fromEntries(tensors), { fingerprint: this.#digest });
    this.#saved = performance.now();
  }
}
