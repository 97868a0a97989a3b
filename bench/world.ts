/**
 * Frames per second that the built-in world draws on one core, how much of a walk returns to places seen before, and what an
 * oracle would score that shows the frame of the context with the nearest pose.
 *
 *     deno run -A bench/world.ts [--only world|world_returns] [--clips 64] [--save]
 *
 * `--save` writes bench/results/world.json (speed) and world_returns.json with processor, date and commit.
 *
 * @module
 */
import { memoryOf, placeSeen, Views } from "../lib/data/world/seen.ts";
import { STEPS, type Steps } from "../lib/data/world/pose.ts";
import { ReturnCount } from "../lib/data/world/returns.ts";
import { worldClip } from "../lib/data/world/world.ts";
import { WORLDS } from "../lib/data/world_set.ts";
import { environment, option } from "./environment.ts";

const FRAMES = 300, CONTEXT = 144, WINDOW = 16;
const clips = Number(option("clips") ?? 64);

/** Frames per second: the median of several rounds of a clip each, after two that let the compiler settle. */
function speed(size: number): number {
  const rounds = Array.from({ length: 11 }, (_, index) => {
    const start = performance.now();
    worldClip({ seed: 0, split: "train", index, frames: FRAMES, size });
    return FRAMES / (performance.now() - start) * 1000;
  });
  return Math.round(rounds.slice(2).sort((a, b) => a - b)[4]);
}

/** Shares of the frames 144 to 299 of test walks. */
function returns(cells: number, steps: Steps): Record<string, number> {
  const sum = { placeSeen: 0, placeSeenOnlyDistant: 0, samePose: 0, near: 0, distant: 0, new: 0 };
  const oracle = new ReturnCount({ context: CONTEXT, window: WINDOW });
  for (let index = 0; index < clips; index++) {
    const options = {
      seed: 0,
      split: "test",
      index,
      frames: FRAMES,
      size: 64,
      steps,
      cells: [cells, cells],
    } as const;
    const { maze, poses, frames } = worldClip(options);
    oracle.add({ frames, poses });
    for (const word of memoryOf(new Views(maze, poses), CONTEXT, FRAMES, WINDOW)) sum[word]++;
    for (let f = CONTEXT; f < FRAMES; f++) {
      const distant = placeSeen(poses, f, { to: CONTEXT - WINDOW }) !== undefined;
      if (placeSeen(poses, f, { to: CONTEXT }) !== undefined) sum.placeSeen++;
      if (distant && placeSeen(poses, f, { from: CONTEXT - WINDOW, to: CONTEXT }) === undefined) {
        sum.placeSeenOnlyDistant++;
      }
      if (placeSeen(poses, f, { to: CONTEXT, cells: 0, turns: 0 }) !== undefined) sum.samePose++;
    }
  }
  const frames = clips * (FRAMES - CONTEXT), round = (n: number) => Math.round(n * 1000) / 1000;
  const { samePoseDistant, oracle: whole, oracleWindow } = oracle.result!;
  return {
    ...Object.fromEntries(Object.entries(sum).map(([k, n]) => [k, round(n / frames)])),
    samePoseDistant: round(samePoseDistant),
    oracle: round(whole),
    oracleWindow: round(oracleWindow),
  };
}

/** The measurement of each part, by name. */
const PARTS = {
  world: () => ({ framesPerSecond: { 64: speed(64), 128: speed(128) } }),
  world_returns: () => ({
    protocol:
      `frames ${CONTEXT} to ${FRAMES - 1} of ${clips} test walks of seed 0 at 64x64, window ${WINDOW}; ` +
      "oracle: PSNR in dB of the mean squared error of the context's frame with the nearest pose",
    ...Object.fromEntries(STEPS.map((steps) => [
      WORLDS[steps],
      Object.fromEntries([4, 5, 6].map((cells) => [`${cells}x${cells}`, returns(cells, steps)])),
    ])),
  }),
};

const only = option("only");
for (const [name, measure] of Object.entries(PARTS)) {
  if (only !== undefined && only !== name) continue;
  const results = measure();
  console.log(JSON.stringify(results, null, 2));
  if (!Deno.args.includes("--save")) continue;
  const folder = new URL("results/", import.meta.url);
  Deno.mkdirSync(folder, { recursive: true });
  const text = JSON.stringify({ environment: await environment(), ...results }, null, 2);
  Deno.writeTextFileSync(new URL(`${name}.json`, folder), `${text}\n`);
}
