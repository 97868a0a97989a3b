/**
 * Configurations of the DC-AE autoencoder, and the parameters that each one has.
 *
 * @module
 */
import { printable, show } from "../io/errors.ts";
import { didYouMean, named } from "../nearest.ts";
import { MOST_PARAMETERS } from "../params.ts";
import { type Shape, sizeOf } from "../tensor.ts";

/** One resolution of the encoder or decoder. */
export interface DcaeStage {
  /** Channels C. */
  readonly channels: number;
  /** Number of blocks; 0 leaves the stage empty. */
  readonly layers: number;
  /** Kind of its blocks. */
  readonly block: "ResBlock" | "EfficientViTBlock";
  /** Norm of the blocks (the encoder only has `rms_norm`). */
  readonly norm: "rms_norm" | "batch_norm";
  /** Activation of its residual blocks. */
  readonly act: "silu" | "relu";
  /** Kernel sizes of the multi-scale branches of the attention. */
  readonly multiscales: readonly number[];
}

/** A DC-AE: stages from the finest resolution to the coarsest. */
export interface DcaeConfig {
  /** Image channels. */
  readonly inChannels: number;
  /** Channels of a latent. */
  readonly latentChannels: number;
  /** Channels of an attention head. */
  readonly headDim: number;
  /** Factor that latents are multiplied with before the transformer sees them. */
  readonly scalingFactor: number;
  /** Stages of the encoder. */
  readonly encoder: readonly DcaeStage[];
  /** Stages of the decoder. */
  readonly decoder: readonly DcaeStage[];
}

/** Pixels per latent position along one axis: 8, 16 or 32 in the authors' models. */
export function downsampling(config: DcaeConfig): number {
  const halvings = config.encoder.slice(0, -1).filter((s) => s.layers > 0).length;
  return 2 ** (halvings + (config.encoder[0].layers > 0 ? 0 : 1));
}

const authors = (channels: number[], encoder: number[], decoder: number[]): DcaeConfig => {
  const stage = (layers: number[], decoding: boolean) =>
    channels.map((c, i): DcaeStage => ({
      channels: c,
      layers: layers[i],
      block: i < 3 ? "ResBlock" : "EfficientViTBlock",
      norm: decoding && i < 3 ? "batch_norm" : "rms_norm",
      act: decoding && i < 3 ? "relu" : "silu",
      multiscales: [],
    }));
  return {
    inChannels: 3,
    latentChannels: 32,
    headDim: 32,
    scalingFactor: 0.2889,
    encoder: stage(encoder, false),
    decoder: stage(decoder, true),
  };
};

/** The authors' autoencoders by downsampling factor. */
export const DCAE_MODELS: Readonly<Record<string, DcaeConfig>> = named({
  "8x": authors([128, 256, 512, 512], [0, 4, 8, 2], [0, 5, 10, 2]),
  "16x": authors([128, 256, 512, 512, 1024], [0, 4, 8, 2, 2], [0, 5, 10, 2, 2]),
  "32x": authors([128, 256, 512, 512, 1024, 1024], [0, 4, 8, 2, 2, 2], [0, 5, 10, 2, 2, 2]),
});

/** Bounds of the sizes; far beyond any model, far below what would keep a machine busy for nothing. */
const MOST_CHANNELS = 16384;
const MOST_LAYERS = 256;
const MOST_STAGES = 10;
const WIDEST_KERNEL = 31;

const KEYS = [
  "attention_head_dim",
  "decoder_act_fns",
  "decoder_block_out_channels",
  "decoder_block_types",
  "decoder_layers_per_block",
  "decoder_norm_types",
  "decoder_qkv_multiscales",
  "downsample_block_type",
  "encoder_block_out_channels",
  "encoder_block_types",
  "encoder_layers_per_block",
  "encoder_qkv_multiscales",
  "in_channels",
  "latent_channels",
  "scaling_factor",
  "upsample_block_type",
] as const;

/**
 * A configuration from the authors' model_cfg JSON (diffusers' `AutoencoderDC`).
 *
 * @throws {TypeError} On an unknown or missing key, or a value that no model of this family has.
 * @throws {RangeError} If the sizes do not fit each other.
 */
