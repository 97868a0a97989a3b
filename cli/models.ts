/**
 * Which models a verb uses, where their weights come from, and loading only what a stage needs.
 *
 * @module
 */
import { DCAE_MODELS, type DcaeConfig, dcaeConfig, dcaeShapes, downsampling } from "../lib/dcae/config.ts";
import { FAR_MODELS, type FarConfig, farConfig, farShapes } from "../lib/far/config.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import { readJsonObject } from "../lib/io/text.ts";
import { fileWeights, type Part, randomWeights, type Weights } from "../lib/pipeline/weights.ts";
import { didYouMean } from "../lib/nearest.ts";
import { optionsDcaeConfig } from "../lib/train/options.ts";
import type { Shape } from "../lib/tensor.ts";
import { choice, integer, path, text, toggle, UsageError } from "./args.ts";
import { BUNDLED, bundledFile, type Card, FIRST_BUNDLED } from "./bundled.ts";
import { isRun, openRun, runAutoencoder, runFarConfig } from "./trained_run.ts";
import { checkpointPath } from "./zoo.ts";

const NAMES = Object.keys(BUNDLED);

/** Which models to use. */
export const modelFlags = {
  model: text(
    `${NAMES.join(", ")} (bundled, with weights), ${
      Object.keys(FAR_MODELS).join(", ")
    }, a JSON file with the authors' ` +
      "keys (type and config), or a training run: its folder or its option file, with its newest averaged weights",
    { default: FIRST_BUNDLED, value: "NAME|FILE|RUN", file: true },
  ),
  weights: path(
    "checkpoint of the model (safetensors or pth), or the name of a pulled one; of a training run give " +
      "checkpoints/step-N/ema.safetensors: weights averaged over the steps (EMA), which predict better than the raw " +
      "ones of the last step in model.safetensors",
  ),
  vae: text(
    `autoencoder: ${NAMES.join(", ")} (bundled), ${
      Object.keys(DCAE_MODELS).join(", ")
    }, a JSON file with the authors' ` +
      "keys, or a run of train-vae (default: that of a bundled model or of the run, 8x for others)",
    { value: "NAME|FILE|RUN", file: true },
  ),
  "vae-weights": path(
    "checkpoint of the autoencoder (safetensors or pth), or the name of a pulled one; of a run of train-vae give " +
      "checkpoints/step-N/ema.safetensors",
  ),
  entry: text("dictionary to take from a nested checkpoint of the model, such as params_ema"),
  "random-weights": toggle("use random weights where no checkpoint is given; stamped on every output"),
  dtype: choice(["f32", "f16"], "how weights are stored; arithmetic is f32", { default: "f32" }),
  "action-classes": integer("actions that a model with random weights knows", { min: 1, max: 65536 }),
  window: integer("frames of the short-term window (FAR-Long)", { min: 1, max: 4096 }),
};

/** Values of {@linkcode modelFlags}. */
export interface ModelFlags {
  readonly model: string;
  readonly weights?: string;
  readonly vae?: string;
  readonly "vae-weights"?: string;
  readonly entry?: string;
  readonly "random-weights": boolean;
  readonly dtype: "f32" | "f16";
  readonly "action-classes"?: number;
  readonly window?: number;
}

/** A configuration by name, of a training run, or out of a JSON file: `{"type": …, "config": {…}}` or the keys alone. */
export function resolveFar(given: string, more: Record<string, unknown>): FarConfig {
  if (BUNDLED[given]) return resolveFar(bundledFile(given, "far", "config"), more);
  if (FAR_MODELS[given]) return farConfig(given, more);
  if (isRun(given)) return runFarConfig(openRun(given, "FARTrainer"), more);
  if (!/\.json$/i.test(given)) {
    const known = [...NAMES, ...Object.keys(FAR_MODELS)];
    throw new UsageError(
      `--model: expected ${known.join(", ")}, a JSON file or the folder of a training run, found ${given}${
        didYouMean(given, known)
      }`,
    );
  }
  const json = readJsonObject(given, "a model's keys");
  const type = json.type ?? json.model ?? "FAR";
  if (typeof type !== "string") throw new FileFormatError(given, `expected type to be a model's name`);
  return farConfig(type, { ...(json.config as Record<string, unknown> | undefined ?? json), ...more });
}

/** What is known about an autoencoder before its weights are looked for. */
interface DcaeSource {
  readonly name: string;
  readonly config: DcaeConfig;
  /** Checkpoint that belongs to it. */
  readonly checkpoint?: string;
  readonly side?: number;
  readonly card?: Card;
}

/** An autoencoder by name, of a training run, or out of a JSON file. */
export function resolveDcae(given: string): DcaeSource {
  const name = `DC-AE ${given}`, card = BUNDLED[given];
  if (DCAE_MODELS[given]) return { name, config: DCAE_MODELS[given] };
  if (card) {
    const { config } = resolveDcae(bundledFile(given, "dcae", "config"));
    return { name, config, checkpoint: bundledFile(given, "dcae", "weights"), side: card.size, card };
  }
  if (isRun(given)) {
    const run = openRun(given, "DCAETrainer");
    return { name, config: optionsDcaeConfig(run.options)!, checkpoint: run.weights, side: run.side };
  }
  if (/\.json$/i.test(given)) {
    const json = readJsonObject(given, "a model's keys");
    return { name, config: dcaeConfig(json.config as Record<string, unknown> | undefined ?? json) };
  }
  const known = [...NAMES, ...Object.keys(DCAE_MODELS)];
  throw new UsageError(
    `--vae: expected ${known.join(", ")}, a JSON file or the folder of a training run, found ${given}${
      didYouMean(given, known)
    }`,
  );
}

