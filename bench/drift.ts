/**
 * Measures how a long roll-out drifts: the bundled model predicts 1,000 frames of walks through the built-in world and
 * forgets all but the last ones. Is the wall that was seen 500 frames ago the same wall?
 *
 *     deno run -A bench/drift.ts [--walks 8] [--predict 1000] [--remember 300] [--out bench/results/drift.json]
 *
 * Frames are compared by pose: with the truth, and with what the roll-out itself showed at the same pose at least 500 frames
 * before. The second is also compared with a frame of another pose from that time, as a bound from below.
 *
 * @module
 */
import { loadModel, readClip } from "../mod.ts";
import { gridNumber } from "../lib/data/world/pose.ts";
import { poseAt } from "../lib/data/world/seen.ts";
import { worldWalk } from "../lib/data/world/world.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { mse } from "../lib/metrics/pixel.ts";
import { environment } from "./environment.ts";

/** Context frames, frames of a bin, and how long ago a place must have been shown. */
const CONTEXT = 144, BIN = 100, AGO = 500;

function option(name: string, otherwise: number): number {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? otherwise : Number(Deno.args[at + 1]);
}

/** PSNR in dB of two frames of 8-bit colours, at most 60. */
const psnr = (a: Uint8Array, b: Uint8Array) => Math.min(60, 10 * Math.log10(255 ** 2 / mse(a, b)));

/** For each frame the latest one of the same pose that lies at least `ago` before it, or -1. */
export function shownBefore(poses: readonly number[], ago: number): number[] {
  return poses.map((pose, f) => poses.slice(0, Math.max(0, f - ago + 1)).lastIndexOf(pose));
}

class Mean {
  #sum = 0;
  #count = 0;
  add(value: number): void {
    this.#sum += value;
    this.#count++;
  }
  toJSON(): { dB: number | null; frames: number } {
    return {
      dB: this.#count === 0 ? null : Number((this.#sum / this.#count).toFixed(2)),
      frames: this.#count,
    };
  }
}

if (import.meta.main) {
  const walks = option("walks", 8), predict = option("predict", 1000), remember = option("remember", 300);
  const at = Deno.args.indexOf("--out"), out = at < 0 ? "bench/results/drift.json" : Deno.args[at + 1];
  using model = await loadModel();
  const frames = CONTEXT + predict, seconds: number[] = [];
  const bins = Array.from({ length: Math.ceil(predict / BIN) }, () => new Mean());
  const same = new Mean(), sameTruth = new Mean(), other = new Mean();
  for (let index = 0; index < walks; index++) {
    const clip = await readClip(`grid:${index}`, { frames }), from = performance.now();
    const made = (await model.predict(clip, { context: CONTEXT, predict, remember })).frames;
    seconds.push((performance.now() - from) / 1000);
    const { maze, poses } = worldWalk({ seed: 0, split: "test", index, steps: "grid", frames });
    const numbers = Array.from({ length: frames }, (_, f) => gridNumber(maze, poseAt(poses, f)));
    const size = clip.frames.height * clip.frames.width * 3, before = shownBefore(numbers, AGO);
    const truth = (f: number) => clip.frames.data.subarray(f * size, (f + 1) * size);
    const shown = (f: number) =>
      f < CONTEXT ? truth(f) : made.data.subarray((f - CONTEXT) * size, (f - CONTEXT + 1) * size);
    for (let f = CONTEXT; f < frames; f++) {
      bins[Math.floor((f - CONTEXT) / BIN)].add(psnr(shown(f), truth(f)));
      if (before[f] < 0) continue;
      same.add(psnr(shown(f), shown(before[f])));
      sameTruth.add(psnr(shown(f), truth(f)));
      const another = numbers.findIndex((pose, g) => g <= f - AGO && pose !== numbers[f]);
      other.add(psnr(shown(f), shown(another)));
    }
    console.log(`grid:${index}: ${seconds.at(-1)!.toFixed(1)} s`);
  }
  const rows = bins.map((mean, i) => ({
    frames: CONTEXT + (i + 1) * BIN,
    truth: mean.toJSON().dB,
  }));
  const pose = {
    "what the roll-out showed there then": same.toJSON(),
    "the truth": sameTruth.toJSON(),
    "what it showed elsewhere then": other.toJSON(),
  };
  const what =
    `mean PSNR in dB of ${predict} predicted frames of ${walks} walks after ${CONTEXT} frames of context, of which ` +
    `the model remembers ${remember}: by frame, and of frames whose pose was shown at least ${AGO} frames before`;
  const each = Number((seconds.reduce((a, b) => a + b, 0) / walks / predict * 1000).toFixed(2));
  const result = { what, ...await environment(), milliseconds_per_frame: each, rows, pose };
  await writeAtomic(out, JSON.stringify(result, null, 2) + "\n");
  console.log(JSON.stringify({ rows, pose }, null, 2));
}