export function dcaeConfig(json: Readonly<Record<string, unknown>>): DcaeConfig {
  for (const key of Object.keys(json)) {
    if (!key.startsWith("_") && !(KEYS as readonly string[]).includes(key)) {
      throw new TypeError(`dcaeConfig: unknown key ${printable(key)}${didYouMean(key, KEYS)}`);
    }
  }
  const get = <T>(key: (typeof KEYS)[number], check: (v: unknown) => v is T, expected: string): T => {
    const value = json[key];
    if (!check(value)) {
      throw new TypeError(`dcaeConfig: ${key} is ${show(value)}, expected ${expected}`);
    }
    return value;
  };
  const whole = (least: number, most: number) => (v: unknown): v is number =>
    Number.isInteger(v) && (v as number) >= least && (v as number) <= most;
  const isFactor = (v: unknown): v is number => typeof v === "number" && v > 0 && v <= 1e6;
  const isKernel = (v: unknown): v is number => whole(1, WIDEST_KERNEL)(v) && v % 2 === 1;
  const list = <T>(check: (v: unknown) => v is T) => (v: unknown): v is T[] =>
    Array.isArray(v) && v.every(check);
  const oneOf = <T extends string>(...names: T[]) => (v: unknown): v is T => names.includes(v as T);
  get("downsample_block_type", oneOf("pixel_unshuffle"), '"pixel_unshuffle"');
  get("upsample_block_type", oneOf("pixel_shuffle"), '"pixel_shuffle"');
  const side = (name: "encoder" | "decoder"): DcaeStage[] => {
    const channels = get(
      `${name}_block_out_channels`,
      list(whole(1, MOST_CHANNELS)),
      `a list of whole numbers from 1 to ${MOST_CHANNELS}`,
    );
    if (channels.length < 2 || channels.length > MOST_STAGES) {
      fail(`${name}_block_out_channels has ${channels.length} stages, expected 2 to ${MOST_STAGES}`);
    }
    const sized = <T>(check: (v: unknown) => v is T) => (v: unknown): v is T[] =>
      list(check)(v) && v.length === channels.length;
    const n = `a list of ${channels.length}`;
    const layers = get(
      `${name}_layers_per_block`,
      sized(whole(0, MOST_LAYERS)),
      `${n} whole numbers from 0 to ${MOST_LAYERS}`,
    );
    const blocks = get(
      `${name}_block_types`,
      sized(oneOf("ResBlock", "EfficientViTBlock")),
      `${n} of "ResBlock" or "EfficientViTBlock"`,
    );
    const multiscales = get(
      `${name}_qkv_multiscales`,
      sized(list(isKernel)),
      `${n} lists of odd numbers up to ${WIDEST_KERNEL}`,
    );
    const decoding = name === "decoder";
    const norms = decoding
      ? get(
        "decoder_norm_types",
        sized(oneOf("rms_norm", "batch_norm")),
        `${n} of "rms_norm" or "batch_norm"`,
      )
      : channels.map(() => "rms_norm" as const);
    const acts = decoding
      ? get("decoder_act_fns", sized(oneOf("silu", "relu")), `${n} of "silu" or "relu"`)
      : channels.map(() => "silu" as const);
    return channels.map((c, i) => ({
      channels: c,
      layers: layers[i],
      block: blocks[i],
      norm: norms[i],
      act: acts[i],
      multiscales: multiscales[i],
    }));
  };
  const config: DcaeConfig = {
    inChannels: get("in_channels", whole(1, 64), "a whole number from 1 to 64"),
    latentChannels: get(
      "latent_channels",
      whole(1, MOST_CHANNELS),
      `a whole number from 1 to ${MOST_CHANNELS}`,
    ),
    headDim: get("attention_head_dim", whole(1, 1024), "a whole number from 1 to 1024"),
    scalingFactor: get("scaling_factor", isFactor, "a number above 0"),
    encoder: side("encoder"),
    decoder: side("decoder"),
  };
  checkConfig(config);
  return config;
}

const fail = (detail: string): never => {
  throw new RangeError(`dcaeConfig: ${detail}`);
};

/** Whether the stages fit each other, and what they read and write. */
function checkConfig(config: DcaeConfig): void {
  const { encoder, decoder, headDim, latentChannels } = config, top = encoder.length - 1;
  if (decoder.length !== encoder.length) {
    fail(`the decoder has ${decoder.length} stages, expected as many as the encoder, ${encoder.length}`);
  }
  for (const [name, stages] of [["encoder", encoder], ["decoder", decoder]] as const) {
    const empty = stages.findIndex(({ layers }, i) => i > 0 && layers === 0);
    if (empty > 0) {
      fail(
        `${name}_layers_per_block has 0 at stage ${empty}, expected at least 1: only the finest stage may be empty`,
      );
    }
    const narrow = stages.find(({ block, channels }) => block === "EfficientViTBlock" && channels < headDim);
    if (narrow !== undefined) {
      fail(
        `attention_head_dim is ${headDim}, expected at most the ${narrow.channels} channels of every attention stage`,
      );
    }
    if (stages[top].channels % latentChannels !== 0) {
      fail(
        `latent_channels is ${latentChannels}, expected a divisor of the ${name}'s ${
          stages[top].channels
        } channels`,
      );
    }
  }
  if ((encoder[0].layers === 0) !== (decoder[0].layers === 0)) {
    fail(
      "encoder and decoder have other numbers of resolutions: the finest stage is empty in one of them only",
    );
  }
  // Unshuffling pixels makes four channels of one.
  const odd = encoder.find(({ channels }, i) => i > 0 && channels % 4 !== 0);
  if (odd !== undefined) {
    fail(`encoder_block_out_channels has ${odd.channels}, expected multiples of 4 behind the first`);
  }
  const parameters = Object.values(dcaeShapes(config)).reduce((n, shape) => n + sizeOf(shape), 0);
  if (parameters > MOST_PARAMETERS) {
    fail(`all sizes together give ${parameters} parameters, expected at most ${MOST_PARAMETERS}`);
  }
}

