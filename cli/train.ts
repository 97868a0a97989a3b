/**
 * `far.ts train`: trains a model as an option file says.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { countParameters, farShapes } from "../lib/far/config.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { listSteps } from "../lib/io/run_folder.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import { stepCost } from "../lib/train/cost.ts";
import { optionsDcaeConfig, optionsTrainer, readOptions, type TrainOptions } from "../lib/train/options.ts";
import { OptionError } from "../lib/train/schema.ts";
import { trainRun, type Validation } from "../lib/train/run.ts";
import { DataSource } from "../lib/train/source.ts";
import type { BatchSource, TrainerConfig } from "../lib/train/trainer.ts";
import { type Call, choice, type Flags, path, texts, UsageError, type Values, verb } from "./args.ts";
import { type Codec, latentCodec, PIXELS } from "./codec.ts";
import { linearRate } from "./doctor.ts";
import { availableMemory, deviceFlags, openChosen, progressFlags } from "./flags.ts";
import { InterruptListener } from "./interrupt.ts";
import { videoEnding } from "./outputs.ts";
import { Progress, progressMode } from "./progress.ts";
import { bytes, duration, Interrupted } from "./report.ts";
import { openData } from "./train_data.ts";
import { TrainLine } from "./train_line.ts";
import { sampler } from "./train_samples.ts";

const flags = {
  config: path("option file (YAML), the authors' or one in the same schema"),
  set: texts("replace an option: train.optim_g.lr=3e-4; may be given several times", { value: "PATH=VALUE" }),
  out: path("folder of the run (default: out/train/NAME, with the name in the option file)"),
  init: path("checkpoint (safetensors or .pth) whose weights a new run starts from, as far as they match"),
  resume: choice(["auto", "never"], "go on with the run in the folder, or refuse a folder that has one", {
    default: "auto",
  }),
  format: choice(
    ["auto", "mp4", "gif", "webm"],
    "kind of the sample videos; auto is mp4 with ffmpeg, else gif",
    {
      default: "auto",
    },
  ),
  ...deviceFlags,
  ...progressFlags,
};

/** Batches of held-out clips, read once. */
async function validationOf(
  options: TrainOptions,
  config: TrainerConfig,
  codec: Codec,
  device: Device,
  folder: string,
  ending: string,
): Promise<Validation | undefined> {
  const { datasets: { sample }, val } = options;
  if (sample === null || val.val_freq === null) return undefined;
  const data = openData({ ...sample, split: "validation" }, "datasets.sample", config.seed);
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

/** Refuses what does not fit before it starts: bytes needed and available. */
function checkMemory(device: Device, config: TrainerConfig, shape: readonly number[]): void {
  const { model, checkpoint } = config, parameters = 4 * countParameters(farShapes(model));
  const { peakBytes } = stepCost(model, shape as Parameters<typeof stepCost>[1], {
    checkpoint,
    full: config.objective.videoDiT,
  });
  const states = (config.emaDecay === null ? 2 : 3) * parameters;
  const cpu = device.info.name === "cpu";
  const needed = cpu ? peakBytes : peakBytes + states; // the cpu device keeps moments and averages outside
  const limit = device.info.limits.maxBytes, available = availableMemory();
  const advice = "take a smaller model, fewer frames or clips a batch, or train.gradient_checkpointing=true";
  if (limit !== undefined && needed > limit) {
    throw new RangeError(
      `training needs ${bytes(needed)} of device memory, the ${device.info.name} device has ${
        bytes(limit)
      }: ${advice}`,
    );
  }
  if (cpu && available !== undefined && needed + states > available) {
    throw new RangeError(
      `training needs ${bytes(needed + states)} of memory, ${bytes(available)} are available: ${advice}`,
    );
  }
}

function codecOf(options: TrainOptions, device: Device): Codec {
  const config = optionsDcaeConfig(options), { vae } = options.models.model_cfg;
  if (config === null || vae === null) return PIXELS;
  const weights = vae.from_config_pretrained;
  if (weights === null) {
    throw new OptionError(
      "models.model_cfg.vae.from_config_pretrained: is missing, expected a checkpoint of the autoencoder " +
        "(or models.model_cfg.vae=null for pixels)",
    );
  }
  return latentCodec(device, config, weights);
}

/** Whole lines about what the initial weights matched. */
function describeMatch(
  file: string,
  match: { taken: readonly string[]; fresh: readonly string[]; unused: readonly string[] },
): string[] {
  const some = (names: readonly string[]) =>
    names.slice(0, 20).join(", ") + (names.length > 20 ? ` and ${names.length - 20} more` : "");
  return [
    `${file}: ${match.taken.length} parameters taken`,
    ...(match.fresh.length > 0 ? [`started fresh (${match.fresh.length}): ${some(match.fresh)}`] : []),
    ...(match.unused.length > 0
      ? [`not part of the model (${match.unused.length}): ${some(match.unused)}`]
      : []),
  ];
}

async function train(call: Call<Flags>): Promise<void> {
  const f = call.flags as Values<typeof flags>;
  if (f.config === undefined) throw new UsageError("far.ts train: expected --config FILE, found nothing");
  const options = readOptions(f.config, f.set);
  if (options.train.train_pipeline !== "FARTrainer") {
    throw new UsageError(`${f.config}: describes a ${options.train.train_pipeline}, expected a FARTrainer`);
  }
  const config = optionsTrainer(options), folder = f.out ?? `out/train/${options.name}`;
  if (f.resume === "never" && listSteps(`${folder}/checkpoints`).length > 0) {
    throw new UsageError(`${folder}: holds a run already: take another --out, or leave --resume never out`);
  }
  const progress = new Progress(progressMode(f)), total = options.train.total_iter;
  const data = openData(options.datasets.train, "datasets.train", config.seed);
  const initFile = f.init ?? options.models.model_cfg.transformer!.init_cfg.pretrained_path ??
    options.path.pretrain_network;
  using initial = initFile === null ? null : openTensorFile(initFile);

  const { device, reason } = await openChosen(f);
  try {
    progress.say(`device ${reason}`);
    if (options.mixed_precision !== "no") {
      progress.say(`mixed_precision ${options.mixed_precision}: computed in f32 here`);
    }
    const codec = codecOf(options, device);
    const source: BatchSource = new DataSource(data.set, data.options, codec.finish);
    const { shape } = await source.batch(0);
    checkMemory(device, config, shape);
    const ending = await videoEnding(f.format, (line) => progress.say(line));
    const validation = await validationOf(options, config, codec, device, folder, ending);
    const peak = 1e9 * await linearRate(device, undefined, 3);
    await writeAtomic(`${folder}/options.json`, JSON.stringify(options, null, 2) + "\n");
    const parameters = countParameters(farShapes(config.model));
    progress.say(
      `${options.name}: ${
        (parameters / 1e6).toFixed(1)
      } M parameters, batches of [${shape}], ${total} steps, ` +
        `${(peak / 1e9).toFixed(0)} GFLOP/s measured`,
    );
    using interrupt = new InterruptListener(
      (line) => progress.say(line),
      "finishing the step and saving a checkpoint",
    );
    using line = new TrainLine(progress, total);
    const start = performance.now();
    const end = await trainRun({
      device,
      config,
      source,
      folder,
      name: options.name,
      steps: total,
      logEvery: options.logger.print_freq,
      saveEvery: options.logger.save_checkpoint_freq,
      keep: options.logger.keep_checkpoints,
      validation,
      init: initial === null ? undefined : stateDict(initial).tensors,
      peak,
      onStart: ({ step, from, changes, match }) => {
        if (from) progress.say(`going on from ${from}, step ${step}`);
        for (const change of changes) progress.say(`  ${change}`);
        if (match) describeMatch(initFile!, match).forEach((text) => progress.say(text));
        progress.event("run", { folder, step, from, changes, match });
      },
      onStep: (p) => line.see(p),
      onValidation: (step, losses) => {
        const shown = Object.entries(losses).map(([name, loss]) =>
          `${name.replaceAll("_", " ")} ${loss.toFixed(4)}`
        );
        if (shown.length > 0) line.say(`step ${step + 1}: ${shown.join(", ")}`);
        progress.event("validation", { step, ...losses });
      },
      stop: () => interrupt.signal !== null,
    });
    line.say(
      `${end.step} steps, ${
        duration((performance.now() - start) / 1000)
      }: ${end.checkpoint}, ${folder}/loss.svg`,
    );
    progress.event("end", { ...end });
    if (!end.finished) {
      throw new Interrupted(interrupt.signal!, `${end.checkpoint} holds the run; the same command goes on`);
    }
  } finally {
    device.close();
  }
}

/** `far.ts train`. */
export const trainVerb = verb({
  name: "train",
  summary: "Train a model as an option file says; goes on where an earlier run stopped",
  about:
    "Reads the authors' option files as they are, and ones in the same schema with our additions (docs/training.md). The " +
    "folder of the run gets checkpoints, log.jsonl, TensorBoard event files, sample videos and loss.svg.\n\n" +
    "Ctrl-C finishes the step and saves a checkpoint; the same command then goes on, and so it does after a crash: the end " +
    "has the same bits as that of a run that was never interrupted.",
  flags,
  examples: [
    {
      does: "train a small model on pixels of the built-in world",
      line: "train --config experiments/configs/world_tiny.yml",
    },
    {
      does: "the authors' FAR-B-Long on latents, with less memory",
      line:
        "train --config train_FAR_B_Long_dmlab.yml --set train.gradient_checkpointing=true --set datasets.train.batch_size_per_gpu=1",
    },
  ],
  run: train,
});
