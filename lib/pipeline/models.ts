/**
 * Choosing models by name, file or training run, and where their weights come from.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { DCAE_MODELS, type DcaeConfig, dcaeConfig, dcaeShapes, downsampling } from "../dcae/config.ts";
import { FAR_MODELS, type FarConfig, farConfig, farShapes } from "../far/config.ts";
import { FileFormatError } from "../io/errors.ts";
import { openTensorFile } from "../io/open.ts";
import { isThere } from "../io/paths.ts";
import { stateDict } from "../io/state_dict.ts";
import { readJsonObject } from "../io/text.ts";
import { fileWeights, type Part, randomWeights, type Weights, type WeightType } from "./weights.ts";
import { didYouMean } from "../nearest.ts";
import { optionsDcaeConfig } from "../train/options.ts";
import type { Shape } from "../tensor.ts";
import { ChoiceError } from "./choice.ts";
import { BUNDLED, bundledFile, type Card, FIRST_BUNDLED } from "./bundled.ts";
import { isRun, openRun, runAutoencoder, runFarConfig, type TrainedRun } from "./trained_run.ts";
import { checkpointPath } from "./zoo.ts";

const NAMES = Object.keys(BUNDLED);

/** Choice of the models and of their weights. */
export interface ModelChoice {
  /** Transformer: a bundled model, one of {@linkcode FAR_MODELS}, a JSON file with the authors' keys, or a training run. Default: the bundled one. */
  readonly model?: string;
  /**
   * Its checkpoint (safetensors or `.pth`), or the name of a pulled one; that of the bundled model unless given. Of a training
   * run `ema` (unless given) for the averaged weights of its newest checkpoint, or `raw` for those of the last step.
   */
  readonly weights?: string;
  /** Autoencoder: a bundled one, one of {@linkcode DCAE_MODELS}, a JSON file, or a run. Default: that of the model, else 8x. */
  readonly vae?: string;
  /** Its checkpoint, likewise. */
  readonly vaeWeights?: string;
  /** Dictionary to take from a nested checkpoint of the transformer, such as `params_ema`. */
  readonly entry?: string;
  /** Takes random weights where no checkpoint is given. */
  readonly randomWeights?: boolean;
  /** Storage of weights; f32 unless given. */
  readonly dtype?: WeightType;
  /** Actions that a transformer with random weights knows. */
  readonly actionClasses?: number;
  /** Frames of the short-term window (FAR-Long), instead of the configuration's. */
  readonly window?: number;
}

/** A configuration by name, of a training run, or out of a JSON file: `{"type": …, "config": {…}}` or the keys alone. */
export function resolveFar(given: string, more: Record<string, unknown>): FarConfig {
  if (BUNDLED[given]) return resolveFar(bundledFile(given, "far", "config"), more);
  if (FAR_MODELS[given]) return farConfig(given, more);
  if (isRun(given)) return runFarConfig(openRun(given, "FARTrainer"), more);
  if (!/\.json$/i.test(given)) {
    const known = [...NAMES, ...Object.keys(FAR_MODELS)];
    throw new ChoiceError(
      `{model}: expected ${known.join(", ")}, a JSON file or the folder of a training run, found ${given}${
        didYouMean(given, known)
      }`,
    );
  }
  const json = readJsonObject(given, "a model's keys");
  const type = json.type ?? json.model ?? "FAR";
  if (typeof type !== "string") throw new FileFormatError(given, `expected type to be a model's name`);
  return farConfig(type, { ...(json.config as Record<string, unknown> | undefined ?? json), ...more });
}

/** An autoencoder's properties before its weights are found. */
interface DcaeSource {
  readonly name: string;
  readonly config: DcaeConfig;
  /** Checkpoint that belongs to it. */
  readonly checkpoint?: string;
  readonly side?: number;
  readonly card?: Card;
  /** The training run that it is. */
  readonly run?: TrainedRun;
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
    return { name, config: optionsDcaeConfig(run.options)!, checkpoint: run.weights, side: run.side, run };
  }
  if (/\.json$/i.test(given)) {
    const json = readJsonObject(given, "a model's keys");
    return { name, config: dcaeConfig(json.config as Record<string, unknown> | undefined ?? json) };
  }
  const known = [...NAMES, ...Object.keys(DCAE_MODELS)];
  throw new ChoiceError(
    `{vae}: expected ${known.join(", ")}, a JSON file or the folder of a training run, found ${given}${
      didYouMean(given, known)
    }`,
  );
}

/** The autoencoder that is meant: the one that is named, else that of the model, else 8x. */
function dcaeOf({ vae, model = FIRST_BUNDLED }: Pick<ModelChoice, "vae" | "model">): DcaeSource {
  if (vae !== undefined) return resolveDcae(vae);
  if (BUNDLED[model]) return resolveDcae(model);
  if (FAR_MODELS[model] || !isRun(model)) return resolveDcae("8x");
  const run = openRun(model, "FARTrainer"), { config, weights } = runAutoencoder(model, run);
  return { name: `DC-AE of ${model}`, config, checkpoint: weights, side: run.side };
}

/** The training run that a transformer is, if it is one. */
const farRun = (model: string): TrainedRun | undefined =>
  BUNDLED[model] || FAR_MODELS[model] || !isRun(model) ? undefined : openRun(model, "FARTrainer");

/** The checkpoint that belongs to a transformer. */
const farCheckpoint = (model: string): string | undefined =>
  BUNDLED[model] ? bundledFile(model, "far", "weights") : farRun(model)?.weights;

/**
 * The checkpoint that a caller named: a path, a pulled one, or `ema` or `raw` for one of the two of a training run.
 *
 * @param given What was named.
 * @param run The run, where the model is one.
 * @param option Name of the option, for the message.
 */
