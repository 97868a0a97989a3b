/**
 * Conversion between frames and the input of a model under training: none for pixels, the autoencoder for latents.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { type DcaeConfig, downsampling } from "../dcae/config.ts";
import type { Frames } from "../io/frames.ts";
import { fromPlanes } from "../io/planes.ts";
import type { Params } from "../params.ts";
import { latentsToInput, pixelsToInput, type ToModelInput } from "../train/source.ts";
import { decodeImages, encodeImages } from "./codec.ts";
import type { Part } from "./weights.ts";

/** Conversion between frames and the input of a model, both ways. */
export interface TrainingCodec {
  /** Frames or stored latents to the input of the model. */
  readonly toModelInput: ToModelInput;
  /** Output of the model, `[F, C, H, W]`, to frames. */
  readonly show: (latents: Float32Array, shape: readonly [number, number, number]) => Promise<Frames>;
}

/** Pixels from -1 to 1. */
export const PIXELS: TrainingCodec = {
  toModelInput: pixelsToInput,
  show: (latents, [, H, W]) => Promise.resolve(fromPlanes(latents, H, W)),
};

/** Latents of an autoencoder. Its weights are loaded when they are first needed, and stay. */
export function latentCodec(device: Device, { config, weights }: Part<DcaeConfig>): TrainingCodec {
  const r = downsampling(config), stored = latentsToInput(config.scalingFactor);
  let encoder: Params | undefined, decoder: Params | undefined;
  return {
    async toModelInput(batch) {
      if (batch.holds === "latents") return await stored(batch);
      const [B, F, , H, W] = batch.shape, planes = batch.data.map((v) => v * 2 - 1);
      encoder ??= weights.load(device, "encoder.");
      const { values, shape } = await encodeImages(device, config, encoder, planes, [B * F, 3, H, W]);
      const [C, h, w] = shape;
      return await stored({ ...batch, data: values, shape: [B, F, C, h, w] });
    },
    async show(latents, [C, h, w]) {
      decoder ??= weights.load(device, "decoder.");
      const z = latents.map((v) => v / config.scalingFactor);
      const values = await decodeImages(device, config, decoder, z, [C, h, w]);
      return fromPlanes(values, h * r, w * r);
    },
  };
}
