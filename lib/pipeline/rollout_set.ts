/**
 * Roll-outs of clips that a model is trained on, so that training can show it its own mistakes.
 *
 * @module
 */
import type { Clip, DataSet } from "../data/clip.ts";
import { stampOf } from "../data/stamp.ts";
import type { DcaeConfig } from "../dcae/config.ts";
import { fileHash } from "../io/hash.ts";
import type { Params } from "../params.ts";
import { streamOf, uniform } from "../random.ts";
import { disposeAll } from "../tensor.ts";
import { bytes, duration } from "../units.ts";
import { ChoiceError } from "./choice.ts";
import { refuseTooLarge, sampleCost, totalCost } from "./cost.ts";
import type { Job } from "./job.ts";
import { LATENT_PARTS, type LatentStatistics, writeInParts } from "./latent_parts.ts";
import type { OpenModels } from "./models.ts";
import { costsOf, measureRates, sampleSeconds } from "./rates.ts";
import { Rollout } from "./rollout.ts";
import { RANDOM_STAMP } from "./weights.ts";

/** Roll-outs to make. */
export interface SetRollouts {
  /** First clip to roll out. */
  readonly first: number;
  /** Clips to roll out, from `first` on; the others are kept as they are. */
  readonly clips: number;
  /** Fewest true frames before a roll-out. */
  readonly least: number;
  /** Most true frames before a roll-out, at least as many. */
  readonly most: number;
  /** Euler steps per frame. */
  readonly steps: number;
  /** Seed of contexts and noise. */
  readonly seed: number;
  /** Clips that are rolled out together, after equally many true frames. */
  readonly batch: number;
}

/** A transformer on its device, and the configuration of the autoencoder that made the latents. */
export interface RolloutModels extends Pick<OpenModels, "device" | "far"> {
  /** The autoencoder, of which no weights are needed. */
  readonly vae: Pick<OpenModels["vae"], "config">;
}

/**
 * Checks before any work that a set has the clips, frames and conditions that its roll-outs need.
 *
 * @throws {ChoiceError} If it has not.
 */
export async function checkRollouts(
  set: DataSet,
  { name, config: { condition } }: OpenModels["far"],
  { first, clips, least, most }: SetRollouts,
): Promise<void> {
  if (least > most) throw new ChoiceError(`{least}: expected at most {most} ${most}, found ${least}`);
  if (clips < 1 || first + clips > set.length) {
    throw new ChoiceError(
      `{first}, {clips}: expected some of the ${set.length} clips of ${set.name}, found ${first} to ${
        first + clips - 1
      }`,
    );
  }
  for (let i = first; i < first + clips; i++) {
    const there = await set.frames(i);
    if (most >= there) {
      throw new ChoiceError(
        `{most}: expected fewer than the ${there} frames of ${set.source(i)}, found ${most}`,
      );
    }
  }
  if (condition?.type === "action" && !set.actions || condition?.type === "label" && !set.classes) {
    throw new ChoiceError(`${set.name}: has no ${condition.type}s and ${name} needs them`);
  }
}

/** True frames before the roll-outs of a batch: `least` to `most`, each equally likely. */
function contextOf({ least, most, seed }: SetRollouts, first: number): number {
  const [u] = uniform(streamOf(seed, `context of roll-out ${first}`), 1);
  return least + Math.floor(u * (most - least + 1));
}

