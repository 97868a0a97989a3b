/**
 * PatchGAN: the discriminator of the autoencoder's adversarial loss (Isola et al. 2017), one logit for each patch.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { activation, batchNorm, conv2d, permute } from "../ops.ts";
import { param, type Params } from "../params.ts";
import { normal, streamOf, uniform } from "../random.ts";
import { scope, type Shape, sizeOf, Tensor, unscoped } from "../tensor.ts";
import { type Running, runningStatistics } from "./running.ts";

/** Convolutions 4×4 with padding 1, by their place among the authors' `main`: channels, stride, batch norm after it. */
const LAYERS = [
  { index: 0, channels: 64, stride: 2, norm: false },
  { index: 2, channels: 128, stride: 2, norm: true },
  { index: 5, channels: 256, stride: 2, norm: true },
  { index: 8, channels: 512, stride: 1, norm: true },
  { index: 11, channels: 1, stride: 1, norm: false },
] as const;

/** Every tensor of the discriminator by the authors' state-dict name, batch-norm statistics included. */
export function discriminatorShapes(): Record<string, Shape> {
  const shapes: Record<string, Shape> = {};
  let input = 3;
  for (const { index, channels, norm } of LAYERS) {
    shapes[`main.${index}.weight`] = [channels, input, 4, 4];
    if (!norm) shapes[`main.${index}.bias`] = [channels];
    else {
      for (const key of ["weight", "bias", "running_mean", "running_var"]) {
        shapes[`main.${index + 1}.${key}`] = [channels];
      }
      shapes[`main.${index + 1}.num_batches_tracked`] = [];
    }
    input = channels;
  }
  return shapes;
}

/**
 * Fresh values of one parameter: convolutions N(0, 0.02) with PyTorch's biases (uniform within 1/√fan_in), batch norm
 * N(1, 0.02) with bias 0, running mean 0 and variance 1.
 */
export function discriminatorValues(
  name: string,
  shape: Shape,
  seed: number,
  shapes: Readonly<Record<string, Shape>>,
): Float32Array {
  const count = sizeOf(shape), key = streamOf(seed, name), draw = () => normal(key, count);
  if (name.endsWith("running_var")) return new Float32Array(count).fill(1);
  if (/running_mean|num_batches/.test(name)) return new Float32Array(count);
  if (shape.length === 4) return draw().map((n) => 0.02 * n);
  if (name.endsWith(".weight")) return draw().map((n) => 1 + 0.02 * n);
  const weight = shapes[name.replace(/bias$/, "weight")];
  if (weight.length < 4) return new Float32Array(count);
  const bound = 1 / Math.sqrt(sizeOf(weight.slice(1)));
  return Float32Array.from(uniform(key, count), (u) => (2 * u - 1) * bound);
}

/** Fresh parameters and statistics: {@linkcode discriminatorValues} of every tensor. */
export function initialDiscriminator(device: Device, seed: number): Params {
  const shapes = discriminatorShapes();
  return unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [
        name,
        Tensor.from(device, discriminatorValues(name, shape, seed, shapes), shape),
      ]),
    )
  );
}

/**
 * Logits of patches, above 0 for what looks real.
 *
 * @param images `[B, 3, H, W]` in [-1, 1], H and W at least 32.
 * @param updated Train mode: batch statistics, and the running ones after this batch are put in here; they belong to the
 * caller. Default: evaluation.
 * @returns `[B, 1, h, w]`.
 */
export function discriminate(params: Params, images: Tensor, updated?: Running): Tensor {
  const [, C, H, W] = images.shape;
  if (C !== 3 || H < 32 || W < 32) {
    throw new RangeError(
      `discriminate: images have shape [${images.shape}], expected [B, 3, H, W] of 32 pixels or more`,
    );
  }
  return scope(() => {
    let x = permute(images, [0, 2, 3, 1]); // [B, H, W, 3]
    LAYERS.forEach(({ index, stride, norm }, i) => {
      const p = (key: string) => param(params, `main.${index + (norm ? 1 : 0)}.${key}`);
      const weight = param(params, `main.${index}.weight`), bias = norm ? null : p("bias");
      x = conv2d(x, weight, { bias, stride, pad: 1 });
      if (norm) {
        const flat = x.reshape([x.size / x.shape[3], x.shape[3]]); // [B·h·w, C]
        const statistics = updated
          ? runningStatistics(params, `main.${index + 1}`, flat, updated)
          : { mean: p("running_mean"), variance: p("running_var") };
        x = batchNorm(flat, { ...statistics, weight: p("weight"), bias: p("bias") }).reshape(x.shape);
      }
      if (i < LAYERS.length - 1) x = activation(x, "leakyRelu");
    });
    return x.reshape([x.shape[0], 1, x.shape[1], x.shape[2]]); // [B, 1, h, w]
  });
}
