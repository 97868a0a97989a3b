/**
 * How a matrix product is split into tasks on the cpu device, and the scratch memory of one task. The numbers are those
 * of `gemm.wasm.ts`: 96 rows (16 register tiles) times 48 columns (6 panels), so that 64 query tokens times 768 channels
 * are 16 equal tasks.
 *
 * @module
 */

const ROWS = 96;
const COLUMNS = 48;

/** Tasks of a product of `rows` rows and `columns` columns. */
export function productTasks(rows: number, columns: number): number {
  return Math.ceil(rows / ROWS) * Math.ceil(columns / COLUMNS);
}

/**
 * Bytes of scratch: row addresses for each tap, one register tile, and two panels for weights that come row-major or as
 * halves.
 */
export function productScratch(length: number, taps: number): number {
  return ROWS * taps * 4 + 256 + 64 * length * taps;
}
