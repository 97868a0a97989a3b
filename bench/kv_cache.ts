/**
 * The authors' speed test (paper, Fig. 11): seconds to generate a video of 16 to 256 frames without a cache, with the KV
 * cache, and with FAR-Long's multi-level KV cache.
 *
 *     deno run -A bench/kv_cache.ts [--frames 16,32,64,128,256] [--steps 50] [--batch 1] [--device cpu|webgpu] [--threads 2]
 *                                   [--blas auto|off|PATH] [--repeats 1] [--whole] [--save]
 *
 * FAR-B and FAR-B-Long (130 and 150 M parameters, random weights) on latents of 8x8, 64 tokens per frame, as for DMLab. A
 * whole video takes hours on a processor, so single frames are measured: the first Euler step of frame f, which also encodes
 * what is not cached yet, and one further step; a frame takes the first and `steps - 1` further ones. Frames between the
 * measured ones are interpolated linearly; results say `extrapolated: true`. `--whole` generates every video instead. One thread is timed in
 * seconds of the process, which other work on the machine disturbs less.
 *
 * @module
 */
import type { Device, DeviceName } from "../kernels/device.ts";
import { openDevice } from "../kernels/open.ts";
import { KvCache } from "../lib/far/cache.ts";
import { conditionCalls, type FrameInputs } from "../lib/far/conditioning.ts";
import { type FarConfig, farConfig, farShapes } from "../lib/far/config.ts";
import { type CallPlan, prepareCall, wholeClipPlan } from "../lib/far/layout.ts";
import { sample } from "../lib/far/sample.ts";
import { velocity } from "../lib/far/transformer.ts";
import { type Params, randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, Tensor } from "../lib/tensor.ts";
import { environment, numberList, option } from "./environment.ts";
import { median, processSeconds, saveResults } from "./peer_process.ts";

const SIDE = 8;

/** The three curves of Fig. 11. */
export const SETTINGS = {
  "FAR, no cache": { type: "FAR_B", cache: false },
  "FAR, KV cache": { type: "FAR_B", cache: true },
  "FAR-Long, multi-level KV cache": { type: "FAR_B_Long", cache: true },
} as const;
/** Name of a curve. */
export type Setting = keyof typeof SETTINGS;

/** Seconds so far. */
const clock = ({ info }: Device) =>
  info.name === "cpu" && info.threads === 1 ? processSeconds() : performance.now() / 1000;

/** Frames whose steps are measured: the cost of FAR-Long changes where its window of 16 frames is full. */
const MEASURED = [1, 4, 16, 17, 32, 64, 128, 192, 256];

/** Seconds of one frame: its conditioning and first step, and each further step. */
interface FrameSeconds {
  readonly first: number;
  readonly further: number;
}

/** Measures the frame that makes `frames` of them, in a video of `total`. */
async function frameSeconds(
  { device, params, config }: { device: Device; params: Params; config: FarConfig },
  { cache, frames, total, batch, steps, repeats }: {
    cache: boolean;
    frames: number;
    total: number;
    batch: number;
    steps: number;
    repeats: number;
  },
): Promise<FrameSeconds> {
  const size = batch * frames * config.inChannels * SIDE * SIDE;
  const latents = Tensor.from(device, normal(streamOf(1, "x"), size), [
    batch,
    frames,
    config.inChannels,
    SIDE,
    SIDE,
  ]);
  using kv = cache ? keysOf(device, config, { clips: batch, frames: total }) : null;
  const timed = async <T>(body: () => T): Promise<[T, number]> => {
    await device.sync();
    const from = clock(device), made = scope(body);
    await device.sync();
    return [made, clock(device) - from];
  };
  const inputs = Array.from({ length: steps }, (_, k) => {
    const timesteps = new Float32Array(batch * frames).fill(-1);
    for (let b = 1; b <= batch; b++) timesteps[b * frames - 1] = 1000 - k;
    return { frames, timesteps, conditions: new Int32Array(batch * frames) };
  });
  /** Times the work of {@linkcode Sampler.next} before the steps of a frame, and one of its steps. */
  const run = async (
    plan: CallPlan,
    given: readonly FrameInputs[],
  ): Promise<[prepare: number, step: number]> => {
    const [made, prepare] = await timed(() => {
      const call = prepareCall(device, config, plan, "last");
      return { call, all: conditionCalls(device, params, config, given.map((inputs) => ({ call, inputs }))) };
    });
    const input = { latents, conditioning: made.all[0], store: kv?.cache.store };
    const [, step] = await timed(() => void velocity(params, config, made.call, input));
    disposeAll(made);
    return [prepare, step];
  };
  const first: number[] = [], further: number[] = [];
  for (let i = 0; i < repeats; i++) {
    if (kv && frames > 1) kv.cache.cacheStep(frames - 1); // as after the frame before
    const plan = kv?.cache.cacheStep(frames) ?? wholeClipPlan(config, batch, frames, SIDE, SIDE);
    const [prepare, step] = await run(plan, inputs);
    first.push(prepare + step);
    // Without a cache all steps are the same pass over all frames, which is long: it is measured once.
    further.push(kv ? (await run(kv.cache.noisyStep(frames), inputs.slice(0, 1)))[1] : step);
  }
  latents.dispose();
  return { first: median(first), further: median(further) };
}

