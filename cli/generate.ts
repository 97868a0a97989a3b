/**
 * `far.ts generate`: a clip out of nothing but noise and a condition.
 *
 * @module
 */
import { chooseDcae, chooseFar } from "../lib/pipeline/models.ts";
import { generationTask } from "../lib/pipeline/task.ts";
import { type Call, type Flags, integer, type Values, verb } from "./args.ts";
import { withCard } from "./card.ts";
import { resultFlags } from "./flags.ts";
import { predictFlags } from "./predict.ts";
import { predictionJob } from "./prediction.ts";
import { readSettings } from "./settings.ts";

const {
  ctx: _ctx,
  pred: _pred,
  start: _start,
  every: _every,
  take: _take,
  fit: _fit,
  "from-fps": _fps,
  "decode-context": _decode,
  ...shared
} = predictFlags;

const flags = {
  frames: integer("frames to generate", { default: 16, min: 1, max: 100_000 }),
  ...shared,
  ...resultFlags("out/generate"),
};

async function generate(call: Call<Flags>): Promise<void> {
  const f = readSettings("generate", flags, withCard("generate", call)).flags as Values<typeof flags>;
  const verb = { verb: "generate", declared: flags, operands: [] };
  await predictionJob(verb, f, (chosen) => {
    const vae = chooseDcae(chosen), far = chooseFar(chosen);
    return { far, vae, task: generationTask(far, f.size ?? vae.side, { ...f, predict: f.frames }) };
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
