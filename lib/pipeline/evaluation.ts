/**
 * Predictions of held-out clips and their scores beside simple baselines: what `far.ts evaluate` computes.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { Batch } from "../data/batches.ts";
import type { FarConfig } from "../far/config.ts";
import { type DcaeConfig, downsampling } from "../dcae/config.ts";
import { pixelScores } from "../metrics/pixel.ts";
import { decodeImages, encodeImages } from "./codec.ts";
import { Rollout } from "./rollout.ts";
import type { Params } from "../params.ts";
import { dcaeCost, sampleCost, totalCost } from "./cost.ts";
import type { Part } from "./weights.ts";
import { costsOf, measureRates, sampleSeconds, secondsAt } from "./rates.ts";

/** Methods that are compared, by their names in results. `model` is what all others are compared with. */
export const METHODS = ["model", "short", "last", "mean", "autoencoder"] as const;

/** One of {@linkcode METHODS}. */
export type Method = typeof METHODS[number];

/** Names of the methods, in words. */
export function methodName(
  method: Method,
  { ctx, short }: { readonly ctx: number; readonly short: number },
): string {
  return {
    model: `the model, ${ctx} frames of context`,
    short: `the same model, the last ${short} of them`,
    last: "repeat the last frame",
    mean: "mean of the context",
    autoencoder: "the truth through the autoencoder",
  }[method];
}

/** Scores of one clip's predicted frames. */
export interface ClipScores {
  /** The file or walk. */
  readonly source: string;
  /** `[pred]` in dB, by method, at most {@linkcode MOST_PSNR}. */
  readonly psnr: Readonly<Record<Method, readonly number[]>>;
  /** `[pred]`, by method. */
  readonly ssim: Readonly<Record<Method, readonly number[]>>;
  /** Time of predicting and scoring it; a batch's time is divided evenly. */
  readonly seconds: number;
}

/** Frames of one clip as a method predicts them, `[pred, 3, H, W]`, 0 to 1. */
export type Predicted = Readonly<Record<Method, Float32Array>>;

/** Settings of the predictions. */
export interface Protocol {
  /** Frames of context. */
  readonly ctx: number;
  /** Frames that are predicted and scored. */
  readonly pred: number;
  /** Frames of context of the second row. */
  readonly short: number;
  /** Euler steps per frame. */
  readonly steps: number;
  /** Classifier-free guidance. */
  readonly guidance: number;
  /** Seed of the noise. */
  readonly seed: number;
}

/** The models on their device. */
export interface Loaded {
  readonly device: Device;
  readonly far: Part<FarConfig>;
  readonly vae: Part<DcaeConfig>;
  /** Parameters of the transformer. */
  readonly transformer: Params;
  /** Parameters of the whole autoencoder. */
  readonly autoencoder: Params;
}

/** Copies frames `from` to `to` - 1 of every clip of `[B, F, each]`. */
function cut(values: Float32Array, clips: number, from: number, to: number): Float32Array {
  const frames = values.length / clips, out = new Float32Array(clips * (to - from));
  for (let b = 0; b < clips; b++) {
    out.set(values.subarray(b * frames + from, b * frames + to), b * (to - from));
  }
  return out;
}

/** Colours 0 to 1 of decoded planes; what lies outside is clamped, as in a picture. */
const colours = (planes: Float32Array) => planes.map((v) => Math.min(1, Math.max(0, v / 2 + 0.5)));

/** The mean of frames `[F, each]`, or the last one, as often as there are frames to predict. */
function baselines(
  context: Float32Array,
  each: number,
  pred: number,
): { last: Float32Array; mean: Float32Array } {
  const F = context.length / each, last = new Float32Array(pred * each), mean = new Float32Array(pred * each);
  for (let i = 0; i < each; i++) {
    let sum = 0;
    for (let f = 0; f < F; f++) sum += context[f * each + i];
    for (let f = 0; f < pred; f++) {
      last[f * each + i] = context[(F - 1) * each + i];
      mean[f * each + i] = sum / F;
    }
  }
  return { last, mean };
}

/**
 * Predicts a batch of clips with every method.
 *
 * Noise is a function of seed, clip and frame, so both contexts see the same noise, and a clip's prediction does not depend on
 * its neighbours in the batch.
 *
 * @param onFrame Told after each frame of the batch, twice `pred` times.
 */
