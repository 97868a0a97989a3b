/**
 * A model with everything that a prediction needs: from a clip to what follows it in three lines.
 *
 * @module
 */
import type { Device, DeviceName } from "../../kernels/device.ts";
import { openDevice } from "../../kernels/open.ts";
import { framesBundle, framesText } from "../display/frames.ts";
import { type MediaBundle, showing } from "../display/showing.ts";
import { tableBundle, type TableRow } from "../display/tables.ts";
import { type FarConfig, farShapes } from "../far/config.ts";
import { type Frames, sliceFrames } from "../io/frames.ts";
import { sideBySide } from "../io/sheet.ts";
import { type FrameScore, meanScore, scoreFrames } from "../metrics/frames.ts";
import { disposeAll } from "../tensor.ts";
import { BUNDLED, type Card, FIRST_BUNDLED } from "./bundled.ts";
import { ChoiceError } from "./choice.ts";
import { checkActions, type Clip, readActions, readClip } from "./clip.ts";
import { type Decoded, decodeFrames, encodeFrames, type Latents, makeLatents } from "./codec.ts";
import { labelNumber } from "./labels.ts";
import { type Autoencoder, chooseDcae, chooseFar, type ModelChoice } from "./models.ts";
import { Rollout, type RolloutOptions } from "./rollout.ts";
import type { Part } from "./weights.ts";

/** Choice of models and device. */
export interface LoadOptions extends ModelChoice {
  /** A device, or the name of one to open; chosen as on the command line unless given. */
  readonly device?: Device | DeviceName | "auto";
}

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
  /** One action per frame of context and prediction, or a file or a pattern such as `0*36,2*12,1`; the clip's own unless given. */
  readonly actions?: ArrayLike<number> | string;
  /** Class of the clip by number or UCF-101 name, for a model with labels. */
  readonly label?: number | string;
}

/** A prediction. A notebook shows it beside the truth. */
export interface Prediction {
  /** Index in the clip of the first predicted frame. */
  readonly first: number;
  /** The predicted frames. */
  readonly frames: Frames;
  /** Their colours before rounding, `[F, H, W, 3]` in [0, 1]. */
  readonly values: Float32Array;
  /** Their scaled latents. */
  readonly latents: Latents;
  /** The frames that really followed, as many as the clip has. */
  readonly truth: Frames;
  /** Scores of the predicted frames for which there is a truth. */
  readonly scores: readonly FrameScore[];
}

/** A transformer and the autoencoder that it was trained on, on a device. */
export class Model implements Disposable {
  /** Where it computes. */
  readonly device: Device;
  /** The transformer. Its weights are on the device only while they are needed. */
  readonly far: Part<FarConfig>;
  /** The autoencoder, likewise. */
  readonly vae: Autoencoder;
  /** The card of a bundled model. */
  readonly card?: Card;
  readonly #ownsDevice: boolean;

  /** Made by {@linkcode loadModel}. */
  constructor(device: Device, far: Part<FarConfig>, vae: Autoencoder, ownsDevice: boolean) {
    [this.device, this.far, this.vae, this.#ownsDevice] = [device, far, vae, ownsDevice];
    this.card = BUNDLED[far.name];
  }

  /**
   * Predicts what follows the first frames of a clip.
   *
   * @param clip A clip, or what {@linkcode readClip} reads.
   * @throws {RangeError} If the clip has too few frames or actions, or the model cannot take its size.
   *
   * @example
   * ```ts
   * import { loadModel } from "./model.ts";
   * using model = await loadModel({ device: "cpu" }); // the bundled model
   * const { frames, scores } = await model.predict("world:3", { context: 16, predict: 2 });
   * console.assert(frames.frames === 2 && frames.height === 64 && scores[0].psnr! > 10);
   * ```
   */
  async predict(clip: Clip | string, options: PredictOptions = {}): Promise<Prediction> {
    const { defaults: { predict: card = {} } = {} } = this.card ?? {};
    const { context = Number(card.ctx ?? 16), predict = Number(card.pred ?? 16) } = options;
    const { steps = Number(card.steps ?? 50), guidance, seed } = options;
    const whole = typeof clip === "string"
      ? await readClip(clip, { frames: context + predict, side: this.vae.side })
      : clip;
    if (whole.frames.frames < context) {
      throw new RangeError(
        `${whole.path}: has ${whole.frames.frames} frames, expected at least ${context} of context`,
      );
    }
    const given = await encodeClip(this, sliceFrames(whole.frames, 0, context));
    const conditions = this.#conditions(whole, context + predict, options);
    using walk = rollout(this, given, { predict, steps, guidance, seed, ...conditions });
    for await (const _ of walk);
    const latents = makeLatents({ ...given, values: walk.made }),
      { frames, values } = await decodeClip(this, latents);
    const truth = sliceFrames(whole.frames, context, context + predict),
      scores = showing(
        scoreFrames(values, truth, context),
        (s) => tableBundle(s as readonly unknown[] as TableRow[]),
      );
    return showing({ first: context, frames, values, latents, truth, scores }, predictionBundle);
  }

  /**
   * The same weights under another configuration, such as another window of short-term frames; nothing is loaded again.
   *
   * @param change What differs.
   * @returns A model on the same device, which stays open until this model is disposed of.
   * @throws {RangeError} If the weights do not have the shapes of such a model.
   *
   * @example
   * ```ts
   * import { loadModel } from "./model.ts";
   * using model = await loadModel({ device: "cpu" });
   * console.assert(model.with({ window: 8 }).far.config.window === 8 && model.far.config.window === 16);
   * ```
   */
  with(change: Partial<FarConfig>): Model {
    const config = { ...this.far.config, ...change },
      shapes = farShapes(config),
      own = this.far.weights.shapes;
    const names = [...new Set([...Object.keys(own), ...Object.keys(shapes)])];
    const other = names.find((name) => own[name]?.join() !== shapes[name]?.join());
    if (other !== undefined) {
      const text = (shape?: readonly number[]) => shape === undefined ? "nothing" : `[${shape.join(", ")}]`;
      throw new RangeError(
        `with: the changed model needs ${other} of ${text(shapes[other])}, found ${
          text(own[other])
        } in the weights of ` +
          `${this.far.name}: such a change needs training`,
      );
    }
    return new Model(this.device, { ...this.far, config }, this.vae, false);
  }

  #conditions(
    clip: Clip,
    frames: number,
    { actions, label }: PredictOptions,
  ): Pick<RolloutOptions, "actions" | "label"> {
    const { condition } = this.far.config;
    if (condition?.type === "label") {
      const number = label === undefined ? condition.classes : labelNumber(String(label), condition.classes);
      return { label: [number] };
    }
    if (condition?.type !== "action") return {};
    const found = typeof actions === "string" ? readActions(actions, frames) : actions ?? clip.actions;
    if (found === undefined) {
      throw new ChoiceError(
        `${clip.path}: has no actions and ${this.far.name} needs one per frame: give {actions}, e.g. a pattern such as 0*8,1`,
      );
    }
    return { actions: checkActions(Int32Array.from(found), frames, condition.classes, clip.path) };
  }