function namedWeights(given: string, run: TrainedRun | undefined, option: string): string {
  if (given !== "ema" && given !== "raw" || run === undefined && isThere(given)) return checkpointPath(given);
  if (run === undefined) {
    throw new ChoiceError(`{${option}}: ${given} names weights of a training run, and the model is none`);
  }
  const file = run.checkpoint[given];
  if (file === undefined) {
    throw new ChoiceError(
      `{${option}}: the newest checkpoint has no averaged weights, expected raw: ${run.checkpoint.raw}`,
    );
  }
  return file;
}

function weightsOf(
  what: string,
  option: string,
  path: string | undefined,
  chosen: Pick<ModelChoice, "randomWeights" | "dtype">,
  shapes: Readonly<Record<string, Shape>>,
  entry?: string,
): Weights {
  if (path !== undefined) return fileWeights(path, shapes, { entry, dtype: chosen.dtype });
  if (chosen.randomWeights) return randomWeights(shapes, chosen.dtype);
  throw withoutWeights([[what, option]]);
}

/** Says of all models that have no weights which options give them some. */
function withoutWeights(missing: readonly (readonly [what: string, option: string])[]): ChoiceError {
  const options = missing.map(([, option]) => `{${option}} FILE`).join(" and ");
  return new ChoiceError(
    `${missing.map(([what]) => what).join(" and ")} ${
      missing.length > 1 ? "have" : "has"
    } no weights: give ${options}, ` +
      "or {randomWeights} to try the program without a trained model",
  );
}

/**
 * Refuses a transformer and an autoencoder of which at least one has no weights.
 *
 * @throws {ChoiceError} Names all that are missing.
 */
export function requireWeights(chosen: ModelChoice): void {
  if (chosen.randomWeights) return;
  const { model = FIRST_BUNDLED } = chosen, vae = dcaeOf(chosen);
  const found = [
    [model, "weights", chosen.weights ?? farCheckpoint(model)],
    [vae.name, "vaeWeights", chosen.vaeWeights ?? vae.checkpoint],
  ] as const;
  const missing = found.filter(([, , file]) => file === undefined);
  if (missing.length > 0) throw withoutWeights(missing.map(([what, option]) => [what, option]));
}

/** Reads a model's condition off a checkpoint: the table of labels or actions has one row more than classes. */
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
 * The transformer that was chosen. The condition comes from the checkpoint; with random weights a FAR-Long knows actions, as
 * the authors' do.
 *
 * @param actions Largest action of the clip, if it has any.
 * @throws {ChoiceError} If the model is unknown or has no weights.
 */
export function chooseFar(chosen: ModelChoice, actions?: number): Part<FarConfig> {
  const { model = FIRST_BUNDLED, entry } = chosen, more: Record<string, unknown> = {};
  if (chosen.window !== undefined) more.short_term_ctx_winsize = chosen.window;
  const plain = resolveFar(model, more),
    own = chosen.randomWeights ? undefined : farCheckpoint(model),
    weights = chosen.weights === undefined ? own : namedWeights(chosen.weights, farRun(model), "weights");
  if (weights !== undefined) {
    Object.assign(more, conditionOf(weights, entry));
  } else if (plain.condition === null) {
    const classes = chosen.actionClasses ??
      (plain.long && actions !== undefined ? Math.max(4, actions + 1) : undefined);
    if (classes !== undefined) more.condition_cfg = { type: "action", num_action_classes: classes };
  }
  const config = resolveFar(model, more);
  return {
    name: model,
    config,
    weights: weightsOf(model, "weights", weights, chosen, farShapes(config), entry),
  };
}

/** An autoencoder with its weights. */
export interface Autoencoder extends Part<DcaeConfig> {
  /** Rows and columns of the frames that it was trained on, as far as that is known. */
  readonly side: number;
  /** Of a bundled autoencoder with its own weights. */
  readonly card?: Card;
}

/** The autoencoder that was chosen; see {@linkcode chooseFar}. */
export function chooseDcae(chosen: ModelChoice): Autoencoder {
  const { name, config, checkpoint, side = 8 * downsampling(config), card, run } = dcaeOf(chosen);
  const own = chosen.randomWeights ? undefined : checkpoint;
  const file = chosen.vaeWeights === undefined ? own : namedWeights(chosen.vaeWeights, run, "vaeWeights");
  return {
    name,
    config,
    side,
    card: file !== undefined && file === checkpoint ? card : undefined,
    weights: weightsOf(name, "vaeWeights", file, chosen, dcaeShapes(config)),
  };
}

/** A transformer and the autoencoder that it was trained on, on a device. */
export interface OpenModels {
  /** The device that computes. */
  readonly device: Device;
  /** Reason for the choice of this device. */
  readonly reason: string;
  /** The transformer. Its weights are on the device only while they are needed. */
  readonly far: Part<FarConfig>;
  /** The autoencoder, likewise. */
  readonly vae: Autoencoder;
}

/**
 * Checks that two models go together, and every name, shape and value of their weights, before long work starts.
 *
 * @throws {ChoiceError} If they do not go together.
 * @throws {FileFormatError} If a checkpoint does not fit; all that does not is named.
 */
export function verifyModels({ far, vae }: Pick<OpenModels, "far" | "vae">): void {
  if (far.config.inChannels !== vae.config.latentChannels) {
    throw new ChoiceError(
      `${far.name} takes latents of ${far.config.inChannels} channels, ${vae.name} makes ${vae.config.latentChannels}: ` +
        "choose another {vae}",
    );
  }
  far.weights.verify();
  vae.weights.verify();
}
