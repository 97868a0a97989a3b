/**
 * Cost of a run before it starts, counted in a dry run of the very same code; rates.ts says how long it takes.
 *
 * @module
 */
import { framesPerBatch } from "./codec.ts";
import type { Device } from "../../kernels/device.ts";
import { type DryDevice, type LaunchKind, openDryDevice } from "../../kernels/dry.ts";
import { decode, encode } from "../dcae/autoencoder.ts";
import { type DcaeConfig, dcaeShapes, downsampling } from "../dcae/config.ts";
import { type FarConfig, farShapes } from "../far/config.ts";
import { rememberedFrom, Sampler } from "../far/sample.ts";
import { availableMemory } from "../io/environment.ts";
import { isMatrix } from "../params.ts";
import { scope, type Shape, Tensor, unscoped } from "../tensor.ts";
import { bytes } from "../units.ts";

/** Cost of a stage on any device. */
export interface Cost {
  /** Floating-point operations by kernel. */
  readonly flops: Readonly<Record<string, number>>;
  /** Work by kind of launch. */
  readonly work: Readonly<Record<string, number>>;
  /** A sample launch of each kind, with its unit of work. */
  readonly kinds: ReadonlyMap<string, LaunchKind>;
  /** Seconds that the host took to issue the launches: what a small model spends much of its time on. */
  readonly host: number;
  /** Largest amount of device memory at once. */
  readonly memory: number;
}

/** All floating-point operations of a cost. */
export const flopsOf = (cost: Cost): number => Object.values(cost.flops).reduce((a, b) => a + b, 0);

/** The storage of a parameter record that has shapes and no values. */
function dryParams(
  device: Device,
  shapes: Readonly<Record<string, Shape>>,
  prefix: string,
  dtype: "f32" | "f16",
) {
  return unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).filter(([name]) => name.startsWith(prefix)).map(([name, shape]) =>
        [name, Tensor.empty(device, shape, dtype === "f16" && isMatrix(name, shape) ? "f16" : "f32")] as const
      ),
    )
  );
}

/** @param host Seconds that the host has taken so far. */
const snapshot = (device: DryDevice, host: number): Cost => ({
  flops: { ...device.cost.flops },
  work: { ...device.cost.work },
  kinds: device.kinds,
  host,
  memory: device.stats.peakBytes,
});

const joined = (a: Cost["kinds"], b: Cost["kinds"]): Cost["kinds"] =>
  a === b || b.size === 0 ? a : a.size === 0 ? b : new Map([...a, ...b]);

/** a + times * b, entry by entry; the larger memory. */
function combine(a: Cost, b: Cost, times = 1): Cost {
  const sum = (x: Readonly<Record<string, number>>, y: Readonly<Record<string, number>>) =>
    Object.fromEntries(
      [...new Set([...Object.keys(x), ...Object.keys(y)])].map((k) => [k, (x[k] ?? 0) + times * (y[k] ?? 0)]),
    );
  return {
    flops: sum(a.flops, b.flops),
    work: sum(a.work, b.work),
    kinds: joined(a.kinds, b.kinds),
    host: a.host + times * b.host,
    memory: Math.max(a.memory, b.memory),
  };
}

const NOTHING: Cost = { flops: {}, work: {}, kinds: new Map(), host: 0, memory: 0 };

/** Cost of encoding or decoding frames in batches. */
export function dcaeCost(
  config: DcaeConfig,
  way: "encode" | "decode",
  frames: number,
  [height, width]: readonly [number, number],
  dtype: "f32" | "f16",
): Cost {
  if (frames === 0) return NOTHING;
  const device = openDryDevice(), r = downsampling(config);
  const params = dryParams(device, dcaeShapes(config), way === "encode" ? "encoder." : "decoder.", dtype);
  const batch = Math.min(frames, framesPerBatch(height, width)), start = performance.now();
  scope(() => {
    if (way === "encode") encode(params, config, Tensor.empty(device, [batch, 3, height, width]));
    else {
      const latents = [batch, config.latentChannels, height / r, width / r];
      decode(params, config, Tensor.empty(device, latents));
    }
  });
  const took = snapshot(device, (performance.now() - start) / 1000);
  return combine({ ...NOTHING, memory: took.memory }, took, frames / batch);
}

/** Parameters of sampling. */
export interface SampleShape {
  readonly clips: number;
  readonly height: number;
  readonly width: number;
  readonly context: number;
  readonly predict: number;
  readonly steps: number;
  readonly guidance: number;
  readonly cache: boolean;
  /** Most frames that the model sees; all unless given. */
  readonly remember?: number;
}

/** Cost of one predicted frame: its first Euler step, which also encodes what is not cached yet, and each further one. */
export interface FrameCost {
  readonly first: Cost;
  readonly further: Cost;
}

/** Frames from one that is run dry to the next. */
const STRIDE = 32;

/**
 * Indices of the predicted frames that are run dry. With a cache, the cost of those between two of them lies on a line, for
 * a frame adds as many keys as the one before it; only the first two and those around the moment when the short-term window
 * is full, or frames are forgotten, differ from their neighbours. Without one, it grows with the square, so every frame is run.
 *
 * @param forgetting Indices of predicted frames before which others are forgotten.
 */
