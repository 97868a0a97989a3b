/**
 * A training run as the model of a command: its configuration, its autoencoder and its newest weights.
 *
 * @module
 */
import type { DcaeConfig } from "../dcae/config.ts";
import { type FarConfig, farConfig } from "../far/config.ts";
import { isFile, isFolder } from "../io/paths.ts";
import { readJsonObject } from "../io/text.ts";
import { listSteps } from "../io/run_folder.ts";
import type { YamlValue } from "../io/yaml.ts";
import { optionsDcaeConfig, parseOptions, readOptions, type TrainOptions } from "../train/options.ts";
import { ChoiceError } from "./choice.ts";

const OPTION_FILE = /\.ya?ml$/i;

/** Whether `--model` or `--vae` names a training run: its folder, or the option file of a run in `out/train`. */
export const isRun = (given: string): boolean => OPTION_FILE.test(given) || isFolder(given);

/** Models and weights of a training run, for the other verbs. */
export interface TrainedRun {
  readonly options: TrainOptions;
  /** Files of the newest checkpoint: weights averaged over the steps, where an average was kept, and those of the last step. */
  readonly checkpoint: { readonly ema?: string; readonly raw: string };
  /** The averaged ones where there are any, else the raw ones. */
  readonly weights: string;
  /** Rows and columns of the frames that it was trained on, where the options say. */
  readonly side?: number;
}

function optionsOf(folder: string): TrainOptions {
  const file = `${folder}/options.json`;
  if (!isFile(file)) {
    throw new ChoiceError(
      `${folder}: is a folder without options.json, expected the folder of a training run (far.ts train)`,
    );
  }
  return parseOptions(readJsonObject(file) as YamlValue);
}

/**
 * Opens a training run.
 *
 * Averaged weights (`ema.safetensors`) are what the authors sample from, and what `weights` of the result names; without
 * `train.ema_decay` there are only the raw ones.
 *
 * @param given Its folder, or an option file, whose run is looked for in `out/train/NAME`.
 * @param pipeline What it must have trained.
 * @throws {ChoiceError} If it is no run, trained something else, or has no checkpoint yet.
 */
export function openRun(given: string, pipeline: TrainOptions["train"]["train_pipeline"]): TrainedRun {
  const folder = OPTION_FILE.test(given)
    ? `out/train/${readOptions(given).name}`
    : given.replace(/[/\\]+$/, "");
  if (OPTION_FILE.test(given) && !isFolder(folder)) {
    throw new ChoiceError(
      `${given}: its run is not at ${folder}; train it first (far.ts train --config ${given}), or name the run's folder`,
    );
  }
  const options = optionsOf(folder), found = options.train.train_pipeline;
  if (found !== pipeline) {
    throw new ChoiceError(
      pipeline === "FARTrainer"
        ? `${folder}: is the run of an autoencoder, expected one of a transformer; {vae} takes it`
        : `${folder}: is the run of a transformer, expected one of an autoencoder; {model} takes it`,
    );
  }
  const newest = listSteps(`${folder}/checkpoints`).at(-1);
  if (newest === undefined) {
    throw new ChoiceError(
      `${folder}: has no checkpoint yet; far.ts train writes one every logger.save_checkpoint_freq ` +
        `(${options.logger.save_checkpoint_freq}) steps and at the end`,
    );
  }
  const averaged = `${newest.path}/ema.safetensors`, raw = `${newest.path}/model.safetensors`;
  const checkpoint = { ...(isFile(averaged) ? { ema: averaged } : {}), raw };
  const size = options.datasets.train.data_cfg.resolution;
  return {
    options,
    checkpoint,
    weights: checkpoint.ema ?? raw,
    side: typeof size === "number" ? size : undefined,
  };
}

/** The transformer of a run, with keys of its configuration replaced. */
export function runFarConfig({ options }: TrainedRun, more: Record<string, unknown>): FarConfig {
  const { type, config } = options.models.model_cfg.transformer!.init_cfg;
  return farConfig(type, { ...config as Record<string, unknown>, ...more });
}

/**
 * The autoencoder that a run of a transformer was trained with.
 *
 * @throws {ChoiceError} If it was trained on pixels.
 */
export function runAutoencoder(
  given: string,
  { options }: TrainedRun,
): { readonly config: DcaeConfig; readonly weights: string | undefined } {
  const config = optionsDcaeConfig(options);
  if (config === null) {
    throw new ChoiceError(
      `${given}: was trained on pixels (models.model_cfg.vae is null), expected a run on latents of an autoencoder; ` +
        "samples of a run on pixels are in its folder samples/",
    );
  }
  return { config, weights: options.models.model_cfg.vae!.from_config_pretrained ?? undefined };
}
