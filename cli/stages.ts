/**
 * The stages of a prediction: frames to latents, latents to further latents, latents to frames. Each one brings its model
 * in and takes it out again.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { decode, encode } from "../lib/dcae/autoencoder.ts";
import { type DcaeConfig, downsampling } from "../lib/dcae/config.ts";
import type { FarConfig } from "../lib/far/config.ts";
import { sample } from "../lib/far/sample.ts";
import { type Frames, makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { fromPlanes, toPlanes } from "../lib/io/planes.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, Tensor } from "../lib/tensor.ts";
import { framesPerBatch } from "./estimate.ts";
import type { Model } from "./models.ts";
import type { Progress } from "./progress.ts";

/** Scaled latents of a clip. */
export interface Latents {
  /** `[F, C, H, W]`. */
  readonly values: Float32Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** What every stage is given. */
export interface Workplace {
  readonly device: Device;
  readonly progress: Progress;
  /** Seconds by stage and by loading, filled by the stages. */
  readonly seconds: Record<string, number>;
  /** Called between batches; lets timers, signals and progress run, and throws when the user wants to stop. */
  readonly pause: () => Promise<void>;
}

async function timed<T>(at: Workplace, what: string, body: () => T | Promise<T>): Promise<T> {
  const start = performance.now();
  try {
    return await body();
  } finally {
    at.seconds[what] = (at.seconds[what] ?? 0) + (performance.now() - start) / 1000;
  }
}

/** Sizes of a frame's latents. */
export function latentSize(config: DcaeConfig, frames: { readonly height: number; readonly width: number }) {
  const r = downsampling(config);
  if (frames.height % r !== 0 || frames.width % r !== 0) {
    throw new RangeError(
      `frames are ${frames.height}x${frames.width}, expected multiples of ${r} (the autoencoder's factor); --size brings them there`,
    );
  }
  return { channels: config.latentChannels, height: frames.height / r, width: frames.width / r };
}

/** Frames of a clip in batches that the autoencoder takes at once. */
export function* batchesOf(frames: Frames): Generator<Frames> {
  const batch = framesPerBatch(frames.height, frames.width);
  for (let first = 0; first < frames.frames; first += batch) yield sliceFrames(frames, first, first + batch);
}

/** Encodes a clip: `[F, C, H, W]`, multiplied by the autoencoder's scaling factor. */
export async function encodeFrames(
  at: Workplace,
  model: Model<DcaeConfig>,
  frames: Frames,
): Promise<Latents> {
  const size = latentSize(model.config, frames), each = size.channels * size.height * size.width;
  const values = new Float32Array(frames.frames * each);
  if (frames.frames === 0) return { values, ...size };
  let done = 0;
  for await (const { latents, count } of encodeBatches(at, model, batchesOf(frames), frames.frames)) {
    values.set(latents, done * each);
    done += count;
  }
  return { values, ...size };
}

/** Encodes batches of frames as they come, in memory for one of them. `total` is for the progress, where it is known. */
export async function* encodeBatches(
  at: Workplace,
  model: Model<DcaeConfig>,
  batches: Iterable<Frames> | AsyncIterable<Frames>,
  total: number | undefined,
): AsyncGenerator<{ readonly latents: Float32Array; readonly count: number }> {
  const { device } = at, { config } = model;
  at.progress.say(`loading ${model.name}, encoder`);
  const params = await timed(at, "load encoder", () => model.weights.load(device, "encoder."));
  try {
    using stage = at.progress.stage("encode", total ?? 0, "frame");
    let done = 0;
    for await (const batch of batches) {
      latentSize(config, batch);
      const latents = await timed(at, "encode", async () => {
        const images = toPlanes(batch), shape = [batch.frames, 3, batch.height, batch.width];
        const z = scope(() => encode(params, config, Tensor.from(device, images, shape)));
        const read = await z.read();
        z.dispose();
        return read.map((v) => v * config.scalingFactor);
      });
      stage.update(done += batch.frames);
      yield { latents, count: batch.frames };
      await at.pause();
    }
  } finally {
    disposeAll(params);
    device.trim();
  }
}

/** Decoded frames. */
export interface Decoded {
  /** Colours rounded to 0 … 255. */
  readonly frames: Frames;
  /** `[F, H, W, 3]` in [0, 1], before rounding. */
  readonly values: Float32Array;
}

/** Decodes latents. */
export async function decodeLatents(
  at: Workplace,
  model: Model<DcaeConfig>,
  latents: Latents,
): Promise<Decoded> {
  const r = downsampling(model.config), { channels, height, width } = latents;
  const count = latents.values.length / (channels * height * width), each = height * r * width * r * 3;
  const frames = makeFrames(count, height * r, width * r), values = new Float32Array(count * each);
  if (count === 0) return { frames, values };
  let done = 0;
  for await (const batch of decodeBatches(at, model, latents)) {
    frames.data.set(batch.frames.data, done * each);
    values.set(batch.values, done * each);
    done += batch.frames.frames;
  }
  return { frames, values };
}

/** Decodes latents (divided by the scaling factor here) batch by batch. */
export async function* decodeBatches(
  at: Workplace,
  model: Model<DcaeConfig>,
  latents: Latents,
): AsyncGenerator<Decoded> {
  const { device } = at, { config } = model, r = downsampling(config);
  const { channels, height, width } = latents, size = channels * height * width;
  const count = latents.values.length / size, H = height * r, W = width * r, batch = framesPerBatch(H, W);
  at.progress.say(`loading ${model.name}, decoder`);
  const params = await timed(at, "load decoder", () => model.weights.load(device, "decoder."));
  try {
    using stage = at.progress.stage("decode", count, "frame");
    for (let first = 0; first < count; first += batch) {
      const n = Math.min(batch, count - first);
      const decoded = await timed(at, "decode", async () => {
        const z = latents.values.slice(first * size, (first + n) * size).map((v) => v / config.scalingFactor);
        const images = scope(() =>
          decode(params, config, Tensor.from(device, z, [n, channels, height, width]))
        );
        const y = await images.read(); // [B, 3, H, W]
        images.dispose();
        const values = new Float32Array(y.length);
        return { frames: fromPlanes(y, H, W, values), values };
      });
      stage.update(first + n);
      yield decoded;
      await at.pause();
    }
  } finally {
    disposeAll(params);
    device.trim();
  }
}

/** What to predict. */
export interface Prediction {
  /** Clean latents of the frames that are given. */
  readonly context: Latents;
  /** Latents that an earlier, interrupted run of the same prediction has made: `[frames, C, H, W]`. */
  readonly done?: Float32Array;
  readonly predict: number;
  readonly actions?: ArrayLike<number>;
  readonly label?: number;
  readonly steps: number;
  readonly guidance: number;
  readonly seed: number;
  /** Number of this trajectory; each one has noise of its own. */
  readonly trajectory: number;
  readonly cache: boolean;
  /** Work up to and including a step of a frame, in any unit; steps cost differently. */
  readonly workUntil?: (frame: number, step: number) => number;
  /** Sees all predicted latents so far after each frame; `false` ends the prediction there. */
  readonly onFrame?: (latents: Float32Array) => boolean | void | Promise<boolean | void>;
}

/**
 * Predicts frame after frame.
 *
 * @returns `[frames, C, H, W]`; fewer than asked for when `onFrame` ended it.
 */
export async function predictLatents(
  at: Workplace,
  model: Model<FarConfig>,
  p: Prediction,
): Promise<Float32Array> {
  const { device, progress } = at, { channels, height, width } = p.context;
  const size = channels * height * width, before = (p.done?.length ?? 0) / size;
  const out = new Float32Array(p.predict * size);
  if (p.done) out.set(p.done);
  if (before === p.predict) return out;
  progress.say(`loading ${model.name}`);
  const params = await timed(at, "load model", () => model.weights.load(device));
  try {
    return await timed(at, "predict", async () => {
      using stage = progress.stage("predict", p.predict, "frame", before);
      const work = p.workUntil ?? ((frame, step) => frame + (step + 1) / p.steps);
      const start = before > 0 ? work(before - 1, p.steps - 1) : 0,
        all = work(p.predict - 1, p.steps - 1) - start;
      const context = new Float32Array(p.context.values.length + before * size);
      context.set(p.context.values);
      context.set(out.subarray(0, before * size), p.context.values.length);
      const run = sample({
        device,
        params,
        config: model.config,
        frameShape: [1, channels, height, width],
        context: context.length > 0 ? context : undefined,
        predict: p.predict - before,
        actions: p.actions,
        label: p.label === undefined ? undefined : [p.label],
        steps: p.steps,
        guidance: p.guidance,
        noise: noiseOf(p.seed, p.trajectory, before * size, (p.predict - before) * size),
        cache: p.cache,
        onStep: (_, step) => stage.update(made + (step + 1) / p.steps, (work(made, step) - start) / all),
      });
      let made = before;
      for await (const { latents } of run) {
        out.set(latents, made * size);
        stage.update(++made, (work(made - 1, p.steps - 1) - start) / all);
        if (await p.onFrame?.(out.subarray(0, made * size)) === false) break;
      }
      return out.subarray(0, made * size);
    });
  } finally {
    disposeAll(params);
    device.trim();
  }
}

/** Numbers `from … from+count-1` of a trajectory's noise, the same as the sampler draws for that clip of a batch. */
function noiseOf(seed: number, trajectory: number, from: number, count: number): Float32Array {
  return normal(streamOf(seed, `noise of clip ${trajectory}`), count, from);
}