  /** Closes the device, if {@linkcode loadModel} opened it. */
  [Symbol.dispose](): void {
    if (this.#ownsDevice) this.device.close();
  }
}

/** What shows a prediction: the truth and the predicted frames side by side, and their mean scores. */
function predictionBundle({ first, frames, truth, scores }: Prediction): MediaBundle {
  const mean = meanScore(scores),
    score = (name: string, value: number | null | undefined) =>
      value === null || value === undefined ? "" : `, mean ${name} ${value.toFixed(2)}`;
  const text = `${framesText(frames)} predicted after ${first} of context${score("PSNR", mean?.psnr)}${
    score("SSIM", mean?.ssim)
  }`;
  const clips = [{ label: "truth", frames: truth }, { label: "prediction", frames, predictedFrom: 0 }];
  const there = clips.filter((clip) => clip.frames.frames > 0);
  return framesBundle(there.length === 0 ? frames : sideBySide(there), undefined, text);
}

/**
 * Loads a model: a bundled one, one of the authors' with its checkpoint, one of your own training runs.
 *
 * @param chosen A name, or which transformer, autoencoder and weights; the bundled model unless given.
 * @throws {ChoiceError} If a model is unknown or has no weights.
 * @throws {FileFormatError} If a checkpoint does not fit; all that does not is named.
 *
 * @example
 * ```ts
 * import { loadModel } from "./model.ts";
 * using model = await loadModel({ model: "world", device: "cpu" });
 * console.assert(model.far.config.long && model.vae.side === 64);
 * ```
 */
export async function loadModel(chosen: string | LoadOptions = FIRST_BUNDLED): Promise<Model> {
  const { device: where, ...choice } = typeof chosen === "string"
    ? { model: chosen, device: undefined }
    : chosen;
  const far = chooseFar(choice), vae = chooseDcae(choice);
  if (far.config.inChannels !== vae.config.latentChannels) {
    throw new ChoiceError(
      `${far.name} takes latents of ${far.config.inChannels} channels, ${vae.name} makes ${vae.config.latentChannels}: ` +
        "choose another {vae}",
    );
  }
  far.weights.verify();
  vae.weights.verify();
  const own = where === undefined || typeof where === "string";
  return new Model(own ? (await openDevice({ device: where })).device : where, far, vae, own);
}

/**
 * Encodes a clip into scaled latents, what the transformer works on.
 *
 * @param clip Frames, or a clip with them.
 * @returns `[F, C, H, W]`.
 * @throws {RangeError} If the autoencoder cannot take the size of the frames.
 */
export function encodeClip(model: Pick<Model, "device" | "vae">, clip: Clip | Frames): Promise<Latents> {
  return encodeFrames(model.device, model.vae, "path" in clip ? clip.frames : clip);
}

/**
 * Decodes scaled latents.
 *
 * @returns The frames, and their colours before rounding.
 */
export function decodeClip(
  model: Pick<Model, "device" | "vae">,
  latents: Latents,
): Promise<Decoded> {
  return decodeFrames(model.device, model.vae, latents);
}

/**
 * Starts a roll-out of one clip; {@linkcode Rollout} itself takes several together.
 *
 * @param context Latents of the frames that are given; null to start from noise alone, with `frameShape` in the options.
 * @param options What to predict.
 * @returns A roll-out that can be stepped or iterated. Disposing of it frees the transformer.
 * @throws {RangeError} If shapes or conditions do not fit the model.
 */
export function rollout(
  model: Pick<Model, "device" | "far">,
  context: Latents | null,
  options: Omit<RolloutOptions, "context" | "frameShape"> & Partial<Pick<RolloutOptions, "frameShape">>,
): Rollout {
  const { device, far } = model,
    frameShape = options.frameShape ??
      (context && [1, context.channels, context.height, context.width] as const);
  if (!frameShape) {
    throw new RangeError("rollout: expected latents of context frames, or frameShape, found neither");
  }
  const params = far.weights.load(device);
  try {
    const given = context && context.values.length > 0 ? context.values : undefined;
    return new Rollout(
      { device, config: far.config, params },
      { ...options, frameShape, context: given },
      () => disposeAll(params),
    );
  } catch (error) {
    disposeAll(params);
    throw error;
  }
}