/** The autoencoder that flags mean: the one that is named, else that of the model, else 8x. */
function dcaeOf({ vae, model = FIRST_BUNDLED }: Partial<Pick<ModelFlags, "vae" | "model">>): DcaeSource {
  if (vae !== undefined) return resolveDcae(vae);
  if (BUNDLED[model]) return resolveDcae(model);
  if (FAR_MODELS[model] || !isRun(model)) return resolveDcae("8x");
  const run = openRun(model, "FARTrainer"), { config, weights } = runAutoencoder(model, run);
  return { name: `DC-AE of ${model}`, config, checkpoint: weights, side: run.side };
}

/** The checkpoint that belongs to a transformer. */
function farCheckpoint(model: string): string | undefined {
  if (BUNDLED[model]) return bundledFile(model, "far", "weights");
  return FAR_MODELS[model] || !isRun(model) ? undefined : openRun(model, "FARTrainer").weights;
}

function weightsOf(
  what: string,
  flag: string,
  path: string | undefined,
  flags: Pick<ModelFlags, "random-weights" | "dtype">,
  shapes: Readonly<Record<string, Shape>>,
  entry?: string,
): Weights {
  if (path !== undefined) {
    return fileWeights(checkpointPath(path), shapes, { entry, dtype: flags.dtype });
  }
  if (flags["random-weights"]) return randomWeights(shapes, flags.dtype);
  throw withoutWeights([[what, flag]]);
}

/** Says of all models that have no weights which flags give them some. */
function withoutWeights(missing: readonly (readonly [what: string, flag: string])[]): UsageError {
  const flags = missing.map(([, flag]) => `--${flag} FILE`).join(" and ");
  return new UsageError(
    `${missing.map(([what]) => what).join(" and ")} ${
      missing.length > 1 ? "have" : "has"
    } no weights: give ${flags}, ` +
      "or --random-weights to try the program without a trained model",
  );
}

/**
 * Refuses a transformer and an autoencoder of which at least one has no weights.
 *
 * @throws {UsageError} Names all that are missing.
 */
export function requireWeights(flags: ModelFlags): void {
  if (flags["random-weights"]) return;
  const vae = dcaeOf(flags);
  const found = [
    [flags.model, "weights", flags.weights ?? farCheckpoint(flags.model)],
    [vae.name, "vae-weights", flags["vae-weights"] ?? vae.checkpoint],
  ] as const;
  const missing = found.filter(([, , file]) => file === undefined);
  if (missing.length > 0) throw withoutWeights(missing.map(([what, flag]) => [what, flag]));
}

/** What a checkpoint says about a model's condition: the table of labels or actions has one row more than classes. */
function conditionOf(path: string, entry: string | undefined): Record<string, unknown> {
  using file = openTensorFile(path);
  const { tensors } = stateDict(file, entry);
  for (const type of ["action", "label"]) {
    const table = tensors.get(`${type}_embedder.embedding_table.weight`);
    if (!table) continue;
    const classes = table.shape[0] - 1;
    const key = type === "action" ? "num_action_classes" : "num_classes";
    return { condition_cfg: { type, [key]: classes } };
  }
  return {};
}

/**
 * The transformer that the flags name. The condition comes from the checkpoint; with random weights a FAR-Long knows
 * actions, as the authors' do.
 *
 * @param actions Largest action of the clip, if it has any.
 * @throws {UsageError} If the model is unknown or has no weights.
 */
export function chooseFar(flags: ModelFlags, actions?: number): Part<FarConfig> {
  const more: Record<string, unknown> = {};
  if (flags.window !== undefined) more.short_term_ctx_winsize = flags.window;
  const plain = resolveFar(flags.model, more),
    own = flags["random-weights"] ? undefined : farCheckpoint(flags.model),
    weights = flags.weights ?? own;
  if (weights !== undefined) {
    Object.assign(more, conditionOf(checkpointPath(weights), flags.entry));
  } else if (plain.condition === null) {
    const classes = flags["action-classes"] ??
      (plain.long && actions !== undefined ? Math.max(4, actions + 1) : undefined);
    if (classes !== undefined) more.condition_cfg = { type: "action", num_action_classes: classes };
  }
  const config = resolveFar(flags.model, more);
  const shapes = farShapes(config);
  return {
    name: flags.model,
    config,
    weights: weightsOf(flags.model, "weights", weights, flags, shapes, flags.entry),
  };
}

/** An autoencoder with its weights. */
export interface Autoencoder extends Part<DcaeConfig> {
  /** Rows and columns of the frames that it was trained on, as far as that is known. */
  readonly side: number;
  /** Of a bundled autoencoder with its own weights. */
  readonly card?: Card;
}

/** The autoencoder that the flags name; without a name that of the model, or 8x. See {@linkcode chooseFar}. */
export function chooseDcae(
  flags:
    & Pick<ModelFlags, "vae" | "vae-weights" | "random-weights" | "dtype">
    & Partial<Pick<ModelFlags, "model">>,
): Autoencoder {
  const { name, config, checkpoint, side = 8 * downsampling(config), card } = dcaeOf(flags);
  const own = flags["random-weights"] ? undefined : checkpoint, file = flags["vae-weights"] ?? own;
  return {
    name,
    config,
    side,
    card: file !== undefined && file === checkpoint ? card : undefined,
    weights: weightsOf(name, "vae-weights", file, flags, dcaeShapes(config)),
  };
}
