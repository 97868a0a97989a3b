/**
 * `far.ts generate`: a clip out of nothing but noise and a condition.
 *
 * @module
 */
import { makeFrames } from "../lib/io/frames.ts";
import { type Call, type Flags, integer, path, UsageError, type Values, verb } from "./args.ts";
import { checkActions, readActions } from "../lib/pipeline/clip.ts";
import { labelNumber } from "../lib/pipeline/labels.ts";
import { chooseDcae, chooseFar, requireWeights } from "../lib/pipeline/models.ts";
import { modelChoice } from "./model_flags.ts";
import { withCard } from "./card.ts";
import { predictFlags } from "./predict.ts";
import { type Job, runJob } from "./job.ts";
import { runPrediction } from "./run_prediction.ts";
import { readSettings } from "./settings.ts";

const {
  ctx: _ctx,
  pred: _pred,
  start: _start,
  every: _every,
  take: _take,
  fit: _fit,
  "from-fps": _fps,
  ...shared
} = predictFlags;
const { "decode-context": _decode, ...kept } = shared;

const flags = {
  frames: integer("frames to generate", { default: 16, min: 1, max: 100_000 }),
  ...kept,
  out: path("folder for the result: new, empty, or an earlier result of this verb, which is replaced", {
    default: "out/generate",
    presentation: true,
  }),
};

async function generate(call: Call<Flags>): Promise<void> {
  const f = readSettings("generate", flags, withCard("generate", call)).flags as Values<typeof flags>;
  requireWeights(modelChoice(f));
  await runJob({
    verb: "generate",
    declared: flags,
    flags: f,
    operands: [],
    out: { path: f.out, flag: "--out" },
    stopping: "stopping after this frame",
  }, (job) => generateClip(job, f));
}

async function generateClip(job: Job, f: Values<typeof flags>): Promise<void> {
  const chosen = modelChoice(f),
    vae = chooseDcae(chosen),
    far = chooseFar(chosen),
    { condition } = far.config;
  const side = f.size ?? vae.side;
  if (condition?.type !== "label" && f.label !== undefined) {
    throw new UsageError(
      `--label: ${far.name} has no labels${condition ? `, its condition is ${condition.type}` : ""}`,
    );
  }
  if (condition?.type === "action" && f.actions === undefined) {
    throw new UsageError(
      `far.ts generate: ${far.name} needs one action per frame: give --actions FILE or a pattern such as --actions 0`,
    );
  }
  const actions = condition?.type === "action"
    ? checkActions(readActions(f.actions!, f.frames), f.frames, condition.classes, `--actions ${f.actions}`)
    : undefined;
  await runPrediction(job, {
    verb: "generate",
    flags: {
      ...f,
      pred: f.frames,
      "decode-context": "no",
    },
    settings: f,
    clip: null,
    context: makeFrames(0, side, side),
    truth: makeFrames(0, side, side),
    far,
    vae,
    actions,
    label: f.label === undefined ? undefined : labelNumber(f.label, condition!.classes),
  });
}

/** `far.ts generate`. */
export const generateVerb = verb({
  name: "generate",
  summary: "Generate a clip without context: unconditional, by label, or along actions",
  about:
    "Starts from noise alone. Labels are numbers, or for UCF-101 names; actions are a file or a pattern. " +
    "Output, resuming and settings are as in predict.",
  flags,
  examples: [
    {
      does: "a walk with the bundled model: three steps forward, four turns to the right",
      line: "generate --actions 2*3,1*4 --frames 32 --steps 10",
    },
    {
      does: "try another model without trained weights",
      line: "generate --model FAR_B --random-weights --frames 2 --steps 2 --out out/try",
    },
    {
      does: "a class of UCF-101, guided",
      line:
        "generate --model FAR_L --weights far_l.pth --vae 16x --vae-weights dcae.pth --label CliffDiving --guidance 2",
    },
    {
      does: "along a pattern of actions: 12 frames of action 1, then 4 of action 0",
      line: "generate --model FAR_B_Long --weights far_b_long.pth --vae-weights dcae.pth --actions 1*12,0*4",
    },
  ],
  run: generate,
});
