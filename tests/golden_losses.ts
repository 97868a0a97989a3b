/**
 * Recorded losses of the autoencoder's training: LPIPS, the discriminator, one step against it. The large networks have
 * formula weights: each value is a hash of the tensor's name and the element's index.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { discriminate, discriminatorShapes, initialDiscriminator } from "../lib/dcae/discriminator.ts";
import type { Running } from "../lib/dcae/running.ts";
import { lpips, lpipsLayers, perceptualShapes } from "../lib/metrics/perceptual.ts";
import { type Params, splitBuffers } from "../lib/params.ts";
import { disposeAll, scope, type Shape, sizeOf, Tensor, unscoped } from "../lib/tensor.ts";
import { adversarialStep } from "../lib/train/vae_loss.ts";
import {
  type Differences,
  floats,
  type GoldenCase,
  has,
  paramsOf,
  type Runner,
  upload,
} from "./golden_case.ts";
import { checkGradients, GRADIENT } from "./golden_train.ts";

/** Element i of a tensor is a function of u = hash(i, name) / 2^32. */
function formulaWeights(name: string, shape: Shape): Float32Array {
  let fnv = 2166136261;
  for (const byte of new TextEncoder().encode(name)) fnv = Math.imul(fnv ^ byte, 16777619);
  const count = sizeOf(shape), bound = Math.sqrt(6 / sizeOf(shape.slice(1)));
  const value = name.startsWith("lpips.lin")
    ? (u: number) => 0.2 * u
    : shape.length > 1
    ? (u: number) => (2 * u - 1) * bound
    : /^disc\.main\.[369]\.weight$/.test(name)
    ? (u: number) => 0.8 + 0.4 * u
    : (u: number) => (2 * u - 1) * 0.05;
  return Float32Array.from({ length: count }, (_, i) => {
    let h = (Math.imul(i, 2654435761) + fnv) >>> 0;
    h = Math.imul(h ^ (h >>> 15), 2246822519) >>> 0;
    h = Math.imul(h ^ (h >>> 13), 3266489917) >>> 0;
    return value(((h ^ (h >>> 16)) >>> 0) / 4294967296);
  });
}

function formulaParams(device: Device, prefix: string, shapes: Readonly<Record<string, Shape>>): Params {
  return unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map((
        [name, shape],
      ) => [name, Tensor.from(device, formulaWeights(prefix + name, shape), shape)]),
    )
  );
}

/** The discriminator of the case: formula weights, fresh running statistics. */
function recordedDiscriminator(device: Device): ReturnType<typeof splitBuffers> {
  const fresh = splitBuffers(initialDiscriminator(device, 0)), shapes = discriminatorShapes();
  const names = Object.keys(fresh.params);
  disposeAll(fresh.params);
  const params = formulaParams(device, "disc.", Object.fromEntries(names.map((n) => [n, shapes[n]])));
  return { params, buffers: fresh.buffers };
}

export const autoencoderLosses: Runner = {
  kind: "losses of the autoencoder",
  device: true,
  recognises: (c) => c.config.model === "MyAutoencoderDC" && has(c, "lpips_vgg", "step.total_loss_g"),
  async run(c, device, differences) {
    const weights = formulaParams(device, "lpips.", perceptualShapes("vgg"));
    const [x, y] = ["x", "y"].map((name) => upload(device, c, name)), critic = recordedDiscriminator(device);
    await checkPerceptual(c, weights, x, y, differences);

    const updated: Running = {}, all = { ...critic.params, ...critic.buffers };
    const logits = scope(() => discriminate(all, x, updated)), evaluated = scope(() => discriminate(all, x));
    differences.check("disc.logits", await logits.read(), floats(c, "disc.logits"), "forward");
    differences.check("disc.logits_eval", await evaluated.read(), floats(c, "disc.logits_eval"), "forward");
    disposeAll([logits, evaluated, updated]);

    const config = dcaeConfig(c.config.config);
    const autoencoder = splitBuffers(paramsOf(device, c, dcaeShapes(config), { pack: false }));
    const objective = { config, perceptual: { weights, weight: 1 }, discriminatorWeight: 0.5 };
    for (const checkpoint of [false, true]) {
      const step = await adversarialStep({ ...objective, checkpoint }, autoencoder, critic, x);
      const { losses: l } = step, generator = l.reconstruction + l.perceptual + l.generator;
      const terms = {
        rec_loss: l.reconstruction,
        perceptual_loss: l.perceptual,
        g_loss: l.generator,
        total_loss_g: generator,
        total_loss_d: l.discriminator,
        total_loss: generator + l.discriminator,
      };
      for (const [name, value] of Object.entries(terms)) {
        differences.check(`step.${name}`, [value], floats(c, `step.${name}`), "forward");
      }
      await checkGradients(c, step.grads, differences, "step.grad");
      await checkHeads(c, step.discriminator!.grads, differences);
      disposeAll([step.grads, step.running, step.discriminator]);
    }
    disposeAll([weights, x, y, autoencoder, critic]);
  },
};

async function checkPerceptual(
  c: GoldenCase,
  weights: Params,
  x: Tensor,
  y: Tensor,
  differences: Differences,
): Promise<void> {
  const layers = scope(() => lpipsLayers(weights, "vgg", x, y));
  for (const [i, layer] of layers.entries()) {
    // Distances are small; relative to the largest of the layer.
    const want = floats(c, `lpips_vgg.layer${i}`), got = await layer.read();
    want.forEach((v, b) => differences.within(`lpips_vgg.layer${i}`, Math.abs(got[b] / v - 1), 1e-5));
  }
  disposeAll(layers);
  const B = x.shape[0];
  const { value, grads } = valueAndGrad(({ y }: Params) => lpips(weights, "vgg", x, y), { scale: 1 / B })({
    y,
  });
  const mean = (await value.read()).reduce((a, b) => a + b / B, 0), want = floats(c, "lpips_vgg")[0];
  differences.within("lpips_vgg", Math.abs(mean / want - 1), 1e-5);
  await checkGradients(c, { dy: grads.y }, differences, "lpips_vgg");
  disposeAll([value, grads]);
}

/** Norms of the discriminator's gradients and their first elements. */
async function checkHeads(c: GoldenCase, grads: Params, differences: Differences): Promise<void> {
  for (const [name, gradient] of Object.entries(grads)) {
    const got = await gradient.read(), norm = Math.sqrt(got.reduce((a, g) => a + g * g, 0));
    const wanted = floats(c, `step.disc_grad_norm.${name}`)[0],
      head = floats(c, `step.disc_grad_head.${name}`);
    if (wanted === 0) { // every logit is within the margin: real and fake cancel
      differences.within(`step.disc_grad_norm.${name}, recorded as zero`, norm, GRADIENT.zero);
      continue;
    }
    differences.within(`step.disc_grad_norm.${name}`, Math.abs(norm / wanted - 1), GRADIENT.bound);
    const scale = head.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    head.forEach((v, i) =>
      differences.within(`step.disc_grad_head.${name}`, Math.abs(got[i] - v) / scale, GRADIENT.bound)
    );
  }
}
