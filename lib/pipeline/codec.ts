/**
 * Frames to latents and back: whole clips or streams, in batches that the autoencoder takes at once.
 *
 * The transformer works on *scaled* latents, those of the encoder times the autoencoder's scaling factor. {@linkcode Latents}
 * are always scaled; the functions that end in `Images` work on what encoder and decoder themselves give and take.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { decode, encode } from "../dcae/autoencoder.ts";
import { type DcaeConfig, downsampling } from "../dcae/config.ts";
import { framesBundle } from "../display/frames.ts";
import { showing } from "../display/showing.ts";
import { latentsBundle } from "../display/values.ts";
import { type Frames, makeFrames, sliceFrames } from "../io/frames.ts";
import { fromPlanes, toPlanes } from "../io/planes.ts";
import type { Params } from "../params.ts";
import { disposeAll, scope, sizeOf, Tensor } from "../tensor.ts";
import { timed, unwatched, type Watch } from "./watch.ts";
import type { Part } from "./weights.ts";

/** Scaled latents of a clip. A notebook shows those of the functions here by frame and channel. */
export interface Latents {
  /** `[F, C, H, W]`. */
  readonly values: Float32Array;
  /** C. */
  readonly channels: number;
  /** H. */
  readonly height: number;
  /** W. */
  readonly width: number;
}

/** Decoded frames. */
export interface Decoded {
  /** Colours rounded to 0 … 255. */
  readonly frames: Frames;
  /** `[F, H, W, 3]` in [0, 1], before rounding. */
  readonly values: Float32Array;
}

/** Latents that show themselves in a notebook. */
export const makeLatents = (latents: Latents): Latents => showing(latents, latentsBundle);

/** Frames of a size that the autoencoder takes at once. */
export function framesPerBatch(height: number, width: number): number {
  return Math.max(1, Math.min(8, Math.floor(8 * 64 * 64 / (height * width))));
}

/**
 * Sizes of a frame's latents.
 *
 * @throws {RangeError} If frames have a size that the autoencoder cannot take.
 */
export function latentSize(
  config: DcaeConfig,
  frames: { readonly height: number; readonly width: number },
): Omit<Latents, "values"> {
  const r = downsampling(config);
  if (frames.height % r !== 0 || frames.width % r !== 0) {
    throw new RangeError(
      `frames are ${frames.height}x${frames.width}, expected multiples of ${r} (the autoencoder's factor); --size brings them there`,
    );
  }
  return { channels: config.latentChannels, height: frames.height / r, width: frames.width / r };
}

/** Runs `body` on batches along the first axis and joins what comes out. */
async function inBatches(
  device: Device,
  values: Float32Array,
  shape: readonly [number, number, number, number],
  batch: number,
  body: (x: Tensor) => Tensor,
): Promise<{ readonly values: Float32Array; readonly shape: readonly number[] }> {
  const [count, ...rest] = shape, each = sizeOf(rest), parts: Float32Array[] = [];
  let out: readonly number[] = [];
  for (let first = 0; first < count; first += batch) {
    const n = Math.min(batch, count - first);
    const y = scope(() =>
      body(Tensor.from(device, values.subarray(first * each, (first + n) * each), [n, ...rest]))
    );
    out = y.shape.slice(1);
    parts.push(await y.read());
    y.dispose();
  }
  const joined = new Float32Array(count * sizeOf(out));
  parts.reduce((at, p) => (joined.set(p, at), at + p.length), 0);
  return { values: joined, shape: out };
}

/** Latents of planes `[N, 3, H, W]` with colours from -1 to 1, as the encoder gives them: not scaled. */
export async function encodeImages(
  device: Device,
  config: DcaeConfig,
  encoder: Params,
  planes: Float32Array,
  shape: readonly [number, number, number, number],
): Promise<{ readonly values: Float32Array; readonly shape: readonly number[] }> {
  const [, , H, W] = shape;
  return await inBatches(device, planes, shape, framesPerBatch(H, W), (x) => encode(encoder, config, x));
}

/** Planes of about [-1, 1], `[N, 3, H, W]`, of latents `[N, C, h, w]` as the encoder gives them: not scaled. */
export async function decodeImages(
  device: Device,
  config: DcaeConfig,
  decoder: Params,
  latents: Float32Array,
  [C, h, w]: readonly [number, number, number],
): Promise<Float32Array> {
  const count = latents.length / (C * h * w), r = downsampling(config);
  if (count === 0) return new Float32Array(0);
  const batch = framesPerBatch(h * r, w * r);
  return (await inBatches(device, latents, [count, C, h, w], batch, (x) => decode(decoder, config, x)))
    .values;
}

