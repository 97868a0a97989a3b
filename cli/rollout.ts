/**
 * `far.ts rollout`: what a model makes of the clips it is trained on, so that training can show it its own mistakes.
 *
 * @module
 */
import { latentSet } from "../lib/data/latents.ts";
import { chooseDcae, chooseFar } from "../lib/pipeline/models.ts";
import { openLatentSet } from "../lib/pipeline/option_set.ts";
import { checkRollouts, rollOutSet } from "../lib/pipeline/rollout_set.ts";
import { duration } from "../lib/units.ts";
import { type Call, type Flags, integer, path, texts, type Values, verb } from "./args.ts";
import { deviceFlags, progressFlags, restartFlag } from "./flags.ts";
import { runJob } from "./job.ts";
import { modelChoice, modelFlags } from "./model_flags.ts";

const flags = {
  to: path("folder for the latents with their roll-outs: new, empty, or an earlier result of this verb", {
    default: "out/rollouts",
    presentation: true,
  }),
  ...restartFlag,
  set: texts("replace an option of the file; may be given several times", { value: "PATH=VALUE" }),
  first: integer("first clip to roll out", { default: 0, min: 0 }),
  clips: integer("clips to roll out (default: all from --first on); the others are kept as they are", {
    min: 1,
  }),
  least: integer("fewest true frames before a roll-out", { default: 24, min: 1 }),
  most: integer("most true frames before a roll-out", { default: 152, min: 1 }),
  ...modelFlags,
  steps: integer("Euler steps per frame", { default: 4, min: 1, max: 1000 }),
  seed: integer("seed of contexts and noise", { default: 0, min: 0 }),
  batch: integer("clips that are rolled out together, after equally many true frames", {
    default: 16,
    min: 1,
    max: 1024,
  }),
  ...deviceFlags,
  ...progressFlags,
};

async function rollout({ flags: given, operands: [what] }: Call<Flags>): Promise<void> {
  const f = given as Values<typeof flags>, set = openLatentSet(what, f.set), chosen = modelChoice(f);
  const far = chooseFar(chosen), vae = chooseDcae({ ...chosen, randomWeights: true });
  const options = { ...f, clips: f.clips ?? set.length - f.first };
  await checkRollouts(set, far, options);
  await runJob({
    ...{ verb: "rollout", declared: flags, flags: f, operands: [what], out: "to" },
    stopping: "stopping after this batch",
  }, async (job, run) => {
    far.weights.verify();
    const { device } = await run.openDevice(), start = performance.now();
    await rollOutSet(job, { device, far, vae }, set, options);
    const seconds = (performance.now() - start) / 1000, random = far.weights.path === null;
    run.event("done", { path: f.to, clips: set.length, seconds, random_weights: random });
    run.say(
      `wrote ${f.to}: ${set.length} clips, ${latentSet(f.to).rollouts} with roll-outs, ${duration(seconds)}${
        random ? ", RANDOM WEIGHTS" : ""
      }`,
    );
  });
}

/** `far.ts rollout`. */
export const rolloutVerb = verb({
  name: "rollout",
  summary: "Let a model predict its training clips, for training on its own predictions",
  about:
    "Reads latents that encode wrote and predicts each clip after some of its frames, --least to --most of them. The folder " +
    "--to holds the true latents of all clips and the predicted ones of those; with models.rollout_ratio above 0, train takes clean context " +
    "from the predicted ones and still asks for the true next frame (docs/training.md): so the model learns to recover " +
    "from its own mistakes.\n\nInterrupted, the same command resumes with the first clip that is missing.",
  operands: [{
    name: "LATENTS",
    help:
      "folder of latents, as encode writes it for a data set, or an option file (yml) with a training set of latents",
  }],
  flags,
  examples: [{
    does: "the bundled model on the first 160 clips, with a single Euler step per frame",
    line: "rollout out/world/latents --clips 160 --steps 1 --to out/world/rollouts",
  }],
  run: rollout,
});