export async function predictBatch(
  loaded: Loaded,
  protocol: Protocol,
  batch: Batch,
  onFrame: () => Promise<void>,
): Promise<Predicted[]> {
  const { device, far, vae, transformer, autoencoder } = loaded, { ctx, pred, short } = protocol;
  const [B, F, , H, W] = batch.shape, image = 3 * H * W, scale = vae.config.scalingFactor;
  const planes = batch.data.map((v) => v * 2 - 1);
  const encoded = await encodeImages(device, vae.config, autoencoder, planes, [B * F, 3, H, W]);
  const [C, h, w] = encoded.shape, each = C * h * w, raw = encoded.values; // [B, F, C, h, w]
  const latents = raw.map((v) => v * scale);
  const toFrames = async (z: Float32Array) =>
    colours(await decodeImages(device, vae.config, autoencoder, z, [C, h, w]));

  const rollOut = async (given: number) => {
    const known = {
      label: batch.label,
      actions: batch.actions && sliceActions(batch.actions, B, ctx - given),
    };
    using run = new Rollout({ device, params: transformer, config: far.config }, {
      frameShape: [B, C, h, w],
      context: cut(latents, B, (ctx - given) * each, ctx * each),
      predict: pred,
      ...(far.config.condition ? known : {}),
      steps: protocol.steps,
      guidance: protocol.guidance,
      seed: protocol.seed,
      streams: batch.indices,
    });
    for await (const _ of run) await onFrame();
    const made = run.made.map((v) => v / scale); // [B, pred, C, h, w]
    return await toFrames(made); // [B, pred, 3, H, W]
  };

  const model = await rollOut(ctx), shorter = await rollOut(short);
  const through = await toFrames(cut(raw, B, ctx * each, F * each));
  return Array.from({ length: B }, (_, b) => {
    const of = (all: Float32Array) => all.slice(b * pred * image, (b + 1) * pred * image);
    const context = batch.data.subarray(b * F * image, (b * F + ctx) * image);
    return {
      model: of(model),
      short: of(shorter),
      ...baselines(context, image, pred),
      autoencoder: of(through),
    };
  });
}

/** Actions `[B, F]` from frame `first` of each clip on. */
function sliceActions(actions: Int32Array, clips: number, first: number): Int32Array {
  const F = actions.length / clips;
  return Int32Array.from({ length: clips * (F - first) }, (_, i) => {
    const b = Math.floor(i / (F - first));
    return actions[b * F + first + i % (F - first)];
  });
}

/**
 * PSNR at which frames count as the same, in dB: that of identical ones is infinite, and a mean over frames would be too. 60 dB
 * is the limit of libvmaf for 8 bits; rounding to 8 bits alone makes 58.9 dB.
 */
export const MOST_PSNR = 60;

/**
 * Scores every method's frames of one clip against the truth, `[pred, 3, H, W]`, 0 to 1.
 *
 * @param seconds What predicting the clip took.
 */
export function scoreClip(
  source: string,
  predicted: Predicted,
  truth: Float32Array,
  shape: readonly [number, number, number],
  seconds: number,
): ClipScores {
  const start = performance.now();
  const scores = Object.fromEntries(METHODS.map((m) => [m, pixelScores(predicted[m], truth, shape)]));
  const each = (metric: "psnr" | "ssim", most: number) =>
    Object.fromEntries(
      METHODS.map((m) => [m, Array.from(scores[m][metric], (v) => Math.min(v, most))]),
    ) as Record<Method, number[]>;
  const [psnr, ssim] = [each("psnr", MOST_PSNR), each("ssim", 1)];
  return { source, psnr, ssim, seconds: seconds + (performance.now() - start) / 1000 };
}

/** Estimate for predicting and scoring clips. */
export interface Expected {
  /** Seconds for all clips, by stage. */
  readonly seconds: Readonly<Record<"encode" | "predict" | "decode" | "score", number>>;
  /** Bytes on the device at once, by stage. */
  readonly memory: Readonly<Record<"encode" | "predict" | "decode", number>>;
}

/**
 * Estimates an evaluation from dry runs of one batch and the measured speed of the device.
 *
 * @param clips Clips in all.
 * @param batch Clips that are predicted together.
 * @param side Rows and columns of a frame.
 */
export async function expectedCost(
  { device, far, vae }: Pick<Loaded, "device" | "far" | "vae">,
  { ctx, pred, short, steps, guidance }: Protocol,
  { clips, batch, side }: {
    readonly clips: number;
    readonly batch: number;
    readonly side: number;
  },
): Promise<Expected> {
  const together = Math.min(clips, batch), times = clips / together, size = [side, side] as const;
  const encode = dcaeCost(vae.config, "encode", clips * (ctx + pred), size, vae.weights.dtype);
  const decode = dcaeCost(vae.config, "decode", clips * 3 * pred, size, vae.weights.dtype); // two predictions, and the truth
  const shape = {
    ...{ clips: together, predict: pred, steps, guidance, cache: true },
    height: side / downsampling(vae.config),
    width: side / downsampling(vae.config),
  };
  const long = await sampleCost(far.config, { ...shape, context: ctx }, far.weights.dtype);
  const near = await sampleCost(far.config, { ...shape, context: short }, far.weights.dtype);
  const rates = await measureRates(device, [encode, decode, ...costsOf([...long, ...near])]);
  const frame = new Float32Array(3 * side * side);
  pixelScores(frame, frame, [3, side, side]);
  const start = performance.now();
  pixelScores(frame, frame, [3, side, side]);
  const score = (performance.now() - start) / 1000;
  return {
    seconds: {
      encode: secondsAt(encode, rates),
      predict: times * sampleSeconds([...long, ...near], steps, rates),
      decode: secondsAt(decode, rates),
      score: clips * pred * METHODS.length * score,
    },
    memory: { encode: encode.memory, predict: totalCost(long, steps).memory, decode: decode.memory },
  };
}
