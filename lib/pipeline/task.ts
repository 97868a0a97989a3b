/**
 * A prediction that is ready to run: frames that are given, frames that really followed, conditions, settings.
 *
 * @module
 */
import type { FarConfig } from "../far/config.ts";
import { type Frames, makeFrames, sliceFrames } from "../io/frames.ts";
import { counted } from "../units.ts";
import { BUNDLED } from "./bundled.ts";
import { ChoiceError } from "./choice.ts";
import { checkActions, type Clip, readActions } from "./clip.ts";
import { labelNumber } from "./labels.ts";
import type { RolloutOptions } from "./rollout.ts";
import type { Part } from "./weights.ts";

/** Options of a prediction. */
export interface PredictOptions {
  /** Context frames that the model is given, the first ones of the clip; as on the model's card, else 16. */
  readonly context?: number;
  /** Frames to predict; as on the card, else 16. */
  readonly predict?: number;
  /** Euler steps per frame; as on the card, else 50. */
  readonly steps?: number;
  /** Classifier-free guidance: above 1 guides, -1 drops every condition. Default 1. */
  readonly guidance?: number;
  /** Seed of the noise. Default 0. */
  readonly seed?: number;
  /** Most frames that the model sees, the one that it predicts included: the oldest ones are forgotten. Default: all. */
  readonly remember?: number;
  /** One action per frame of context and prediction, or a file or a pattern such as `0*36,2*12,1`; the clip's own unless given. */
  readonly actions?: ArrayLike<number> | string;
  /** Class of the clip by number or UCF-101 name, for a model with labels. */
  readonly label?: number | string;
}

/** The part of a prediction that decides which frames come out. */
export interface PredictionTask {
  /** Frames that are given; none for a generation, but their size counts. */
  readonly context: Frames;
  /** Frames that really followed, as many as there are. */
  readonly truth: Frames;
  /** Frames to predict. */
  readonly predict: number;
  /** Euler steps per frame. */
  readonly steps: number;
  /** Classifier-free guidance. */
  readonly guidance: number;
  /** Seed of the noise. */
  readonly seed: number;
  /** Most frames that the model sees; all unless given. */
  readonly remember?: number;
  /** One per frame of context and prediction, for a model with actions. */
  readonly actions?: Int32Array;
  /** Class of the clip; none where it is absent, for a model with labels. */
  readonly label?: number;
}

/**
 * Actions and label for a model that takes them.
 *
 * @param far The transformer.
 * @param frames Frames of context and prediction together.
 * @param given What the caller chose.
 * @param clip Actions of its own; absent for a generation, which has no clip.
 * @throws {ChoiceError} If the model needs actions and there are none, or has no labels and there is one.
 * @throws {RangeError} If there are too few actions, or one that the model does not know.
 */
export function conditionsOf(
  { name, config: { condition } }: Pick<Part<FarConfig>, "name" | "config">,
  frames: number,
  { actions, label }: Pick<PredictOptions, "actions" | "label">,
  clip?: Pick<Clip, "path" | "actions">,
): Pick<PredictionTask, "actions" | "label"> {
  if (label !== undefined && condition?.type !== "label") {
    throw new ChoiceError(
      `{label}: ${name} has no labels${condition ? `, its condition is ${condition.type}` : ""}`,
    );
  }
  if (condition?.type === "label") {
    return label === undefined ? {} : { label: labelNumber(String(label), condition.classes) };
  }
  if (condition?.type !== "action") return {};
  const found = typeof actions === "string" ? readActions(actions, frames) : actions ?? clip?.actions;
  if (found === undefined) {
    const who = clip === undefined
      ? `${name} needs one action per frame`
      : `${clip.path}: has no actions and the model needs one per frame`;
    throw new ChoiceError(`${who}: give {actions}, a file or a pattern such as 0*8,1`);
  }
  const from = actions === undefined
    ? clip!.path
    : typeof actions === "string"
    ? `actions ${actions}`
    : "actions";
  return { actions: checkActions(Int32Array.from(found), frames, condition.classes, from) };
}