/** A cache that is full of random keys and values. */
function keysOf(device: Device, config: FarConfig, size: { clips: number; frames: number }) {
  const cache = new KvCache(device, config, { ...size, height: SIDE, width: SIDE });
  for (const [i, t] of [...cache.store.k, ...cache.store.v].entries()) {
    device.write(t.storage, normal(streamOf(2, `layer ${i}`), t.size));
  }
  return { cache, [Symbol.dispose]: () => cache.dispose() };
}

/** Seconds of a video of `frames` frames, from some measured frames. */
export function videoSeconds(
  measured: readonly (readonly [frames: number, seconds: number])[],
  frames: number,
): number {
  let sum = 0;
  for (let f = 1; f <= frames; f++) {
    const after = measured.findIndex(([at]) => at >= f);
    const [to, high] = measured[after], [from, low] = measured[Math.max(0, after - 1)];
    sum += to === from ? high : low + (high - low) * (f - from) / (to - from);
  }
  return sum;
}

async function wholeVideo(
  { device, params, config }: { device: Device; params: Params; config: FarConfig },
  { cache, frames, batch, steps }: { cache: boolean; frames: number; batch: number; steps: number },
): Promise<number> {
  const from = clock(device);
  const frameShape = [batch, config.inChannels, SIDE, SIDE] as const;
  for await (const _ of sample({ device, params, config, frameShape, predict: frames, steps, cache }));
  return clock(device) - from;
}

const rounded = (value: number) => Number(value.toPrecision(4));

if (import.meta.main) {
  const name = (option("device") ?? "cpu") as DeviceName, whole = Deno.args.includes("--whole");
  const lengths = numberList("frames") ?? [16, 32, 64, 128, 256], [total] = lengths.slice(-1);
  const steps = Number(option("steps") ?? 50), batch = Number(option("batch") ?? 1);
  const repeats = Number(option("repeats") ?? 1), load = Deno.loadavg();
  const { device } = await openDevice(
    name === "cpu"
      ? {
        device: name,
        threads: Number(option("threads") ?? navigator.hardwareConcurrency),
        blas: option("blas") ?? "auto",
      }
      : { device: name },
  );
  const curves: Record<string, number[]> = {}, frameTimes: Record<string, unknown> = {};
  for (const [setting, { type, cache }] of Object.entries(SETTINGS)) {
    const config = farConfig(type), params = randomParams(device, farShapes(config), 0);
    const model = { device, params, config };
    if (whole) {
      await wholeVideo(model, { cache, frames: 1, batch, steps: 2 }); // compiles
      curves[setting] = [];
      for (const frames of lengths) {
        curves[setting].push(rounded(await wholeVideo(model, { cache, frames, batch, steps })));
      }
    } else {
      const at = [...new Set([...MEASURED.filter((f) => f < total), total])];
      const common = { cache, total, batch, steps, repeats };
      await frameSeconds(model, { ...common, frames: 2 }); // compiles
      const measured: [number, FrameSeconds][] = [];
      for (const frames of at) measured.push([frames, await frameSeconds(model, { ...common, frames })]);
      frameTimes[setting] = measured.map(([frames, { first, further }]) => ({
        frames,
        first: rounded(first),
        further: rounded(further),
      }));
      const seconds = measured.map(([f, t]) => [f, t.first + (steps - 1) * t.further] as const);
      curves[setting] = lengths.map((frames) => rounded(videoSeconds(seconds, frames)));
    }
    console.log(setting, JSON.stringify(curves[setting]));
    disposeAll(params);
  }
  const [none, plain, levels] = Object.values(curves).map((seconds) => seconds.at(-1)!);
  const ratios = { none_to_cache: rounded(none / plain), cache_to_levels: rounded(plain / levels) };
  console.log(`at ${total} frames`, JSON.stringify(ratios));
  if (Deno.args.includes("--save")) {
    const file = name === "cpu" ? "kv_cache" : "kv_cache_webgpu";
    await saveResults(file, {
      what:
        `seconds to generate a video with ${steps} Euler steps per frame, batch ${batch} (paper, Fig. 11)`,
      ...await environment(),
      load_average: load,
      device: device.info.description,
      blas: device.info.blas,
      extrapolated: !whole,
      steps,
      batch,
      frames: lengths,
      seconds: curves,
      ratios,
      ...(whole ? {} : { frame_seconds: frameTimes }),
    });
  }
  device.close();
}
