/**
 * Speed of a device: kernels are timed at the sizes that a run will launch, once per machine; later runs time the most
 * important ones again, to see how busy the machine is, and read the others from the cache folder.
 *
 * @module
 */
import { join } from "node:path";
import type { Device, Storage } from "../../kernels/device.ts";
import type { DryStorage, LaunchKind } from "../../kernels/dry.ts";
import { writeAtomic } from "../io/atomic.ts";
import { readJsonObject } from "../io/text.ts";
import { streamOf, uniform } from "../random.ts";
import type { Cost, FrameCost } from "./cost.ts";
import { ownCache } from "./zoo.ts";

/** Speed of a device. */
export interface Rates {
  /** Seconds for a unit of work, by kind of launch. */
  readonly seconds: ReadonlyMap<string, number>;
  /** Random numbers made by the host a second. */
  readonly random: number;
}

/** Seconds spent on timing what is not in the cache, and a launch that would take too much of them. */
const BUDGET = 2, LONGEST = 0.2;
/** Kinds that are timed in every run, once each, for it keeps the first frame waiting. */
const AGAIN = 1;
/** Buffers of one launch beyond this are not made for timing. */
const LARGEST = 512 * 2 ** 20;
/** Work a second that is assumed where nothing like it was timed: a slow core. */
const SLOW = 5e9;

/** The buffers of a launch on a real device, with plain numbers inside. */
function realBuffers(device: Device, { kernel, buffers }: LaunchKind["sample"]): (Storage | null)[] {
  return buffers.map((dry: DryStorage | null, i) => {
    if (dry === null) return null;
    const storage = device.alloc(dry.bytes);
    if (dry.integers !== undefined) device.write(storage, dry.integers.subarray(0, dry.bytes / 4));
    else if (kernel.buffers[i].dtypes.includes("i32")) device.write(storage, new Int32Array(dry.bytes / 4));
    // Neither zeros nor denormal numbers, as f32 and as f16: both can be faster or slower than others.
    else device.write(storage, new Float32Array(Math.floor(dry.bytes / 4)).fill(0.01));
    if (dry.packed) device.pack(storage, dry.packed);
    return storage;
  });
}

/** Seconds of one launch: the median of `runs`, after a first one that compiles and packs. */
async function timeLaunch(device: Device, { sample }: LaunchKind, runs = 3): Promise<number> {
  const buffers = realBuffers(device, sample), launch = { ...sample, buffers };
  try {
    const run = async (times: number) => {
      const start = performance.now();
      for (let i = 0; i < times; i++) device.run(launch);
      await device.sync();
      return (performance.now() - start) / 1000 / times;
    };
    const first = (await run(1), await run(1));
    // A wait costs about 11 ms on WebGPU and hides in enough launches; on the cpu a launch is done when it returns.
    const times = Math.max(
      1,
      Math.min(200, Math.round((device.info.name === "webgpu" ? 0.05 : 0.001) / first)),
    );
    const measured: number[] = [];
    while (measured.length < runs) measured.push(await run(times));
    return measured.sort((a, b) => a - b)[Math.floor(runs / 2)];
  } finally {
    for (const storage of new Set(buffers)) if (storage) device.free(storage);
  }
}

const bytesOf = ({ sample }: LaunchKind) => sample.buffers.reduce((sum, b) => sum + (b?.bytes ?? 0), 0);
const kernelOf = (kind: string) => kind.slice(0, kind.indexOf(" "));

/** A file of rates, where there is a cache folder. */
function rateFile(name: string): string | undefined {
  const folder = ownCache("rates");
  return folder && join(folder, `${name}.json`);
}

/** Rates timed on this machine with this device by earlier runs. */
class RateCache {
  readonly #file?: string;
  readonly seconds: Record<string, number> = {};
  /** Random numbers that the host makes in a second; 0 where no run has counted them. */
  random = 0;

