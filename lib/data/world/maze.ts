/**
 * Mazes: cells of one size, thin walls between them, some dead ends opened into loops, and a room.
 *
 * @module
 */
import type { RandomStream } from "../random_stream.ts";

/** Sides of a cell, and the faces of its walls as seen from inside. */
export const NORTH = 0;
/** The side at +x. */
export const EAST = 1;
/** The side at +y. */
export const SOUTH = 2;
/** The side at -x. */
export const WEST = 3;

const DX = [0, 1, 0, -1], DY = [-1, 0, 1, 0];

/** Walls of a rectangle of cells. */
export interface Maze {
  /** Cells from west to east. */
  readonly width: number;
  /** Cells from north to south. */
  readonly height: number;
  /** One byte a cell, row by row: bit `side` is set where a wall stands. */
  readonly walls: Uint8Array;
}

/** Whether a wall stands on a side of a cell. */
export function hasWall(maze: Maze, cell: number, side: number): boolean {
  return (maze.walls[cell] >> side & 1) === 1;
}

/** The cell beyond a side, or -1 outside the maze. */
export function neighbour(maze: Maze, cell: number, side: number): number {
  const x = cell % maze.width + DX[side], y = Math.floor(cell / maze.width) + DY[side];
  return x < 0 || y < 0 || x >= maze.width || y >= maze.height ? -1 : y * maze.width + x;
}

function open(maze: Maze, cell: number, side: number): void {
  const beyond = neighbour(maze, cell, side);
  maze.walls[cell] &= ~(1 << side);
  maze.walls[beyond] &= ~(1 << (side + 2) % 4);
}

/** Sides of a cell behind which another cell lies. */
function inner(maze: Maze, cell: number): number[] {
  return [NORTH, EAST, SOUTH, WEST].filter((side) => neighbour(maze, cell, side) >= 0);
}

/** Share of the dead ends that are opened into loops: a walker that can go round sees places again from the same side. */
const LOOPS = 0.8;

/**
 * A maze in which every cell can be reached.
 *
 * @param draws Random numbers.
 * @param width Cells from west to east, at least 2.
 * @param height Cells from north to south, at least 2.
 * @throws {RangeError} If the maze is smaller than 2 by 2 or larger than 64 by 64.
 */
export function makeMaze(draws: RandomStream, width: number, height: number): Maze {
  for (const side of [width, height]) {
    if (!Number.isInteger(side) || side < 2 || side > 64) {
      throw new RangeError(`world: a maze has 2 to 64 cells a side, found ${width}x${height}`);
    }
  }
  const maze: Maze = { width, height, walls: new Uint8Array(width * height).fill(15) };
  const reached = new Uint8Array(width * height);
  const trail = [draws.below(width * height)];
  reached[trail[0]] = 1;
  while (trail.length > 0) {
    const cell = trail[trail.length - 1];
    const sides = inner(maze, cell).filter((side) => reached[neighbour(maze, cell, side)] === 0);
    if (sides.length === 0) {
      trail.pop();
      continue;
    }
    const side = draws.pick(sides), next = neighbour(maze, cell, side);
    open(maze, cell, side);
    reached[next] = 1;
    trail.push(next);
  }
  openDeadEnds(maze, draws);
  openRoom(maze, draws);
  return maze;
}

function openDeadEnds(maze: Maze, draws: RandomStream): void {
  for (let cell = 0; cell < maze.walls.length; cell++) {
    const closed = inner(maze, cell).filter((side) => hasWall(maze, cell, side));
    const deadEnd = [7, 11, 13, 14].includes(maze.walls[cell]);
    if (deadEnd && closed.length > 0 && draws.chance(LOOPS)) open(maze, cell, draws.pick(closed));
  }
}

/** Takes the walls out of 2 by 2 cells. */
function openRoom(maze: Maze, draws: RandomStream): void {
  const x = draws.below(maze.width - 1), y = draws.below(maze.height - 1);
  const corner = y * maze.width + x;
  open(maze, corner, EAST);
  open(maze, corner, SOUTH);
  open(maze, corner + maze.width + 1, WEST);
  open(maze, corner + maze.width + 1, NORTH);
}

/**
 * Steps from every cell to a target, for walking there.
 *
 * @param maze The maze.
 * @param target The cell to reach.
 * @returns Number of cells to cross, 0 at the target.
 */
export function distancesTo(maze: Maze, target: number): Int32Array {
  const distance = new Int32Array(maze.walls.length).fill(-1);
  distance[target] = 0;
  const queue = [target];
  for (let head = 0; head < queue.length; head++) {
    const cell = queue[head];
    for (let side = 0; side < 4; side++) {
      const next = neighbour(maze, cell, side);
      if (next < 0 || hasWall(maze, cell, side) || distance[next] >= 0) continue;
      distance[next] = distance[cell] + 1;
      queue.push(next);
    }
  }
  return distance;
}