function dryFrames(
  { long, window }: FarConfig,
  { context, cache }: SampleShape,
  predict: number,
  forgetting: readonly number[],
): number[] {
  const every = Array.from({ length: Math.ceil(predict / STRIDE) }, (_, i) => i * STRIDE);
  const full = long ? [-2, -1, 0, 1].map((d) => window + d - context) : [];
  const around = forgetting.flatMap((i) => [i - 1, i, i + 1]);
  const chosen = [...every, 1, ...full, ...around, predict - 1].filter((i) => i >= 0 && i < predict);
  return cache ? [...new Set(chosen)].sort((a, b) => a - b) : Array.from({ length: predict }, (_, i) => i);
}

/** Indices of predicted frames before which others are forgotten, the first two. */
function forgettingFrames({ context, predict, remember = Infinity }: SampleShape): number[] {
  const found: number[] = [];
  for (let i = 1; i < predict && found.length < 2; i++) {
    if (rememberedFrom(context + i, remember) > rememberedFrom(context + i - 1, remember)) found.push(i);
  }
  return found;
}

/** Cost of each predicted frame, from two Euler steps of some of them run dry. */
export async function sampleCost(
  config: FarConfig,
  s: SampleShape,
  dtype: "f32" | "f16",
): Promise<FrameCost[]> {
  const device = openDryDevice();
  const params = dryParams(device, farShapes(config), "", dtype);
  const frame = config.inChannels * s.height * s.width, total = s.context + s.predict;
  let marks: Cost[] = [];
  using run = new Sampler({
    device,
    params,
    config,
    frameShape: [s.clips, config.inChannels, s.height, s.width],
    context: s.context > 0 ? new Float32Array(s.clips * s.context * frame) : undefined,
    predict: s.predict,
    actions: new Int32Array(s.clips * total),
    label: new Int32Array(s.clips),
    steps: Math.min(2, s.steps),
    guidance: s.guidance,
    noise: new Float32Array(s.clips * s.predict * frame),
    cache: s.cache,
    remember: s.remember,
    onStep: () => marks.push(mark()),
  });
  // The time of the host is counted in launches first.
  const mark = () => snapshot(device, device.stats.dispatches);
  const costs: FrameCost[] = [];
  let launch = Infinity; // seconds
  // From the first time that frames are forgotten on, costs repeat.
  const [repeats, second = s.predict] = forgettingFrames(s);
  for (const index of dryFrames(config, s, second, repeats === undefined ? [] : [repeats])) {
    run.skipTo(s.context + index);
    marks = [mark()];
    const start = performance.now();
    await run.next();
    const [before, first, further] = marks;
    // The engine has compiled nothing yet when the first frames run: the fastest is what most frames will take.
    launch = Math.min(launch, (performance.now() - start) / 1000 / (marks.at(-1)!.host - before.host));
    const found = {
      first: combine(first, before, -1),
      further: further ? combine(further, first, -1) : NOTHING,
    };
    const from = costs.length, last = costs[from - 1];
    for (let i = from; i < index; i++) {
      const share = (i - from + 1) / (index - from + 1);
      const between = (a: Cost, b: Cost) => combine(combine(NOTHING, a, 1 - share), b, share);
      costs.push({ first: between(last.first, found.first), further: between(last.further, found.further) });
    }
    costs.push(found);
  }
  while (costs.length < s.predict) costs.push(costs[costs.length - (second - repeats)]);
  const inSeconds = (cost: Cost): Cost => ({ ...cost, host: cost.host * launch });
  return costs.map(({ first, further }) => ({ first: inSeconds(first), further: inSeconds(further) }));
}

/** Cost of all frames with so many Euler steps each. */
export function totalCost(frames: readonly FrameCost[], steps: number): Cost {
  return frames.reduce((sum, f) => combine(combine(sum, f.first), f.further, steps - 1), NOTHING);
}

/**
 * Refuses work that does not fit, before it starts.
 *
 * @param needed Bytes on the device at once, by stage.
 * @param advice What to do about it, for the message.
 * @throws {RangeError} If a stage needs more than the device or the machine has: bytes needed and available.
 */
export function refuseTooLarge(
  device: Device,
  needed: Readonly<Record<string, number>>,
  advice = "take a smaller model, fewer frames, a smaller --size, or --dtype f16",
): void {
  // The pool rounds sizes up and packed weights have padding.
  const limit = device.info.limits.maxBytes, available = availableMemory();
  for (const [stage, need] of Object.entries(needed)) {
    if (limit !== undefined && need > limit) {
      throw new RangeError(
        `${stage} needs ${bytes(need)} of device memory, the ${device.info.name} device has ${
          bytes(limit)
        }: ` +
          advice,
      );
    }
    if (device.info.name === "cpu" && available !== undefined && need > available) {
      throw new RangeError(
        `${stage} needs ${bytes(need)} of memory, ${bytes(available)} are available: ` +
          advice,
      );
    }
  }
}
