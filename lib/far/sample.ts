/**
 * Autoregressive sampling: frame by frame, each by Euler steps from noise, given everything before it.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { axpby, copyStrided, lerp } from "../ops.ts";
import type { Params } from "../params.ts";
import { normal, streamOf } from "../random.ts";
import { disposeAll, scope, sizeOf, Tensor, unscoped } from "../tensor.ts";
import { KvCache } from "./cache.ts";
import { ConditionRows, type Modulation, modulationOf } from "./conditioning.ts";
import type { FarConfig } from "./config.ts";
import { eulerDelta, eulerSchedule } from "./flow.ts";
import { type CallPlan, keyFrames, layoutOf, storeRows } from "./layout.ts";
import { frameConditions, lastVelocity, nullCondition, tokenRows, wholeClipPlan } from "./model.ts";
import { packFrames } from "./patchify.ts";
import { CLEAN_TIMESTEP } from "./timestep.ts";
import { embedTokens, type KeyStore, transformer, uploadLayout } from "./transformer.ts";

/** What to sample. Sizes: B clips, `context` frames given, `predict` frames made. */
export interface SampleOptions {
  /** Where to compute. */
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
  /** `[B, context + predict]`; action f conditions frame f. */
  readonly actions?: ArrayLike<number>;
  /** `[B]`. */
  readonly label?: ArrayLike<number>;
  /** Euler steps a frame. Default 50, as the authors evaluate. */
  readonly steps?: number;
  /** Above 1: classifier-free guidance. 0 to 1: conditional. -1: every action is the null action. Default 1. */
  readonly guidance?: number;
  /** Seed of the noise. Default 0. */
  readonly seed?: number;
  /** Noise instead of a seed: `[B, predict, C, H, W]`. */
  readonly noise?: Float32Array;
  /** Keep keys and values between steps and frames (default), or compute all frames at every step. */
  readonly cache?: boolean;
  /** Sees the model's velocity of every step, `[B or 2B, 1, C, H, W]` ([null, conditional] under guidance). */
  readonly onVelocity?: (velocity: Tensor) => void;
  /** Is told after each Euler step has been recorded. */
  readonly onStep?: (frame: number, step: number) => void;
}

/** One sampled frame. */
export interface SampledFrame {
  /** Index in the clip: the first one made is `context`. */
  readonly frame: number;
  /** `[B, C, H, W]`. */
  readonly latents: Float32Array;
}

/** A call of the transformer that is ready to run: everything but the noisy frame and its step. */
interface PreparedCall {
  readonly plan: CallPlan;
  readonly layout: ReturnType<typeof layoutOf>;
  readonly device: ReturnType<typeof uploadLayout>;
}

/**
 * Samples frame after frame. Waits for the device once a frame, when it reads the result.
 *
 * Steps run from noise at σ = 1 to 0.001 and then 0; earlier frames are clean context at timestep -1 (distant ones of
 * FAR-Long at -2). With a cache the result equals that without one up to f32 rounding.
 *
 * @throws {RangeError} If shapes, conditions or guidance do not fit the model.
 */
export async function* sample(options: SampleOptions): AsyncGenerator<SampledFrame> {
  const run = new Sampler(options);
  try {
    for (let i = 0; i < options.predict; i++) yield await run.next();
  } finally {
    run.dispose();
  }
}

class Sampler {
  readonly #o: SampleOptions;
  readonly #history: Tensor;
  readonly #cache: KvCache | null;
  readonly #conditions: Int32Array;
  readonly #schedule;
  readonly #clips: number;
  readonly #total: number;
  readonly #contextFrames: number;
  #frame: number;

  constructor(options: SampleOptions) {
    const { device, config, frameShape: [B, C, H, W], predict, guidance = 1 } = options;
    const perFrame = sizeOf(options.frameShape);
    if (C !== config.inChannels) {
      throw new RangeError(`sample: latents have ${C} channels, expected ${config.inChannels}`);
    }
    if (!(guidance >= 0 || guidance === -1)) {
      throw new RangeError(`sample: guidance is ${guidance}, expected -1 or at least 0`);
    }
    const given = (options.context?.length ?? 0) / perFrame;
    if (!Number.isInteger(given)) {
      throw new RangeError(
        `sample: context has ${options.context!.length} values, expected a multiple of ${perFrame}`,
      );
    }
    if (options.noise && options.noise.length !== perFrame * predict) {
      throw new RangeError(
        `sample: noise has ${options.noise.length} values, expected ${perFrame * predict}`,
      );
    }
    this.#o = options;
    this.#contextFrames = this.#frame = given;
    this.#total = given + predict;
    this.#schedule = eulerSchedule(options.steps ?? 50);
    const conditions = frameConditions(config, B, this.#total, options);
    const none = new Int32Array(conditions.length).fill(nullCondition(config));
    const guided = guidance > 1 && config.condition !== null; // without a condition both halves would be equal
    this.#clips = guided ? 2 * B : B;
    this.#conditions = guided
      ? Int32Array.from([...none, ...conditions])
      : guidance === -1 && config.condition?.type === "action"
      ? none
      : conditions;
    this.#history = unscoped(() => Tensor.empty(device, [B, this.#total, C, H, W]));
    if (options.context) {
      scope(() => {
        const context = Tensor.from(device, options.context!), frame = C * H * W;
        copyStrided(context, this.#history, {
          sizes: [B, given * frame],
          from: [given * frame, 1],
          to: [this.#total * frame, 1],
        });
      });
    }
    const size = { clips: this.#clips, height: H, width: W, frames: this.#total };
    this.#cache = options.cache === false ? null : new KvCache(device, config, size);
  }

  dispose(): void {
    this.#history.dispose();
    this.#cache?.dispose();
  }

  #noise(): Float32Array {
    const { noise, seed = 0, predict, frameShape: [B, C, H, W] } = this.#o;
    const frame = C * H * W, index = this.#frame - this.#contextFrames, out = new Float32Array(B * frame);
    for (let b = 0; b < B; b++) {
      const at = (b * predict + index) * frame;
      // One stream a clip: a frame's noise does not depend on how many frames are asked for.
      const drawn = noise?.subarray(at, at + frame) ??
        normal(streamOf(seed, `noise of clip ${b}`), frame, index * frame);
      out.set(drawn, b * frame);
    }
    return out;
  }

  #prepare(plan: CallPlan): PreparedCall {
    const { device, config } = this.#o, layout = layoutOf(config, plan);
    const frames = config.slopeScale !== 0 ? keyFrames(config, plan) : undefined;
    return { plan, layout, device: uploadLayout(device, config, layout, "last", frames) };
  }

