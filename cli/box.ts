/**
 * The models in the box: small ones whose weights lie in `models/`, so that every verb works on a fresh machine.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

/** Names of the models in the box; each is a transformer with the autoencoder that it was trained on. */
export const BOX: readonly string[] = ["world"];

/** Rows and columns of the frames that the models in the box were trained on. */
export const BOX_SIDE = 64;

/** What a model in the box consists of. */
export type BoxPart = "far" | "dcae";

/**
 * A file of a model in the box.
 *
 * @param name One of {@linkcode BOX}.
 * @param part The transformer or the autoencoder.
 * @param kind Its configuration (the authors' keys) or its weights.
 * @returns Its path, wherever the program was started.
 */
export function boxFile(name: string, part: BoxPart, kind: "config" | "weights"): string {
  const ending = kind === "config" ? "json" : "safetensors";
  return fileURLToPath(new URL(`../models/${name}/${part}.${ending}`, import.meta.url));
}