/** Predicts the frames of clips from frame `ctx` on: histories, true before it, `[F, C, H, W]` each. */
async function rollOut(
  { device, far, vae }: RolloutModels,
  params: Params,
  clips: readonly Clip[],
  ctx: number,
  { steps, seed }: { readonly steps: number; readonly seed: number },
): Promise<Clip[]> {
  const B = clips.length,
    [F, C, H, W] = clips[0].latents!.shape,
    each = C * H * W,
    scale = vae.config.scalingFactor;
  const context = new Float32Array(B * ctx * each);
  const actions = new Int32Array(B * F), history = clips.map(({ latents }) => latents!.data.slice());
  for (const [b, clip] of clips.entries()) {
    const { shape, data } = clip.latents!;
    if (shape.join() !== [F, C, H, W].join()) {
      throw new ChoiceError(
        `${clip.source}: latents are [${shape}], expected [${[F, C, H, W]}] as in ${clips[0].source}`,
      );
    }
    for (let i = 0; i < ctx * each; i++) context[b * ctx * each + i] = data[i] * scale;
    if (clip.actions) actions.set(clip.actions, b * F);
  }
  const { condition } = far.config;
  using run = new Rollout({ device, params, config: far.config }, {
    frameShape: [B, C, H, W],
    ...{ context, predict: F - ctx, steps, seed },
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

/** Estimates the roll-outs, says so, and refuses what does not fit. */
async function estimate(
  { watch }: Job,
  { device, far }: RolloutModels,
  set: DataSet,
  o: SetRollouts,
): Promise<void> {
  const { shape: [, , height, width] } = (await set.read(o.first)).latents!,
    frames = await set.frames(o.first);
  const clips = Math.min(o.batch, o.clips), predict = frames - o.least;
  const shape = { clips, height, width, context: o.least, predict, steps: o.steps, guidance: 1, cache: true };
  const cost = await sampleCost(far.config, shape, far.weights.dtype),
    memory = totalCost(cost, o.steps).memory;
  refuseTooLarge(device, { rollout: memory }, "take a smaller --batch, or --dtype f16");
  // The dry run predicts after the fewest frames; the mean roll-out is shorter.
  const share = (frames - (o.least + o.most) / 2) / predict * o.clips / clips;
  const rollout = share * sampleSeconds(cost, o.steps, await measureRates(device, costsOf(cost)));
  watch.event("estimate", { seconds: { rollout }, memory });
  watch.say(`estimate: ${duration(rollout)} for ${o.clips} clips, ${bytes(memory)} of device memory`);
}

/**
 * Writes the latents of a set with roll-outs of some of its clips. Stopped, the same job resumes with the first clip that is
 * missing.
 *
 * @param job The folder that gets the latents; not begun yet.
 * @param models What predicts; nothing of it is loaded yet.
 * @param set Latents, not multiplied by the scaling factor, that pass {@linkcode checkRollouts}.
 * @param options Which clips, after how many frames.
 */
export async function rollOutSet(
  job: Job,
  models: RolloutModels,
  set: DataSet,
  options: SetRollouts,
): Promise<LatentStatistics> {
  const { device, far } = models, vae: DcaeConfig = models.vae.config, weights = fileHash(far.weights.path);
  const { first, clips: count, least, most, steps, seed, batch } = options;
  await estimate(job, models, set, options);
  const about = {
    latents: set.name,
    rolled_out: `${first} to ${first + count - 1}`,
    model: far.name,
    weights: weights ?? RANDOM_STAMP,
    context: `${least} to ${most} frames`,
    steps: String(steps),
    seed: String(seed),
    batch: String(batch),
  };
  const decides = { about, clips: stampOf(set), models: { far: far.config, vae }, weights };
  await job.begin(device, decides, LATENT_PARTS);
  const params = far.weights.load(device), isChosen = (i: number) => i >= first && i < first + count;
  try {
    return await writeInParts(job, {
      ...{ set, about, stage: "rollout", together: batch },
      make: async (indices) => {
        const clips = await Promise.all(indices.map((i) => set.read(i))), mine = indices.filter(isChosen);
        if (mine.length === 0) return clips;
        const ctx = contextOf(options, indices[0]), some = clips.filter((_, i) => isChosen(indices[i]));
        const made = await rollOut(models, params, some, ctx, { steps, seed: seed + mine[0] });
        return clips.map((clip, i) => made[mine.indexOf(indices[i])] ?? clip);
      },
    });
  } finally {
    disposeAll(params);
  }
}
