/**
 * `far.ts predict`: what follows a clip.
 *
 * @module
 */
import {
  type Call,
  choice,
  type Flags,
  integer,
  path,
  real,
  text,
  UsageError,
  type Values,
  verb,
} from "./args.ts";
import { withCard } from "./card.ts";
import { checkActions, type Clip, readActions, readClip } from "../lib/pipeline/clip.ts";
import { clipFlags, clipOptions } from "./clip_flags.ts";
import { deviceFlags, progressFlags, restartFlag } from "./flags.ts";
import { type Job, runJob } from "./job.ts";
import { chooseDcae, chooseFar, requireWeights } from "../lib/pipeline/models.ts";
import { modelChoice, modelFlags } from "./model_flags.ts";
import { labelNumber } from "../lib/pipeline/labels.ts";
import { sliceFrames } from "../lib/io/frames.ts";
import { runPrediction } from "./run_prediction.ts";
import { readSettings } from "./settings.ts";

/** Flags of `predict`; `generate` takes most of them too. */
export const predictFlags = {
  ctx: integer("context frames that the model is given", { default: 16, min: 1, max: 100_000 }),
  pred: integer("frames to predict", { default: 16, min: 1, max: 100_000 }),
  ...modelFlags,
  steps: integer("Euler steps per frame", { default: 50, min: 1, max: 1000 }),
  guidance: real("classifier-free guidance: above 1 guides, -1 drops every condition", {
    default: 1,
    min: -1,
    max: 100,
  }),
  seed: integer("seed of the noise", { default: 0, min: 0 }),
  samples: integer("trajectories, each with noise of its own", { default: 1, min: 1, max: 1024 }),
  label: text("class of the clip, by number or UCF-101 name, for a model with labels (default: none)"),
  ...clipFlags,
  take: choice(["start", "end"], "take the context from the start of the clip, or its last frames", {
    default: "start",
  }),
  "kv-cache": choice(
    ["auto", "off"],
    "keep keys and values between steps and frames, or recompute them every time",
    {
      default: "auto",
    },
  ),
  "decode-context": choice(["no", "yes"], "show context frames as the autoencoder decodes them", {
    default: "no",
  }),
  out: path("folder for the result: new, empty, or an earlier result of this verb, which is replaced", {
    default: "out/predict",
    presentation: true,
  }),
  ...restartFlag,
  format: choice(["auto", "mp4", "gif", "webm"], "kind of video; auto is mp4", {
    default: "auto",
  }),
  fps: real("frames per second of the videos (default: the clip's, or 10)", { min: 0.1, max: 240 }),
  from: path("result.json of an earlier run to repeat exactly; further flags change it", {
    presentation: true,
  }),
  ...deviceFlags,
  ...progressFlags,
};

async function predict(call: Call<Flags>): Promise<void> {
  const { flags: raw, operands: [operand] } = readSettings(
    "predict",
    predictFlags,
    withCard("predict", call),
  );
  const flags = raw as Values<typeof predictFlags>;
  if (operand === undefined) throw new UsageError("far.ts predict: expected CLIP (a clip), found nothing");
  requireWeights(modelChoice(flags));
  await runJob({
    verb: "predict",
    declared: predictFlags,
    flags,
    operands: [operand],
    out: { path: flags.out, flag: "--out" },
    stopping: "stopping after this frame",
  }, (job) => predictClip(job, flags, operand));
}

async function predictClip(
  job: Job,
  flags: Values<typeof predictFlags>,
  operand: string,
): Promise<void> {
  const chosen = modelChoice(flags), vae = chooseDcae(chosen);
  chooseFar(chosen); // a model that is not there is said before a long video is read
  const clip = await readClip(operand, {
    ...clipOptions(flags),
    frames: flags.take === "end" ? flags.ctx : flags.ctx + flags.pred,
    last: flags.take === "end",
    side: vae.side,
  });
  if (clip.frames.frames < flags.ctx) {
    throw new RangeError(
      `${operand}: has ${clip.frames.frames} frames to give, expected at least --ctx ${flags.ctx}`,
    );
  }
  const far = chooseFar(chosen, clip.actions?.reduce((a, b) => Math.max(a, b), 0));
  await runPrediction(job, {
    verb: "predict",
    flags,
    settings: flags,
    clip: { path: operand, fps: clip.fps },
    context: sliceFrames(clip.frames, 0, flags.ctx),
    truth: sliceFrames(clip.frames, flags.ctx),
    far,
    vae,
    actions: actionsOf(flags, clip, far.config.condition),
    label: labelOf(flags, far.config.condition),
  });
}

function labelOf(
  flags: Values<typeof predictFlags>,
  condition: { readonly type: string; readonly classes: number } | null,
): number | undefined {
  if (flags.label === undefined) return undefined;
  if (condition?.type !== "label") throw new UsageError(`--label: ${flags.model} has no labels`);
  return labelNumber(flags.label, condition.classes);
}

/** Actions for context and prediction, when the model has any use for them. */
function actionsOf(
  flags: Values<typeof predictFlags>,
  clip: Clip,
  condition: { readonly type: string; readonly classes: number } | null,
): Int32Array | undefined {
  if (condition?.type !== "action") return undefined;
  const needed = flags.ctx + flags.pred;
  if (flags.actions !== undefined) {
    return checkActions(
      readActions(flags.actions, needed),
      needed,
      condition.classes,
      `--actions ${flags.actions}`,
    );
  }
  if (clip.actions === undefined) {
    throw new UsageError(
      `${clip.path}: has no actions and the model needs one per frame: give --actions FILE or a pattern such as --actions 0`,
    );
  }
  return checkActions(clip.actions, needed, condition.classes, clip.path);
}

/** `far.ts predict`. */
export const predictVerb = verb({
  name: "predict",
  summary: "Continue a clip: predict the frames that follow it",
  about:
    "Reads frames (and actions) of a clip from an npz, an npy, a video or a folder of images, encodes the context, predicts " +
    "frame after frame, and writes the prediction, a side-by-side with the truth where there is one, a contact sheet, " +
    "result.json (settings, timings, MSE, PSNR and SSIM of each frame) and report.html into the folder --out.\n\n" +
    "Ctrl-C finishes the frame; the same command then resumes the run, to the same bytes. With other settings it is refused: " +
    "--restart discards the interrupted run.",
  operands: [{
    name: "CLIP",
    help:
      "npz, npy, video or folder of images, or world:N, the N-th test walk of the built-in world (default for a bundled model: the clip on its card, world:0)",
    optional: true,
  }],
  flags: predictFlags,
  examples: [
    {
      does: "a walk through the built-in world with the bundled model",
      line: "predict world:3 --ctx 144 --pred 16",
    },
    {
      does: "the authors' DMLab model on its own kind of clip",
      line:
        "predict clip.npz --model FAR_B_Long --weights far_b_long.pth --vae-weights dcae.pth --ctx 144 --pred 156 " +
        "--guidance 1.5 --out out/dmlab",
    },
    {
      does: "the last 16 frames of a video, four different continuations",
      line:
        "predict holiday.mp4 --model FAR_B --weights far_b.pth --vae-weights dcae.pth --take end --samples 4",
    },
    { does: "repeat an earlier run", line: "predict --from out/predict/result.json --out out/again" },
  ],
  run: predict,
});
