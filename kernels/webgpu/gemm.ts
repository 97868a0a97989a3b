/**
 * Which shape of tile a matrix product takes, and what follows from it.
 *
 * @module
 */
import gemm from "./gemm.wgsl" with { type: "text" };
import type { Params, Target, WgslSide } from "../spec.ts";
import { sections } from "./sections.ts";
import { specialise } from "./specialise.ts";

/** Rows, columns and steps of four k of a matrix product. */
export interface GemmSizes {
  /** Rows of the result. */
  readonly rows: number;
  /** Columns of the result. */
  readonly columns: number;
  /** Steps of four k. */
  readonly depth: number;
}

/** Fewer 64 x 64 tiles than this leave a large GPU idle (an H200 has 132 multiprocessors). Not measured. */
const FEW_TILES = 264;

type Tile = "tile64" | "tile32" | "plain";

const tiles = (s: GemmSizes, size: number) => Math.ceil(s.rows / size) * Math.ceil(s.columns / size);

function tileOf(sizes: GemmSizes, target: Target): Tile {
  if (target.software) return "plain";
  return tiles(sizes, 64) < FEW_TILES ? "tile32" : "tile64";
}

/** Views and constants of a shader (see {@linkcode WgslSide}), and how its operands lie. */
export interface GemmOptions extends Pick<WgslSide, "views" | "constants"> {
  /** Operands whose neighbouring rows, not k, lie side by side in storage: a tile loads them in that order. */
  readonly byRow?: { readonly left?: boolean; readonly right?: boolean };
}

/**
 * The WGSL side of a kernel that is a matrix product.
 *
 * @param text What kernels/webgpu/gemm.wgsl asks for: sizes, `left`, `right`, `store`.
 * @param sizes Sizes of the product, from the sizes of a launch.
 */
export function gemmSide(
  text: string,
  sizes: (p: Params) => GemmSizes,
  { byRow = {}, ...more }: GemmOptions = {},
): WgslSide {
  const common = specialise(sections(gemm, "common"), {
    LEFT_BY_ROW: byRow.left ? 1 : 0,
    RIGHT_BY_ROW: byRow.right ? 1 : 0,
  });
  const sources: Record<Tile, string> = {
    tile64: text + common + sections(gemm, "tile64"),
    tile32: text + common + sections(gemm, "tile32"),
    plain: text + common + sections(gemm, "plain"),
  };
  return {
    source: (p, target) => sources[tileOf(sizes(p), target)],
    entry: (p, target) => tileOf(sizes(p), target),
    ...more,
    groups: (p, target) => tiles(sizes(p), tileOf(sizes(p), target) === "tile32" ? 32 : 64),
    loops: (p, target) => {
      const { depth } = sizes(p);
      const tile = tileOf(sizes(p), target);
      if (tile === "plain") return 9 * depth + 80;
      return tile === "tile64" ? Math.ceil(depth / 4) * 9 + 80 : Math.ceil(depth / 16) * 7 + 4;
    },
  };
}
