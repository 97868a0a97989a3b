/**
 * One ray through the maze: which wall it meets, where on the wall, and how far away.
 *
 * @module
 */
import { EAST, hasWall, type Maze, NORTH, SOUTH, WEST } from "./maze.ts";
import { CELL_UNITS, cosine, type Pose, sine } from "./pose.ts";

/** The hit of a ray on a wall. One object is reused: a frame casts hundreds of rays. */
export interface Hit {
  /** Distance along the viewing direction, in cells. */
  depth: number;
  /** The wall's face: cell in front of it times 4, plus the side. */
  face: number;
  /** Place on the face from its left edge to its right edge, 0 to 1. */
  u: number;
  /** Cosine of the angle between the ray and the wall's normal, times the ray's length. */
  slant: number;
}

/** A place to put what a ray meets. */
export function newHit(): Hit {
  return { depth: 0, face: 0, u: 0, slant: 1 };
}

/** The camera in cells: position, viewing direction, and the direction to its right; the field of view is 90 degrees. */
export interface Camera {
  /** Cells east. */
  readonly x: number;
  /** Cells south. */
  readonly y: number;
  /** Viewing direction, east. */
  readonly forwardX: number;
  /** Viewing direction, south. */
  readonly forwardY: number;
  /** To the right of it, east. */
  readonly rightX: number;
  /** To the right of it, south. */
  readonly rightY: number;
}

/** The camera of a pose. */
export function cameraOf(pose: Pose): Camera {
  const forwardX = cosine(pose.heading) / 65536, forwardY = sine(pose.heading) / 65536;
  return {
    x: pose.x / CELL_UNITS,
    y: pose.y / CELL_UNITS,
    forwardX,
    forwardY,
    rightX: -forwardY,
    rightY: forwardX,
  };
}

/**
 * Casts a ray from the camera.
 *
 * @param maze The maze.
 * @param camera Where it starts; inside the maze.
 * @param across Direction: -1 at the left edge of the picture, 0 straight ahead, 1 at the right edge.
 * @param hit Where to write what it meets.
 */
export function castRay(maze: Maze, camera: Camera, across: number, hit: Hit): void {
  const { x, y } = camera;
  const rayX = camera.forwardX + camera.rightX * across, rayY = camera.forwardY + camera.rightY * across;
  let column = Math.floor(x), row = Math.floor(y);
  const stepX = rayX > 0 ? 1 : -1, stepY = rayY > 0 ? 1 : -1;
  const sideX = rayX > 0 ? EAST : WEST, sideY = rayY > 0 ? SOUTH : NORTH;
  const perX = rayX === 0 ? Infinity : 1 / Math.abs(rayX), perY = rayY === 0 ? Infinity : 1 / Math.abs(rayY);
  let nextX = rayX === 0 ? Infinity : (rayX > 0 ? column + 1 - x : x - column) * perX;
  let nextY = rayY === 0 ? Infinity : (rayY > 0 ? row + 1 - y : y - row) * perY;
  for (;;) {
    const cell = row * maze.width + column;
    if (nextX < nextY) {
      if (hasWall(maze, cell, sideX)) {
        const along = y + nextX * rayY - row;
        hit.depth = nextX;
        hit.face = cell * 4 + sideX;
        hit.u = sideX === EAST ? along : 1 - along;
        hit.slant = Math.abs(rayX);
        return;
      }
      column += stepX;
      nextX += perX;
    } else {
      if (hasWall(maze, cell, sideY)) {
        const along = x + nextY * rayX - column;
        hit.depth = nextY;
        hit.face = cell * 4 + sideY;
        hit.u = sideY === NORTH ? along : 1 - along;
        hit.slant = Math.abs(rayY);
        return;
      }
      row += stepY;
      nextY += perY;
    }
  }
}
