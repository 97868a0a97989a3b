/**
 * Draws what the camera sees: walls, floor, ceiling and things, four samples per pixel.
 *
 * @module
 */
import { type Camera, cameraOf, castRay, newHit } from "./raycast.ts";
import type { Pose } from "./pose.ts";
import type { Scene, Thing } from "./scene.ts";
import { LEVELS, TEXELS, type Texture } from "./texture.ts";

/** Samples along each side of a pixel. */
const SAMPLES = 2;

/** Height of the eyes above the floor and below the ceiling, in cells: a wall straight ahead never fills the picture. */
const EYES = 0.36;

/** Light by depth in sixteenths of a cell, 256 for full light. */
const LIGHT: Uint16Array = new Uint16Array(1024).map((_, i) => {
  const depth = i / 16;
  return Math.floor(288 / (1 + 0.16 * depth + 0.035 * depth * depth));
});
/** Walls that run north to south are a little darker, so that corners show. */
const DARKER = 212;

const lightAt = (depth: number) => Math.min(256, LIGHT[Math.min(1023, Math.floor(depth * 16))]);

/** The size of a texture whose texels are about as large as samples. */
function levelFor(texelsPerSample: number): number {
  let level = 0;
  for (let limit = 1.5; texelsPerSample > limit && level < LEVELS - 1; limit *= 2) level++;
  return level;
}

/** Draws frames of one scene at one size; its buffers are used again for every frame. */
export class Renderer {
  readonly #scene: Scene;
  readonly #size: number;
  readonly #side: number;
  /** Samples, `[side, side, 3]`. */
  readonly #samples: Uint8Array;
  /** First and last row of the wall in each column of samples, and its depth. */
  readonly #top: Int32Array;
  readonly #bottom: Int32Array;
  readonly #depth: Float64Array;
  readonly #hit = newHit();

  /**
   * Prepares to draw.
   *
   * @param scene The world.
   * @param size Rows and columns of a frame, an even number from 16 to 512.
   * @throws {RangeError} If the size is not one of these.
   */
  constructor(scene: Scene, size: number) {
    if (!Number.isInteger(size) || size < 16 || size > 512 || size % 2 !== 0) {
      throw new RangeError(`world: frames have an even size from 16 to 512, found ${size}`);
    }
    this.#scene = scene;
    this.#size = size;
    this.#side = size * SAMPLES;
    this.#samples = new Uint8Array(this.#side * this.#side * 3);
    this.#top = new Int32Array(this.#side);
    this.#bottom = new Int32Array(this.#side);
    this.#depth = new Float64Array(this.#side);
  }

  /**
   * Draws one frame.
   *
   * @param pose Where the camera stands.
   * @param out Where to write `[size, size, 3]`.
   * @param offset Where in `out` to begin.
   */
  draw(pose: Pose, out: Uint8Array, offset = 0): void {
    const camera = cameraOf(pose);
    this.#drawWalls(camera);
    this.#drawGround(camera);
    this.#drawThings(camera);
    this.#average(out, offset);
  }

