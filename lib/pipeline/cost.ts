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
import { sample } from "../far/sample.ts";
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
  /** What the kinds are. */
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

/** @param start When the dry run began, in milliseconds. */
const snapshot = (device: DryDevice, start: number): Cost => ({
  flops: { ...device.cost.flops },
  work: { ...device.cost.work },
  kinds: device.kinds,
  host: (performance.now() - start) / 1000,
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
  return combine({ ...NOTHING, memory: device.stats.peakBytes }, snapshot(device, start), frames / batch);
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
  const costs: FrameCost[] = [], marks: Cost[] = [NOTHING], start = performance.now();
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
    onStep: () => marks.push(snapshot(device, start)),
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
