/**
 * The built-in world: first-person walks through mazes, like DMLab's, made on the spot.
 *
 * A walk is named by a seed, a split and an index. The same name gives the same bits on every machine; walks of different
 * splits never share a maze, whatever the seeds; and there are 2^51 of each.
 *
 * @module
 */
import { RandomStream } from "../random_stream.ts";
import { streamOf } from "../../random.ts";
import { makeMaze, type Maze } from "./maze.ts";
import { cellPose, gridPose, gridPoses, HEADINGS, move, type Pose, STEPS, type Steps } from "./pose.ts";
import { Renderer } from "./render.ts";
import { makeScene, MAZE_CELLS, type Scene } from "./scene.ts";
import { Walker } from "./walker.ts";

/** Parts of a data set. */
export type Split = "train" | "validation" | "test";

/** All parts, in the order of their numbers. */
export const SPLITS: readonly Split[] = ["train", "validation", "test"];

/** Choice of a walk, and its rendering. */
export interface WorldOptions {
  /** Family of walks, an integer from 0 below 2^32. */
  readonly seed: number;
  /** Part of the data set. */
  readonly split: Split;
  /** Index of the walk in its split, from 0 below 2^51. */
  readonly index: number;
  /** Rows and columns of a frame: 64 (unless given), 128, or another even number from 16 to 512. */
  readonly size?: number;
  /** Cells along each side of the maze; 4 by 4 unless given (bench/results/world_returns.json says how much a walk of 300 frames returns). */
  readonly cells?: readonly [width: number, height: number];
  /** Size of the steps; `smooth` unless given. Walks of one number have the same maze whatever their steps. */
  readonly steps?: Steps;
}

/** A finished walk. */
export interface WorldClip {
  /** Frames, `[F, H, W, 3]`, 0 to 255. */
  readonly frames: Uint8Array;
  /** Action of each frame, `[F]`: 0 left, 1 right, 2 forward. Action f leads from frame f to frame f + 1. */
  readonly actions: Int32Array;
  /** Camera pose of each frame, `[F, 3]`: units east, units south, heading. */
  readonly poses: Int32Array;
  /** The maze, to measure what could be seen from where. */
  readonly maze: Maze;
  /** Rows and columns of a frame. */
  readonly size: number;
}

/** One frame of a walk. */
export interface WorldFrame {
  /** Index of the frame, from 0. */
  readonly index: number;
  /** Colours, `[H, W, 3]`. */
  readonly frame: Uint8Array;
  /** Action of this frame; it leads to the next one. */
  readonly action: number;
  /** Camera pose. */
  readonly pose: Pose;
}

function check(name: string, value: number, below: number): void {
  if (!Number.isSafeInteger(value) || value < 0 || value >= below) {
    throw new RangeError(`world: ${name} must be a whole number from 0 below ${below}, found ${value}`);
  }
}

/**
 * The number of a walk among all walks of all splits: 3 * index + split. Numbers of different splits differ in their
 * remainder, so they never meet.
 *
 * @throws {RangeError} If the index is out of range or the split is unknown.
 */
export function worldNumber(split: Split, index: number): number {
  check("index", index, 2 ** 51);
  const part = SPLITS.indexOf(split);
  if (part < 0) throw new RangeError(`world: expected split ${SPLITS.join(", ")}, found ${split}`);
  return 3 * index + part;
}

/** Random numbers of a walk: its number is the key's seed, the user's seed chooses the stream. */
function drawsOf({ seed, split, index }: WorldOptions, purpose: string): RandomStream {
  check("seed", seed, 2 ** 32);
  return new RandomStream(streamOf(worldNumber(split, index), `world ${seed} ${purpose}`));
}

/** The maze of a walk and all that is to be seen in it. */
export function worldScene(options: WorldOptions): Scene {
  return makeScene(worldMaze(options), drawsOf(options, "looks"));
}

/** The maze of a walk, without what is to be seen in it. */
export function worldMaze(options: WorldOptions): Maze {
  const { cells: [width, height] = [MAZE_CELLS, MAZE_CELLS] } = options;
  return makeMaze(drawsOf(options, "maze"), width, height);
}

/** Every pose of a world with grid steps, drawn once. */
export interface WorldPlaces {
  /** Frames in the order of {@linkcode gridPose}, `[4 · cells, H, W, 3]`. */
  readonly frames: Uint8Array;
  /** Poses, `[4 · cells, 3]`. */
  readonly poses: Int32Array;
}

/**
 * Draws all that a walk with grid steps can ever see of its world.
 *
 * @param options Which world; `steps` is not read.
 * @throws {RangeError} If an option is out of range.
 */
export function worldPlaces(options: WorldOptions): WorldPlaces {
  const { size = 64 } = options, scene = worldScene(options), renderer = new Renderer(scene, size);
  const count = gridPoses(scene.maze), bytes = size * size * 3;
  const frames = new Uint8Array(count * bytes), poses = new Int32Array(count * 3);
  for (let i = 0; i < count; i++) {
    const pose = gridPose(scene.maze, i);
    renderer.draw(pose, frames, i * bytes);
    poses.set([pose.x, pose.y, pose.heading], 3 * i);
  }
  return { frames, poses };
}

