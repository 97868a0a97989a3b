/**
 * Walking in a model's mind: every action makes the next frame, for as long as somebody walks.
 *
 * @module
 */
import { WorldVisitor } from "../data/world/visitor.ts";
import { downsampling } from "../dcae/config.ts";
import type { CacheLevels } from "../display/tables.ts";
import type { FarConfig } from "../far/config.ts";
import { concatFrames, type Frames, makeFrames, sliceFrames } from "../io/frames.ts";
import { fromPlanes } from "../io/planes.ts";
import type { Params } from "../params.ts";
import { disposeAll } from "../tensor.ts";
import { counted } from "../units.ts";
import { BUNDLED } from "./bundled.ts";
import { type ClipOptions, isWorld, namedWalk, readClip } from "./clip.ts";
import { decodeImages, type Latents } from "./codec.ts";
import { encodeClip, type Model, rollout } from "./model.ts";
import type { Rollout } from "./rollout.ts";
import { framesNeeded, type PredictionTask, predictionTask, rolloutConditions, samplerText } from "./task.ts";
import type { Part } from "./weights.ts";

/** Options of a walk. */
export interface PlayOptions extends Omit<ClipOptions, "frames" | "last"> {
  /** Context frames that the model is given, the first ones of the clip; as on the model's card, else 16. */
  readonly context?: number;
  /** Actions of the context, one per frame, or a file or a pattern; the clip's own unless given. */
  readonly actions?: ArrayLike<number> | string;
  /** Euler steps per frame; as on the card, else 50. */
  readonly steps?: number;
  /** Classifier-free guidance: above 1 guides. Default 1. */
  readonly guidance?: number;
  /** Seed of the noise. Default 0. */
  readonly seed?: number;
  /** Most frames that the model sees, the new one included: the oldest quarter is forgotten when there are more. Default 300. */
  readonly remember?: number;
  /** Most frames of {@linkcode PlaySession.clip}, the newest ones. Default 1000. */
  readonly keep?: number;
}

/** The result of an action. */
export interface PlayedFrame {
  /** The predicted frame. */
  readonly frame: Frames;
  /** Its index in the clip; the first predicted one is the number of context frames. */
  readonly index: number;
  /** Ground-truth view of the world after the same actions, for a clip of the built-in world. */
  readonly truth?: Frames;
  /** Seconds that making the frame took. */
  readonly seconds: number;
  /** Levels of the key-value cache with the frame in it. */
  readonly levels: CacheLevels;
}

/** Frames of a walk so far. */
export interface PlayedClip {
  /** Index of the first one in the clip; above 0 once the oldest have been dropped. */
  readonly first: number;
  /** The frames, context included. */
  readonly frames: Frames;
  /**
   * One per frame, where the model takes actions: action f leads from frame f to frame f + 1. That of the newest frame is not
   * known yet; the one that led to it stands there.
   */
  readonly actions?: Int32Array;
}

/** Names of the actions that a model takes, by number; `next frame` alone for a model that takes none. */
export function actionNames({ name, config }: Pick<Part<FarConfig>, "name" | "config">): readonly string[] {
  if (config.condition?.type !== "action") return ["next frame"];
  const { classes } = config.condition, named = BUNDLED[name]?.actions;
  return named?.length === classes ? named : Array.from({ length: classes }, (_, i) => `action ${i}`);
}

/** One line on a frame: its index, speed, and what the cache holds. */
export function frameText({ index, seconds, levels }: Omit<PlayedFrame, "frame">): string {
  const level = (name: string, { frames, tokens }: PlayedFrame["levels"]["longTerm"]) =>
    `${name} ${counted(frames, "frame")} of ${counted(tokens, "token")}`;
  return [
    `frame ${index}`,
    `${(1 / seconds).toFixed(1)} frames per second`,
    level("long-term", levels.longTerm),
    level("short-term", levels.shortTerm),
  ].join(", ");
}

