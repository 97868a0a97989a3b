/**
 * `far.ts evaluate`: scores of a model on held-out clips, beside simple baselines and itself with a short context.
 *
 * @module
 */
import { REPORT_FILE } from "../lib/pipeline/html_report.ts";
import { runEvaluation, TABLE_FILE } from "../lib/pipeline/evaluate.ts";
import { openEvaluationSet } from "../lib/pipeline/evaluation_set.ts";
import { chooseDcae, chooseFar, requireWeights, verifyModels } from "../lib/pipeline/models.ts";
import { RESULT_FILE } from "../lib/pipeline/pictures.ts";
import { duration } from "../lib/units.ts";
import { type Call, type Flags, integer, UsageError, type Values, verb } from "./args.ts";
import { withCard } from "./card.ts";
import { deviceFlags, progressFlags, resultFlags } from "./flags.ts";
import { runJob } from "./job.ts";
import { modelChoice, modelFlags, samplerFlags } from "./model_flags.ts";

const evaluateFlags = {
  clips: integer("clips to score", { default: 32, min: 1, max: 100_000 }),
  ctx: integer("context frames that the model is given", { default: 144, min: 1, max: 100_000 }),
  pred: integer("frames to predict and score", { default: 156, min: 1, max: 100_000 }),
  short: integer("context frames of the second row, the last ones of --ctx", { default: 16, min: 1 }),
  ...modelFlags,
  ...samplerFlags,
  batch: integer("clips that are predicted together", { default: 8, min: 1, max: 256 }),
  sheets: integer("clips whose frames are shown: the worst, the best, the second worst, ...", {
    default: 4,
    min: 0,
    max: 1000,
  }),
  ...resultFlags("out/evaluate"),
  ...deviceFlags,
  ...progressFlags,
};

async function evaluate(call: Call<Flags>): Promise<void> {
  const { flags, operands: [what = "world"] } = withCard("evaluate", call);
  const f = flags as Values<typeof evaluateFlags>, chosen = modelChoice(f);
  if (f.short > f.ctx) throw new UsageError(`--short: expected at most --ctx ${f.ctx}, found ${f.short}`);
  requireWeights(chosen);
  await runJob({
    ...{ verb: "evaluate", declared: evaluateFlags, flags: f, operands: [what], out: "out" },
    stopping: "stopping after this frame",
  }, async (job, run) => {
    const far = chooseFar(chosen), vae = chooseDcae(chosen);
    const clips = openEvaluationSet(what, f, { clips: f.clips, side: vae.side });
    verifyModels({ far, vae });
    const models = { ...await run.openDevice(), far, vae };
    const { result: { methods, memory, seconds }, tables } = await runEvaluation(job, models, clips, f);
    run.event("done", { out: f.out, methods, memory: memory ?? null, seconds });
    run.say(
      `took ${duration(seconds)}; wrote ${f.out}: ${TABLE_FILE}, ${RESULT_FILE}, ${REPORT_FILE}, sheets`,
    );
    if (!f.json && !f.quiet) console.log(tables);
  });
}

/** `far.ts evaluate`. */
export const evaluateVerb = verb({
  name: "evaluate",
  summary: "Score a model on held-out clips, beside baselines and a short context",
  about:
    "Predicts clips that were not trained on and scores every frame (PSNR, SSIM): the model, the model with the last --short " +
    "frames of context only, the last frame repeated, the mean of the context, and the truth through the autoencoder, which " +
    "bounds them all. Differences are paired by clip and come with their standard error. For the built-in world, frames are " +
    "also sorted by where the context has shown their place: near, only long ago, or never.\n\n" +
    "Writes table.md, result.json (every score of every frame, with the protocol), contact sheets and report.html (curves by " +
    "frame, tables that sort) into --out. Ctrl-C keeps the clips that are done; the same command then resumes the run.",
  operands: [{
    name: "SET",
    help:
      "world or grid (default: the one on the model's card), or an option file (yml), of which datasets.sample is taken",
    optional: true,
  }],
  flags: evaluateFlags,
  examples: [
    { does: "the bundled model on 32 test walks of the built-in world", line: "evaluate grid" },
    {
      does: "the authors' DMLab model on clips of an option file",
      line:
        "evaluate train_FAR_B_Long_dmlab.yml --model FAR_B_Long --weights far_b_long.pth --vae-weights dcae.pth",
    },
  ],
  run: evaluate,
});