/** Every tensor of a model by the authors' state-dict name (batch-norm statistics included), with its shape. */
export function dcaeShapes(config: DcaeConfig): Record<string, Shape> {
  const shapes: Record<string, Shape> = {};
  const conv = (name: string, o: number, i: number, k: number, bias = true) => {
    shapes[`${name}.weight`] = [o, i, k, k];
    if (bias) shapes[`${name}.bias`] = [o];
  };
  const norm = (name: string, c: number, kind: DcaeStage["norm"]) => {
    shapes[`${name}.weight`] = [c];
    shapes[`${name}.bias`] = [c];
    if (kind === "batch_norm") {
      shapes[`${name}.running_mean`] = [c];
      shapes[`${name}.running_var`] = [c];
      shapes[`${name}.num_batches_tracked`] = [];
    }
  };
  const block = (name: string, stage: DcaeStage) => {
    const c = stage.channels;
    if (stage.block === "ResBlock") {
      conv(`${name}.conv1`, c, c, 3);
      conv(`${name}.conv2`, c, c, 3, false);
      norm(`${name}.norm`, c, stage.norm);
      return;
    }
    const inner = Math.floor(c / config.headDim) * config.headDim;
    for (const to of ["to_q", "to_k", "to_v"]) shapes[`${name}.attn.${to}.weight`] = [inner, c];
    stage.multiscales.forEach((k, i) => {
      conv(`${name}.attn.to_qkv_multiscale.${i}.proj_in`, 3 * inner, 1, k, false);
      conv(`${name}.attn.to_qkv_multiscale.${i}.proj_out`, 3 * inner, config.headDim, 1, false);
    });
    shapes[`${name}.attn.to_out.weight`] = [c, inner * (1 + stage.multiscales.length)];
    norm(`${name}.attn.norm_out`, c, stage.norm);
    conv(`${name}.conv_out.conv_inverted`, 8 * c, c, 1);
    conv(`${name}.conv_out.conv_depth`, 8 * c, 1, 3);
    conv(`${name}.conv_out.conv_point`, c, 4 * c, 1, false);
    norm(`${name}.conv_out.norm`, c, "rms_norm");
  };
  const { encoder, decoder } = config, top = encoder.length - 1;

  if (encoder[0].layers > 0) conv("encoder.conv_in", encoder[0].channels, config.inChannels, 3);
  else conv("encoder.conv_in.conv", encoder[1].channels / 4, config.inChannels, 3);
  encoder.forEach((stage, i) => {
    for (let j = 0; j < stage.layers; j++) block(`encoder.down_blocks.${i}.${j}`, stage);
    if (i < top && stage.layers > 0) {
      conv(`encoder.down_blocks.${i}.${stage.layers}.conv`, encoder[i + 1].channels / 4, stage.channels, 3);
    }
  });
  conv("encoder.conv_out", config.latentChannels, encoder[top].channels, 3);

  conv("decoder.conv_in", decoder[top].channels, config.latentChannels, 3);
  decoder.forEach((stage, i) => {
    const up = i < top && stage.layers > 0 ? 1 : 0;
    if (up) conv(`decoder.up_blocks.${i}.0.conv`, 4 * stage.channels, decoder[i + 1].channels, 3);
    for (let j = 0; j < stage.layers; j++) block(`decoder.up_blocks.${i}.${j + up}`, stage);
  });
  const outer = decoder[0].layers > 0 ? decoder[0].channels : decoder[1].channels;
  norm("decoder.norm_out", outer, "rms_norm");
  if (decoder[0].layers > 0) conv("decoder.conv_out", config.inChannels, outer, 3);
  else conv("decoder.conv_out.conv", 4 * config.inChannels, outer, 3);
  return shapes;
}
