/**
 * What lies between frames and what a model is trained on: nothing for pixels, the autoencoder otherwise.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { decode, encode } from "../lib/dcae/autoencoder.ts";
import { type DcaeConfig, dcaeShapes, downsampling } from "../lib/dcae/config.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import type { Frames } from "../lib/io/frames.ts";
import { fromPlanes } from "../lib/io/planes.ts";
import { loadParams, type Params } from "../lib/params.ts";
import { scope, sizeOf, Tensor } from "../lib/tensor.ts";
import { type Finish, finishLatents, finishPixels } from "../lib/train/source.ts";
import { framesPerBatch } from "./estimate.ts";

/** Both ways between frames and latents. */
export interface Codec {
  /** Frames or stored latents to what the model takes. */
  readonly finish: Finish;
  /** `[F, C, H, W]` as the model makes them, to frames. */
  readonly show: (latents: Float32Array, shape: readonly [number, number, number]) => Promise<Frames>;
}

/** Pixels from -1 to 1. */
export const PIXELS: Codec = {
  finish: finishPixels,
  show: (latents, [, H, W]) => Promise.resolve(fromPlanes(latents, H, W)),
};

/** Runs `body` on batches of images along the first axis and joins what comes out. */
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

/** Latents of images `[N, 3, H, W]` with colours from 0 to 1, as the encoder gives them: not multiplied by anything. */
export async function encodeImages(
  device: Device,
  config: DcaeConfig,
  encoder: Params,
  images: Float32Array,
  shape: readonly [number, number, number, number],
): Promise<{ readonly values: Float32Array; readonly shape: readonly number[] }> {
  const [, , H, W] = shape, scaled = images.map((v) => v * 2 - 1);
  return await inBatches(device, scaled, shape, framesPerBatch(H, W), (x) => encode(encoder, config, x));
}

/** Planes of about [-1, 1], `[N, 3, H, W]`, of latents `[N, C, h, w]` as the encoder gives them. */
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

/** The part of an autoencoder whose names start with `prefix`. */
function loadPart(device: Device, config: DcaeConfig, path: string, prefix: string): Params {
  using file = openTensorFile(path);
  const own = ([name]: readonly [string, unknown]) => name.startsWith(prefix);
  const tensors = new Map([...stateDict(file).tensors].filter(own));
  const part = { path, tensors, read: (name: string) => tensors.get(name)!.read() };
  return loadParams(device, part, Object.fromEntries(Object.entries(dcaeShapes(config)).filter(own)));
}

/**
 * Latents of an autoencoder. Its weights come in when they are first needed and stay.
 *
 * @param path The autoencoder's checkpoint.
 */
export function latentCodec(device: Device, config: DcaeConfig, path: string): Codec {
  const r = downsampling(config), stored = finishLatents(config.scalingFactor);
  let encoder: Params | undefined, decoder: Params | undefined;
  return {
    async finish(batch) {
      if (batch.holds === "latents") return await stored(batch);
      const [B, F, , H, W] = batch.shape;
      encoder ??= loadPart(device, config, path, "encoder.");
      const { values, shape } = await encodeImages(device, config, encoder, batch.data, [B * F, 3, H, W]);
      const [C, h, w] = shape;
      return await stored({ ...batch, data: values, shape: [B, F, C, h, w] });
    },
    async show(latents, [C, h, w]) {
      decoder ??= loadPart(device, config, path, "decoder.");
      const z = latents.map((v) => v / config.scalingFactor);
      const values = await decodeImages(device, config, decoder, z, [C, h, w]);
      return fromPlanes(values, h * r, w * r);
    },
  };
}
