/**
 * The bundled models: small ones whose weights are in `models/`, so that every verb works on a fresh machine. Each has a
 * card that says what it was trained on and with which settings it works best.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import world from "../../models/world/card.json" with { type: "json" };
import { named } from "../nearest.ts";

/** Limits within which frames of the model's own kind were found to be. */
export interface KindBound {
  /** Holds for at least so many frames. */
  readonly frames: number;
  /** Least median PSNR of frames that went through the autoencoder, in dB. */
  readonly psnr: number;
  /** Largest root mean square of the scaled latents. */
  readonly rms: number;
}

/** Card of a bundled model: `models/NAME/card.json`. */
export interface Card {
  /** One line. */
  readonly about: string;
  /** Rows and columns of the frames that it was trained on. */
  readonly size: number;
  /** Meaning of its actions, by number. */
  readonly actions: readonly string[];
  /** Values of flags that are not given, by verb; `clip` stands for the operand. */
  readonly defaults: Readonly<Record<string, Readonly<Record<string, string | number>>>>;
  /** Kind of clips it was trained on, and bounds by which others are detected. */
  readonly kind: { readonly what: string; readonly bounds: readonly KindBound[] };
}

/** The bundled models by name; each is a transformer with the autoencoder that it was trained on. */
export const BUNDLED: Readonly<Record<string, Card>> = named({ world });

/** Name of the default one. */
export const FIRST_BUNDLED = "world";

/** Parts of a bundled model. */
export type BundledPart = "far" | "dcae";

/**
 * A file of a bundled model.
 *
 * @param name One of {@linkcode BUNDLED}.
 * @param part The transformer or the autoencoder.
 * @param kind Its configuration (the authors' keys) or its weights.
 * @returns Its path, wherever the program was started.
 */
export function bundledFile(name: string, part: BundledPart, kind: "config" | "weights"): string {
  const ending = kind === "config" ? "json" : "safetensors";
  return fileURLToPath(new URL(`../../models/${name}/${part}.${ending}`, import.meta.url));
}
