/**
 * `far.ts encode` and `far.ts decode`: one clip to latents and back, or all clips of a data set to latents.
 *
 * @module
 */
import { isSame, isThere } from "../lib/io/paths.ts";
import { checkEnding, decodeTo, encodeTo, readLatentFile } from "../lib/pipeline/clip_latents.ts";
import { encodeSet } from "../lib/pipeline/encode_set.ts";
import { type Autoencoder, chooseDcae } from "../lib/pipeline/models.ts";
import { openFrameSet } from "../lib/pipeline/option_set.ts";
import { choice, integer, path, real, texts, UsageError, type Values, verb } from "./args.ts";
import { clipFlags, clipOptions } from "./clip_flags.ts";
import { deviceFlags, progressFlags, restartFlag } from "./flags.ts";
import { Run, runJob } from "./job.ts";
import { modelChoice, vaeFlags } from "./model_flags.ts";

const { actions: _actions, ...frameFlags } = clipFlags;

const encodeFlags = {
  to: path(
    "file for the latents, .safetensors or .npz; a folder for those of a data set: new, empty or an earlier one",
    { default: "latents.safetensors", presentation: true },
  ),
  ...restartFlag,
  part: choice(["train", "sample"], "data set of an option file", { default: "train" }),
  set: texts("replace an option of the file; may be given several times", { value: "PATH=VALUE" }),
  count: integer("at most so many frames (default: all)", { min: 1 }),
  ...frameFlags,
  ...vaeFlags,
  ...deviceFlags,
  ...progressFlags,
};

const decodeFlags = {
  to: path("video (.mp4, .mov, .webm, .gif) or .npz", { default: "clip.mp4" }),
  fps: real("frames per second (default: as the latents say, or 10)", { min: 0.1, max: 240 }),
  ...vaeFlags,
  ...deviceFlags,
  ...progressFlags,
};

/**
 * Refuses a file that must not be replaced: what is read itself, and, where the name is only the default, any that exists.
 *
 * @throws {UsageError} Which one, and what to give instead.
 */
function checkTarget(to: string, isGiven: boolean, source: string): void {
  if (isSame(to, source)) {
    throw new UsageError(`--to ${to}: is the file that is read, expected another`);
  }
  if (!isGiven && isThere(to)) {
    throw new UsageError(`${to}: exists already: name the file to write with --to`);
  }
}

const stampOf = (vae: Autoencoder) => vae.weights.path === null ? ", RANDOM WEIGHTS" : "";

async function encodeClip(clip: string, f: Values<typeof encodeFlags>): Promise<void> {
  checkEnding(f.to, "latents");
  const vae = chooseDcae(modelChoice(f));
  vae.weights.verify();
  using run = new Run(f, "stopping");
  const { device } = await run.openDevice(), options = { ...clipOptions(f), frames: f.count };
  const shape = await encodeTo({ device, vae }, clip, f.to, options, run);
  run.event("done", { path: f.to, shape, seconds: run.seconds, random_weights: vae.weights.path === null });
  run.say(`wrote ${f.to}: latents [${shape.join(", ")}], times ${vae.config.scalingFactor}${stampOf(vae)}`);
  await run.finish();
}

async function encodeClips(file: string, f: Values<typeof encodeFlags>): Promise<void> {
  const { set, sources } = openFrameSet(file, f.part, f.set);
  await runJob({
    ...{ verb: "encode", declared: encodeFlags, flags: f, operands: [file], out: "to", sources },
    stopping: "stopping after this clip",
  }, async (job, run) => {
    const vae = chooseDcae(modelChoice(f));
    vae.weights.verify();
    const { device } = await run.openDevice();
    const { mean, deviation } = await encodeSet(job, { device, vae }, set);
    run.event("done", { path: f.to, clips: set.length, mean, deviation, seconds: run.seconds });
    run.say(
      `wrote ${f.to}: latents of ${set.length} clips${stampOf(vae)}; mean ${mean.toFixed(4)}, deviation ` +
        `${deviation.toFixed(4)} (a scaling_factor of ${(1 / deviation).toFixed(4)} makes it 1)`,
    );
  });
}

async function decodeClip(file: string, f: Values<typeof decodeFlags>): Promise<void> {
  checkEnding(f.to, "frames");
  const vae = chooseDcae(modelChoice(f)), { latents, fps } = readLatentFile(file, vae.config.latentChannels);
  vae.weights.verify();
  using run = new Run(f, "stopping");
  const { device } = await run.openDevice();
  const frames = await decodeTo({ device, vae }, { latents, fps: f.fps ?? fps }, f.to, run);
  run.event("done", { path: f.to, frames, seconds: run.seconds, random_weights: vae.weights.path === null });
  run.say(`wrote ${f.to}: ${frames} frames${stampOf(vae)}`);
  await run.finish();
}

/** `far.ts encode`. */
export const encodeVerb = verb({
  name: "encode",
  summary: "Encode a clip into latents",
  about:
    "Writes the latents of a video, a folder of images or an npz as `latents` [frames, channels, height, width], multiplied by the " +
    "autoencoder's scaling factor, as the transformer takes them. Videos of any length are streamed.\n\n" +
    "Given the option file of a training run, encodes its whole data set into the folder --to, which LatentDataset reads " +
    "(docs/training.md). Interrupted, the same command resumes with the first clip that is missing.",
  operands: [{
    name: "CLIP",
    help: "npz, npy, video or folder of images, world:N or grid:N; or an option file (YAML)",
  }],
  flags: encodeFlags,
  examples: [
    {
      does: "a walk through the built-in world with the bundled autoencoder",
      line: "encode world:0 --count 16",
    },
    {
      does: "a video at 64x64",
      line: "encode holiday.mp4 --vae-weights dcae.pth --size 64 --to holiday.safetensors",
    },
  ],
  run: ({ flags, given, operands: [clip] }) => {
    if (/\.ya?ml$/i.test(clip)) return encodeClips(clip, flags);
    checkTarget(flags.to, given.has("to"), clip);
    return encodeClip(clip, flags);
  },
});

/** `far.ts decode`. */
export const decodeVerb = verb({
  name: "decode",
  summary: "Decode latents into a video",
  operands: [{ name: "LATENTS", help: "safetensors or npz that encode wrote" }],
  flags: decodeFlags,
  examples: [{
    does: "back to a video",
    line: "decode holiday.safetensors --vae-weights dcae.pth --to holiday.mp4",
  }],
  run: ({ flags, given, operands: [latents] }) => {
    checkTarget(flags.to, given.has("to"), latents);
    return decodeClip(latents, flags);
  },
});
