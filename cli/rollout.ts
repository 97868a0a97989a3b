/**
 * `far.ts rollout`: what a model makes of the clips it is trained on, so that training can show it its own mistakes.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import type { Clip, DataSet } from "../lib/data/clip.ts";
import { latentSet } from "../lib/data/latents.ts";
import { stampOf } from "../lib/data/stamp.ts";
import { Rollout } from "../lib/pipeline/rollout.ts";
import { streamOf, uniform } from "../lib/random.ts";
import type { Params } from "../lib/params.ts";
import { disposeAll } from "../lib/tensor.ts";
import { type Call, type Flags, integer, path, UsageError, type Values, verb } from "./args.ts";
import { WORKING, writeInParts } from "./clip_parts.ts";
import { refuseTooLarge, sampleCost, totalCost } from "../lib/pipeline/cost.ts";
import { availableMemory, deviceFlags, progressFlags, restartFlag } from "./flags.ts";
import { fileHash } from "../lib/io/hash.ts";
import { type Job, runJob } from "./job.ts";
import { chooseDcae, chooseFar } from "../lib/pipeline/models.ts";
import { modelChoice, modelFlags } from "./model_flags.ts";
import { costsOf, measureRates, sampleSeconds } from "../lib/pipeline/rates.ts";
import { bytes, duration } from "../lib/units.ts";

const flags = {
  to: path("folder for the latents with their roll-outs: new, empty, or an earlier result of this verb", {
    default: "out/rollouts",
    presentation: true,
  }),
  ...restartFlag,
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

type RolloutFlags = Values<typeof flags>;

/** Whether a clip is to be rolled out. */
function chosenOf({ first, clips }: RolloutFlags, set: DataSet): (index: number) => boolean {
  const end = clips === undefined ? set.length : first + clips;
  if (first >= end || end > set.length) {
    throw new UsageError(
      `--first, --clips: expected some of the ${set.length} clips of ${set.name}, found ${first} to ${
        end - 1
      }`,
    );
  }
  return (index) => index >= first && index < end;
}

/** True frames before the roll-outs of a batch: `least` to `most`, each equally likely. */
function contextOf({ least, most, seed }: RolloutFlags, first: number): number {
  const [u] = uniform(streamOf(seed, `context of roll-out ${first}`), 1);
  return least + Math.floor(u * (most - least + 1));
}

/** Predicts the frames of clips from frame `ctx` on: histories, true before it, `[F, C, H, W]` each. */
async function rollOut(
  { device, far, params, scale }: {
    readonly device: Device;
    readonly far: ReturnType<typeof chooseFar>;
    readonly params: Params;
    readonly scale: number;
  },
  clips: readonly Clip[],
  ctx: number,
  f: RolloutFlags,
  first: number,
): Promise<Clip[]> {
  const B = clips.length, [F, C, H, W] = clips[0].latents!.shape, each = C * H * W, predict = F - ctx;
  const context = new Float32Array(B * ctx * each);
  const actions = new Int32Array(B * F), history = clips.map(({ latents }) => latents!.data.slice());
  for (const [b, clip] of clips.entries()) {
    const { shape, data } = clip.latents!;
    if (shape.join() !== [F, C, H, W].join()) {
      throw new UsageError(
        `${clip.source}: latents are [${shape}], expected [${[F, C, H, W]}] as in ${clips[0].source}`,
      );
    }
    for (let i = 0; i < ctx * each; i++) context[b * ctx * each + i] = data[i] * scale;
    if (clip.actions) actions.set(clip.actions, b * F);
  }
  const { condition } = far.config;
  using run = new Rollout({ device, params, config: far.config }, {
    frameShape: [B, C, H, W],
    context,
    predict,
    steps: f.steps,
    seed: f.seed + first,
    ...(condition?.type === "action" ? { actions } : {}),
    ...(condition?.type === "label" ? { label: clips.map(({ label }) => label!) } : {}),
  });
  for await (const { frame, latents } of run) {
    for (const [b, made] of history.entries()) {
      for (let i = 0; i < each; i++) made[frame * each + i] = latents[b * each + i] / scale;
    }
  }
  return clips.map((clip, b) => ({ ...clip, latents: { ...clip.latents!, history: history[b] } }));
}

