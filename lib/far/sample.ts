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
  type Conditions,
  frameConditions,
  nullCondition,
} from "./conditioning.ts";
import type { FarConfig } from "./config.ts";
import { eulerDelta, eulerSchedule } from "./flow.ts";
import { type Call, prepareCall, wholeClipPlan } from "./layout.ts";
import { velocity } from "./transformer.ts";

/** What to sample. Sizes: B clips, `context` frames given, `predict` frames made. */
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
  /** Frames to make. */
  readonly predict: number;
  /** `[B, made, C, H, W]`: the first of them, as an interrupted run with the same options has made them. */
  readonly made?: Float32Array;
  /**
   * `[B, context + predict]`; action f conditions frame f. Or `[B, context]`: then {@linkcode Sampler.next} is given the
   * action of each further frame.
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
  /** Sees the model's velocity of every step, `[B or 2B, 1, C, H, W]` ([null, conditional] under guidance). */
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
  /** `[B, context + predict, C, H, W]`: clean frames, then the one that is being denoised. */
  readonly #clip: Tensor;
  readonly #cache: KvCache | null;
  /** Clips that the model computes: under guidance B without and B with their conditions. */
  readonly #clips: number;
  /** `[clips, context + predict]`. */
  readonly #conditions: Int32Array;
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
    this.#cached = given;
    const total = this.#total = given + predict;
    this.#clips = guidance > 1 && condition ? 2 * B : B; // without a condition both halves would be equal
    this.#conditions = new Int32Array(this.#clips * total).fill(nullCondition(config));
    const stepped = condition?.type === "action" && options.actions?.length === B * given;
    this.#condition(0, stepped ? given : total, options);
    this.#clip = unscoped(() => Tensor.empty(device, [B, total, C, H, W]));
    if (context) scope(() => this.#place(Tensor.from(device, context, [B, given, C, H, W]), 0));
    if (made && done > 0) scope(() => this.#place(Tensor.from(device, made, [B, done, C, H, W]), given));
    this.#cache = options.cache === false
      ? null
      : new KvCache(device, config, { clips: this.#clips, height: H, width: W, frames: total });
  }

  /** Sets the conditions of `count` frames. */
  #condition(from: number, count: number, given: Conditions): void {
    const { config, frameShape: [B], guidance } = this.#o;
    const values = frameConditions(config, B, count, given), first = this.#clips - B;
    if (guidance === -1 && config.condition?.type === "action") return; // every action is the null action
    for (let b = 0; b < B; b++) {
      const own = values.subarray(b * count, (b + 1) * count);
      this.#conditions.set(own, (first + b) * this.#total + from);
    }
  }

  /** Writes `[B, frames, C, H, W]` into the clip. */
  #place(latents: Tensor, frame: number): void {
    const [B, C, H, W] = this.#o.frameShape, per = C * H * W, count = latents.size / B;
    const to = [this.#total * per, 1];
    copyStrided(latents, this.#clip, { sizes: [B, count], from: [count, 1], to, toAt: frame * per });
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
    const { device, params, config, frameShape: [, , H, W] } = this.#o, frames = frame + 1;
    const call = (step: "cacheStep" | "noisyStep") => {
      const plan = this.#cache?.[step](frames) ?? wholeClipPlan(config, this.#clips, frames, H, W);
      return prepareCall(device, config, plan, "last");
    };
    const first = call("cacheStep"), further = this.#cache ? call("noisyStep") : first;
    const steps = Array.from(this.#schedule.timesteps, (timestep, k) => {
      const timesteps = new Float32Array(this.#conditions.length).fill(CLEAN_TIMESTEP);
      for (let b = 0; b < this.#clips; b++) timesteps[b * this.#total + frame] = timestep;
      const inputs = { frames: this.#total, timesteps, conditions: this.#conditions };
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
    const { device, params, config } = this.#o, store = this.#cache?.store;
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
   * @throws {RangeError} If all frames are there, or an action is out of range.
   */
  async next(actions?: ArrayLike<number>): Promise<SampledFrame> {
    const { device, params, config, onVelocity, onStep } = this.#o, frame = this.#frame;
    if (frame === this.#total) throw new RangeError(`sample: all ${this.#total} frames have been made`);
    if (actions) this.#condition(frame, 1, { actions });
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
          const next = axpby(noisier, this.#guided(v), 1, eulerDelta(schedule, k)); // x + Δσ v
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