/** Parts of the names of actions that arrow keys stand for. */
const ARROWS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "forward", Enter: "next" } as const;

/** Numbers of actions by key, as browsers name keys: `0` to `9`, and arrows where names say what they do. */
export function actionKeys(names: readonly string[]): Readonly<Record<string, number>> {
  const arrows = Object.entries(ARROWS).map(([key, part]) =>
    [key, names.findIndex((name) => name.split(" ").includes(part))] as const
  );
  return Object.fromEntries([
    ...names.slice(0, 10).map((_, action) => [String(action), action] as const),
    ...arrows.filter(([, action]) => action >= 0),
  ]);
}

/**
 * A walk that a model continues, one frame per action. Transformer, decoder and cache stay on the device, and take the same
 * memory however long the walk gets.
 *
 * @example
 * ```ts
 * import { loadModel } from "./model.ts";
 * import { PlaySession } from "./play.ts";
 * using model = await loadModel({ device: "cpu" });
 * using walk = await PlaySession.open(model, "grid:3", { context: 16 });
 * const { frame, truth } = await walk.act(walk.actions.indexOf("go forward"));
 * console.assert(frame.width === 64 && truth?.width === 64 && walk.clip().frames.frames === 17);
 * ```
 */
export class PlaySession implements Disposable {
  /** Names of the actions, by number. */
  readonly actions: readonly string[];
  /** Keys of the actions: digits, and arrows for turning left and right and going forward. */
  readonly keys: Readonly<Record<string, number>>;
  /** Number of context frames. */
  readonly context: number;
  /** The sampler's settings in words. */
  readonly sampler: string;
  readonly #model: Pick<Model, "device" | "far" | "vae">;
  readonly #walk: Rollout;
  readonly #decoder: Params;
  readonly #size: Omit<Latents, "values">;
  readonly #visitor: WorldVisitor | null;
  readonly #keep: number;
  readonly #frames: Frames[] = [];
  readonly #taken: number[] = [];
  #busy = false;

  private constructor(
    model: Pick<Model, "device" | "far" | "vae">,
    task: PredictionTask,
    given: Latents,
    visitor: WorldVisitor | null,
    keep: number,
  ) {
    const { device, far, vae } = model, { steps, guidance, seed, remember, context } = task;
    const { values: _, ...size } = given;
    [this.#model, this.#size, this.#visitor, this.#keep] = [model, size, visitor, keep];
    [this.context, this.sampler] = [context.frames, samplerText(task)];
    this.actions = actionNames(far);
    this.keys = actionKeys(this.actions);
    const settings = { predict: Infinity, steps, guidance, seed, remember };
    this.#walk = rollout(model, given, { ...settings, ...rolloutConditions(far, task) });
    this.#decoder = vae.weights.load(device, "decoder.");
    for (let f = 0; f < context.frames; f++) this.#record(sliceFrames(context, f, f + 1), task.actions?.[f]);
  }

  /**
   * Reads the context and encodes it.
   *
   * @param model The models and their device.
   * @param clip What {@linkcode readClip} reads; the first frames are the context.
   * @throws {RangeError} If the clip has too few frames or actions, the model cannot take its size, or a number is out of range.
   * @throws {ChoiceError} If the model needs actions of the context and there are none.
   */
  static async open(
    model: Pick<Model, "device" | "far" | "vae">,
    clip: string,
    options: PlayOptions = {},
  ): Promise<PlaySession> {
    const { remember = 300, keep = 1000 } = options, { far, vae } = model;
    if (!Number.isSafeInteger(keep) || keep < 1) {
      throw new RangeError(`play: keep is ${keep}, expected at least 1 frame`);
    }
    const needed = { ...options, remember, predict: 0 }, frames = framesNeeded(far, needed);
    const read = await readClip(clip, { ...options, frames, side: vae.side });
    const task = predictionTask(far, read, needed), { context } = task;
    if (context.frames === 0) throw new RangeError("play: context is 0, expected at least 1 frame");
    const { start = 0, every = 1 } = options;
    // A step of the world is a step of the clip where no frame is left out.
    const visitor = isWorld(clip) && every === 1
      ? new WorldVisitor({ ...namedWalk(clip), size: context.height }, start + context.frames - 1)
      : null;
    return new PlaySession(model, task, await encodeClip(model, context), visitor, keep);
  }

  /** Ground-truth view of the world after the actions so far, for a clip of the built-in world. */
  get truth(): Frames | undefined {
    const visitor = this.#visitor;
    return visitor === null ? undefined : makeFrames(1, visitor.size, visitor.size, visitor.draw());
  }

  /** Index in the clip of the frame that the next action leads to. */
  get index(): number {
    return this.#walk.frame;
  }

  #record(frame: Frames, action?: number): void {
    this.#frames.push(frame);
    if (action !== undefined) this.#taken.push(action);
    if (this.#frames.length > this.#keep) {
      this.#frames.shift();
      this.#taken.shift();
    }
  }

