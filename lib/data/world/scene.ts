/**
 * Everything that can be seen in one world: the maze, what its walls, floors and ceilings look like, and its objects.
 *
 * @module
 */
import type { RandomStream } from "../random_stream.ts";
import { hasWall, type Maze } from "./maze.ts";
import {
  ceilingPaint,
  emblemPaint,
  emblems,
  floorPaint,
  paint,
  QUIET,
  type Rgb,
  type Texture,
  VIVID,
  wallPaint,
} from "./texture.ts";

/** A thing that stands on the floor and looks the same from all sides. */
export interface Thing {
  /** Cells east. */
  readonly x: number;
  /** Cells south. */
  readonly y: number;
  /** Outline. */
  readonly shape: "ball" | "cone" | "pillar" | "gem";
  /** Colour where light falls plainly. */
  readonly colour: Rgb;
}

/** A world: where one can go and what one sees there. */
export interface Scene {
  /** Where the walls stand. */
  readonly maze: Maze;
  /** The texture of each face, cell times 4 plus side. */
  readonly walls: readonly Texture[];
  /** The floor of each cell. */
  readonly floors: readonly Texture[];
  /** The ceiling of each cell. */
  readonly ceilings: readonly Texture[];
  /** Objects in the maze. */
  readonly things: readonly Thing[];
}

/** Cells along a side of the maze: as many as a walker gets to know in the first half of 300 frames. */
export const MAZE_CELLS = 4;

/** Regions with a colour of their own. */
const REGIONS = 4;
/** Share of faces with an emblem, of cells with one on the floor, with a lamp, with a thing. */
const PANELS = 0.45, TILES = 0.15, LAMPS = 0.25, THINGS = 0.3;

/**
 * Furnishes a maze.
 *
 * @param maze The maze.
 * @param draws Random numbers that decide how it looks.
 */
export function makeScene(maze: Maze, draws: RandomStream): Scene {
  const colours = draws.shuffled(QUIET), region = regions(draws, maze);
  const emblem = emblems(draws);
  const looks = Array.from({ length: REGIONS }, (_, i) => ({
    wall: wallPaint(draws, colours[i]),
    floor: floorPaint(colours[REGIONS + i]),
  }));
  const plainWalls = looks.map(({ wall }) => paint(wall)),
    plainFloors = looks.map(({ floor }) => paint(floor));
  const sky = draws.pick<Rgb>([[124, 138, 156], [150, 140, 124], [118, 142, 132], [142, 132, 152]]);
  const [dark, lit] = [paint(ceilingPaint(sky, false)), paint(ceilingPaint(sky, true))];
  const walls: Texture[] = [], floors: Texture[] = [], ceilings: Texture[] = [], things: Thing[] = [];
  const next = () => emblem[(walls.length * 7 + floors.length) % emblem.length];
  for (let cell = 0; cell < maze.walls.length; cell++) {
    const look = looks[region[cell]];
    for (let side = 0; side < 4; side++) {
      const panel = draws.chance(PANELS) && hasWall(maze, cell, side);
      walls.push(panel ? paint(emblemPaint(look.wall, next(), 5)) : plainWalls[region[cell]]);
    }
    const tile = draws.chance(TILES);
    floors.push(tile ? paint(emblemPaint(look.floor, next(), 4)) : plainFloors[region[cell]]);
    ceilings.push(draws.chance(LAMPS) ? lit : dark);
    if (draws.chance(THINGS)) things.push(makeThing(draws, cell % maze.width, Math.floor(cell / maze.width)));
  }
  return { maze, walls, floors, ceilings, things };
}

/** The region of each cell: that of the nearest of some random cells. */
function regions(draws: RandomStream, maze: Maze): Uint8Array {
  const seeds = draws.shuffled(Array.from(maze.walls.keys())).slice(0, REGIONS);
  return maze.walls.map((_, cell) => {
    const away = seeds.map((seed) =>
      Math.abs(seed % maze.width - cell % maze.width) +
      Math.abs(Math.floor(seed / maze.width) - Math.floor(cell / maze.width))
    );
    return away.indexOf(Math.min(...away));
  });
}

/** A thing in one of the corners of a cell, beside the walker's way. */
function makeThing(draws: RandomStream, column: number, row: number): Thing {
  const offset = () => draws.chance(0.5) ? 0.2 : 0.8;
  return {
    x: column + offset(),
    y: row + offset(),
    shape: draws.pick(["ball", "cone", "pillar", "gem"] as const),
    colour: draws.pick(VIVID),
  };
}
