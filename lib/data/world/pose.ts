/**
 * Where the camera stands in the world, and what an action does to it. Whole numbers only.
 *
 * Everything in the world is made of integers and of the four basic operations on doubles, which IEEE 754 rounds exactly:
 * the bits of a frame are the same on every machine and in every JavaScript engine. `Math.sin` and its like are left to the
 * engine by the language's specification, so directions come from the table of integers below.
 *
 * @module
 */
import { EAST, hasWall, type Maze, neighbour, NORTH, SOUTH, WEST } from "./maze.ts";

/**
 * Size of the walker's steps. `smooth`: turns of 22.5 degrees and a third of a cell, so that neighbouring frames look alike.
 * `grid`: turns of 90 degrees and whole cells, as in a dungeon crawler: most of each frame is new, and a pose returns exactly.
 */
export type Steps = "smooth" | "grid";

/** All kinds of steps; the first is the default. */
export const STEPS: readonly Steps[] = ["smooth", "grid"];

/** Turn left. Actions are numbered as in the DMLab clips. */
export const TURN_LEFT = 0;
/** Turn right. */
export const TURN_RIGHT = 1;
/** Go forward. */
export const FORWARD = 2;
/** Number of different actions. */
export const WORLD_ACTIONS = 3;

/** Directions in which the camera can look, 22.5 degrees apart. */
export const HEADINGS = 16;

/** Headings that a turn covers, and steps forward that cross a cell. */
export const STRIDE: Readonly<Record<Steps, { readonly turn: number; readonly stepsPerCell: number }>> = {
  smooth: { turn: 1, stepsPerCell: 3 },
  grid: { turn: HEADINGS / 4, stepsPerCell: 1 },
};

/** Units of length along the side of a cell. */
export const CELL_UNITS = 3072;

/** Units that one smooth step forward covers: three steps a cell. */
export const STEP_UNITS = 1024;

/** How near the camera comes to a wall. */
const CLEARANCE = 640;

/** cos(k * 22.5 degrees) * 65536, rounded to the nearest integer, for a quarter of the circle. */
const QUARTER = [65536, 60547, 46341, 25080, 0] as const;

/** cos of a heading times 65536. Heading 0 looks east (+x), 4 south (+y), 8 west, 12 north. */
export function cosine(heading: number): number {
  const h = ((heading % HEADINGS) + HEADINGS) % HEADINGS;
  if (h <= 4) return QUARTER[h];
  if (h <= 8) return -QUARTER[8 - h];
  if (h <= 12) return -QUARTER[h - 8];
  return QUARTER[HEADINGS - h];
}

/** sin of a heading times 65536. */
export function sine(heading: number): number {
  return cosine(heading - HEADINGS / 4);
}

/** Where the camera stands: units from the maze's north-west corner, and the heading, 0 to 15. */
export interface Pose {
  /** Units east. */
  readonly x: number;
  /** Units south. */
  readonly y: number;
  /** Direction, clockwise from east, in sixteenths of a circle. */
  readonly heading: number;
}

/** The pose in the middle of a cell. */
export function cellPose(maze: Maze, cell: number, heading: number): Pose {
  const column = cell % maze.width, row = Math.floor(cell / maze.width);
  return { x: column * CELL_UNITS + CELL_UNITS / 2, y: row * CELL_UNITS + CELL_UNITS / 2, heading };
}

/** The cell that a pose is in. */
export function poseCell(maze: Maze, pose: Pose): number {
  return Math.floor(pose.y / CELL_UNITS) * maze.width + Math.floor(pose.x / CELL_UNITS);
}

/** Number of different poses of a walk with grid steps. */
export const gridPoses = (maze: Maze): number => 4 * maze.walls.length;

/** The pose with a number from 0 to {@linkcode gridPoses} - 1: cell by cell, east, south, west and north. */
export function gridPose(maze: Maze, number: number): Pose {
  return cellPose(maze, Math.floor(number / 4), (number % 4) * HEADINGS / 4);
}

/** The number of a pose that grid steps have reached; see {@linkcode gridPose}. */
export function gridNumber(maze: Maze, pose: Pose): number {
  return 4 * poseCell(maze, pose) + pose.heading * 4 / HEADINGS;
}

/** The side of a cell that a quarter heading looks at: east 0, south 4, west 8, north 12. */
const sideAhead = (heading: number) => (heading * 4 / HEADINGS + EAST) % 4;

/** One coordinate, kept clear of the walls of the cell in which `cellAt` lies. */
function clear(to: number, cellAt: number, wallBelow: boolean, wallAbove: boolean): number {
  const low = Math.floor(cellAt / CELL_UNITS) * CELL_UNITS;
  if (wallBelow && to < low + CLEARANCE) return low + CLEARANCE;
  return wallAbove && to > low + CELL_UNITS - CLEARANCE ? low + CELL_UNITS - CLEARANCE : to;
}

/**
 * The pose after an action. A smooth step into a wall stops before it and slides along it; a grid step into a wall stays.
 *
 * @param maze The maze.
 * @param pose Where the camera stands.
 * @param action 0 turn left, 1 turn right, 2 go forward.
 * @param steps Size of the step; `smooth` unless given.
 * @throws {RangeError} If there is no such action.
 */
export function move(maze: Maze, pose: Pose, action: number, steps: Steps = "smooth"): Pose {
  const { turn } = STRIDE[steps];
  if (action === TURN_LEFT) return { ...pose, heading: (pose.heading + HEADINGS - turn) % HEADINGS };
  if (action === TURN_RIGHT) return { ...pose, heading: (pose.heading + turn) % HEADINGS };
  if (action !== FORWARD) {
    throw new RangeError(`world: expected action 0 (left), 1 (right) or 2 (forward), found ${action}`);
  }
  if (steps === "grid") {
    const cell = poseCell(maze, pose), side = sideAhead(pose.heading);
    return hasWall(maze, cell, side) ? pose : cellPose(maze, neighbour(maze, cell, side), pose.heading);
  }
  const dx = Math.round(STEP_UNITS * cosine(pose.heading) / 65536);
  const dy = Math.round(STEP_UNITS * sine(pose.heading) / 65536);
  // One axis after the other, so that a corner is never cut; then clear of the walls of the cell that was entered.
  const before = poseCell(maze, pose);
  const moved = clear(pose.x + dx, pose.x, hasWall(maze, before, WEST), hasWall(maze, before, EAST));
  const beside = poseCell(maze, { ...pose, x: moved });
  const y = clear(pose.y + dy, pose.y, hasWall(maze, beside, NORTH), hasWall(maze, beside, SOUTH));
  const after = poseCell(maze, { ...pose, x: moved, y });
  const x = clear(moved, moved, hasWall(maze, after, WEST), hasWall(maze, after, EAST));
  return { x, y, heading: pose.heading };
}
