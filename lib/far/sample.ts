/**
 * Autoregressive sampling: frame by frame, each by Euler steps from noise, given everything before it.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { CacheLevels } from "../display/tables.ts";
import { axpby, copyStrided, lerp, slice } from "../ops.ts";
import type { Params } from "../params.ts";
import { normal, streamOf } from "../random.ts";
import { disposeAll, scope, sizeOf, Tensor, unscoped } from "../tensor.ts";
import { KvCache } from "./cache.ts";
import {
  CLEAN_TIMESTEP,
  conditionCalls,
  type Conditioning,
  frameConditions,
  nullCondition,
} from "./conditioning.ts";
import type { FarConfig } from "./config.ts";
import { eulerSchedule, eulerWeights } from "./flow.ts";
import { type Call, prepareCall, wholeClipPlan } from "./layout.ts";
import { velocity } from "./transformer.ts";

/** Options of sampling. Sizes: B clips, `context` frames given, `predict` frames made. */
export interface SampleOptions {
  /** The device to compute on. */
  readonly device: Device;
  /** The model's parameters. */
  readonly params: Params;
  /** The model. */
  readonly config: FarConfig;
  /** `[B, C, H, W]` of a latent frame (scaled by the autoencoder's factor). */
  readonly frameShape: readonly [number, number, number, number];
  /** `[B, context, C, H, W]` clean latents, or nothing to start from scratch. */
  readonly context?: Float32Array;
  /** Frames to make. `Infinity` with `remember`: as many as are asked for. */
  readonly predict: number;
  /**
   * Most frames that the model sees, the one that it makes included; all unless given. When there are more, the oldest quarter
   * is forgotten and the others are encoded again from frame 0 on, so memory and mean time per frame stay the same however
   * long the clip gets.
   */
  readonly remember?: number;
  /** `[B, made, C, H, W]`: the first of them, as an interrupted run with the same options has made them. */
  readonly made?: Float32Array;
  /**
   * `[B, context + predict]`; action f conditions frame f. Or `[B, context + made]`: then {@linkcode Sampler.next} is given
   * the action of each further frame.
   */
  readonly actions?: ArrayLike<number>;
  /** `[B]`. */
  readonly label?: ArrayLike<number>;
  /** Euler steps per frame. Default 50, as the authors evaluate. */
  readonly steps?: number;
  /** Above 1: classifier-free guidance. 0 to 1: conditional. -1: every action is the null action. Default 1. */
  readonly guidance?: number;
  /** Seed of the noise. Default 0. */
  readonly seed?: number;
  /** Number of each clip's stream of noise, `[B]`: a clip's noise does not depend on the batch that it is in. Default 0 to B - 1. */
  readonly streams?: readonly number[];
  /** Noise instead of a seed: `[B, predict, C, H, W]`. */
  readonly noise?: Float32Array;
  /** Keep keys and values between steps and frames (default), or compute all frames at every step. */
  readonly cache?: boolean;
  /** Sees the model's output, a velocity unless the configuration says otherwise, of every step, `[B or 2B, 1, C, H, W]` ([null, conditional] under guidance). */
  readonly onVelocity?: (velocity: Tensor) => void;
  /** Is told after each Euler step has been recorded. */
  readonly onStep?: (frame: number, step: number) => void;
}

/**
 * How long timers and signals may wait for Euler steps on the cpu device. An empty timer takes 2 ms, half a step of the
 * bundled model (Deno 2.9.6, 2026-11-21), so not every step waits for one.
 */
const YIELD_MS = 50;

/** One sampled frame. */
export interface SampledFrame {
  /** Index in the clip: the first one made is `context`. */
  readonly frame: number;
  /** `[B, C, H, W]`. */
  readonly latents: Float32Array;
}

/**
 * Noise of one clip.
 *
 * @param stream Number of the clip's stream, see {@linkcode SampleOptions.streams}.
 * @returns Numbers `from` to `from + count - 1` of the stream, which runs frame after frame, `[predict, C, H, W]` in all.
 */
export function clipNoise(seed: number, stream: number, count: number, from = 0): Float32Array {
  return normal(streamOf(seed, `noise of clip ${stream}`), count, from);
}

/**
 * Samples frame after frame. Waits for the device once per frame, when it reads the result.
 *
 * Steps run from noise at σ = 1 to 0.001 and then 0; earlier frames are clean context at timestep -1 (long-term ones of
 * FAR-Long at -2). With a cache the result equals that without one up to f32 rounding.
 *
 * @throws {RangeError} If shapes, conditions or guidance do not fit the model.
 */
