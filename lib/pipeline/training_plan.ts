/**
 * From an option file to something that can be trained: the objective, its data and its validation, for FAR and for the
 * autoencoder.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { dcaeShapes, downsampling } from "../dcae/config.ts";
import { countParameters, farShapes } from "../far/config.ts";
import { availableMemory } from "../io/environment.ts";
import { openTensorFile } from "../io/open.ts";
import { loadPerceptual } from "../metrics/perceptual.ts";
import { isBuffer } from "../params.ts";
import { MEASURED_CLIPS, scaleAdvice } from "../train/advice.ts";
import { stepCost } from "../train/cost.ts";
import type { TrainBatch } from "../train/far_loss.ts";
import { farObjective, farValidationLoss } from "../train/far_objective.ts";
import { memoryLoss } from "../train/memory.ts";
import { stateBytes } from "../train/half.ts";
import { type LoopOptions, type RunEnd, trainRun, type Validation } from "../train/run.ts";
import { optionsDcaeConfig, optionsTrainer, optionsVaeTrainer, type TrainOptions } from "../train/options.ts";
import { OptionError } from "../train/schema.ts";
import { DataSource, pixelsToInput } from "../train/source.ts";
import {
  reconstruct,
  vaeLossOptions,
  vaeObjective,
  vaePeakBytes,
  vaeValidationLoss,
} from "../train/vae_objective.ts";
import { bytes } from "../units.ts";
import { latentCodec, PIXELS, type TrainingCodec } from "./training_codec.ts";
import { heldOutBatches, type OpenData, openData, openHeldOut } from "./training_data.ts";
import { sampler, writeReconstructions } from "./training_samples.ts";
import { fileWeights } from "./weights.ts";

/** Where a plan is made. */
export interface PlanSetting {
  /** Device to train on. */
  readonly device: Device;
  /** The run's folder. */
  readonly folder: string;
  /** Tells a person something. */
  readonly say: (line: string) => void;
  /** Warns a person. */
  readonly warn: (line: string) => void;
}

/** A run that is ready to start. */
export interface TrainingPlan {
  /** Number of trained parameters of the model. */
  readonly parameters: number;
  /** Shape of a batch. */
  readonly shape: readonly number[];
  /** Trains until the end, or until it is stopped. */
  readonly start: (loop: LoopOptions) => Promise<RunEnd>;
}

/** An option file with its data sets, before a device is opened. */
export interface PlannedTraining {
  /** The options. */
  readonly options: TrainOptions;
  /** Clips to train on. */
  readonly train: OpenData;
  /** Held-out clips. */
  readonly heldOut: OpenData | null;
  /** Checkpoint that the options name to start from. */
  readonly initFile: string | null;
  /** Makes the objective; models are placed on the device. */
  readonly plan: (setting: PlanSetting) => Promise<TrainingPlan>;
}

/**
 * Refuses what does not fit before it starts: bytes needed and available.
 *
 * @param peakBytes Device memory of a step.
 * @param states Bytes of moments, averages and masters, which the cpu device can move to ordinary memory.
 */
function checkMemory(device: Device, peakBytes: number, states: number): void {
  const { name, limits: { maxBytes: limit } } = device.info, cpu = name === "cpu";
  const needed = cpu ? peakBytes : peakBytes + states, available = availableMemory();
  const advice =
    "take a smaller model, fewer frames or clips per batch, or train.gradient_checkpointing=true";
  if (limit !== undefined && needed > limit) {
    throw new RangeError(
      `training needs ${bytes(needed)} of device memory, the ${name} device has ${bytes(limit)}: ${advice}`,
    );
  }
  if (cpu && available !== undefined && needed + states > available) {
    throw new RangeError(
      `training needs ${bytes(needed + states)} of memory, ${bytes(available)} are available: ${advice}`,
    );
  }
}

const dataOf = (options: TrainOptions) => ({
  train: openData(options.datasets.train, "datasets.train", options.manual_seed),
  heldOut: openHeldOut(options),
});

function codecOf(options: TrainOptions, device: Device): TrainingCodec {
  const config = optionsDcaeConfig(options), { vae } = options.models.model_cfg;
  if (config === null || vae === null) return PIXELS;
  const weights = vae.from_config_pretrained;
  if (weights === null) {
    throw new OptionError(
      "models.model_cfg.vae.from_config_pretrained: is missing, expected a checkpoint of the autoencoder " +
        "(or models.model_cfg.vae=null for pixels)",
    );
  }
  return latentCodec(device, {
    name: "autoencoder",
    config,
    weights: fileWeights(weights, dcaeShapes(config)),
  });
}

/** A warning about the size of the first batches of scaled latents, or null. */
async function scaleOf(source: DataSource, factor: number): Promise<string | null> {
  const batches = [];
  for (let clips = 0; clips < MEASURED_CLIPS; clips += batches.at(-1)!.shape[0]) {
    batches.push(await source.batch(batches.length));
  }
  return scaleAdvice(batches, factor);
}

