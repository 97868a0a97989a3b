/**
 * Time and memory of a run before it starts: counts from a dry run of the very same code, rates measured on the device.
 *
 * @module
 */
import { framesPerBatch } from "../lib/pipeline/codec.ts";
import type { Device } from "../kernels/device.ts";
import { type DryDevice, openDryDevice } from "../kernels/dry.ts";
import { decode, encode } from "../lib/dcae/autoencoder.ts";
import { type DcaeConfig, dcaeShapes, downsampling } from "../lib/dcae/config.ts";
import { type FarConfig, farShapes } from "../lib/far/config.ts";
import { frameCausalMask } from "../lib/far/mask.ts";
import { sample } from "../lib/far/sample.ts";
import { add, attention, conv2d, copyStrided, linear, placeMask } from "../lib/ops.ts";
import { isMatrix } from "../lib/params.ts";
import { streamOf, uniform } from "../lib/random.ts";
import { disposeAll, scope, type Shape, Tensor, unscoped } from "../lib/tensor.ts";
import { bytes } from "./report.ts";

/** What a stage costs, whatever the device. */
export interface Cost {
  /** Floating-point operations by kernel. */
  readonly flops: Readonly<Record<string, number>>;
  /** Bytes that launches touch, by kernel. */
  readonly bytes: Readonly<Record<string, number>>;
  /** Launches of kernels: what a small model spends most of its time on. */
  readonly launches: number;
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

const snapshot = (device: DryDevice): Cost => ({
  flops: { ...device.cost.flops },
  bytes: { ...device.cost.bytes },
  launches: device.stats.dispatches,
  memory: device.stats.peakBytes,
});

/** a + times * b, entry by entry; the larger memory. */
function combine(a: Cost, b: Cost, times = 1): Cost {
  const sum = (x: Readonly<Record<string, number>>, y: Readonly<Record<string, number>>) =>
    Object.fromEntries(
      [...new Set([...Object.keys(x), ...Object.keys(y)])].map((k) => [k, (x[k] ?? 0) + times * (y[k] ?? 0)]),
    );
  return {
    flops: sum(a.flops, b.flops),
    bytes: sum(a.bytes, b.bytes),
    launches: a.launches + times * b.launches,
    memory: Math.max(a.memory, b.memory),
  };
}

const NOTHING: Cost = { flops: {}, bytes: {}, launches: 0, memory: 0 };

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
  const batch = Math.min(frames, framesPerBatch(height, width));
  scope(() => {
    if (way === "encode") encode(params, config, Tensor.empty(device, [batch, 3, height, width]));
    else {
      const latents = [batch, config.latentChannels, height / r, width / r];
      decode(params, config, Tensor.empty(device, latents));
    }
  });
  return combine({ ...NOTHING, memory: device.stats.peakBytes }, snapshot(device), frames / batch);
}

/** What sampling is asked for. */
export interface SampleShape {
  readonly clips: number;
  readonly height: number;
  readonly width: number;
  readonly context: number;
  readonly predict: number;
  readonly steps: number;
  readonly guidance: number;
  readonly cache: boolean;
}

/** Cost of one predicted frame: its first Euler step, which also encodes what is not cached yet, and each further one. */
export interface FrameCost {
  readonly first: Cost;
  readonly further: Cost;
}

/** Cost of each predicted frame, from two Euler steps run dry. */
export async function sampleCost(
  config: FarConfig,
  s: SampleShape,
  dtype: "f32" | "f16",
): Promise<FrameCost[]> {
  const device = openDryDevice();
  const params = dryParams(device, farShapes(config), "", dtype);
  const frame = config.inChannels * s.height * s.width, total = s.context + s.predict;
  const costs: FrameCost[] = [], marks: Cost[] = [NOTHING];
  const run = sample({
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
    onStep: () => marks.push(snapshot(device)),
  });
  let before = 0;
  for await (const _ of run) {
    const last = marks.length - 1;
    const first = combine(marks[before + 1], marks[before], -1);
    const further = last > before + 1 ? combine(marks[last], marks[last - 1], -1) : NOTHING;
    costs.push({ first, further });
    before = last;
  }
  return costs;
}

/** Cost of all frames with so many Euler steps each. */
export function totalCost(frames: readonly FrameCost[], steps: number): Cost {
  return frames.reduce((sum, f) => combine(combine(sum, f.first), f.further, steps - 1), NOTHING);
}