export async function* sample(options: SampleOptions): AsyncGenerator<SampledFrame> {
  using sampler = new Sampler(options);
  while (sampler.frame < sampler.frames) yield await sampler.next();
}

/** The oldest frame that the model sees when it makes `frame`, see {@linkcode SampleOptions.remember}. */
export function rememberedFrom(frame: number, remember: number): number {
  const quarter = Math.max(1, Math.floor(remember / 4));
  return Math.max(0, quarter * Math.ceil((frame + 1 - remember) / quarter));
}

/** Sampling one frame at a time: what {@linkcode sample} iterates over, for those who step themselves. */
export class Sampler {
  /** The frame that {@linkcode next} predicts. */
  get frame(): number {
    return this.#frame;
  }

  /** Frames of the whole clip, context included. */
  get frames(): number {
    return this.#total;
  }

  /** Levels of the key-value cache, the frame that {@linkcode next} made last included; null without a cache. */
  get levels(): CacheLevels | null {
    return this.#cache?.levels ?? null;
  }

  readonly #o: SampleOptions;
  readonly #schedule;
  /** Frames that {@linkcode #clip} has room for. */
  readonly #room: number;
  /** `[B, room, C, H, W]`: clean frames from {@linkcode #from} on, then the one that is being denoised. */
  #clip: Tensor;
  /** Index of the oldest frame that is remembered. */
  #from: number;
  readonly #cache: KvCache | null;
  /** Clips that the model computes: under guidance B without and B with their conditions. */
  readonly #clips: number;
  /** `[clips, room]`. */
  readonly #conditions: Int32Array;
  /** Known actions `[B, frames]`, or labels `[B, 1]`. */
  readonly #given: Int32Array;
  readonly #context: number;
  readonly #total: number;
  #frame: number;
  /** The first frame whose calls the cache has not seen; behind {@linkcode frame} until {@linkcode next} caches what was made. */
  #cached: number;
  /** When timers ran last. */
  #yielded = performance.now();

