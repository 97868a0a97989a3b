/**
 * Bounds that the table of GPU pipelines (gpu_table.ts) must satisfy.
 *
 * @module
 */
import type { LoopCount } from "./gpu_table.ts";

/** Columns of the table that the bounds check. */
export interface Bounded {
  readonly hash: string;
  readonly kernel: string;
  readonly entry: string;
  readonly workload: string;
  readonly groups: number;
  /** Spilled registers and bytes of private memory. */
  readonly spills: number;
  /** The loop with the most multiply-adds. */
  readonly loop: LoopCount | null;
  readonly constants: Readonly<Record<string, number>>;
  readonly sizes: Readonly<Record<string, number>>;
}

/**
 * Smallest share of multiply-adds in the loop of a matrix product's tile, loads of the next stage included, at the models'
 * shapes (whole stages, rows read by fours). linearQkv counts the loads from three weights, of which one runs; a gradient of
 * weights gathers its operands by one, a convolution looks for the edges of its image.
 */
export const TILE_SHARES: Readonly<Record<string, { readonly large: number; readonly small: number }>> = {
  linear: { large: 0.85, small: 0.75 },
  linearGradInput: { large: 0.85, small: 0.75 },
  linearQkv: { large: 0.85, small: 0.72 },
  linearGradWeight: { large: 0.85, small: 0.7 },
  conv2d: { large: 0.83, small: 0.7 },
};

/** Most instructions of a warp for 32 keys of attention, which its loop takes at a time, with heads of 64 and no slope. */
export const ATTENTION_INSTRUCTIONS = 900;

/** Every bound that a table breaks, in words. */
export function brokenBounds(rows: readonly Bounded[]): string[] {
  const broken: string[] = [], count = { large: 0, small: 0, attention: 0 };
  for (const { kernel, entry, workload, spills, loop, constants } of rows) {
    const name = `${kernel} ${entry} (${workload}, ${JSON.stringify(constants)})`;
    // What no model launches is compiled for the record.
    if (spills > 0 && workload !== "cases") broken.push(`${name}: spills ${spills}, expected none`);
    const { exact, whole, even, together } = constants;
    const regular = exact === 1 && (whole === 1 || (even === 1 && together === 1));
    if (regular && (entry === "large" || entry === "small") && TILE_SHARES[kernel]) {
      count[entry]++;
      const share = loop ? loop.issued / loop.instructions : 0, least = TILE_SHARES[kernel][entry];
      if (share < least) {
        broken.push(`${name}: ${(100 * share).toFixed(1)} % multiply-adds, expected ${100 * least} %`);
      }
    }
    if (kernel === "attention" && entry === "forward" && constants.hd === 64 && constants.hasSlope === 0) {
      count.attention++;
      const instructions = loop?.instructions ?? Infinity;
      if (instructions > ATTENTION_INSTRUCTIONS) {
        broken.push(
          `${name}: ${instructions} instructions for 32 keys, expected at most ${ATTENTION_INSTRUCTIONS}`,
        );
      }
    }
  }
  for (const [what, n] of Object.entries(count)) if (n === 0) broken.push(`the table has no row for ${what}`);
  return broken;
}
