/**
 * Held-out clips that a model is scored on.
 *
 * @module
 */
import type { DataSet } from "../data/clip.ts";
import { type Memory, memoryOf, Views } from "../data/world/seen.ts";
import { worldScene } from "../data/world/world.ts";
import { stepsOf, WORLDS, worldSet } from "../data/world_set.ts";
import { ChoiceError } from "./choice.ts";
import type { Protocol } from "./evaluation.ts";
import { openFrameSet } from "./option_set.ts";

/** Clips to score. */
export interface EvaluationSet {
  /** The clips. */
  readonly set: DataSet;
  /** Number of clips that are scored, from the first on. */
  readonly count: number;
  /** Frames from one to the next. */
  readonly interval: number;
  /** For the built-in world: by clip, whether and when the context has shown the place of each predicted frame. */
  readonly memory?: (clip: number) => Promise<readonly Memory[]>;
}

/**
 * Opens held-out clips.
 *
 * @param what `world` or `grid` for test walks of the built-in world, or an option file (yml), of which `datasets.sample` is taken.
 * @param protocol Frames of context and prediction.
 * @param options `clips`: at most so many clips. `side`: rows and columns of frames of the world.
 * @throws {ChoiceError} If there is no such set, or it holds latents.
 */
export function openEvaluationSet(
  what: string,
  { ctx, pred, short }: Pick<Protocol, "ctx" | "pred" | "short">,
  { clips, side }: { readonly clips: number; readonly side: number },
): EvaluationSet {
  const frames = ctx + pred;
  if (/\.ya?ml$/i.test(what)) {
    const { set, interval } = openFrameSet(what, "sample");
    return { set, interval, count: Math.min(clips, set.length) };
  }
  const steps = stepsOf(what);
  if (steps === undefined) {
    throw new ChoiceError(
      `expected ${Object.values(WORLDS).join(", ")} or an option file (yml), found ${what}`,
    );
  }
  const set = worldSet({ split: "test", steps, size: side, clips, frames });
  const memory = async (index: number) => {
    const { maze } = worldScene({ seed: 0, split: "test", index });
    return memoryOf(new Views(maze, (await set.read(index)).poses!), ctx, frames, short);
  };
  return { set, count: Math.min(clips, set.length), interval: 1, memory };
}
