// Linear layers on the cpu device (contract and reference: linear.ts).

import { GroupedLinear, Linear, LinearQkv } from "./arguments";
import { blas, BLAS_COLUMNS, BLAS_ROWS, blasProduct } from "./cpu/blas.wasm";
import { BLOCK_COLUMNS, BLOCK_ROWS, product, setOutput, TILE_ROWS } from "./cpu/gemm.wasm";

/** Writes the addresses of `rows` rows, `stride` bytes apart; the last one fills up the last six. */
function listRows(x: usize, stride: usize, rows: i32, table: usize): void {
  for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
    store<u32>(table, <u32>(x + <usize>min(r, rows - 1) * stride));
    table += 4;
  }
}

/** Bytes of a table of BLOCK_ROWS addresses. */
const TABLE: usize = 384;

/** Rows m0 ... m0+rows-1, which begin at `x`, times rows n0 ... n1-1 of `w`, then the epilogue. */
function project(
  x: usize, m0: i32, rows: i32, w: usize, half: i32, N: i32, n0: i32, n1: i32, K: i32, scratch: usize,
): void {
  if (blas) {
    blasProduct(x, m0, rows, w, half, n0, n1, K, scratch);
    return;
  }
  listRows(x, <usize>K << 2, rows, scratch);
  product(scratch, m0, rows, w, half, N, n0, n1, K, 1, scratch + TABLE);
}

export function linear(args: Linear, task: i32, scratch: usize): void {
  const w = args.w;
  const M = args.M, N = args.N, K = args.K, G = <usize>args.G;
  const xRow = <usize>args.xRow, yRow = <usize>args.yRow, gateCol = <usize>args.gateCol;
  const act = args.act, hasBias = args.hasBias, hasGate = args.hasGate, hasResidual = args.hasResidual;
  const blockRows = blas ? BLAS_ROWS : BLOCK_ROWS, blockColumns = blas ? BLAS_COLUMNS : BLOCK_COLUMNS;
  const columnBlocks = (N + blockColumns - 1) / blockColumns;
  const m0 = task / columnBlocks * blockRows, rows = min(blockRows, M - m0);
  const n0 = task % columnBlocks * blockColumns, n1 = min(N, n0 + blockColumns);
  const first = yRow * N << 2;
  setOutput(
    args.y + first, <usize>N << 2,
    hasBias ? args.bias : 0, act,
    hasResidual ? args.residual + first : 0,
    hasGate ? args.modulation + (gateCol << 2) : 0, args.rows + (yRow << 2), G << 2,
  );
  project(args.x + ((xRow + m0) * K << 2), m0, rows, w, args.half, N, n0, n1, K, scratch);
}

export function linearQkv(args: LinearQkv, task: i32, scratch: usize): void {
  const M = args.M, N = args.N, K = args.K;
  const xRow = <usize>args.xRow, yRow = <usize>args.yRow;
  const blockRows = blas ? BLAS_ROWS : BLOCK_ROWS, blockColumns = blas ? BLAS_COLUMNS : BLOCK_COLUMNS;
  const columnBlocks = (N + blockColumns - 1) / blockColumns;
  const m0 = task / (3 * columnBlocks) * blockRows, rows = min(blockRows, M - m0);
  const part = task / columnBlocks % 3;
  const n0 = task % columnBlocks * blockColumns, n1 = min(N, n0 + blockColumns);
  setOutput(
    args.y + ((yRow * 3 + part) * N << 2), <usize>(3 * N) << 2,
    args.hasBias ? (part == 0 ? args.bq : part == 1 ? args.bk : args.bv) : 0, 0, 0, 0, 0, 0,
  );
  const w = part == 0 ? args.wq : part == 1 ? args.wk : args.wv;
  project(args.x + ((xRow + m0) * K << 2), m0, rows, w, args.half, N, n0, n1, K, scratch);
}

export function groupedLinear(args: GroupedLinear, task: i32, scratch: usize): void {
  const x = args.x, w = args.w, y = args.y;
  const P = args.P, GI = args.GI, GO = args.GO, I = args.I;
  const bias = args.hasBias ? args.bias : 0;
  const groups = GI / I, O = GO / groups;
  const m0 = task * BLOCK_ROWS, rows = min(BLOCK_ROWS, P - m0);
  for (let g = 0; g < groups; g++) {
    listRows(x + (<usize>(m0 * GI + g * I) << 2), <usize>GI << 2, rows, scratch);
    const at = <usize>(g * O) << 2;
    setOutput(y + at, <usize>GO << 2, bias ? bias + at : 0, 0, 0, 0, 0, 0);
    product(scratch, m0, rows, w + (<usize>(g * O * I) << 2), 0, O, 0, O, I, 1, scratch + TABLE);
  }
}
