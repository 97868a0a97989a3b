/**
 * What an interrupted run leaves beside its result folder, so that the same command goes on where it stopped.
 *
 * @module
 */
import { writeAtomic } from "../lib/io/atomic.ts";
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { openSafetensors, writeSafetensors } from "../lib/io/safetensors.ts";

/** Latents by name, `[F, C, H, W]`. */
export type SavedLatents = Record<
  string,
  { readonly values: Float32Array; readonly shape: readonly number[] }
>;

/** State of a run in `OUT.part`: a fingerprint of everything that decides its result, and the latents made so far. */
export class RunState {
  /** The folder. */
  readonly folder: string;

  /**
   * @param out The result folder; the state lies beside it.
   * @param fingerprint Settings, models, clip and device; another fingerprint is another run.
   */
  constructor(out: string, readonly fingerprint: unknown) {
    this.folder = `${out.replace(/[/\\]+$/, "")}.part`;
  }

  /** The latents of an earlier run with the same fingerprint, or none. */
  load(): SavedLatents | null {
    try {
      const saved = Deno.readTextFileSync(`${this.folder}/settings.json`);
      if (saved !== this.#settings()) return null;
      using file = openSafetensors(`${this.folder}/latents.safetensors`);
      return Object.fromEntries(
        [...file.tensors].map(([name, t]) => [name, { values: toFloat32(t.read()).slice(), shape: t.shape }]),
      );
    } catch {
      return null; // none, or one that a crash left without its latents
    }
  }

  /** Saves the latents; a reader sees all of them or those before. */
  async save(latents: SavedLatents): Promise<void> {
    Deno.mkdirSync(this.folder, { recursive: true });
    await writeSafetensors(
      `${this.folder}/latents.safetensors`,
      Object.fromEntries(Object.entries(latents).map(([name, l]) => [name, fromFloat32(l.values, l.shape)])),
    );
    await writeAtomic(`${this.folder}/settings.json`, this.#settings());
  }

  /** Removes the state after the result stands. */
  remove(): void {
    try {
      Deno.removeSync(this.folder, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  #settings(): string {
    return JSON.stringify(this.fingerprint, null, 2) + "\n";
  }
}