/**
 * Walks without end. Only one frame is in memory at a time; each has its own array.
 *
 * @param options Which walk.
 * @throws {RangeError} If an option is out of range.
 *
 * @example
 * ```ts
 * import { worldFrames } from "./world.ts";
 * const [first] = worldFrames({ seed: 0, split: "train", index: 0 }).take(1).toArray();
 * console.assert(first.frame.length === 64 * 64 * 3);
 * ```
 */
export function* worldFrames(options: WorldOptions): Generator<WorldFrame, void> {
  const { size = 64 } = options, scene = worldScene(options), renderer = new Renderer(scene, size);
  for (const step of walk(scene.maze, drawsOf(options, "walk"), options.steps)) {
    const frame = new Uint8Array(size * size * 3);
    renderer.draw(step.pose, frame);
    yield { ...step, frame };
  }
}

/**
 * Walks without looking: drawing takes nearly all of the time, so frames that nobody asks for are not drawn.
 *
 * @param maze Where.
 * @param draws Random numbers of the walk.
 * @param steps Size of its steps.
 * @throws {RangeError} If there are no such steps.
 */
export function* walk(
  maze: Maze,
  draws: RandomStream,
  steps: Steps = "smooth",
): Generator<Omit<WorldFrame, "frame">, never> {
  if (!STEPS.includes(steps)) {
    throw new RangeError(`world: expected steps ${STEPS.join(" or ")}, found ${steps}`);
  }
  const walker = new Walker(maze, draws, steps);
  let pose = cellPose(maze, draws.below(maze.walls.length), draws.below(4) * HEADINGS / 4);
  for (let index = 0;; index++) {
    const action = walker.next(pose);
    yield { index, action, pose };
    pose = move(maze, pose, action, steps);
  }
}

/** Selection of a walk's frames. */
export interface WorldRange {
  /** Number of frames; 300 in the DMLab clips. */
  readonly frames: number;
  /** First frame; 0 unless given. */
  readonly start?: number;
  /** Frames from one to the next; 1 unless given. */
  readonly interval?: number;
}

/** A walk whose frames are drawn when somebody wants to see them. */
export interface WorldWalk extends Omit<WorldClip, "frames"> {
  /** Draws some of the frames, `[count, H, W, 3]`. */
  draw(first: number, count: number): Uint8Array<ArrayBuffer>;
}

/**
 * Walks for so many frames, without drawing any: that takes nearly all of the time.
 *
 * @param options Which walk, and which of its frames.
 * @throws {RangeError} If an option is out of range.
 *
 * @example
 * ```ts
 * import { worldWalk } from "./world.ts";
 * const walk = worldWalk({ seed: 0, split: "test", index: 3, frames: 20 });
 * console.assert(walk.actions.length === 20 && walk.draw(18, 2).length === 2 * 64 * 64 * 3);
 * ```
 */
export function worldWalk(options: WorldOptions & WorldRange): WorldWalk {
  const { frames: count, start = 0, interval = 1, size = 64 } = options;
  for (
    const [name, value, least] of [["frames", count, 1], ["start", start, 0], [
      "interval",
      interval,
      1,
    ]] as const
  ) {
    if (!Number.isSafeInteger(value) || value < least) {
      throw new RangeError(`world: ${name} must be a whole number of at least ${least}, found ${value}`);
    }
  }
  const scene = worldScene(options), renderer = new Renderer(scene, size), bytes = size * size * 3;
  const actions = new Int32Array(count), poses = new Int32Array(count * 3);
  for (const { index, action, pose } of walk(scene.maze, drawsOf(options, "walk"), options.steps)) {
    if (index < start || (index - start) % interval !== 0) continue;
    const at = (index - start) / interval;
    actions[at] = action;
    poses.set([pose.x, pose.y, pose.heading], at * 3);
    if (at === count - 1) break;
  }
  const draw = (first: number, count: number) => {
    const frames = new Uint8Array(count * bytes); // [F, H, W, 3]
    for (let f = 0; f < count; f++) {
      const [x, y, heading] = poses.subarray((first + f) * 3);
      renderer.draw({ x, y, heading }, frames, f * bytes);
    }
    return frames;
  };
  return { actions, poses, maze: scene.maze, size, draw };
}

/**
 * Walks for so many frames. Only the frames that are kept are drawn.
 *
 * @param options Which walk, and which of its frames.
 * @throws {RangeError} If an option is out of range.
 *
 * @example
 * ```ts
 * import { worldClip } from "./world.ts";
 * const clip = worldClip({ seed: 0, split: "test", index: 3, frames: 20, size: 64 });
 * console.assert(clip.frames.length === 20 * 64 * 64 * 3 && clip.actions.length === 20);
 * ```
 */
export function worldClip(options: WorldOptions & WorldRange): WorldClip {
  const { draw, ...walked } = worldWalk(options);
  return { ...walked, frames: draw(0, options.frames) };
}