  #drawWalls(camera: Camera): void {
    const { maze, walls } = this.#scene, side = this.#side, focal = side / 2, hit = this.#hit;
    const samples = this.#samples;
    for (let column = 0; column < side; column++) {
      castRay(maze, camera, (column + 0.5) / focal - 1, hit);
      const { depth } = hit;
      this.#depth[column] = depth;
      const half = EYES * focal / depth;
      const above = focal - half;
      const top = Math.max(0, Math.ceil(above - 0.5)), bottom = Math.min(side, Math.ceil(focal + half - 0.5));
      this.#top[column] = top;
      this.#bottom[column] = bottom;
      const level = levelFor((0.5 / EYES + 1 / hit.slant) / 2 * TEXELS * depth / focal);
      const texels = walls[hit.face].levels[level], size = TEXELS >> level;
      const u = Math.min(size - 1, Math.max(0, Math.floor(hit.u * size))) * 3;
      const light = (lightAt(depth) * ((hit.face & 1) === 1 ? DARKER : 256)) >> 8;
      const perRow = size / (2 * half);
      let v = (top + 0.5 - above) * perRow;
      let at = (top * side + column) * 3;
      for (let row = top; row < bottom; row++) {
        const texel = Math.min(size - 1, v | 0) * size * 3 + u;
        samples[at] = (texels[texel] * light) >> 8;
        samples[at + 1] = (texels[texel + 1] * light) >> 8;
        samples[at + 2] = (texels[texel + 2] * light) >> 8;
        v += perRow;
        at += side * 3;
      }
    }
  }

  /** Floor and ceiling: rows at the same distance from the horizon are equally far away. */
  #drawGround(camera: Camera): void {
    const { maze, floors, ceilings } = this.#scene, side = this.#side, focal = side / 2;
    const { width, height } = maze, samples = this.#samples;
    for (let row = focal; row < side; row++) {
      const depth = EYES * focal / (row + 0.5 - focal), mirrored = side - 1 - row;
      const level = levelFor(TEXELS * depth / focal * (1 + depth / EYES) / 2), size = TEXELS >> level;
      const light = lightAt(depth);
      const leftX = camera.x + depth * (camera.forwardX - camera.rightX);
      const leftY = camera.y + depth * (camera.forwardY - camera.rightY);
      const perX = depth * camera.rightX / focal, perY = depth * camera.rightY / focal;
      for (let column = 0; column < side; column++) {
        const below = row >= this.#bottom[column], above = mirrored < this.#top[column];
        if (!below && !above) continue;
        const x = leftX + perX * (column + 0.5), y = leftY + perY * (column + 0.5);
        // Where the wall ends between two samples, the sample may lie a hair behind it, outside the maze.
        const cellX = Math.min(width - 1, Math.max(0, Math.floor(x)));
        const cellY = Math.min(height - 1, Math.max(0, Math.floor(y)));
        const tx = Math.min(size - 1, Math.max(0, Math.floor((x - cellX) * size)));
        const ty = Math.min(size - 1, Math.max(0, Math.floor((y - cellY) * size)));
        const cell = cellY * width + cellX, texel = (ty * size + tx) * 3;
        if (below) shade(samples, (row * side + column) * 3, floors[cell], level, texel, light);
        if (above) shade(samples, (mirrored * side + column) * 3, ceilings[cell], level, texel, light);
      }
    }
  }

  #drawThings(camera: Camera): void {
    const seen = this.#scene.things.map((thing) => {
      const dx = thing.x - camera.x, dy = thing.y - camera.y;
      return {
        thing,
        depth: dx * camera.forwardX + dy * camera.forwardY,
        across: dx * camera.rightX + dy * camera.rightY,
      };
    }).filter(({ depth, across }) => depth > 0.12 && Math.abs(across) < depth + 0.3)
      .sort((a, b) => b.depth - a.depth);
    for (const { thing, depth, across } of seen) this.#drawThing(thing, depth, across);
  }

  #drawThing({ shape, colour }: Thing, depth: number, across: number): void {
    const side = this.#side, focal = side / 2, samples = this.#samples;
    const wide = shape === "pillar" ? 0.14 : 0.26,
      tall = shape === "pillar" ? 0.62 : shape === "cone" ? 0.4 : 0.28;
    const left = focal * (1 + (across - wide / 2) / depth), right = focal * (1 + (across + wide / 2) / depth);
    const bottom = focal * (1 + EYES / depth), top = bottom - tall * focal / depth;
    const light = lightAt(depth);
    const firstRow = Math.max(0, Math.ceil(top - 0.5)), endRow = Math.min(side, Math.ceil(bottom - 0.5));
    const endColumn = Math.min(side, Math.ceil(right - 0.5));
    for (let column = Math.max(0, Math.ceil(left - 0.5)); column < endColumn; column++) {
      if (this.#depth[column] <= depth) continue;
      const x = (column + 0.5 - left) / (right - left) * 2 - 1; // -1 to 1
      for (let row = firstRow; row < endRow; row++) {
        const y = (row + 0.5 - top) / (bottom - top) * 2 - 1;
        const gloss = glossOf(shape, x, y);
        if (gloss === 0) continue;
        const at = (row * side + column) * 3, bright = (gloss * light) >> 8;
        for (let c = 0; c < 3; c++) samples[at + c] = Math.min(255, (colour[c] * bright) >> 8);
      }
    }
  }

  /** The mean of each pixel's samples. */
  #average(out: Uint8Array, offset: number): void {
    const size = this.#size, stride = this.#side * 3, samples = this.#samples;
    let at = offset;
    for (let row = 0; row < size; row++) {
      let from = 2 * row * stride;
      for (let column = 0; column < size; column++) {
        for (let c = 0; c < 3; c++, from++) {
          const sum = samples[from] + samples[from + 3] + samples[from + stride] + samples[from + stride + 3];
          out[at++] = (sum + 2) >> 2;
        }
        from += 3;
      }
    }
  }
}

function shade(
  samples: Uint8Array,
  at: number,
  { levels }: Texture,
  level: number,
  texel: number,
  light: number,
): void {
  const texels = levels[level];
  samples[at] = (texels[texel] * light) >> 8;
  samples[at + 1] = (texels[texel + 1] * light) >> 8;
  samples[at + 2] = (texels[texel + 2] * light) >> 8;
}

/** Light on a thing at (x, y), both -1 to 1 with y down: 0 outside its outline, 256 where its colour is plain. */
function glossOf(shape: Thing["shape"], x: number, y: number): number {
  switch (shape) {
    case "ball": {
      const away = x * x + y * y;
      if (away > 1) return 0;
      const [hx, hy] = [x + 0.35, y + 0.4];
      return hx * hx + hy * hy < 0.06 ? 420 : Math.floor(290 - 150 * away);
    }
    case "cone":
      return Math.abs(x) * 2 > y + 1 ? 0 : Math.floor(240 - 80 * x);
    case "pillar":
      return y > 0.86 || y < -0.86 ? 150 : Math.floor(260 - 110 * Math.abs(x + 0.2));
    case "gem":
      return Math.abs(x) + Math.abs(y) > 1 ? 0 : x < 0 ? (y < 0 ? 300 : 220) : y < 0 ? 240 : 170;
  }
}
