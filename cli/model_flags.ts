/**
 * Flags that choose models.
 *
 * @module
 */
import { DCAE_MODELS } from "../lib/dcae/config.ts";
import { FAR_MODELS } from "../lib/far/config.ts";
import { BUNDLED, FIRST_BUNDLED } from "../lib/pipeline/bundled.ts";
import type { ModelChoice } from "../lib/pipeline/models.ts";
import { choice, integer, path, real, text, toggle, type Values } from "./args.ts";

const NAMES = Object.keys(BUNDLED);

/** Flags that choose the models. */
export const modelFlags = {
  model: text(
    `${NAMES.join(", ")} (bundled, with weights), ${
      Object.keys(FAR_MODELS).join(", ")
    }, a JSON file with the authors' ` +
      "keys (type and config), or a training run: its folder or its option file, with the weights of its newest checkpoint",
    { default: FIRST_BUNDLED, value: "NAME|FILE|RUN", file: true },
  ),
  weights: path(
    "checkpoint of the model (safetensors or pth), or the name of a pulled one; of a training run ema (default: weights " +
      "averaged over the steps, which predict better) or raw (those of the last step)",
    { value: "FILE|NAME|ema|raw" },
  ),
  vae: text(
    `autoencoder: ${NAMES.join(", ")} (bundled), ${
      Object.keys(DCAE_MODELS).join(", ")
    }, a JSON file with the authors' ` +
      "keys, or a run of train-vae (default: that of a bundled model or of the run, 8x for others)",
    { value: "NAME|FILE|RUN", file: true },
  ),
  "vae-weights": path(
    "checkpoint of the autoencoder (safetensors or pth), or the name of a pulled one; of a run of train-vae ema " +
      "(default) or raw",
    { value: "FILE|NAME|ema|raw" },
  ),
  entry: text("dictionary to take from a nested checkpoint of the model, such as params_ema"),
  "random-weights": toggle("use random weights where no checkpoint is given; stamped on every output"),
  dtype: choice(["f32", "f16"], "how weights are stored; arithmetic is f32", { default: "f32" }),
  "action-classes": integer("actions that a model with random weights knows", { min: 1, max: 65536 }),
  window: integer("frames of the short-term window (FAR-Long)", { min: 1, max: 4096 }),
};

/** Flags that choose an autoencoder alone. */
export const vaeFlags = {
  vae: modelFlags.vae,
  "vae-weights": modelFlags["vae-weights"],
  "random-weights": modelFlags["random-weights"],
  dtype: modelFlags.dtype,
};

/** Flags of the sampler. */
export const samplerFlags = {
  steps: integer("Euler steps per frame", { default: 50, min: 1, max: 1000 }),
  guidance: real("classifier-free guidance: above 1 guides, -1 drops every condition", {
    default: 1,
    min: -1,
    max: 100,
  }),
  seed: integer("seed of the noise", { default: 0, min: 0 }),
};

/** The models that flags mean. */
export const modelChoice = (flags: Partial<Values<typeof modelFlags>>): ModelChoice => ({
  model: flags.model,
  weights: flags.weights,
  vae: flags.vae,
  vaeWeights: flags["vae-weights"],
  entry: flags.entry,
  randomWeights: flags["random-weights"],
  dtype: flags.dtype,
  actionClasses: flags["action-classes"],
  window: flags.window,
});
