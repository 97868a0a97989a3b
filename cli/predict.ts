/**
 * `far.ts predict`: what follows a clip.
 *
 * @module
 */
import { readClip } from "../lib/pipeline/clip.ts";
import { chooseDcae, chooseFar } from "../lib/pipeline/models.ts";
import { predictionTask } from "../lib/pipeline/task.ts";
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
import { clipFlags, clipOptions } from "./clip_flags.ts";
import { deviceFlags, progressFlags, resultFlags } from "./flags.ts";
import { modelFlags, samplerFlags } from "./model_flags.ts";
import { predictionJob } from "./prediction.ts";
import { readSettings } from "./settings.ts";

/** Flags of `predict`; `generate` takes most of them too. */
export const predictFlags = {
  ctx: integer("context frames that the model is given", { default: 16, min: 1, max: 100_000 }),
  pred: integer("frames to predict", { default: 16, min: 1, max: 100_000 }),
  ...modelFlags,
  ...samplerFlags,
  remember: integer(
    "most frames that the model sees, the new one included; the oldest are forgotten (default: all)",
    {
      min: 2,
      max: 100_000,
    },
  ),
  samples: integer("trajectories, each with noise of its own", { default: 1, min: 1, max: 1024 }),
  label: text("class of the clip, by number or UCF-101 name, for a model with labels (default: none)"),
  ...clipFlags,
  take: choice(["start", "end"], "take the context from the start of the clip, or its last frames", {
    default: "start",
  }),
  "kv-cache": choice(
    ["auto", "off"],
    "keep keys and values between steps and frames, or recompute them every time",
    { default: "auto" },
  ),
  "decode-context": choice(["no", "yes"], "show context frames as the autoencoder decodes them", {
    default: "no",
  }),
  ...resultFlags("out/predict"),
  format: choice(["auto", "mp4", "gif", "webm"], "kind of video; auto is mp4", { default: "auto" }),
  fps: real("frames per second of the videos (default: the clip's, or 10)", { min: 0.1, max: 240 }),
  from: path("result.json of an earlier run to repeat exactly; further flags change it", {
    presentation: true,
  }),
  ...deviceFlags,
  ...progressFlags,
};

async function predict(call: Call<Flags>): Promise<void> {
  const { flags, operands: [clipName] } = readSettings("predict", predictFlags, withCard("predict", call));
  const f = flags as Values<typeof predictFlags>;
  if (clipName === undefined) throw new UsageError("far.ts predict: expected CLIP (a clip), found nothing");
  const verb = { verb: "predict", declared: predictFlags, operands: [clipName] };
  await predictionJob(verb, f, async (chosen) => {
    const vae = chooseDcae(chosen), last = f.take === "end", frames = last ? f.ctx : f.ctx + f.pred;
    chooseFar(chosen); // a model that is not there is said before a long video is read
    const clip = await readClip(clipName, { ...clipOptions(f), frames, last, side: vae.side });
    const far = chooseFar(chosen, clip.actions?.reduce((a, b) => Math.max(a, b), 0));
    const task = predictionTask(far, clip, { ...f, context: f.ctx, predict: f.pred });
    return { far, vae, task, fps: clip.fps };
  });
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
      "npz, npy, video or folder of images, or world:N or grid:N, the N-th test walk of the built-in world (default for a bundled model: the clip on its card, grid:0)",
    optional: true,
  }],
  flags: predictFlags,
  examples: [
    {
      does: "a walk through the built-in world with the bundled model",
      line: "predict grid:3 --ctx 144 --pred 16",
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
