/**
 * Latents that a run has made so far, kept in its folder so that the same command resumes it.
 *
 * @module
 */
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { isFile } from "../lib/io/paths.ts";
import { openSafetensors, writeSafetensors } from "../lib/io/safetensors.ts";
import type { Job } from "./job.ts";

/** Latents by name, `[F, C, H, W]`. */
export type SavedLatents = Record<
  string,
  { readonly values: Float32Array; readonly shape: readonly number[] }
>;

/** The file under `part/`. */
export const STATE_FILE = "state.safetensors";

/** Milliseconds of work between two saves: a kill loses no more than that. */
const BETWEEN_SAVES = 1000;

/** The state of a run in one file, which carries the fingerprint of the run that it belongs to. */
export class RunState {
  /** The latents so far, those of an interrupted run included. */
  readonly latents: SavedLatents;
  readonly #path: string;
  readonly #job: Job;
  #saved = -Infinity;

  /** @param job A run that has begun. */
  constructor(job: Job) {
    this.#job = job;
    this.#path = job.folder.part(STATE_FILE);
    this.latents = this.#load();
  }

  #load(): SavedLatents {
    if (!isFile(this.#path)) return {};
    using file = openSafetensors(this.#path);
    if (file.metadata.fingerprint !== this.#job.digest) return {};
    return Object.fromEntries(
      [...file.tensors].map(([name, t]) => [name, { values: toFloat32(t.read()).slice(), shape: t.shape }]),
    );
  }

  /**
   * Writes latents, when the last save is a while ago or the user wants to stop.
   *
   * @param name Their name in the file.
   * @param values `[F, C, H, W]`; asked for only when they are written.
   * @param shape `[C, H, W]`.
   */
  async save(name: string, values: () => Float32Array, shape: readonly number[]): Promise<void> {
    if (performance.now() - this.#saved < BETWEEN_SAVES && !this.#job.interrupted) return;
    const all = values(), [C, H, W] = shape;
    this.latents[name] = { values: all, shape: [all.length / (C * H * W), C, H, W] };
    await writeSafetensors(
      this.#path,
      Object.fromEntries(
        Object.entries(this.latents).map(([name, l]) => [name, fromFloat32(l.values, l.shape)]),
      ),
      { fingerprint: this.#job.digest },
    );
    this.#saved = performance.now();
  }
}
