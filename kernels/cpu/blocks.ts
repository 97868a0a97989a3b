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

/** Left rows that are `taps` runs of `length` floats, for N columns. */
interface Gathered {
  readonly length: number;
  readonly taps: number;
  readonly N: number;
}

/** Whether a BLAS computes such a product (gather.wasm.ts). */
const isGathered = ({ length, taps, N }: Gathered, blas: boolean) => blas && length * taps >= 48 && N >= 16;

/** Tasks of such a product. */
export const gatherTasks = (rows: number, product: Gathered, blas: boolean): number =>
  isGathered(product, blas) ? blasTasks(rows, product.N) : productTasks(rows, product.N);

/**
 * Bytes of scratch of such a product: a row of zeros and addresses; then, for a BLAS, a tile of results, weights, gathered rows
 * and panels.
 */
export function gatherScratch(product: Gathered, blas: boolean): number {
  const { length, taps } = product, K = length * taps;
  if (!isGathered(product, blas)) return 4 * length + 16 + 24 * taps + productScratch(length, taps);
  const runs = 4 * BLAS_ROWS * Math.max(length, Math.min(1024, K));
  return 4 * length + 16 + 4 * (BLAS_ROWS + 6) * taps + 4 * BLAS_COLUMNS * (BLAS_ROWS + K) + runs + 64 * K;
}
