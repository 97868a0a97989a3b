/**
 * Option files of training runs: the authors' schema, with a few keys of our own.
 *
 * @module
 */
import { DCAE_MODELS, type DcaeConfig, dcaeConfig } from "../dcae/config.ts";
import { type FarConfig, farConfig } from "../far/config.ts";
import { readJsonObject } from "../io/text.ts";
import { parseYaml, readYaml, type YamlValue } from "../io/yaml.ts";
import type { WeightStorage } from "../params.ts";
import type { RateSchedule } from "./rate.ts";
import {
  type Field,
  file,
  fingerprintOf,
  flag,
  group,
  list,
  nullable,
  number,
  open,
  OptionError,
  optionsOf,
  presentation,
  segment,
  setPath,
  text,
  type ValueOf,
  whole,
  word,
} from "./schema.ts";
import type { FarTrainingConfig } from "./far_objective.ts";
import type { VaeTrainingConfig } from "./vae_objective.ts";

const dataset = (batch: number) =>
  group({
    /** Kind of data set; `lib/data` checks it. */
    type: text(),
    /** A list of clips, a folder or a file. */
    data_list: file(nullable(text())),
    split: nullable(text()),
    /** The data are latents from `far.ts encode`, not frames. */
    use_latent: flag(false),
    /** Keys of the reader. */
    data_cfg: open,
    /** Number of clips to use; null is all. */
    num_sample: nullable(whole(undefined, { min: 1 })),
    batch_size_per_gpu: whole(batch, { min: 1 }),
  });

const optimizer = group({
  type: word(["AdamW"], "AdamW"),
  lr: number(1e-4, { min: 0 }),
  weight_decay: number(0, { min: 0 }),
  betas: list(number(undefined, { min: 0, max: 1 }), [0.9, 0.999], 2),
});

const SCHEMA = group({
  /** Names the folder of the run. */
  name: presentation(segment()),
  manual_seed: whole(0),
  /** `fp16` and `bf16` both store the matrices as f16, from f32 masters; everything else is f32. */
  mixed_precision: word(["no", "fp16", "bf16"], "no"),
  datasets: group({ train: dataset(1), sample: nullable(dataset(1)) }),
  models: group({
    model_cfg: group({
      transformer: nullable(group({
        /** A diffusers folder; the authors' files leave it empty. */
        from_pretrained: nullable(text()),
        init_cfg: group({
          /** `FAR_B`, …, or `FAR` and `FAR_Long` with every size in `config`. */
          type: text(),
          config: open,
          pretrained_path: file(nullable(text())),
        }),
      })),
      /** Missing: the transformer works on pixels in -1 … 1. */
      vae: nullable(group({
        type: word(["MyAutoencoderDC"], "MyAutoencoderDC"),
        from_pretrained: nullable(text()),
        from_config: file(nullable(text())),
        from_config_pretrained: file(nullable(text())),
      })),
      scheduler: nullable(group({ from_pretrained: nullable(text()) })),
    }),
    clean_context_ratio: number(0.1, { min: 0, max: 1 }),
    weighting_scheme: word(["logit_normal", "uniform"], "logit_normal"),
    training_type: word(["base", "long_context"], "base"),
    /** Ours: the paper's baseline, one noise level per clip and full attention. */
    video_dit: flag(false),
    /** Ours: probability that a clip with a roll-out (far.ts rollout) takes its clean frames from it. */
    rollout_ratio: number(0, { min: 0, max: 1 }),
    /** Ours: which frames of such a clip's window are clean: the first ones, or random ones as in other clips. */
    rollout_clean: word(["first", "random"], "first"),
    /** Ours: share of the noisy frames that are pure noise, the level at which sampling begins. */
    pure_noise_ratio: number(0, { min: 0, max: 1 }),
    /** Ours: probability that a condition is dropped; the authors' embedders have 0.1 built in. */
    condition_dropout: number(0.1, { min: 0, max: 1 }),
    /** Of the autoencoder's training. */
    perceptual_weight: number(1, { min: 0 }),
    disc_weight: number(0.5, { min: 0 }),
    disc_start_iter: whole(100000),
  }),
  path: group({ pretrain_network: file(nullable(text())) }),
  train: group({
    train_pipeline: word(["FARTrainer", "DCAETrainer"], "FARTrainer"),
    optim_g: optimizer,
    optim_d: nullable(optimizer),
    /** Must be null: all parameters are trained. */
    param_names_to_optimize: nullable(list(text())),
    ema_decay: nullable(number(undefined, { min: 0, max: 1 })),
    /** `linear` and `cosine` fall to 0 at `total_iter`, after the warm-up. */
    lr_scheduler: word(["constant_with_warmup", "constant", "linear", "cosine"], "constant_with_warmup"),
    warmup_iter: whole(0),
    total_iter: whole(),
    max_grad_norm: nullable(number(undefined, { min: 0 })),
    /** Ours: batches per step. */
    gradient_accumulation: whole(1, { min: 1 }),
    /** Ours: recompute blocks in the backward pass, which takes a third more time and far less memory. */
    gradient_checkpointing: flag(false),
    /** Ours: consecutive steps with a loss or gradient that is not finite, after which the run ends. */
    non_finite_limit: whole(10, { min: 1 }),
  }),
  val: group({
    val_pipeline: presentation(nullable(text())),
    /** Steps between two validations; null is never. */
    val_freq: presentation(nullable(whole(undefined, { min: 1 }))),
    /** Ours: held-out batches whose loss is measured; one curve is one measure, so a resumed run keeps it. */
    val_batches: whole(4, { min: 1 }),
    sample_cfg: presentation(group({
      context_length: whole(0),
      unroll_length: whole(16, { min: 1 }),
      guidance_scale: number(1),
      num_inference_steps: whole(50, { min: 1 }),
      /** Latent height and width; the data decide, so it is only compared. */
      sample_size: nullable(whole(undefined, { min: 1 })),
      sample_trajectory_per_video: whole(1, { min: 1 }),
      use_kv_cache: flag(true),
      anno_context: flag(true),
    })),
    eval_cfg: presentation(group({ metrics: list(text(), []) })),
  }),
  logger: presentation(group({
    print_freq: whole(100, { min: 1 }),
    save_checkpoint_freq: whole(20000, { min: 1 }),
    /** Ours: number of checkpoints to keep. */
    keep_checkpoints: whole(3, { min: 1 }),
    /** Accepted and ignored: the run writes TensorBoard files. */
    use_wandb: flag(false),
  })),
});