async function rollout({ flags: given, operands: [folder] }: Call<Flags>): Promise<void> {
  const f = given as RolloutFlags, set = latentSet(folder), chosen = chosenOf(f, set);
  if (f.least > f.most) throw new UsageError(`--least: expected at most --most ${f.most}, found ${f.least}`);
  await runJob({
    verb: "rollout",
    declared: flags,
    flags: f,
    operands: [folder],
    out: { path: f.to, flag: "--to" },
    stopping: "stopping after this batch",
  }, (job) => rollOutSet(job, f, set, chosen));
}

async function rollOutSet(
  job: Job,
  f: RolloutFlags,
  set: DataSet,
  chosen: (index: number) => boolean,
): Promise<void> {
  const models = modelChoice(f), far = chooseFar(models), { condition } = far.config, { progress } = job;
  const count = f.clips ?? set.length - f.first, frames = await set.frames(f.first);
  for (let i = f.first; i < f.first + count; i++) {
    const there = await set.frames(i);
    if (f.most >= there) {
      throw new UsageError(
        `--most: expected fewer than the ${there} frames of ${set.source(i)}, found ${f.most}`,
      );
    }
  }
  if (condition?.type === "action" && !set.actions || condition?.type === "label" && !set.classes) {
    throw new UsageError(`${set.name}: has no ${condition.type}s and ${far.name} needs them`);
  }
  far.weights.verify();
  const vae = chooseDcae({ ...models, randomWeights: true }).config, scale = vae.scalingFactor;
  const device = await job.openDevice();
  const { shape: [, , height, width] } = (await set.read(f.first)).latents!;
  const together = Math.min(f.batch, count);
  const shape = { clips: together, height, width, context: f.least, predict: frames - f.least };
  const cost = await sampleCost(
    far.config,
    { ...shape, steps: f.steps, guidance: 1, cache: true },
    f.dtype,
  );
  const memory = totalCost(cost, f.steps).memory;
  refuseTooLarge(device, { rollout: memory }, availableMemory(), "take a smaller --batch, or --dtype f16");
  // The dry run predicts after the fewest frames; the mean roll-out is shorter.
  const share = (frames - (f.least + f.most) / 2) / (frames - f.least) * count / together;
  const expected = share * sampleSeconds(cost, f.steps, await measureRates(device, costsOf(cost)));
  progress.event("estimate", { seconds: { rollout: expected }, memory });
  progress.say(`estimate: ${duration(expected)} for ${count} clips, ${bytes(memory)} of device memory`);
  const weights = fileHash(far.weights.path);
  const about = {
    latents: set.name,
    rolled_out: `${f.first} to ${f.first + count - 1}`,
    model: far.name,
    weights: weights ?? "RANDOM WEIGHTS",
    context: `${f.least} to ${f.most} frames`,
    steps: String(f.steps),
    seed: String(f.seed),
    batch: String(f.batch),
  };
  await job.begin({ about, clips: stampOf(set), models: { far: far.config, vae }, weights }, WORKING);
  const params = far.weights.load(device), start = performance.now();
  await writeInParts(job, {
    set,
    about,
    stage: "rollout",
    together: f.batch,
    make: async (indices) => {
      const clips = await Promise.all(indices.map((i) => set.read(i))), mine = indices.filter(chosen);
      if (mine.length === 0) return clips;
      const ctx = contextOf(f, indices[0]), some = clips.filter((_, i) => chosen(indices[i]));
      const made = await rollOut({ device, far, params, scale }, some, ctx, f, mine[0]);
      return clips.map((clip, i) => made[mine.indexOf(indices[i])] ?? clip);
    },
  });
  disposeAll(params);
  const seconds = (performance.now() - start) / 1000, random = far.weights.path === null;
  progress.event("done", { path: f.to, clips: set.length, seconds, random_weights: random });
  progress.say(
    `wrote ${f.to}: ${set.length} clips, ${latentSet(f.to).rollouts} with roll-outs, ${duration(seconds)}${
      random ? ", RANDOM WEIGHTS" : ""
    }`,
  );
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
  operands: [{ name: "LATENTS", help: "folder of latents, as encode writes it for a data set" }],
  flags,
  examples: [{
    does: "the bundled model on the first 160 clips, with a single Euler step per frame",
    line: "rollout out/world/latents --clips 160 --steps 1 --to out/world/rollouts",
  }],
  run: rollout,
});