/** Speed of a device, measured in well under a second. */
export interface Rates {
  /** FLOP/s of linear layers on many rows and on the rows of one frame, of 3x3 convolutions, and of attention. */
  readonly linear: number;
  readonly linearFew: number;
  readonly conv: number;
  readonly attention: number;
  /** Bytes/s that copies touch. */
  readonly bytes: number;
  /** Seconds of a launch that computes next to nothing. */
  readonly launch: number;
  /** Random numbers made by the host a second. */
  readonly random: number;
}

/** Best of three after a first run that compiles and packs. */
async function secondsOf(device: Device, body: () => void): Promise<number> {
  let best = Infinity;
  for (let run = 0; run < 4; run++) {
    await device.sync();
    const start = performance.now();
    body();
    await device.sync();
    if (run > 0) best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best;
}

const LAUNCHES = 256;

/** Measures a device with the shapes of FAR-B and of the autoencoder's middle. */
export async function measureRates(device: Device): Promise<Rates> {
  const zeros = (...shape: number[]) =>
    Tensor.from(device, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.01), shape);
  const made = unscoped(() => ({
    many: zeros(512, 768),
    few: zeros(64, 768),
    w: zeros(768, 768).pack("linear"),
    image: zeros(1, 32, 32, 256),
    kernel: zeros(256, 256, 3, 3).pack("conv2d"),
    keys: zeros(1536, 768),
    one: zeros(64),
    // The last of 24 frames of 64 tokens sees all of them.
    mask: placeMask(
      device,
      frameCausalMask({ frames: 24, tokens: 64, queries: { longTerm: [0, 0], shortTerm: [23, 24] } }),
    ),
  }));
  const { many, few, w, image, kernel, keys, one, mask } = made;
  const time = (body: () => unknown) => secondsOf(device, () => void scope(() => void body()));
  let random = 0;
  for (let run = 0; run < 3; run++) {
    const start = performance.now();
    uniform(streamOf(0, "rate"), 200_000);
    random = 200_000 / ((performance.now() - start) / 1000);
  }
  try {
    return {
      linear: 2 * 512 * 768 * 768 / await time(() => linear(many, w)),
      linearFew: 2 * 64 * 768 * 768 / await time(() => linear(few, w)),
      conv: 2 * 1024 * 256 * 256 * 9 / await time(() => conv2d(image, kernel)),
      attention: 4 * 64 * 1536 * 768 /
        await time(() => attention(few, keys, keys, 64, mask)),
      bytes: 2 * keys.size * 4 /
        await time(() =>
          copyStrided(keys, Tensor.empty(device, keys.shape), { sizes: [keys.size], from: [1], to: [1] })
        ),
      launch: await time(() => {
        for (let i = 0; i < LAUNCHES; i++) add(one, one);
      }) / LAUNCHES,
      random,
    };
  } finally {
    disposeAll(made);
  }
}

/**
 * Seconds that a cost takes at measured rates.
 *
 * @param few Whether most linear layers see the rows of one frame only, as in a cached denoising step.
 */
export function secondsAt(cost: Cost, rates: Rates, few = false): number {
  let seconds = cost.launches * rates.launch;
  for (const [kernel, flops] of Object.entries(cost.flops)) {
    if (/^(linear|groupedLinear)/.test(kernel)) seconds += flops / (few ? rates.linearFew : rates.linear);
    else if (kernel === "conv2d") seconds += flops / rates.conv;
    else if (kernel === "attention") seconds += flops / rates.attention;
    else seconds += (cost.bytes[kernel] ?? 0) / rates.bytes;
  }
  return seconds;
}

/**
 * Refuses work that does not fit, before it starts.
 *
 * @param needed Bytes on the device at once, by stage.
 * @param available Bytes that the machine has free, where it says so.
 * @param advice What to do about it, for the message.
 * @throws {RangeError} If a stage needs more than the device or the machine has: bytes needed and available.
 */
export function refuseTooLarge(
  device: Device,
  needed: Readonly<Record<string, number>>,
  available: number | undefined,
  advice = "take a smaller model, fewer frames, a smaller --size, or --dtype f16",
): void {
  // The pool rounds sizes up and packed weights have padding.
  const limit = device.info.limits.maxBytes;
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

/** Seconds of all frames with so many Euler steps each. */
export function sampleSeconds(
  frames: readonly FrameCost[],
  steps: number,
  rates: Rates,
  cache: boolean,
): number {
  return frames.reduce(
    (sum, f) => sum + secondsAt(f.first, rates) + (steps - 1) * secondsAt(f.further, rates, cache),
    0,
  );
}
