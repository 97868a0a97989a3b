/**
 * Losses of the autoencoder and the gradients of one batch: L1 and LPIPS, later a PatchGAN with an adaptive weight
 * (Esser et al. 2021, as the authors' DC-AE trainer has it).
 *
 * @module
 */
import { valueAndGrad, type Vjp, vjp } from "../autograd.ts";
import { decode, decoderFeatures, decoderHead, encode, headNames } from "../dcae/autoencoder.ts";
import type { DcaeConfig } from "../dcae/config.ts";
import { discriminate } from "../dcae/discriminator.ts";
import type { Running } from "../dcae/running.ts";
import { lpips } from "../metrics/perceptual.ts";
import { absLoss, accumulate, activation, axpby, concat, full, groupMean } from "../ops.ts";
import type { Params } from "../params.ts";
import { disposeAll, scope, type Tensor, unscoped } from "../tensor.ts";
import { normsOf, squareSums } from "./adamw.ts";

/** The loss of the autoencoder. */
export interface VaeLossOptions {
  /** The autoencoder. */
  readonly config: DcaeConfig;
  /** LPIPS: the weights of VGG16 and its heads, and the factor of the loss; null leaves it out. */
  readonly perceptual: { readonly weights: Params; readonly weight: number } | null;
  /** Factor of the adversarial loss, before the adaptive weight. The authors use 0.5. */
  readonly discriminatorWeight: number;
  /** Recompute blocks in the backward pass instead of keeping their activations. */
  readonly checkpoint?: boolean;
}

/** Mean of all values, `[1]`: first over rows, so that no thread adds up more than one. */
function meanOf(x: Tensor): Tensor {
  const columns = x.shape.at(-1)!, rows = x.size / columns;
  return groupMean(groupMean(x.reshape([rows, columns]), 1).reshape([1, rows]), 1).reshape([1]);
}

const scaled = (x: Tensor, factor: number): Tensor => axpby(x, x, factor, 0);

/** L1 and, where there are weights, LPIPS times its factor: `[1]` or `[2]`, whose sum is the loss; y and x `[B, 3, H, W]`. */
export function reconstructionTerms(objective: VaeLossOptions, y: Tensor, x: Tensor): Tensor {
  const B = x.shape[0], flat = [B, x.size / B], { perceptual } = objective;
  const l1 = meanOf(absLoss(y.reshape(flat), x.reshape(flat), full(x.device, [B], 1)));
  if (!perceptual) return l1;
  return concat([l1, scaled(meanOf(lpips(perceptual.weights, "vgg", x, y)), perceptual.weight)], 0);
}

/** Hinge loss of the discriminator: half the mean of relu(1 - real) + relu(1 + fake), `[2]`, whose sum is the loss. */
function hingeLoss(real: Tensor, fake: Tensor): Tensor {
  const one = full(real.device, real.shape, 1);
  const terms = [axpby(one, real, 1, -1), axpby(one, fake, 1, 1)];
  return concat(terms.map((t) => scaled(meanOf(activation(t, "relu")), 0.5)), 0);
}

/** Loss terms of a batch. */
export interface VaeLosses extends Readonly<Record<string, number>> {
  /** L1. */
  readonly reconstruction: number;
  /** LPIPS, without its factor; 0 where there are no weights. */
  readonly perceptual: number;
  /** Adversarial loss with both its factors; 0 before the discriminator starts. */
  readonly generator: number;
  /** Factor that makes the adversarial gradients as long as those of the reconstruction. */
  readonly adaptiveWeight: number;
  /** Hinge loss of the discriminator; 0 before it starts. */
  readonly discriminator: number;
}

/** Losses, gradients and running statistics of one batch. The caller owns all tensors. */
export interface VaeStep {
  /** Loss terms. */
  readonly losses: VaeLosses;
  /** Gradients by name: of all parameters, of the decoder's alone once the discriminator has started. */
  readonly grads: Params;
  /** The autoencoder's running statistics after the batch. */
  readonly running: Running;
  /** The same for the discriminator, once it has started. */
  readonly discriminator: { readonly grads: Params; readonly running: Running } | null;
}

/** Gradient accumulation: gradients of earlier batches to add to, and the factor of this batch's. */
export interface VaeAccumulation {
  /** Default 1. */
  readonly scale?: number;
  /** See {@linkcode VaeStep}. */
  readonly into?: { readonly grads: Params; readonly discriminator?: Params };
}

/** The terms of {@linkcode reconstructionTerms} without their factors. */
function termsOf(
  { perceptual }: VaeLossOptions,
  values: Float32Array,
): Pick<VaeLosses, "reconstruction" | "perceptual"> {
  return {
    reconstruction: values[0],
    perceptual: perceptual && perceptual.weight > 0 ? values[1] / perceptual.weight : 0,
  };
}

/**
 * Gradients of L1 and LPIPS in train mode, for encoder and decoder.
 *
 * @param params Trained parameters.
 * @param buffers Running statistics; they stay as they are.
 * @param x Frames `[B, 3, H, W]` in [-1, 1].
 */
export async function reconstructionStep(
  objective: VaeLossOptions,
  params: Params,
  buffers: Params,
  x: Tensor,
  { scale = 1, into }: VaeAccumulation = {},
): Promise<VaeStep> {
  const { config, checkpoint } = objective, running: Running = {};
  const { value, grads } = unscoped(() =>
    valueAndGrad((p: Params) => {
      const all = { ...p, ...buffers };
      const y = decode(all, config, encode(all, config, x, { checkpoint }), { updated: running, checkpoint });
      return reconstructionTerms(objective, y, x);
    }, { scale, into: into?.grads })(params)
  );
  const losses = termsOf(objective, await value.read());
  value.dispose();
  return {
    losses: { ...losses, generator: 0, adaptiveWeight: 0, discriminator: 0 },
    grads,
    running,
    discriminator: null,
  };
}

