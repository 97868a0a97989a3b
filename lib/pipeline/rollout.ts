/**
 * A roll-out: a model predicts frame after frame, each from all frames before it.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { CacheLevels } from "../display/tables.ts";
import type { FarConfig } from "../far/config.ts";
import { type SampledFrame, type SampleOptions, Sampler } from "../far/sample.ts";
import type { Params } from "../params.ts";

/** Options of a roll-out: {@linkcode SampleOptions} without the model. */
export interface RolloutOptions extends Omit<SampleOptions, "device" | "params" | "config"> {
  /** Stops the roll-out between two Euler steps; {@linkcode Rollout.step} then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A transformer on its device. */
export interface LoadedTransformer {
  /** The device that holds it. */
  readonly device: Device;
  /** Its configuration. */
  readonly config: FarConfig;
  /** Its parameters. */
  readonly params: Params;
}

/**
 * A roll-out that can be stepped or iterated, one clip or several together, and resumed: what {@linkcode Rollout.made}
 * holds, given as `made` to another roll-out with the same options, continues it with the same bits.
 *
 * @example
 * ```ts
 * import { openDevice } from "../../kernels/open.ts";
 * import { farConfig, farShapes } from "../far/config.ts";
 * import { randomParams } from "../params.ts";
 * import { Rollout } from "./rollout.ts";
 *
 * const { device } = await openDevice({ device: "cpu", threads: 1 });
 * const config = farConfig("FAR_B", { num_layers: 1, in_channels: 4, out_channels: 4 });
 * const params = randomParams(device, farShapes(config), 0);
 * using walk = new Rollout({ device, config, params }, { frameShape: [1, 4, 4, 4], predict: 2, steps: 2 });
 * const { frame, latents } = await walk.step();
 * console.assert(frame === 0 && latents.length === 4 * 4 * 4 && walk.made.length === latents.length);
 * for await (const { frame } of walk) console.assert(frame === 1);
 * device.close();
 * ```
 */
export class Rollout implements Disposable {
  readonly #sampler: Sampler;
  readonly #clips: number;
  readonly #perFrame: number;
  readonly #signal?: AbortSignal;
  /** `[B, C, H, W]` of each predicted frame; an endless roll-out keeps those that the model remembers. */
  readonly #made: Float32Array[] = [];
  readonly #most: number;
  readonly #onDispose?: () => void;

  /**
   * Checks what is asked for and allocates the cache.
   *
   * @param model The transformer.
   * @param options What to predict.
   * @param onDispose Called when the roll-out is disposed of.
   * @throws {RangeError} If shapes, conditions or guidance do not fit the model.
   */
  constructor(model: LoadedTransformer, options: RolloutOptions, onDispose?: () => void) {
    this.#onDispose = onDispose;
    const { frameShape: [B, C, H, W], predict, made, signal, onStep } = options;
    this.#clips = B;
    this.#perFrame = C * H * W;
    this.#signal = signal;
    this.#sampler = new Sampler({
      ...options,
      ...model,
      onStep: (frame, step) => {
        onStep?.(frame, step);
        signal?.throwIfAborted();
      },
    });
    this.#most = predict === Infinity ? options.remember! : predict;
    const frames = (made?.length ?? 0) / B / this.#perFrame;
    for (let f = 0; f < frames; f++) {
      const frame = new Float32Array(B * this.#perFrame);
      for (let b = 0; b < B; b++) frame.set(this.#frameOf(made!, b, f, frames), b * this.#perFrame);
      this.#keep(frame);
    }
  }

  #keep(latents: Float32Array): void {
    this.#made.push(latents);
    if (this.#made.length > this.#most) this.#made.shift();
  }

  #frameOf(values: Float32Array, clip: number, frame: number, frames: number): Float32Array {
    const at = (clip * frames + frame) * this.#perFrame;
    return values.subarray(at, at + this.#perFrame);
  }

  /** Index in the clip of the frame that is predicted next; the first one is the number of context frames. */
  get frame(): number {
    return this.#sampler.frame;
  }

  /** Whether all frames have been predicted. */
  get isDone(): boolean {
    return this.#sampler.frame === this.#sampler.frames;
  }

  /** Levels of the key-value cache with the newest frame in it; null without a cache. */
  get levels(): CacheLevels | null {
    return this.#sampler.levels;
  }

  /** All frames predicted so far, `[B, frames, C, H, W]`; of an endless roll-out the last `remember` ones. */
  get made(): Float32Array {
    const frames = this.#made.length,
      per = this.#perFrame,
      out = new Float32Array(frames * this.#clips * per);
    this.#made.forEach((latents, f) => {
      for (let b = 0; b < this.#clips; b++) {
        out.set(latents.subarray(b * per, (b + 1) * per), (b * frames + f) * per);
      }
    });
    return out;
  }

  /**
   * Predicts the next frame.
   *
   * @param actions `[B]` its actions, where the options gave those of the context only; a number for a single clip.
   * @param before `[B]` actions of the frame before it, in the place of those that it had; see {@linkcode Sampler.next}.
   * @returns The frame's index in the clip and its latents `[B, C, H, W]`.
   * @throws {RangeError} If all frames have been predicted, an action is out of range, or there is no frame before it.
   */
  async step(
    actions?: number | ArrayLike<number>,
    before?: number | ArrayLike<number>,
  ): Promise<SampledFrame> {
    this.#signal?.throwIfAborted();
    const list = (given?: number | ArrayLike<number>) => typeof given === "number" ? [given] : given;
    const next = await this.#sampler.next(list(actions), list(before));
    this.#keep(next.latents);
    return next;
  }

  /** The frames that are still to be predicted. */
  async *[Symbol.asyncIterator](): AsyncGenerator<SampledFrame> {
    while (!this.isDone) yield await this.step();
  }

  /** Gives the key-value cache back. */
  [Symbol.dispose](): void {
    this.#sampler.dispose();
    this.#onDispose?.();
  }
}