  /**
   * Takes an action where the newest frame is, and predicts what is to be seen then.
   *
   * @param action Its number, see {@linkcode actions}.
   * @throws {RangeError} If there is no such action.
   * @throws {Error} If the frame before is still being made: one action at a time.
   */
  async act(action: number): Promise<PlayedFrame> {
    if (!Number.isInteger(action) || action < 0 || action >= this.actions.length) {
      throw new RangeError(`play: action is ${action}, expected 0 to ${this.actions.length - 1}`);
    }
    if (this.#busy) {
      throw new Error("play: the frame before is still being made, expected one action at a time");
    }
    this.#busy = true;
    try {
      const start = performance.now(), acts = this.#model.far.config.condition?.type === "action";
      // Action f leads from frame f to f + 1, in training as here: this one belongs to the frame that was there when it was
      // chosen. That of the new frame will be chosen later, and the same one stands for it until then: over 12 frames after 96 of
      // six test walks, the bundled model scores 20.25 dB with it, 19.60 with the null action, 21.08 with the true one, and
      // 18.44 with each action one frame late (2026-11-21, cpu device, one Euler step).
      const { frame: index, latents } = await (acts ? this.#walk.step(action, action) : this.#walk.step());
      const frame = await this.#decode(latents), seconds = (performance.now() - start) / 1000;
      if (acts) this.#taken[this.#taken.length - 1] = action;
      this.#record(frame, acts ? action : undefined);
      this.#visitor?.act(action);
      const { truth } = this;
      return { frame, index, seconds, levels: this.#walk.levels!, ...(truth === undefined ? {} : { truth }) };
    } finally {
      this.#busy = false;
    }
  }

  async #decode(latents: Float32Array): Promise<Frames> {
    const { device, vae: { config } } = this.#model, { channels, height, width } = this.#size;
    const unscaled = latents.map((v) => v / config.scalingFactor);
    const planes = await decodeImages(device, config, this.#decoder, unscaled, [channels, height, width]);
    const r = downsampling(config);
    return fromPlanes(planes, height * r, width * r);
  }

  /** The walk so far: the context and what was predicted, of which the newest `keep` frames. */
  clip(): PlayedClip {
    const frames = concatFrames(this.#frames), first = this.index - frames.frames;
    return { first, frames, ...(this.#taken.length > 0 ? { actions: Int32Array.from(this.#taken) } : {}) };
  }

  /** The newest frames, context included. */
  last(count: number): Frames[] {
    return this.#frames.slice(-count);
  }

  /** Gives weights and cache back; the model's device stays open. */
  [Symbol.dispose](): void {
    this.#walk[Symbol.dispose]();
    disposeAll(this.#decoder);
    this.#model.device.trim();
  }
}

/** The part of a walk that page and terminal need. */
export type Walk = Pick<PlaySession, "act" | "actions" | "keys" | "last" | "truth">;