  #rowsOf(call: PreparedCall, timestep: number, table: ConditionRows): Int32Array {
    const noisy = this.#frame, F = this.#total;
    const timesteps = Array.from(
      { length: this.#clips * F },
      (_, i) => i % F === noisy ? timestep : CLEAN_TIMESTEP,
    );
    return tokenRows(call.layout, F, timesteps, this.#conditions, table);
  }

  /** Velocity of the noisy frame x `[B, 1, C, H, W]` at one step: `[clips, 1, C, H, W]`. */
  #velocity(
    x: Tensor,
    call: PreparedCall,
    store: KeyStore | undefined,
    rows: Tensor,
    modulation: Modulation,
  ): Tensor {
    const { params, config, device, frameShape: [, C, H, W] } = this.#o, clips = this.#clips;
    const patches = Object.fromEntries(call.layout.parts.map((part) => {
      const distant = part.kind === "context", patch = distant ? config.contextPatchSize : config.patchSize;
      const out = Tensor.empty(device, [part.count, C * patch * patch]), [from, to] = part.frames;
      const clipRows = part.count / clips, clean = distant ? to : to - 1;
      if (clean > from) packFrames(this.#history, { from, to: clean, patch, out, row: 0, clipRows, clips });
      if (!distant) {
        packFrames(x, { from: 0, to: 1, patch, out, row: clipRows - part.perFrame, clipRows, clips });
      }
      return [part.kind, out];
    }));
    const hidden = transformer(params, config, embedTokens(params, config, call.layout, patches), {
      layout: call.device,
      modulation,
      rows,
      store,
      keyRows: storeRows(call.plan),
      clips,
      frames: "last",
    }); // [clips·N, D]
    return lastVelocity(params, config, hidden, clips, H, W);
  }

  /** Velocity under guidance: `[B, 1, C, H, W]`. */
  #guided(velocity: Tensor, B: number): Tensor {
    const { guidance = 1 } = this.#o;
    if (this.#clips === B) return velocity;
    const half = velocity.size / 2, shape = [B, ...velocity.shape.slice(1)];
    const [none, conditional] = [0, half].map((fromAt) => {
      const out = Tensor.empty(velocity.device, shape);
      copyStrided(velocity, out, { sizes: [half], from: [1], to: [1], fromAt });
      return out;
    });
    return lerp(none, conditional, guidance);
  }

  /** Records all steps of the next frame and waits for it once. */
  async next(): Promise<SampledFrame> {
    const { device, params, config, frameShape, onVelocity, onStep } = this.#o, [B, C, H, W] = frameShape;
    const frames = this.#frame + 1, K = this.#schedule.timesteps.length;
    const whole = this.#cache ? null : wholeClipPlan(config, this.#clips, frames, H, W);
    const prepared = scope(() => {
      const first = this.#prepare(whole ?? this.#cache!.cacheStep(frames));
      const further = whole ? first : this.#prepare(this.#cache!.noisyStep(frames));
      const table = new ConditionRows();
      const rows = Array.from(
        this.#schedule.timesteps,
        (t, k) => Tensor.from(device, this.#rowsOf(k === 0 ? first : further, t, table)),
      );
      return { first, further, rows, modulation: modulationOf(device, params, config, table) };
    });
    const store = this.#cache?.store;
    const { first, further, rows, modulation } = prepared;
    let x = Tensor.from(device, this.#noise(), [B, 1, C, H, W]);
    try {
      for (let k = 0; k < K; k++) {
        const noisier = x;
        x = scope(() => {
          const velocity = this.#velocity(x, k === 0 ? first : further, store, rows[k], modulation);
          onVelocity?.(velocity);
          return axpby(x, this.#guided(velocity, B), 1, eulerDelta(this.#schedule, k));
        });
        noisier.dispose();
        onStep?.(this.#frame, k);
        // The cpu device computes on this thread: let timers, signals and progress run between steps.
        if (device.info.name === "cpu") await new Promise((resolve) => setTimeout(resolve));
      }
      const frame = C * H * W;
      const at = { from: [frame, 1], to: [this.#total * frame, 1], toAt: this.#frame * frame };
      scope(() => copyStrided(x, this.#history, { sizes: [B, frame], ...at }));
      return { frame: this.#frame++, latents: await x.read() };
    } finally {
      disposeAll([prepared, x]);
    }
  }
}