/** A run's options with every default filled in. */
export type TrainOptions = ValueOf<typeof SCHEMA>;

/** One data set of the options. */
export type DatasetOptions = TrainOptions["datasets"]["train"];

/**
 * Checks the content of a YAML file and fills in defaults.
 *
 * @throws {OptionError} On an unknown key (with the nearest one), a missing one, or a value of the wrong type: its path.
 */
export function parseOptions(value: YamlValue): TrainOptions {
  const options = SCHEMA.read(value, "");
  const { param_names_to_optimize: names } = options.train;
  if (names !== null) {
    throw new OptionError(
      "train.param_names_to_optimize: expected null (all parameters are trained), found a list",
    );
  }
  const { transformer, vae } = options.models.model_cfg;
  if (options.train.train_pipeline === "FARTrainer" && transformer === null) {
    throw new OptionError("models.model_cfg.transformer: is missing, expected a mapping");
  }
  if (options.train.train_pipeline === "DCAETrainer" && vae === null) {
    throw new OptionError("models.model_cfg.vae: is missing, expected a mapping");
  }
  for (const [at, pretrained] of [["transformer", transformer], ["vae", vae]] as const) {
    if (pretrained?.from_pretrained) {
      throw new OptionError(
        `models.model_cfg.${at}.from_pretrained: expected null (diffusers folders are not read), found ` +
          `${pretrained.from_pretrained}`,
      );
    }
  }
  return options;
}

/** Every option of the schema by its path. */
export const TRAIN_OPTIONS: readonly (readonly [path: string, option: Field<unknown>])[] = optionsOf(SCHEMA);

/** Files and folders that options name, as they name them. */
export function optionFiles(options: TrainOptions): string[] {
  const found: string[] = [];
  fingerprintOf(SCHEMA, options, (path) => found.push(path));
  return found;
}

/**
 * The options that decide the bits of a run, by path; a resumed run must have the same. Options that the schema declares as presentation are not in it, nor is `train.total_iter` where the learning rate does not
 * depend on it: such a run may be made longer, and its steps are those of a run that was as long from the start.
 *
 * @param contentOf Identifies the content of a file or folder that an option names.
 */
export function optionsFingerprint(
  options: TrainOptions,
  contentOf: (path: string, option: string) => unknown,
): Record<string, unknown> {
  const { "train.total_iter": total, ...print } = fingerprintOf(SCHEMA, options, contentOf);
  return rateOf(options.train).decay ? { ...print, "train.total_iter": total } : print;
}

/**
 * Reads an option file, with values replaced as `--set path=value` says; a value is YAML.
 *
 * @param path The file.
 * @param sets `path=value`, later ones win.
 * @throws {OptionError} If an option does not fit: its path, expected, found.
 * @throws {FileFormatError} If the file is no YAML.
 */
