/**
 * `far.ts train-vae`: trains the autoencoder as an option file says.
 *
 * @module
 */
import { planVae } from "../lib/pipeline/training_plan.ts";
import { texts, toggle, UsageError, type Values, verb } from "./args.ts";
import { train, trainingFlags } from "./training.ts";

const flags = {
  ...trainingFlags,
  perceptual: texts(
    "weights of LPIPS with VGG16: the file of the LPIPS package, or torchvision's vgg16 and the heads in two files",
    { value: "FILE", file: true },
  ),
  "without-perceptual": toggle("train with L1 alone where there are no weights of LPIPS"),
};

/**
 * Files with the weights of LPIPS, or null to train without.
 *
 * @param weight Factor of LPIPS in the option file.
 * @throws {UsageError} If the factor needs weights and neither flag is given, or both are.
 */
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
  run(call) {
    const given = call.flags as Values<typeof flags>;
    const kind = { name: "train-vae", pipeline: "DCAETrainer", flags } as const;
    return train(
      kind,
      call,
      (options) => planVae(options, perceptualFiles(options.models.perceptual_weight, given)),
      given.perceptual,
    );
  },
});
