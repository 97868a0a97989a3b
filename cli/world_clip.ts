/**
 * A walk through the built-in world as the clip of a command: `world:N` in every verb that takes a clip.
 *
 * @module
 */
import { worldClip } from "../lib/data/world/world.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { isThere } from "../lib/io/paths.ts";
import { UsageError } from "./args.ts";
import type { Clip, ClipFlags, ClipRequest } from "./clip.ts";

const PATTERN = /^world:(\d{1,15})$/;

/** Frames of a walk, which has no end, where nothing says how many are wanted. */
const WHOLE = 300;

/**
 * Whether an operand names a walk and not a file.
 *
 * @throws {UsageError} For `world` alone where there is no such file: that is a model and a data set.
 */
export function isWorld(operand: string): boolean {
  if (operand === "world" && !isThere(operand)) {
    throw new UsageError(
      "world: is a model and a data set, expected a clip; did you mean world:0, its first test walk?",
    );
  }
  return PATTERN.test(operand);
}

/**
 * Draws a test walk, with its actions.
 *
 * @param operand `world:N`.
 * @param flags `--start` and `--every` choose frames; `--size` is the side that they are drawn at.
 * @param request How many frames (300 where it asks for all), and their side unless `--size` says it.
 * @throws {UsageError} If the end of the walk is asked for: walks have none.
 */
export function readWorldClip(operand: string, flags: ClipFlags, request: ClipRequest): Clip {
  if (request.last) throw new UsageError("--take end: a walk through the built-in world has no end");
  const index = Number(PATTERN.exec(operand)![1]),
    frames = Number.isFinite(request.count) ? request.count : WHOLE,
    { start, every: interval, size = request.side } = flags;
  const walk = worldClip({ seed: 0, split: "test", index, frames, start, interval, size });
  return { path: operand, frames: makeFrames(frames, size, size, walk.frames), actions: walk.actions };
}