export function readOptions(path: string, sets: readonly string[] = []): TrainOptions {
  let value: YamlValue = readYaml(path);
  for (const set of sets) {
    const at = set.indexOf("=");
    if (at < 1) throw new OptionError(`--set ${set}: expected path=value`);
    const name = set.slice(0, at);
    value = setPath(value, name, parseYaml(set.slice(at + 1), `--set ${name}`));
  }
  try {
    return parseOptions(value);
  } catch (error) {
    if (error instanceof OptionError) throw new OptionError(`${path}: ${error.message}`);
    throw error;
  }
}

/** Storage of matrices under these options. Devices have no bf16, and weights are far below the largest f16. */
const storage = ({ mixed_precision }: TrainOptions): WeightStorage =>
  mixed_precision === "no" ? {} : { dtype: "f16" };

/** The transformer that the options describe. */
export function optionsFarConfig(options: TrainOptions): FarConfig {
  const { type, config } = options.models.model_cfg.transformer!.init_cfg;
  return farConfig(type, config);
}

/**
 * The autoencoder that the options describe, or null for pixels. The authors' `model_8x_c32_config.json` and its like are
 * known by name where the file is not there; so are `8x`, `16x` and `32x`.
 *
 * @throws {OptionError} If it is neither a known name nor a readable file.
 */
export function optionsDcaeConfig(options: TrainOptions): DcaeConfig | null {
  const { vae } = options.models.model_cfg;
  if (vae === null) return null;
  const from = vae.from_config ?? "";
  const known = /(?:^|\/|model_)(\d+x)(?:_c32_config\.json)?$/.exec(from)?.[1] ?? "";
  if (DCAE_MODELS[known]) return DCAE_MODELS[known];
  if (from === "") {
    throw new OptionError(
      "models.model_cfg.vae.from_config: is missing, expected 8x, 16x, 32x or a JSON file",
    );
  }
  return dcaeConfig(readJsonObject(from));
}

/** Learning-rate schedule of the options. */
function rateOf({ lr_scheduler, warmup_iter, total_iter }: TrainOptions["train"]): RateSchedule {
  if (lr_scheduler === "constant") return { warmup: 0 };
  if (lr_scheduler === "constant_with_warmup") return { warmup: warmup_iter };
  return { warmup: warmup_iter, decay: { shape: lr_scheduler, until: total_iter } };
}

/** The training of FAR that the options describe. */
export function optionsTrainer(options: TrainOptions): FarTrainingConfig {
  const { models, train } = options, { optim_g } = train;
  const model = optionsFarConfig(options);
  if (models.training_type === "long_context" && models.video_dit) {
    throw new OptionError("models.video_dit: expected false with training_type long_context, found true");
  }
  return {
    model,
    ...storage(options),
    objective: {
      cleanContextRatio: models.clean_context_ratio,
      weighting: models.weighting_scheme,
      trainingType: models.training_type,
      conditionDropout: models.condition_dropout,
      videoDiT: models.video_dit,
      rolloutRatio: models.rollout_ratio,
      rolloutClean: models.rollout_clean,
      pureNoiseRatio: models.pure_noise_ratio,
    },
    lr: optim_g.lr,
    betas: [optim_g.betas[0], optim_g.betas[1]],
    weightDecay: optim_g.weight_decay,
    ...rateOf(train),
    maxGradNorm: train.max_grad_norm,
    emaDecay: train.ema_decay,
    accumulate: train.gradient_accumulation,
    checkpoint: train.gradient_checkpointing,
    seed: options.manual_seed,
    nonFiniteLimit: train.non_finite_limit,
  };
}

/**
 * The training of an autoencoder that the options describe.
 *
 * @param perceptual Whether LPIPS is part of the loss where the options give it a weight.
 */
export function optionsVaeTrainer(options: TrainOptions, perceptual: boolean): VaeTrainingConfig {
  const { models, train } = options, { optim_g, optim_d } = train;
  const rates = ({ lr, weight_decay, betas: [first, second] }: typeof optim_g) => ({
    lr,
    betas: [first, second] as const,
    weightDecay: weight_decay,
  });
  return {
    model: optionsDcaeConfig(options)!,
    ...storage(options),
    ...rates(optim_g),
    discriminator: rates(optim_d ?? optim_g),
    perceptualWeight: perceptual && models.perceptual_weight > 0 ? models.perceptual_weight : null,
    discriminatorWeight: models.disc_weight,
    discriminatorStart: models.disc_start_iter,
    ...rateOf(train),
    maxGradNorm: train.max_grad_norm,
    emaDecay: train.ema_decay,
    accumulate: train.gradient_accumulation,
    checkpoint: train.gradient_checkpointing,
    seed: options.manual_seed,
    nonFiniteLimit: train.non_finite_limit,
  };
}