/** Numbers of a prediction, from the options, else from the card of a bundled model. */
function numbersOf(
  name: string,
  { context, predict, steps, guidance = 1, seed = 0, remember }: PredictOptions,
) {
  const card = BUNDLED[name]?.defaults.predict ?? {};
  return {
    context: context ?? Number(card.ctx ?? 16),
    predict: predict ?? Number(card.pred ?? 16),
    steps: steps ?? Number(card.steps ?? 50),
    guidance,
    seed,
    ...(remember === undefined ? {} : { remember }),
  };
}

/** Frames of context and prediction that a prediction with these options reads. */
export function framesNeeded(far: Pick<Part<FarConfig>, "name">, options: PredictOptions): number {
  const { context, predict } = numbersOf(far.name, options);
  return context + predict;
}

/**
 * The prediction of what follows the first frames of a clip.
 *
 * @param far The transformer; what the options leave out is on its card, if it is a bundled one.
 * @param clip Its first frames are given, the next ones are the truth.
 * @param options What to predict.
 * @throws {ChoiceError} If actions are missing, or the model has no labels.
 * @throws {RangeError} If the clip has too few frames or actions.
 *
 * @example
 * ```ts
 * import { farConfig } from "../far/config.ts";
 * import { readClip } from "./clip.ts";
 * import { predictionTask } from "./task.ts";
 * const far = { name: "mine", config: farConfig("FAR_B_Long") };
 * const task = predictionTask(far, await readClip("world:3", { frames: 6 }), { context: 4, predict: 3 });
 * console.assert(task.context.frames === 4 && task.truth.frames === 2 && task.steps === 50);
 * ```
 */
export function predictionTask(
  far: Pick<Part<FarConfig>, "name" | "config">,
  clip: Clip,
  options: PredictOptions = {},
): PredictionTask {
  const { context, ...numbers } = numbersOf(far.name, options), end = context + numbers.predict;
  if (clip.frames.frames < context) {
    throw new RangeError(
      `${clip.path}: has ${clip.frames.frames} frames to give, expected at least ${context} of context`,
    );
  }
  return {
    context: sliceFrames(clip.frames, 0, context),
    truth: sliceFrames(clip.frames, context, end),
    ...numbers,
    ...conditionsOf(far, end, options, clip),
  };
}

/**
 * A generation, which starts from noise alone.
 *
 * @param far The transformer.
 * @param side Rows and columns of the frames.
 * @param options What to generate; `context` is 0.
 * @throws {ChoiceError} If actions are missing, or the model has no labels.
 */
export function generationTask(
  far: Pick<Part<FarConfig>, "name" | "config">,
  side: number,
  options: Omit<PredictOptions, "context"> = {},
): PredictionTask {
  const { context: _, ...numbers } = numbersOf(far.name, options), none = makeFrames(0, side, side);
  return { context: none, truth: none, ...numbers, ...conditionsOf(far, numbers.predict, options) };
}

/** Conditions as a roll-out of one clip takes them: a model with labels is told that there is none. */
export const rolloutConditions = (
  { config: { condition } }: Pick<Part<FarConfig>, "config">,
  { actions, label }: Pick<PredictionTask, "actions" | "label">,
): Pick<RolloutOptions, "actions" | "label"> => ({
  actions,
  label: condition?.type === "label" ? [label ?? condition.classes] : undefined,
});

/** The sampler's settings in words, for a protocol. */
export const samplerText = (
  { steps, guidance, seed, remember }: Pick<PredictionTask, "steps" | "guidance" | "seed" | "remember">,
): string =>
  `Euler, ${counted(steps, "step")}, guidance ${guidance}, seed ${seed}` +
  (remember === undefined ? "" : `, at most ${counted(remember, "frame")} remembered`);