/** A clip in batches that the autoencoder takes at once. */
export function* batchesOf(frames: Frames): Generator<Frames> {
  const batch = framesPerBatch(frames.height, frames.width);
  for (let first = 0; first < frames.frames; first += batch) yield sliceFrames(frames, first, first + batch);
}

/**
 * Encodes a clip.
 *
 * @param vae The autoencoder; its encoder is on the device only meanwhile.
 * @param frames The clip.
 * @returns `[F, C, H, W]`, scaled.
 * @throws {RangeError} If frames have a size that the autoencoder cannot take.
 */
export async function encodeFrames(
  device: Device,
  vae: Part<DcaeConfig>,
  frames: Frames,
  watch: Watch = unwatched(),
): Promise<Latents> {
  const size = latentSize(vae.config, frames), each = size.channels * size.height * size.width;
  const values = new Float32Array(frames.frames * each);
  if (frames.frames === 0) return makeLatents({ values, ...size });
  let done = 0;
  for await (const part of encodeStream(device, vae, batchesOf(frames), frames.frames, watch)) {
    values.set(part.values, done);
    done += part.values.length;
  }
  return makeLatents({ values, ...size });
}

/**
 * Encodes batches of frames as they come, in memory for one of them.
 *
 * @param total Number of frames, for the progress, where it is known.
 */
export async function* encodeStream(
  device: Device,
  vae: Part<DcaeConfig>,
  batches: Iterable<Frames> | AsyncIterable<Frames>,
  total: number | undefined,
  watch: Watch = unwatched(),
): AsyncGenerator<Latents> {
  const { config } = vae;
  watch.say(`loading ${vae.name}, encoder`);
  const params = await timed(watch, "load encoder", () => vae.weights.load(device, "encoder."));
  try {
    using stage = watch.stage("encode", total ?? 0, "frame");
    let done = 0;
    for await (const batch of batches) {
      const size = latentSize(config, batch), shape = [batch.frames, 3, batch.height, batch.width] as const;
      const z = await timed(
        watch,
        "encode",
        () => encodeImages(device, config, params, toPlanes(batch), shape),
      );
      stage.update(done += batch.frames);
      yield { values: z.values.map((v) => v * config.scalingFactor), ...size };
      await watch.pause();
    }
  } finally {
    disposeAll(params);
    device.trim();
  }
}

/**
 * Decodes a clip.
 *
 * @param vae The autoencoder; its decoder is on the device only meanwhile.
 */
export async function decodeFrames(
  device: Device,
  vae: Part<DcaeConfig>,
  latents: Latents,
  watch: Watch = unwatched(),
): Promise<Decoded> {
  const r = downsampling(vae.config), { channels, height, width } = latents;
  const count = latents.values.length / (channels * height * width), each = height * r * width * r * 3;
  const frames = makeFrames(count, height * r, width * r), values = new Float32Array(count * each);
  const decoded = showing({ frames, values }, (d) => framesBundle(d.frames));
  if (count === 0) return decoded;
  let done = 0;
  for await (const batch of decodeStream(device, vae, latents, watch)) {
    frames.data.set(batch.frames.data, done * each);
    values.set(batch.values, done * each);
    done += batch.frames.frames;
  }
  return decoded;
}

/** Decodes latents batch by batch. */
export async function* decodeStream(
  device: Device,
  vae: Part<DcaeConfig>,
  latents: Latents,
  watch: Watch = unwatched(),
): AsyncGenerator<Decoded> {
  const { config } = vae, r = downsampling(config);
  const { channels, height, width } = latents, size = channels * height * width;
  const count = latents.values.length / size, H = height * r, W = width * r, batch = framesPerBatch(H, W);
  watch.say(`loading ${vae.name}, decoder`);
  const params = await timed(watch, "load decoder", () => vae.weights.load(device, "decoder."));
  try {
    using stage = watch.stage("decode", count, "frame");
    for (let first = 0; first < count; first += batch) {
      const n = Math.min(batch, count - first);
      const z = latents.values.slice(first * size, (first + n) * size).map((v) => v / config.scalingFactor);
      const planes = await timed(
        watch,
        "decode",
        () => decodeImages(device, config, params, z, [channels, height, width]),
      );
      const values = new Float32Array(planes.length);
      stage.update(first + n);
      yield { frames: fromPlanes(planes, H, W, values), values };
      await watch.pause();
    }
  } finally {
    disposeAll(params);
    device.trim();
  }
}