  constructor(device: Device) {
    const name = `${device.info.description} deno ${Deno.version.deno}`.replace(/[^\w.]+/g, "-");
    this.#file = rateFile(name);
    if (this.#file === undefined) return;
    try {
      const { seconds, random } = readJsonObject(this.#file) as {
        seconds: Record<string, number>;
        random?: number;
      };
      if (random !== undefined && random > 0) this.random = random;
      for (const [kind, s] of Object.entries(seconds)) if (s > 0 && s < 1) this.seconds[kind] = s;
    } catch {
      // none yet, or one that cannot be read: everything is timed
    }
  }

  async save(): Promise<void> {
    if (this.#file === undefined) return;
    try {
      const { seconds, random } = this;
      await writeAtomic(this.#file, JSON.stringify({ seconds, random }, null, 1) + "\n");
    } catch {
      // a machine without a cache folder times again in the next run
    }
  }
}

/**
 * Times the kernels of a run at its own sizes.
 *
 * @param device Where it will run.
 * @param costs What it will launch.
 */
export async function measureRates(device: Device, costs: readonly Cost[]): Promise<Rates> {
  const work: Record<string, number> = {}, kinds = new Map<string, LaunchKind>();
  for (const cost of costs) {
    for (const [kind, amount] of Object.entries(cost.work)) {
      work[kind] = (work[kind] ?? 0) + amount;
      kinds.set(kind, cost.kinds.get(kind)!);
    }
  }
  const cache = new RateCache(device), known = cache.seconds;
  const guess = (kind: string) => known[kind] ?? 1 / SLOW;
  const byShare = [...kinds].sort(([a], [b]) => work[b] * guess(b) - work[a] * guess(a));
  const short = ([kind, { unit }]: readonly [string, LaunchKind]) => unit * guess(kind) < LONGEST;
  const start = performance.now();

  // How busy the machine is now, compared with when the cache was filled.
  const ratios: number[] = [];
  for (const [kind, found] of byShare.filter((k) => known[k[0]] !== undefined && short(k)).slice(0, AGAIN)) {
    ratios.push(await timeLaunch(device, found, 1) / found.unit / known[kind]);
  }
  const factor = ratios.sort((a, b) => a - b)[Math.floor(ratios.length / 2)] ?? 1;

  let timed = 0;
  for (const entry of byShare) {
    const [kind, found] = entry;
    if (known[kind] !== undefined || !short(entry) || bytesOf(found) > LARGEST) continue;
    if (performance.now() - start > BUDGET * 1000) break;
    known[kind] = await timeLaunch(device, found) / found.unit / factor;
    timed++;
  }
  if (timed > 0 || cache.random === 0) {
    cache.random = randomRate() * factor;
    await cache.save();
  }

  const seconds = new Map<string, number>();
  for (const [kind] of kinds) seconds.set(kind, factor * (known[kind] ?? like(kind, known)));
  return { seconds, random: cache.random / factor };
}

/** Seconds for a unit of work of a kernel that was not timed at these sizes: the median of those that were. */
function like(kind: string, known: Readonly<Record<string, number>>): number {
  const median = (of: (other: string) => boolean) => {
    const found = Object.entries(known).filter(([other]) => of(other)).map(([, s]) => s).sort((a, b) =>
      a - b
    );
    return found[Math.floor(found.length / 2)];
  };
  const name = kernelOf(kind);
  return median((other) => kernelOf(other) === name) ?? median(() => true) ?? 1 / SLOW;
}

function randomRate(): number {
  let seconds = Infinity;
  for (let run = 0; run < 3; run++) {
    const start = performance.now();
    uniform(streamOf(0, "rate"), 50_000);
    seconds = Math.min(seconds, (performance.now() - start) / 1000);
  }
  return 50_000 / seconds;
}

/** Amount of output, for {@linkcode expectedWriting}. */
export interface Writing {
  /** Kind of video. */
  readonly ending: string;
  readonly videos: number;
  /** Pixels of all their frames. */
  readonly pixels: number;
}

/** Seconds that a video and a pixel of it take to be written, sheet and report included, before a machine has written any. */
const VIDEO = 0.2, PIXEL = 6e-8;

function learnt(ending: string): number {
  const file = rateFile("pictures");
  if (file === undefined) return 1;
  try {
    const factor = (readJsonObject(file) as Record<string, number>)[ending];
    return factor > 0.01 && factor < 100 ? factor : 1;
  } catch {
    return 1;
  }
}

/** Seconds that pictures take to be written; how fast this machine writes is known after the first time. */
export const expectedWriting = (w: Writing): number =>
  learnt(w.ending) * (w.videos * VIDEO + w.pixels * PIXEL);

/** Remembers what writing took: half of it new, so that one busy moment is forgotten. */
export async function learnWriting(w: Writing, seconds: number): Promise<void> {
  const now = seconds / (w.videos * VIDEO + w.pixels * PIXEL);
  const file = rateFile("pictures");
  if (file === undefined) return;
  let all: Record<string, unknown> = {};
  try {
    all = readJsonObject(file);
  } catch {
    // the first time
  }
  const factor = w.ending in all ? (learnt(w.ending) + now) / 2 : now;
  try {
    await writeAtomic(file, JSON.stringify({ ...all, [w.ending]: factor }) + "\n");
  } catch {
    // no cache folder: the next estimate is as good as this one
  }
}

/** Seconds that a cost takes at measured rates. */
export function secondsAt(cost: Cost, rates: Rates): number {
  let seconds = cost.host;
  for (const [kind, amount] of Object.entries(cost.work)) {
    seconds += amount * (rates.seconds.get(kind) ?? 1 / SLOW);
  }
  return seconds;
}

/** Costs of all frames, for {@linkcode measureRates}. */
export const costsOf = (frames: readonly FrameCost[]): Cost[] => frames.flatMap((f) => [f.first, f.further]);

/** Seconds of all frames with so many Euler steps each. */
export function sampleSeconds(frames: readonly FrameCost[], steps: number, rates: Rates): number {
  return frames.reduce(
    (sum, f) => sum + secondsAt(f.first, rates) + (steps - 1) * secondsAt(f.further, rates),
    0,
  );
}