/**
 * Training of FAR.
 *
 * @param ending Kind of the sample videos: mp4, gif or webm.
 * @throws {OptionError} If options contradict each other or the data.
 */
export function planFar(options: TrainOptions, ending: string): PlannedTraining {
  const config = optionsTrainer(options), { train, heldOut } = dataOf(options);
  const { model, objective: { rolloutRatio = 0, videoDiT }, checkpoint, dtype } = config;
  if (rolloutRatio > 0 && !train.set.rollouts) {
    throw new OptionError(
      `models.rollout_ratio: expected 0, for ${train.set.name} has no roll-outs (far.ts rollout makes them), found ` +
        rolloutRatio,
    );
  }
  const { val, models, path } = options, shapes = farShapes(model);

  async function validationOf(device: Device, codec: TrainingCodec, folder: string) {
    if (heldOut === null || val.val_freq === null) return undefined;
    const batches = await heldOutBatches(heldOut, val.val_batches, codec.toModelInput);
    return {
      every: val.val_freq,
      measure: async (params) => {
        const memory = await memoryLoss(device, params, model, batches);
        return {
          validation_loss: await farValidationLoss(device, params, config, batches),
          ...(memory ? { distant_loss: memory.whole, distant_loss_window: memory.window } : {}),
        };
      },
      sample: sampler({ device, config, codec, batch: batches[0], options: val.sample_cfg, folder, ending }),
    } satisfies Validation;
  }

  async function plan({ device, folder, warn }: PlanSetting): Promise<TrainingPlan> {
    const codec = codecOf(options, device),
      source = new DataSource(train.set, train.options, codec.toModelInput);
    const { shape } = await source.batch(0);
    const { peakBytes } = stepCost(model, shape, { checkpoint, full: videoDiT, dtype });
    checkMemory(device, peakBytes, stateBytes(shapes, config));
    const scaling = optionsDcaeConfig(options)?.scalingFactor,
      warning = scaling && await scaleOf(source, scaling);
    if (warning) warn(warning);
    const validation = await validationOf(device, codec, folder);
    const objective = farObjective(device, config, source);
    return {
      parameters: countParameters(shapes),
      shape,
      start: (loop) => trainRun({ ...loop, objective, config, validation }),
    };
  }

  const initFile = models.model_cfg.transformer!.init_cfg.pretrained_path ?? path.pretrain_network;
  return { options, train, heldOut, initFile, plan };
}

/**
 * Training of the autoencoder.
 *
 * @param perceptual Files with the weights of LPIPS with VGG16; null trains without.
 * @throws {OptionError} If options contradict each other or the data.
 */
export function planVae(options: TrainOptions, perceptual: readonly string[] | null): PlannedTraining {
  const config = optionsVaeTrainer(options, perceptual !== null);
  if (options.datasets.train.use_latent) {
    throw new OptionError(
      "datasets.train.use_latent: expected false (the autoencoder is trained on frames), found true",
    );
  }
  const { train, heldOut } = dataOf(options), { val, models, path } = options;
  const trained = Object.fromEntries(
    Object.entries(dcaeShapes(config.model)).filter(([name]) => !isBuffer(name)),
  );

  function checkSize([, , , H, W]: TrainBatch["shape"]): void {
    const r = downsampling(config.model);
    if (H % r === 0 && W % r === 0) return;
    throw new OptionError(
      `datasets.train.data_cfg.resolution: expected a multiple of ${r}, found ${H}x${W}`,
    );
  }

  async function plan({ device, folder, say }: PlanSetting): Promise<TrainingPlan> {
    const source = new DataSource(train.set, train.options, pixelsToInput), { shape } = await source.batch(0);
    checkSize(shape);
    const peakBytes = await vaePeakBytes(config, shape, options.train.total_iter);
    checkMemory(device, peakBytes, stateBytes(trained, config));
    if (perceptual === null) say("loss: L1 without LPIPS, as told");
    const files = (perceptual ?? []).map(openTensorFile);
    try {
      const weights = perceptual && loadPerceptual(device, "vgg", files),
        loss = vaeLossOptions(config, weights);
      const batches = heldOut && val.val_freq !== null
        ? await heldOutBatches(heldOut, val.val_batches, pixelsToInput)
        : null;
      const validation: Validation | undefined = batches
        ? {
          every: val.val_freq!,
          measure: async (params) => ({
            validation_loss: await vaeValidationLoss(device, params, loss, batches),
          }),
          sample: async (params, step) =>
            await writeReconstructions(folder, await reconstruct(device, params, loss, batches[0]), step),
        }
        : undefined;
      const objective = vaeObjective(device, config, source, weights);
      return {
        parameters: countParameters(trained),
        shape,
        start: (loop) => trainRun({ ...loop, objective, config, validation }),
      };
    } finally {
      files.forEach((file) => file.close());
    }
  }

  const initFile = models.model_cfg.vae!.from_config_pretrained ?? path.pretrain_network;
  return { options, train, heldOut, initFile, plan };
}
