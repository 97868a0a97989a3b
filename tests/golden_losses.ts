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
import { openSafetensors } from "../lib/io/safetensors.ts";
import {
  loadPerceptual,
  lpips,
  lpipsLayers,
  perceptualFeatures,
  perceptualShapes,
} from "../lib/metrics/perceptual.ts";
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
  shapeOf,
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
    const [x, y] = ["x", "y"].map((name) => upload(device, c, name)),
      discriminator = recordedDiscriminator(device);
    await checkPerceptual(c, weights, x, y, differences);

    const updated: Running = {}, all = { ...discriminator.params, ...discriminator.buffers };
    const logits = scope(() => discriminate(all, x, updated)), evaluated = scope(() => discriminate(all, x));
    differences.check("disc.logits", await logits.read(), floats(c, "disc.logits"), "forward");
    differences.check("disc.logits_eval", await evaluated.read(), floats(c, "disc.logits_eval"), "forward");
    disposeAll([logits, evaluated, updated]);

    const config = dcaeConfig(c.config.config);
    const autoencoder = splitBuffers(paramsOf(device, c, dcaeShapes(config), { pack: false }));
    const objective = { config, perceptual: { weights, weight: 1 }, discriminatorWeight: 0.5 };
    const step = await adversarialStep(objective, autoencoder, discriminator, x);
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
    disposeAll([weights, x, y, autoencoder, discriminator]);
  },
};

/** Differences relative to the largest value of the tensor: distances are small. */
function checkDistances(
  differences: Differences,
  what: string,
  got: ArrayLike<number>,
  want: Float32Array,
): void {
  const scale = want.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  want.forEach((v, i) => differences.within(what, Math.abs(got[i] - v) / scale, 1e-5));
}

/** LPIPS with AlexNet: features, layers, distances of pictures and of the frames of clips. */
export async function checkPerceptualMetric(
  c: GoldenCase,
  device: Device,
  differences: Differences,
): Promise<void> {
  using file = openSafetensors(`${c.folder}/weights.safetensors`);
  const weights = loadPerceptual(device, "alex", [file]);
  const [x, y] = ["img.pred", "img.gt"].map((name) => upload(device, c, name));
  const features = scope(() => perceptualFeatures(weights, "alex", x));
  for (const [i, feature] of features.entries()) {
    const [B, h, w, C] = feature.shape, got = await feature.read(), name = `lpips.feat${i}`;
    const recorded = shapeOf(c, name)[0] / B * got.length;
    const planes = Float32Array.from({ length: recorded }, (_, at) => {
      const column = at % w, row = Math.floor(at / w) % h, channel = Math.floor(at / (w * h)) % C;
      return got[((Math.floor(at / (w * h * C)) * h + row) * w + column) * C + channel];
    });
    differences.check(name, planes, floats(c, name), "forward");
  }
  const layers = scope(() => lpipsLayers(weights, "alex", x, y)), B = x.shape[0];
  for (const [i, layer] of layers.entries()) {
    const want = floats(c, "lpips.per_layer").subarray(i * B, (i + 1) * B);
    checkDistances(differences, `lpips.per_layer ${i}`, await layer.read(), want);
  }
  const total = scope(() => lpips(weights, "alex", x, y));
  checkDistances(differences, "lpips.total", await total.read(), floats(c, "lpips.total"));
  await checkClips(c, device, weights, differences);
  disposeAll([weights, x, y, features, layers, total]);
}

/** Distances of the frames that follow the context. */
async function checkClips(
  c: GoldenCase,
  device: Device,
  weights: Params,
  differences: Differences,
): Promise<void> {
  const [B, N, F, ...frame] = shapeOf(c, "vid.sample"), per = sizeOf(frame);
  const kept = shapeOf(c, "vid.lpips_each")[2], first = F - kept;
  const frames = (name: string) => {
    const all = floats(c, name);
    const part = Float32Array.from({ length: B * N * kept * per }, (_, i) => {
      const clip = Math.floor(i / (kept * per));
      return all[(clip * F + first) * per + i % (kept * per)];
    });
    return Tensor.from(device, part, [B * N * kept, ...frame]);
  };
  const distances = scope(() => lpips(weights, "alex", frames("vid.sample"), frames("vid.gt")));
  checkDistances(differences, "vid.lpips_each", await distances.read(), floats(c, "vid.lpips_each"));
  distances.dispose();
}

async function checkPerceptual(
  c: GoldenCase,
  weights: Params,
  x: Tensor,
  y: Tensor,
  differences: Differences,
): Promise<void> {
  const layers = scope(() => lpipsLayers(weights, "vgg", x, y));
  for (const [i, layer] of layers.entries()) {
    checkDistances(differences, `lpips_vgg.layer${i}`, await layer.read(), floats(c, `lpips_vgg.layer${i}`));
  }
  disposeAll(layers);
  const B = x.shape[0];
  const { value, grads } = valueAndGrad(({ y }: Params) => lpips(weights, "vgg", x, y), { scale: 1 / B })({
    y,
  });
  const mean = (await value.read()).reduce((a, b) => a + b / B, 0);
  checkDistances(differences, "lpips_vgg", [mean], floats(c, "lpips_vgg"));
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
