/**
 * `far.ts train`: trains a model as an option file says.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { dcaeShapes } from "../lib/dcae/config.ts";
import { countParameters, farShapes } from "../lib/far/config.ts";
import { stepCost } from "../lib/train/cost.ts";
import { stateBytes } from "../lib/train/half.ts";
import { optionsDcaeConfig, optionsTrainer, type TrainOptions } from "../lib/train/options.ts";
import { trainRun, type Validation } from "../lib/train/run.ts";
import { OptionError } from "../lib/train/schema.ts";
import { DataSource } from "../lib/train/source.ts";
import type { TrainerConfig } from "../lib/train/trainer.ts";
import { type Call, choice, type Flags, type Values, verb } from "./args.ts";
import { latentCodec, PIXELS, type TrainingCodec } from "../lib/pipeline/training_codec.ts";
import { fileWeights } from "../lib/pipeline/weights.ts";
import { videoEnding } from "../lib/pipeline/pictures.ts";
import { MEASURED_CLIPS, scaleAdvice } from "../lib/train/advice.ts";
import { type OpenData, openData, openHeldOut } from "./train_data.ts";
import { sampler } from "../lib/pipeline/train_samples.ts";
import { checkMemory, openRun, runTraining, trainingFlags } from "./training.ts";

const flags = {
  ...trainingFlags,
  format: choice(
    ["auto", "mp4", "gif", "webm"],
    "kind of the sample videos; auto is mp4",
    { default: "auto", presentation: true },
  ),
};

/** Batches of held-out clips, read once. */
async function validationOf(
  options: TrainOptions,
  config: TrainerConfig,
  data: OpenData | null,
  codec: TrainingCodec,
  device: Device,
  folder: string,
  ending: string,
): Promise<Validation | undefined> {
  const { val } = options;
  if (data === null || val.val_freq === null) return undefined;
  const source = new DataSource(data.set, data.options, codec.finish);
  const there = Math.ceil(data.set.length / data.options.batch);
  const batches = [];
  for (let i = 0; i < Math.min(val.val_batches, there); i++) batches.push(await source.batch(i));
  return {
    every: val.val_freq,
    batches,
    sample: sampler({ device, config, codec, batch: batches[0], options: val.sample_cfg, folder, ending }),
  };
}

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

async function train(call: Call<Flags>): Promise<void> {
  const f = call.flags as Values<typeof flags>;
  using opened = await openRun("train", f, "FARTrainer");
  const { options, folder } = opened, config = optionsTrainer(options);
  const data = openData(options.datasets.train, "datasets.train", config.seed),
    heldOut = openHeldOut(options);
  if ((config.objective.rolloutRatio ?? 0) > 0 && !data.set.rollouts) {
    throw new OptionError(
      `models.rollout_ratio: expected 0, for ${data.set.name} has no roll-outs (far.ts rollout makes them), found ` +
        config.objective.rolloutRatio,
    );
  }
  const initFile = f.init ?? options.models.model_cfg.transformer!.init_cfg.pretrained_path ??
    options.path.pretrain_network;
  const inputs = { declared: flags, initFile, data: { train: data, sample: heldOut } };
  await runTraining(f, opened, inputs, async ({ device, progress }) => {
    const codec = codecOf(options, device);
    const source = new DataSource(data.set, data.options, codec.finish);
    const { shape } = await source.batch(0), parameters = countParameters(farShapes(config.model));
    const { peakBytes } = stepCost(config.model, shape, {
      checkpoint: config.checkpoint,
      full: config.objective.videoDiT,
      dtype: config.dtype,
    });
    checkMemory(device, peakBytes, stateBytes(farShapes(config.model), config));
    const scaling = optionsDcaeConfig(options)?.scalingFactor;
    const warning = scaling && await scaleOf(source, scaling), ending = videoEnding(f.format);
    if (warning) progress.warn(warning);
    const validation = await validationOf(options, config, heldOut, codec, device, folder, ending);
    return { parameters, shape, run: (loop) => trainRun({ ...loop, config, source, validation }) };
  });
}

/** `far.ts train`. */
export const trainVerb = verb({
  name: "train",
  summary: "Train a model as an option file says; resumes where an earlier run stopped",
  about:
    "Reads the authors' option files as they are, and files in the same schema with our additions (docs/training.md). The " +
    "folder of the run gets checkpoints, log.jsonl, TensorBoard event files, sample videos and loss.svg. Afterwards " +
    "predict --model FOLDER takes its newest averaged weights, checkpoints/step-N/ema.safetensors; model.safetensors " +
    "beside it holds the raw ones of the last step. The last line of the run says which to use.\n\n" +
    "Ctrl-C finishes the step and saves a checkpoint; the same command then resumes the run, and so it does after a crash: the " +
    "end has the same bits as that of a run that was never interrupted. With other options, another device or other data it " +
    "is refused: it would be a different run (docs/training.md says what may be changed).",
  flags,
  examples: [
    {
      does: "train a small model on pixels of the built-in world",
      line: "train --config experiments/configs/world_tiny.yml",
    },
    {
      does: "train on your own folder of clips, holidays, with the bundled autoencoder",
      line:
        "train --config experiments/configs/own_clips.yml --set datasets.train.data_list=holidays --set datasets.sample.data_list=holidays",
    },
    {
      does: "the authors' FAR-B-Long on latents, with less memory",
      line:
        "train --config train_FAR_B_Long_dmlab.yml --set train.gradient_checkpointing=true --set datasets.train.batch_size_per_gpu=1",
    },
  ],
  run: train,
});
