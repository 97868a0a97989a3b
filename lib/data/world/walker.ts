/**
 * The policy: who walks through the maze, exploring first and then returning to places it has seen.
 *
 * Periods alternate. While exploring, the walker goes to the nearest cell that it has not entered. When the period is over
 * or nothing is left, it picks cells that it knows, the longer ago the likelier, goes there by the shortest way and often
 * looks about. Later periods explore what is left, so long clips of large mazes never stand still.
 *
 * @module
 */
import type { RandomStream } from "../random_stream.ts";
import { distancesTo, hasWall, type Maze, neighbour } from "./maze.ts";
import { FORWARD, HEADINGS, type Pose, poseCell, type Steps, STRIDE, TURN_LEFT, TURN_RIGHT } from "./pose.ts";

const QUARTER_TURN = HEADINGS / 4;

/** Frames of a period: some 144 of context explore, the 156 that are predicted return. */
const EXPLORE: readonly [number, number] = [112, 144];
const RETURN: readonly [number, number] = [144, 192];

/**
 * How often the walker looks about where it arrives. With smooth steps, of which a quarter turn takes four, rarely while it
 * explores. Grid steps know a maze of 4 by 4 cells after some 50 frames: looking about shows it from more sides.
 */
const LOOKS: Readonly<Record<Steps, { readonly exploring: number; readonly returning: number }>> = {
  smooth: { exploring: 0.15, returning: 0.3 },
  grid: { exploring: 0.5, returning: 0.3 },
};

/** Heading that looks at a side of a cell: north is 12, east 0, south 4, west 8. */
const facing = (side: number) => (side * QUARTER_TURN + HEADINGS - QUARTER_TURN) % HEADINGS;

/** A walker with its memory of the maze. */
export class Walker {
  readonly #maze: Maze;
  readonly #draws: RandomStream;
  readonly #steps: Steps;
  /** Frame in which each cell was entered last, or -1. */
  readonly #entered: Int32Array;
  #frame = 0;
  #exploring = true;
  #periodEnds: number;
  #target = -1;
  /** Cells to go from each cell to the target. */
  #distance: Int32Array = new Int32Array(0);
  readonly #planned: number[] = [];

  /**
   * Starts a walk.
   *
   * @param maze Where to walk.
   * @param draws Random numbers of this walk.
   * @param steps Size of its steps.
   */
  constructor(maze: Maze, draws: RandomStream, steps: Steps) {
    this.#maze = maze;
    this.#draws = draws;
    this.#steps = steps;
    this.#entered = new Int32Array(maze.walls.length).fill(-1);
    this.#periodEnds = this.#length(EXPLORE);
  }

  #length([least, most]: readonly [number, number]): number {
    return least + this.#draws.below(most - least + 1);
  }

  /**
   * The action in the next frame.
   *
   * @param pose Where the walker is now.
   */
  next(pose: Pose): number {
    const cell = poseCell(this.#maze, pose);
    if (this.#planned.length === 0) {
      this.#entered[cell] = this.#frame;
      if (cell === this.#target) {
        this.#target = -1;
        this.#lookAbout();
      }
      if (this.#planned.length === 0) this.#goOn(pose, cell);
    }
    this.#entered[cell] = this.#frame++;
    return this.#planned.shift()!;
  }

  /** Plans a turn to one side, and sometimes back. */
  #lookAbout(): void {
    const looks = LOOKS[this.#steps];
    if (!this.#draws.chance(this.#exploring ? looks.exploring : looks.returning)) return;
    const way = this.#draws.pick([TURN_LEFT, TURN_RIGHT]);
    this.#turn(way, QUARTER_TURN * (1 + this.#draws.below(2)));
  }

  /** Plans a turn by so many headings. */
  #turn(way: number, headings: number): void {
    for (let turned = 0; turned < headings; turned += STRIDE[this.#steps].turn) this.#planned.push(way);
  }

  /** Plans the way into the next cell. */
  #goOn(pose: Pose, cell: number): void {
    if (this.#target < 0) {
      this.#target = this.#choose(cell);
      this.#distance = distancesTo(this.#maze, this.#target);
    }
    const sides = [0, 1, 2, 3].filter((side) => {
      const next = neighbour(this.#maze, cell, side);
      return next >= 0 && !hasWall(this.#maze, cell, side) &&
        this.#distance[next] === this.#distance[cell] - 1;
    });
    // Of two ways of the same length, the one that needs fewer turns.
    const turns = (side: number) => {
      const by = (facing(side) - pose.heading + HEADINGS) % HEADINGS;
      return Math.min(by, HEADINGS - by);
    };
    const fewest = Math.min(...sides.map(turns));
    const side = this.#draws.pick(sides.filter((s) => turns(s) === fewest));
    const by = (facing(side) - pose.heading + HEADINGS) % HEADINGS;
    const left = by > HEADINGS / 2 || (by === HEADINGS / 2 && this.#draws.chance(0.5));
    this.#turn(left ? TURN_LEFT : TURN_RIGHT, fewest);
    for (let i = 0; i < STRIDE[this.#steps].stepsPerCell; i++) this.#planned.push(FORWARD);
  }

  /** The next cell to walk to; never the one where the walker is. */
  #choose(cell: number): number {
    const cells = Array.from(this.#entered.keys());
    const unknown = cells.filter((c) => this.#entered[c] < 0);
    if (this.#frame >= this.#periodEnds || (this.#exploring && unknown.length === 0)) {
      this.#exploring = !this.#exploring && unknown.length > 0;
      this.#periodEnds = this.#frame + this.#length(this.#exploring ? EXPLORE : RETURN);
    }
    if (this.#exploring) {
      const distance = distancesTo(this.#maze, cell);
      const nearest = Math.min(...unknown.map((c) => distance[c]));
      return this.#draws.pick(unknown.filter((c) => distance[c] === nearest));
    }
    const known = cells.filter((c) => this.#entered[c] >= 0 && c !== cell);
    const weights = known.map((c) => (this.#frame - this.#entered[c]) * (this.#frame - this.#entered[c]));
    let left = this.#draws.next() * weights.reduce((a, b) => a + b, 0);
    return known.find((_, i) => (left -= weights[i]) < 0) ?? known[known.length - 1];
  }
}