/** Names of the parameters of the adversarial step: the decoder's. The encoder is frozen then, as in the authors' trainer. */
export const decoderNames = (params: Params): string[] =>
  Object.keys(params).filter((name) => name.startsWith("decoder."));

/** Bound of the adaptive weight, and the number that keeps it finite. */
const LARGEST_WEIGHT = 1e4, WEIGHT_EPS = 1e-4;

/**
 * Gradients of a step against the discriminator: for the decoder those of L1 + LPIPS + weight · λ · (-mean logit), where λ makes the
 * adversarial gradient of the last convolution as long as that of the other losses; for the discriminator those of its hinge loss.
 *
 * @param autoencoder Parameters and running statistics; only the decoder's parameters get gradients.
 * @param discriminator Parameters and running statistics.
 * @param x Frames `[B, 3, H, W]` in [-1, 1].
 */
export async function adversarialStep(
  objective: VaeLossOptions,
  autoencoder: { readonly params: Params; readonly buffers: Params },
  discriminator: { readonly params: Params; readonly buffers: Params },
  x: Tensor,
  { scale = 1, into }: VaeAccumulation = {},
): Promise<VaeStep> {
  const { config, checkpoint, discriminatorWeight } = objective, { params, buffers } = autoencoder;
  const names = headNames(config), running: Running = {};
  const pick = (keys: string[]) => Object.fromEntries(keys.map((k) => [k, params[k]]));
  const head = pick([names.weight, names.bias]);
  const trunk = pick(decoderNames(params).filter((n) => n !== names.weight && n !== names.bias));
  const statistics: Running[] = [{}, {}, {}];

  const first = unscoped(() => {
    const z = scope(() => encode({ ...params, ...buffers }, config, x));
    const features = vjp((p: Params) =>
      decoderFeatures({ ...p, ...buffers }, config, z, { updated: running, checkpoint })
    )(trunk);
    z.dispose();
    // The head has two ways back, one for each loss: both are short.
    const withFeatures = { ...head, features: features.value };
    const toFrames = ({ features: f, ...p }: Params) => decoderHead(p, config, f);
    const [forReconstruction, forDiscriminator]: Vjp[] = [0, 1].map(() => vjp(toFrames)(withFeatures));
    const y = forReconstruction.value;
    const rec = valueAndGrad(({ y }: Params) => reconstructionTerms(objective, y, x))({ y });
    const gen = valueAndGrad(
      ({ y }: Params) =>
        meanOf(discriminate({ ...discriminator.params, ...discriminator.buffers }, y, statistics[0])),
      { scale: -1 },
    )({ y });
    const byReconstruction = forReconstruction.pullback(rec.grads.y);
    const byDiscriminator = forDiscriminator.pullback(gen.grads.y);
    const hinge = valueAndGrad((p: Params) => {
      const real = discriminate({ ...p, ...discriminator.buffers, ...statistics[0] }, x, statistics[1]);
      const fake = discriminate({ ...p, ...discriminator.buffers, ...statistics[1] }, y, statistics[2]);
      return hingeLoss(real, fake);
    }, { scale, into: into?.discriminator })(discriminator.params);
    const sums = squareSums({ rec: byReconstruction[names.weight], gen: byDiscriminator[names.weight] });
    const read = scope(() => concat([sums.partial, rec.value, gen.value, hinge.value], 0));
    disposeAll([y, forDiscriminator.value, rec, gen, hinge.value, sums.partial]);
    return { features, byReconstruction, byDiscriminator, hinge: hinge.grads, sums, read };
  });
  const { features, byReconstruction, byDiscriminator, sums } = first;
  const count = sums.offsets.at(-1)!, all = await first.read.read(), values = all.subarray(count);
  const norms = normsOf(sums, all), ratio = norms.get("rec")! / (norms.get("gen")! + WEIGHT_EPS);
  const adaptiveWeight = Math.min(LARGEST_WEIGHT, Math.max(0, ratio));
  const factor = discriminatorWeight * adaptiveWeight;

  const grads = unscoped(() => {
    const total = scope(() =>
      Object.fromEntries(
        Object.entries(byReconstruction).map((
          [name, g],
        ) => [name, axpby(g, byDiscriminator[name], scale, scale * factor)]),
      )
    );
    const { features: cotangent, ...ofHead } = total;
    const ofTrunk = features.pullback(cotangent, into && pickFrom(into.grads, Object.keys(trunk)));
    cotangent.dispose();
    if (!into) return { ...ofTrunk, ...ofHead };
    scope(() => Object.entries(ofHead).forEach(([name, g]) => accumulate(into.grads[name], g)));
    disposeAll(ofHead);
    return { ...ofTrunk, ...pickFrom(into.grads, Object.keys(ofHead)) };
  });
  disposeAll([features.value, byReconstruction, byDiscriminator, first.read, statistics[0], statistics[1]]);
  const terms = objective.perceptual ? 2 : 1;
  return {
    losses: {
      ...termsOf(objective, values),
      generator: -factor * values[terms],
      adaptiveWeight,
      discriminator: values[terms + 1] + values[terms + 2],
    },
    grads,
    running,
    discriminator: { grads: first.hinge, running: statistics[2] },
  };
}

const pickFrom = (record: Params, names: readonly string[]): Params =>
  Object.fromEntries(names.map((n) => [n, record[n]]));
