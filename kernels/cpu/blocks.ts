/**
 * How a matrix product is split into tasks on the cpu device, and the scratch memory of one task. The numbers are those
 * of `gemm.wasm.ts`: 96 rows (16 register tiles) times 48 columns (6 panels), so that 64 query tokens times 768 channels
 * are 16 equal tasks; and, with a BLAS, of `blas.wasm.ts`.
 *
 * @module
 */

const ROWS = 96;
const COLUMNS = 48;

/** Rows and columns of a task whose product a BLAS computes. */
const BLAS_ROWS = 256;
const BLAS_COLUMNS = 192;

/** Tasks of a product of `rows` rows and `columns` columns. */
export function productTasks(rows: number, columns: number): number {
  return Math.ceil(rows / ROWS) * Math.ceil(columns / COLUMNS);
}

/**
 * Bytes of scratch: row addresses for each tap, a block of results, and two panels for weights that come row-major or as
 * halves.
 */
export function productScratch(length: number, taps: number): number {
  return ROWS * taps * 4 + 4 * ROWS * COLUMNS + 64 * length * taps;
}

/** Tasks of a product through a BLAS. */
export function blasTasks(rows: number, columns: number): number {
  return Math.ceil(rows / BLAS_ROWS) * Math.ceil(columns / BLAS_COLUMNS);
}

/** Bytes of scratch of a product through a BLAS: a tile of results, and weights of `length` floats if they are halves. */
export function blasScratch(length: number, half: number): number {
  return 4 * BLAS_ROWS * BLAS_COLUMNS + (half ? 4 * BLAS_COLUMNS * length : 0);
}
