/**
 * Tile shape of a matrix product, the number of parts into which its sums are split, and the values derived from both.
 *
 * @module
 */
import gemm from "./gemm.wgsl" with { type: "text" };
import type { Params, Pass, Passes, Shader, Target } from "../spec.ts";
import { sections } from "./sections.ts";
import { specialise } from "./specialise.ts";
import { unroll } from "./unroll.ts";

/** Rows, columns and steps of four k of a matrix product. */
export interface GemmSizes {
  /** Rows of the result. */
  readonly rows: number;
  /** Columns of the result. */
  readonly columns: number;
  /** Steps of four k. */
  readonly depth: number;
}

/** Width of a tile at most: columns from a multiple of it on up to the next one are in one tile. */
export const TILE_COLUMNS = 64;

/** Bindings of one side of a product. */
interface Binds extends Pick<Shader, "views"> {
  /** Its constants; `stage` is the number of steps that go through shared memory at a time. */
  readonly constants?: Readonly<Record<string, (p: Params, stage: number) => number>>;
  /** Buffers that it reads. */
  readonly reads: readonly string[];
  /** Flags that it uses. */
  readonly flags: readonly string[];
}

/** A matrix product: what kernels/webgpu/gemm.wgsl asks for. */
export interface Gemm {
  /** Sizes of the product, from the sizes of a launch. */
  readonly sizes: (p: Params) => GemmSizes;
  /** Text: `rowCount`, `columnCount`, `depth`, and constants that both sides use. */
  readonly text: string;
  /** `left` and `right`, and what they need. */
  readonly operands: Binds & {
    readonly text: string;
    /** Operands whose neighbouring rows, not k, lie side by side in storage: a tile loads them in that order. */
    readonly byRow?: { readonly left?: boolean; readonly right?: boolean };
  };
  /** `store`, and what it needs. */
  readonly result: Binds & { readonly text: string; readonly writes: readonly string[] };
  /** A pass that runs first and the number of f32 that it writes to the scratch memory `packed`, which the operands read. */
  readonly pack?: { readonly pass: Pass; readonly values: (p: Params) => number };
}

interface Tile {
  readonly name: "large" | "small" | "plain";
  readonly height: number;
  readonly width: number;
  /** Steps of four k that go through shared memory at a time. */
  readonly stage: number;
}

const LARGE: Tile = { name: "large", height: 128, width: 64, stage: 4 };
const SMALL: Tile = { name: "small", height: 32, width: 32, stage: 16 };
const PLAIN: Tile = { name: "plain", height: 64, width: 64, stage: 1 };

/** Fewer workgroups than this leave multiprocessors of a large GPU without any (an H200 has 132). Not measured. */
const BUSY = 132;

/** Steps of four k from which on adding up partial sums is cheap beside them. Not measured. */
const DEEP = 512;

/** Most parts of a sum, and fewest stages of a part. */
const MOST_PARTS = 8, FEWEST_STAGES = 2;

const tilesOf = (s: GemmSizes, tile: Tile) =>
  Math.ceil(s.rows / tile.height) * Math.ceil(s.columns / tile.width);

function tileOf(sizes: GemmSizes, target: Target): Tile {
  if (target.software) return PLAIN;
  const large = tilesOf(sizes, LARGE);
  return large >= 2 * BUSY || (sizes.depth >= DEEP && large >= BUSY / 2) ? LARGE : SMALL;
}

/** Parts of every sum: as many as give each multiprocessor two workgroups, where whole sums would not give one to each. */
function partsOf(sizes: GemmSizes, tile: Tile): number {
  const tiles = tilesOf(sizes, tile), stages = Math.ceil(sizes.depth / tile.stage);
  if (tile === PLAIN || tiles >= BUSY) return 1;
  const most = Math.min(MOST_PARTS, Math.floor(stages / FEWEST_STAGES));
  const wanted = Math.max(1, Math.min(most, Math.ceil(2 * BUSY / tiles)));
  return Math.ceil(stages / Math.ceil(stages / wanted)); // none without a stage
}

/** Loop iterations of an invocation, all loops together. */
function loopsOf({ depth }: GemmSizes, tile: Tile): number {
  return tile === PLAIN ? 9 * depth + 90 : Math.ceil(depth / tile.stage) + 80;
}

/** The WGSL side of a kernel that is a matrix product. */
export function gemmSide(
  product: Gemm,
): { readonly passes: (p: Params, target: Target) => Passes } {
  const { sizes, text, operands, result, pack } = product, { byRow = {} } = operands;
  const common = specialise(sections(gemm, "common"), {
    LEFT_BY_ROW: byRow.left ? 1 : 0,
    RIGHT_BY_ROW: byRow.right ? 1 : 0,
  });
  const forTile = (tile: Tile) => {
    const tiles = (p: Params) => tilesOf(sizes(p), tile), parts = (p: Params) => partsOf(sizes(p), tile);
    const staged = (constants: Binds["constants"] = {}) =>
      Object.fromEntries(
        Object.entries(constants).map(([name, of]) => [name, (p: Params) => of(p, tile.stage)]),
      );
    const exact = (p: Params) => sizes(p).depth % tile.stage === 0 ? 1 : 0;
    const constants = { ...staged(operands.constants), exact }, last = staged(result.constants);
    const loops = (p: Params) => loopsOf(sizes(p), tile), entry = tile.name;
    const whole: Pass = {
      source: unroll(text + operands.text + result.text + common + sections(gemm, "whole", tile.name)),
      entry,
      views: { ...operands.views, ...result.views },
      constants: { ...last, ...constants },
      groups: tiles,
      loops,
      reads: [...operands.reads, ...result.reads],
      writes: result.writes,
      flags: [...new Set([...operands.flags, ...result.flags])],
    };
    const partial: Pass = {
      source: unroll(text + operands.text + common + sections(gemm, "partial", tile.name)),
      entry,
      views: operands.views,
      constants: { ...constants, parts },
      groups: (p) => tiles(p) * parts(p),
      loops,
      reads: operands.reads,
      writes: ["sums"],
      flags: operands.flags,
    };
    const combine: Pass = {
      source: text + result.text + sections(gemm, "combine"),
      entry: "combine",
      views: result.views,
      constants: { ...last, parts },
      groups: (p) => Math.ceil(sizes(p).rows * sizes(p).columns / 64),
      loops: parts,
      reads: ["sums", ...result.reads],
      writes: result.writes,
      flags: result.flags,
    };
    const first = pack ? [pack.pass] : [];
    return { parts, whole: [...first, whole], split: [...first, partial, combine] };
  };
  const sides = { large: forTile(LARGE), small: forTile(SMALL), plain: forTile(PLAIN) };
  return {
    passes: (p, target) => {
      const each = sizes(p), { parts, whole, split } = sides[tileOf(each, target).name], n = parts(p);
      const packed = pack ? { packed: pack.values(p) } : null;
      if (n === 1) return { scratch: { ...packed }, passes: whole };
      return { scratch: { ...packed, sums: n * each.rows * each.columns }, passes: split };
    },
  };
}
