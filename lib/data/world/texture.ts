/**
 * Procedural pictures on walls, floor and ceiling, each in several sizes.
 *
 * Large shapes and few colours: what makes a place recognisable must survive 64 by 64 pixels and a small autoencoder.
 *
 * @module
 */
import type { RandomStream } from "../random_stream.ts";

/** Texels along a side of a texture at its full size. */
export const TEXELS = 32;
/** Sizes of a texture: 32, 16, 8, 4, 2. */
export const LEVELS = 5;

/** Red, green and blue, 0 to 255. */
export type Rgb = readonly [number, number, number];

/** A square picture in halving sizes: `[32, 32, 3]`, `[16, 16, 3]` and so on; far away a smaller one is shown. */
export interface Texture {
  /** One array a size, row by row. */
  readonly levels: readonly Uint8Array[];
}

/** Loud colours that cannot be taken for one another; landmarks have them. */
export const VIVID: readonly Rgb[] = [
  [226, 42, 38],
  [250, 138, 20],
  [250, 218, 40],
  [96, 206, 44],
  [20, 160, 110],
  [40, 200, 224],
  [38, 92, 226],
  [120, 52, 200],
  [222, 60, 190],
  [246, 246, 240],
  [26, 26, 32],
];

/** Quieter colours of walls and floors. */
export const QUIET: readonly Rgb[] = [
  [168, 92, 74],
  [184, 142, 88],
  [132, 148, 82],
  [86, 142, 112],
  [88, 138, 160],
  [96, 108, 168],
  [142, 100, 160],
  [170, 100, 128],
  [150, 150, 148],
];

/** The colour of a texel in a texture whose coordinates run from 0 to 31. */
export type Paint = (x: number, y: number) => Rgb;

const scaled = ([r, g, b]: Rgb, by: number): Rgb => [r * by, g * by, b * by];

/** Paints a texture and averages its smaller sizes. */
export function paint(colour: Paint): Texture {
  const full = new Uint8Array(TEXELS * TEXELS * 3);
  for (let y = 0; y < TEXELS; y++) {
    for (let x = 0; x < TEXELS; x++) {
      const rgb = colour(x, y), at = (y * TEXELS + x) * 3;
      for (let c = 0; c < 3; c++) full[at + c] = Math.min(255, Math.max(0, Math.floor(rgb[c])));
    }
  }
  const levels = [full];
  for (let size = TEXELS / 2; levels.length < LEVELS; size /= 2) {
    const from = levels[levels.length - 1], wide = size * 2, out = new Uint8Array(size * size * 3);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        for (let c = 0; c < 3; c++) {
          const at = (2 * y * wide + 2 * x) * 3 + c;
          const sum = from[at] + from[at + 3] + from[at + wide * 3] + from[at + wide * 3 + 3];
          out[(y * size + x) * 3 + c] = (sum + 2) >> 2;
        }
      }
    }
    levels.push(out);
  }
  return { levels };
}

/** Brightness of a grid of blocks, around 1. */
function blocks(
  draws: RandomStream,
  across: number,
  down: number,
  strength: number,
): (x: number, y: number) => number {
  const values = Array.from({ length: across * down }, () => 1 + (draws.next() - 0.5) * strength);
  return (x, y) => values[Math.floor(y * down / TEXELS) * across + Math.floor(x * across / TEXELS)];
}

/** The wall of a region: bricks, planks or slabs of one colour, with a dark skirting below and a light edge above. */
export function wallPaint(draws: RandomStream, base: Rgb): Paint {
  const style = draws.below(3);
  const shade = style === 1 ? blocks(draws, 4, 1, 0.24) : blocks(draws, 4, 4, 0.2);
  return (x, y) => {
    if (y >= 29) return scaled(base, 0.45);
    if (y < 2) return scaled(base, 1.2);
    if (style === 1) return scaled(base, x % 8 === 0 ? 0.78 : shade(x, y));
    const shifted = style === 0 && (y >> 3) % 2 === 1 ? (x + 4) % TEXELS : x;
    return scaled(base, y % 8 === 0 || shifted % 8 === 0 ? 0.78 : shade(shifted, y));
  };
}

/** Shapes of the panels: which of two colours stands at (x, y), both from -1 to 1. */
const SHAPES: readonly ((x: number, y: number) => boolean)[] = [
  (x, y) => x * x + y * y < 0.5,
  (x, y) => Math.abs(x) < 0.32 || Math.abs(y) < 0.32,
  (x, y) => Math.abs(x) + Math.abs(y) < 0.85,
  (x) => x < 0,
  (_, y) => y < 0,
  (x, y) => x < 0 !== y < 0,
  (x, y) => x < y,
  (x, y) => x < -y,
  (x) => Math.abs(x) < 0.36,
  (_, y) => Math.abs(y) < 0.36,
  (x, y) => Math.abs(x) < 0.5 && Math.abs(y) < 0.5,
  (x, y) => y > 2 * Math.abs(x) - 0.7,
];

/** Two colours and a shape, the same nowhere else in a maze (as long as there are enough). */
export interface Emblem {
  /** Index of one of twelve shapes. */
  readonly shape: number;
  /** Colour of the shape, an index into {@linkcode VIVID}. */
  readonly front: number;
  /** Colour around it. */
  readonly back: number;
}

/** All emblems of two colours in random order. */
export function emblems(draws: RandomStream): Emblem[] {
  const all: Emblem[] = [];
  for (let shape = 0; shape < SHAPES.length; shape++) {
    for (let front = 0; front < VIVID.length; front++) {
      for (let back = 0; back < VIVID.length; back++) {
        if (front !== back) all.push({ shape, front, back });
      }
    }
  }
  return draws.shuffled(all);
}

/** Hangs an emblem on a wall or lays it on the floor, in a square that leaves `margin` texels free around it. */
export function emblemPaint(ground: Paint, emblem: Emblem, margin: number): Paint {
  const half = TEXELS / 2 - margin;
  return (x, y) => {
    const [dx, dy] = [x + 0.5 - TEXELS / 2, y + 0.5 - TEXELS / 2];
    const reach = Math.max(Math.abs(dx), Math.abs(dy));
    if (reach > half) return ground(x, y);
    if (reach > half - 1) return [60, 56, 52];
    return VIVID[SHAPES[emblem.shape](dx / half, dy / half) ? emblem.front : emblem.back];
  };
}

/** The floor of a region: four tiles a cell, two shades, dark joints. */
export function floorPaint(base: Rgb): Paint {
  return (x, y) =>
    scaled(base, x % 16 === 0 || y % 16 === 0 ? 0.64 : (x >> 4) % 2 === (y >> 4) % 2 ? 0.95 : 0.78);
}

/** The ceiling: beams along the edges of a cell; with a lamp, a bright square in the middle. */
export function ceilingPaint(base: Rgb, lamp: boolean): Paint {
  return (x, y) => {
    const reach = Math.max(Math.abs(x + 0.5 - TEXELS / 2), Math.abs(y + 0.5 - TEXELS / 2));
    if (lamp && reach < 7) return [255, 250, 226];
    return scaled(base, reach > 13 ? 0.62 : 1);
  };
}