  /**
   * Checks what is asked for and allocates the cache.
   *
   * @throws {RangeError} If shapes, conditions or guidance do not fit the model.
   */
  constructor(options: SampleOptions) {
    const { device, config, frameShape: [B, C, H, W], predict, guidance = 1, context, made, noise, streams } =
      options;
    const size = sizeOf(options.frameShape), given = (context?.length ?? 0) / size, { condition } = config;
    if (C !== config.inChannels) {
      throw new RangeError(`sample: latents have ${C} channels, expected ${config.inChannels}`);
    }
    if (!(guidance >= 0 || guidance === -1)) {
      throw new RangeError(`sample: guidance is ${guidance}, expected -1 or at least 0`);
    }
    if (!Number.isInteger(given)) {
      throw new RangeError(`sample: context has ${context!.length} values, expected a multiple of ${size}`);
    }
    const done = (made?.length ?? 0) / size;
    if (!Number.isInteger(done) || done > predict) {
      throw new RangeError(
        `sample: made has ${made!.length} values, expected a multiple of ${size}, at most ${size * predict}`,
      );
    }
    const { remember = Infinity } = options, total = this.#total = given + predict;
    if (!(remember >= 2) || (total === Infinity && remember === Infinity)) {
      throw new RangeError(
        `sample: remember is ${options.remember}, expected at least 2 frames, and a number for predict = Infinity`,
      );
    }
    if (streams && streams.length !== B) {
      throw new RangeError(`sample: found ${streams.length} streams of noise, expected ${B}, one per clip`);
    }
    if (noise && noise.length !== size * predict) {
      throw new RangeError(`sample: noise has ${noise.length} values, expected ${size * predict}`);
    }
    this.#o = options;
    this.#schedule = eulerSchedule(options.steps ?? 50);
    this.#context = given;
    this.#frame = given + done;
    this.#clips = guidance > 1 && condition ? 2 * B : B; // without a condition both halves would be equal
    this.#room = Math.min(total, remember);
    this.#from = rememberedFrom(this.#frame, this.#room);
    // An interrupted run encoded anew what it remembered when it forgot a part last.
    for (this.#cached = this.#frame; this.#cached > given; this.#cached--) {
      if (rememberedFrom(this.#cached - 1, this.#room) !== this.#from) break;
    }
    const there = given + done, stepped = options.actions?.length === B * there;
    const known = condition?.type !== "action" ? 1 : stepped ? there : total;
    if (known === Infinity) {
      throw new RangeError("sample: predict is Infinity, expected the actions of the frames that are there");
    }
    this.#given = frameConditions(config, B, known, options);
    this.#conditions = new Int32Array(this.#clips * this.#room).fill(nullCondition(config));
    for (let f = this.#from; f < there; f++) this.#condition(f);
    this.#clip = unscoped(() => Tensor.empty(device, [B, this.#room, C, H, W]));
    if (context) this.#remember(context, 0);
    if (made && done > 0) this.#remember(made, given);
    this.#cache = options.cache === false
      ? null
      : new KvCache(device, config, { clips: this.#clips, height: H, width: W, frames: this.#room });
  }

  /** Sets the conditions of a frame. */
  #condition(frame: number, actions?: ArrayLike<number>): void {
    const { config, frameShape: [B], guidance } = this.#o, byFrame = config.condition?.type === "action";
    const values = actions ? frameConditions(config, B, 1, { actions }) : this.#given;
    const per = values.length / B, at = byFrame && !actions ? frame : 0;
    if (at >= per) throw new RangeError(`sample: frame ${frame} has no action, expected one per clip`);
    if (byFrame && guidance === -1) return; // every action is the null action
    for (let b = 0, first = this.#clips - B; b < B; b++) {
      this.#conditions[(first + b) * this.#room + frame - this.#from] = values[b * per + at];
    }
  }

  /** Writes those of some frames that are remembered into the clip, `[B, frames, C, H, W]`, the first being `frame`. */
  #remember(values: Float32Array, frame: number): void {
    const { device, frameShape: [B, C, H, W] } = this.#o, per = C * H * W, count = values.length / B / per;
    const skip = Math.min(count, Math.max(0, this.#from - frame)), kept = count - skip;
    if (kept === 0) return;
    const own = skip === 0 ? values : new Float32Array(B * kept * per);
    for (let b = 0; skip > 0 && b < B; b++) {
      own.set(values.subarray((b * count + skip) * per, (b + 1) * count * per), b * kept * per);
    }
    scope(() => this.#place(Tensor.from(device, own, [B, kept, C, H, W]), frame + skip));
  }

  /** Forgets the frames before one, and all keys and values, which depend on them. */
  #forget(before: number): void {
    const [B, C, H, W] = this.#o.frameShape, per = C * H * W, by = before - this.#from;
    const kept = this.#frame - before, old = this.#clip, stride = [this.#room * per, 1];
    this.#clip = unscoped(() => Tensor.empty(old.device, old.shape));
    const strided = { sizes: [B, kept * per], from: stride, to: stride, fromAt: by * per };
    scope(() => copyStrided(old, this.#clip, strided));
    old.dispose();
    for (let c = 0; c < this.#clips; c++) {
      this.#conditions.copyWithin(c * this.#room, c * this.#room + by, (c + 1) * this.#room);
    }
    this.#from = before;
    this.#cached = this.#frame;
    this.#cache?.clear();
  }

  /** Writes `[B, frames, C, H, W]` into the clip. */
  #place(latents: Tensor, frame: number): void {
    const [B, C, H, W] = this.#o.frameShape, per = C * H * W, count = latents.size / B;
    const to = [this.#room * per, 1], toAt = (frame - this.#from) * per;
    copyStrided(latents, this.#clip, { sizes: [B, count], from: [count, 1], to, toAt });
  }

  /** Noise of the next frame, `[B, 1, C, H, W]`. */
  #noise(): Tensor {
    const { device, noise, seed = 0, streams, predict, frameShape: [B, C, H, W] } = this.#o;
    const per = C * H * W, index = this.#frame - this.#context, out = new Float32Array(B * per);
    for (let b = 0; b < B; b++) {
      const at = (b * predict + index) * per;
      // One stream per clip: a frame's noise does not depend on how many frames are asked for.
      out.set(noise?.subarray(at, at + per) ?? clipNoise(seed, streams?.[b] ?? b, per, index * per), b * per);
    }
    return Tensor.from(device, out, [B, 1, C, H, W]);
  }

  /** The calls of a frame, its first Euler step and the further ones, and the conditioning of each step. */
  #prepare(frame: number): { first: Call; further: Call; conditioning: Conditioning[] } {
    const { device, params, config, frameShape: [, , H, W] } = this.#o;
    const at = frame - this.#from, frames = at + 1;
    const call = (step: "cacheStep" | "noisyStep") => {
      const plan = this.#cache?.[step](frames) ?? wholeClipPlan(config, this.#clips, frames, H, W);
      return prepareCall(device, config, plan, "last");
    };
    const first = call("cacheStep"), further = this.#cache ? call("noisyStep") : first;
    const steps = Array.from(this.#schedule.timesteps, (timestep, k) => {
      const timesteps = new Float32Array(this.#conditions.length).fill(CLEAN_TIMESTEP);
      for (let b = 0; b < this.#clips; b++) timesteps[b * this.#room + at] = timestep;
      const inputs = { frames: this.#room, timesteps, conditions: this.#conditions };
      return { call: k === 0 ? first : further, inputs };
    });
    return { first, further, conditioning: conditionCalls(device, params, config, steps) };
  }

  /** Classifier-free guidance: v₀ + g (v - v₀), the velocity without conditions first. `[B or 2B, …]` to `[B, …]`. */
  #guided(v: Tensor): Tensor {
    const { guidance = 1, frameShape: [B] } = this.#o;
    return this.#clips === B ? v : lerp(slice(v, 0, 0, B), slice(v, 0, B, B), guidance);
  }

  /**
   * Passes over the frames that an interrupted run has made, and caches them by the calls of that run: one frame at a time.
   * All in one call would give the same bits only where those of a row do not depend on the number of rows, which no BLAS
   * promises.
   */
  async #replay(): Promise<void> {
    const { params, config } = this.#o, store = this.#cache?.store;
    for (; store && this.#cached < this.#frame; this.#cached++) {
      const { first, conditioning, further } = scope(() => this.#prepare(this.#cached));
      const input = { latents: this.#clip, conditioning: conditioning[0], store };
      scope(() => void velocity(params, config, first, input));
      disposeAll([first, further, conditioning]);
      await this.#yield();
    }
  }

  /** The cpu device computes on this thread: lets timers, signals and progress run if they have waited for some time. */
  async #yield(): Promise<void> {
    if (this.#o.device.info.name !== "cpu" || performance.now() - this.#yielded < YIELD_MS) return;
    await new Promise((resolve) => setTimeout(resolve));
    this.#yielded = performance.now();
  }

  /**
   * Records all Euler steps of the next frame and waits for it once.
   *
   * @param actions `[B]` its actions, where {@linkcode SampleOptions} gave those of the context only.
   * @param before `[B]` actions of the frame before it, in the place of those that it had: where action f leads from frame
   * f to f + 1, as in DMLab's clips, it is known only once frame f has been seen. The cache does not hold that frame yet:
   * {@linkcode KvCache.cacheStep} encodes it, as clean context, together with the new one.
   * @throws {RangeError} If all frames are there, an action is out of range, or there is no frame before it.
   */
  async next(actions?: ArrayLike<number>, before?: ArrayLike<number>): Promise<SampledFrame> {
    const { params, config, onVelocity, onStep } = this.#o, frame = this.#frame;
    if (frame === this.#total) throw new RangeError(`sample: all ${this.#total} frames have been made`);
    if (before && frame === 0) {
      throw new RangeError("sample: frame 0 has no frame before it to give actions to");
    }
    const from = rememberedFrom(frame, this.#room);
    if (from > this.#from) this.#forget(from);
    this.#condition(frame, actions);
    if (before) this.#condition(frame - 1, before);
    await this.#replay();
    const prepared = scope(() => this.#prepare(frame)), { first, further, conditioning } = prepared;
    const schedule = this.#schedule, store = this.#cache?.store;
    let x = unscoped(() => this.#noise());
    try {
      scope(() => this.#place(x, frame));
      for (let k = 0; k < schedule.timesteps.length; k++) {
        const noisier = x, call = k === 0 ? first : further;
        x = scope(() => {
          const input = { latents: this.#clip, conditioning: conditioning[k], store };
          const v = velocity(params, config, call, input); // [B or 2B, 1, C, H, W]
          onVelocity?.(v);
          const next = axpby(noisier, this.#guided(v), ...eulerWeights(schedule, k, config.prediction));
          this.#place(next, frame);
          return next;
        });
        noisier.dispose();
        onStep?.(frame, k);
        await this.#yield();
      }
      this.#frame = this.#cached = frame + 1;
      return { frame, latents: await x.read() };
    } finally {
      disposeAll([prepared, x]);
    }
  }

  /**
   * Passes over frames as if they had been made, without computing them: a dry run counts some frames of many.
   *
   * @param frame The frame that {@linkcode next} makes then; not before the one that it would make now.
   */
  skipTo(frame: number): void {
    if (frame === this.#frame) return;
    this.#from = Math.max(this.#from, rememberedFrom(frame - 1, this.#room));
    for (let f = this.#from; f < frame; f++) this.#condition(f);
    this.#frame = this.#cached = frame;
    this.#cache?.cacheStep(frame - this.#from);
  }

  /** Gives the clip and the cache back. */
  dispose(): void {
    this.#clip.dispose();
    this.#cache?.dispose();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
