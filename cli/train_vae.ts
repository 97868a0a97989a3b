/**
 * `far.ts train-vae`: trains the autoencoder as an option file says.
 *
 * @module
 */
import { countParameters } from "../lib/far/config.ts";
import { dcaeShapes, downsampling } from "../lib/dcae/config.ts";
import { encodePng } from "../lib/io/image.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { fromPlanes } from "../lib/io/planes.ts";
import { contactSheet } from "../lib/io/sheet.ts";
import { loadPerceptual } from "../lib/metrics/perceptual.ts";
import { isBuffer } from "../lib/params.ts";
import type { Shape } from "../lib/tensor.ts";
import { optionsVaeTrainer, type TrainOptions } from "../lib/train/options.ts";
import { stateBytes } from "../lib/train/half.ts";
import { OptionError } from "../lib/train/schema.ts";
import { DataSource, finishPixels } from "../lib/train/source.ts";
import { trainVaeRun, vaeStepCost, type VaeValidation } from "../lib/train/vae_run.ts";
import { type Call, type Flags, texts, toggle, UsageError, type Values, verb } from "./args.ts";
import { type OpenData, openData, openHeldOut } from "./train_data.ts";
import { checkMemory, openRun, runTraining, trainingFlags } from "./training.ts";

const flags = {
  ...trainingFlags,
  perceptual: texts(
    "weights of LPIPS with VGG16: the file of the LPIPS package, or torchvision's vgg16 and the heads in two files",
    { value: "FILE", file: true },
  ),
  "without-perceptual": toggle("train with L1 alone where there are no weights of LPIPS"),
};

/** Frames in a sheet of originals and what became of them. */
const SHOWN = 8;

/** Writes a sheet of originals above their reconstructions under `samples/`. */
const sheets = (folder: string): VaeValidation["show"] => async (x, y, [N, C, H, W]: Shape, step) => {
  const count = Math.min(N, SHOWN),
    first = (v: Float32Array) => fromPlanes(v.subarray(0, count * C * H * W), H, W);
  const sheet = contactSheet([
    { label: "frames", frames: first(x) },
    { label: "decoded", frames: first(y) },
  ], { columns: count });
  const encoded = encodePng(sheet);
  await writeAtomic(`${folder}/samples/step-${String(step).padStart(8, "0")}.png`, encoded);
  return { "samples/sheet": { width: sheet.width, height: sheet.height, encoded } };
};

async function validationOf(
  { val }: TrainOptions,
  data: OpenData | null,
  folder: string,
): Promise<VaeValidation | undefined> {
  if (data === null || val.val_freq === null) return undefined;
  const source = new DataSource(data.set, data.options, finishPixels);
  const there = Math.ceil(data.set.length / data.options.batch), batches = [];
  for (let i = 0; i < Math.min(val.val_batches, there); i++) batches.push(await source.batch(i));
  return { every: val.val_freq, batches, show: sheets(folder) };
}

/** Says what is missing, unless it was told to do without. */
function perceptualFiles(
  weight: number,
  { perceptual, "without-perceptual": without }: Values<typeof flags>,
): readonly string[] | null {
  if (without && perceptual.length > 0) {
    throw new UsageError(
      "far.ts train-vae: found --perceptual and --without-perceptual, expected one of them",
    );
  }
  if (without || weight === 0) return null;
  if (perceptual.length > 0) return perceptual;
  throw new UsageError(
    `far.ts train-vae: models.perceptual_weight is ${weight} and there are no weights of LPIPS: give --perceptual FILE ` +
      "(VGG16 and its heads; nothing is downloaded), or --without-perceptual to train with L1 alone",
  );
}

async function trainVae(call: Call<Flags>): Promise<void> {
  const f = call.flags as Values<typeof flags>;
  using opened = await openRun("train-vae", f, "DCAETrainer", f.perceptual);
  const { options, folder } = opened, files = perceptualFiles(options.models.perceptual_weight, f);
  const config = optionsVaeTrainer(options, files !== null);
  if (options.datasets.train.use_latent) {
    throw new OptionError(
      "datasets.train.use_latent: expected false (the autoencoder is trained on frames), found true",
    );
  }
  const data = openData(options.datasets.train, "datasets.train", config.seed),
    heldOut = openHeldOut(options);
  const initFile = f.init ?? options.models.model_cfg.vae!.from_config_pretrained ??
    options.path.pretrain_network;
  const inputs = { declared: flags, initFile, data: { train: data, sample: heldOut } };
  await runTraining(f, opened, inputs, async ({ device, progress }) => {
    const source = new DataSource(data.set, data.options, finishPixels);
    const { shape } = await source.batch(0), [, , , H, W] = shape, r = downsampling(config.model);
    if (H % r !== 0 || W % r !== 0) {
      throw new OptionError(
        `datasets.train.data_cfg.resolution: expected a multiple of ${r}, found ${H}x${W}`,
      );
    }
    const trained = Object.fromEntries(
      Object.entries(dcaeShapes(config.model)).filter(([name]) => !isBuffer(name)),
    );
    const parameters = countParameters(trained);
    const { discriminatorStart } = config,
      kinds = [
        ...(discriminatorStart > 0 ? [false] : []),
        ...(discriminatorStart < options.train.total_iter ? [true] : []),
      ];
    const costs = await Promise.all(kinds.map((adversarial) => vaeStepCost(config, shape, adversarial)));
    const peakBytes = Math.max(...costs.map((c) => c.peakBytes));
    checkMemory(device, peakBytes, stateBytes(trained, config));
    if (files === null) progress.say("loss: L1 without LPIPS, as told");
    const weights = (files ?? []).map(openTensorFile);
    try {
      const perceptual = files && loadPerceptual(device, "vgg", weights);
      const validation = await validationOf(options, heldOut, folder);
      return {
        parameters,
        shape,
        run: (loop) => trainVaeRun({ ...loop, config, source, perceptual, validation }),
      };
    } finally {
      weights.forEach((file) => file.close());
    }
  });
}

/** `far.ts train-vae`. */
export const trainVaeVerb = verb({
  name: "train-vae",
  summary: "Train an autoencoder as an option file says; resumes where an earlier run stopped",
  about:
    "Losses as in the authors' trainer: L1, LPIPS with VGG16, and from models.disc_start_iter a PatchGAN with adaptive weight " +
    "against the decoder, with the encoder frozen. The weights of LPIPS come from files that you have; nothing is downloaded, " +
    "and without them it stops unless --without-perceptual is given.\n\n" +
    "The folder of the run gets checkpoints (model and ema are whole autoencoders, with batch-norm statistics), log.jsonl, " +
    "TensorBoard event files, sheets of reconstructions and loss.svg. Ctrl-C finishes the step and saves a checkpoint; the " +
    "same command then resumes the run.",
  flags,
  examples: [
    {
      does: "the authors' 8x autoencoder",
      line: "train-vae --config train_DCAE_dmlab.yml --perceptual vgg16.pth --perceptual vgg.pth",
    },
    {
      does: "a small one on the built-in world, with L1 alone",
      line: "train-vae --config experiments/configs/world_vae_tiny.yml --without-perceptual",
    },
  ],
  run: trainVae,
});
