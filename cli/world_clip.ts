/**
 * A walk through the built-in world as the clip of a command: `world`, or `world:INDEX`.
 *
 * @module
 */
import { worldClip } from "../lib/data/world/world.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { UsageError } from "./args.ts";
import type { Clip, ClipFlags, ClipRequest } from "./clip.ts";

const PATTERN = /^world(?::(\d{1,15}))?$/;

/** Whether an operand names a walk and not a file. */
export const isWorld = (operand: string): boolean => PATTERN.test(operand);

/**
 * Draws a test walk, with its actions.
 *
 * @param operand `world` (walk 0) or `world:INDEX`.
 * @param flags `--start` and `--every` choose frames; `--size` is the side that they are drawn at.
 * @param request How many frames, and their side unless `--size` says it.
 * @throws {UsageError} If the end of the walk is asked for: walks have none.
 */
export function readWorldClip(operand: string, flags: ClipFlags, request: ClipRequest): Clip {
  if (request.last) throw new UsageError("--take end: a walk through the built-in world has no end");
  const index = Number(PATTERN.exec(operand)![1] ?? 0),
    { start, every: interval, size = request.side } = flags;
  const walk = worldClip({ seed: 0, split: "test", index, frames: request.count, start, interval, size });
  return { path: operand, frames: makeFrames(request.count, size, size, walk.frames), actions: walk.actions };
}
