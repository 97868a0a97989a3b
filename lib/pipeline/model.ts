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
import type { Frames } from "../io/frames.ts";
import { sideBySide } from "../io/sheet.ts";
import { type FrameScore, meanScore, scoreFrames } from "../metrics/frames.ts";
import { disposeAll } from "../tensor.ts";
import { BUNDLED, type Card, FIRST_BUNDLED } from "./bundled.ts";
import { type Clip, readClip } from "./clip.ts";
import { type Decoded, decodeFrames, encodeFrames, type Latents, makeLatents } from "./codec.ts";
import {
  type Autoencoder,
  chooseDcae,
  chooseFar,
  type ModelChoice,
  type OpenModels,
  verifyModels,
} from "./models.ts";
import { Rollout, type RolloutOptions } from "./rollout.ts";
import { framesNeeded, predictionTask, type PredictOptions, rolloutConditions } from "./task.ts";
import type { Part } from "./weights.ts";

/** Choice of models and device. */
export interface LoadOptions extends ModelChoice {
  /** A device, or the name of one to open; chosen as on the command line unless given. */
  readonly device?: Device | DeviceName | "auto";
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
export class Model implements OpenModels, Disposable {
  /** The device that computes. */
  readonly device: Device;
  /** Reason for the choice of this device. */
  readonly reason: string;
  /** The transformer. Its weights are on the device only while they are needed. */
  readonly far: Part<FarConfig>;
  /** The autoencoder, likewise. */
  readonly vae: Autoencoder;
  /** The card of a bundled model. */
  readonly card?: Card;
  readonly #ownsDevice: boolean;

  /** Made by {@linkcode loadModel}. */
  constructor({ device, reason, far, vae }: OpenModels, ownsDevice: boolean) {
    [this.device, this.reason, this.far, this.vae, this.#ownsDevice] = [device, reason, far, vae, ownsDevice];
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
   * const { frames, scores } = await model.predict("grid:3", { context: 16, predict: 2 });
   * console.assert(frames.frames === 2 && frames.height === 64 && scores[0].psnr! > 10);
   * ```
   */
  async predict(clip: Clip | string, options: PredictOptions = {}): Promise<Prediction> {
    const whole = typeof clip === "string"
      ? await readClip(clip, { frames: framesNeeded(this.far, options), side: this.vae.side })
      : clip;
    const task = predictionTask(this.far, whole, options), { context, truth } = task, first = context.frames;
    const given = await encodeClip(this, context), { predict, steps, guidance, seed, remember } = task;
    const conditions = rolloutConditions(this.far, task);
    using walk = rollout(this, given, { predict, steps, guidance, seed, remember, ...conditions });
    for await (const _ of walk);
    const latents = makeLatents({ ...given, values: walk.made }),
      { frames, values } = await decodeClip(this, latents);
    const scores = showing(
      scoreFrames(values, truth, first),
      (s) => tableBundle(s as readonly unknown[] as TableRow[]),
    );
    return showing({ first, frames, values, latents, truth, scores }, predictionBundle);
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
    return new Model({ ...this, far: { ...this.far, config } }, false);
  }

  /** Closes the device, if {@linkcode loadModel} opened it. */
  [Symbol.dispose](): void {
    if (this.#ownsDevice) this.device.close();
  }
}

/** Shows a prediction in a notebook: the truth and the predicted frames side by side, and their mean scores. */
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
 * @throws {ChoiceError} If a model is unknown or has no weights, or the two do not go together.
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
  const models = { far: chooseFar(choice), vae: chooseDcae(choice) };
  verifyModels(models);
  const own = where === undefined || typeof where === "string";
  const opened = own ? await openDevice({ device: where }) : { device: where, reason: "the caller gave it" };
  return new Model({ ...opened, ...models }, own);
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
