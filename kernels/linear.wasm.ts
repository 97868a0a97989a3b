// Linear layers on the cpu device (contract and reference: linear.ts).

import { BLOCK_COLUMNS, BLOCK_ROWS, product, setOutput, TILE_ROWS } from "./cpu/gemm.wasm";
import { word } from "./cpu/simd.wasm";

/** Writes the addresses of `rows` rows, `stride` bytes apart; the last one fills up the last six. */
function listRows(x: usize, stride: usize, rows: i32, table: usize): void {
  for (let r = 0; r < rows || r % TILE_ROWS != 0; r++) {
    store<u32>(table, <u32>(x + <usize>min(r, rows - 1) * stride));
    table += 4;
  }
}

/** Bytes of a table of BLOCK_ROWS addresses. */
const TABLE: usize = 384;

export function linear(args: usize, task: i32, scratch: usize): void {
  const w = <usize>word(args, 1);
  const M = <i32>word(args, 7), N = <i32>word(args, 8), K = <i32>word(args, 9), G = <usize>word(args, 10);
  const xRow = <usize>word(args, 11), yRow = <usize>word(args, 12), gateCol = <usize>word(args, 13);
  const act = word(args, 14), hasBias = word(args, 15), hasGate = word(args, 16), hasResidual = word(args, 17);
  const columnBlocks = (N + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS;
  const m0 = task / columnBlocks * BLOCK_ROWS, rows = min(BLOCK_ROWS, M - m0);
  const n0 = task % columnBlocks * BLOCK_COLUMNS, n1 = min(N, n0 + BLOCK_COLUMNS);
  listRows(<usize>word(args, 0) + ((xRow + m0) * K << 2), <usize>K << 2, rows, scratch);
  const first = yRow * N << 2;
  setOutput(
    <usize>word(args, 6) + first, <usize>N << 2,
    hasBias ? <usize>word(args, 2) : 0, act,
    hasResidual ? <usize>word(args, 5) + first : 0,
    hasGate ? <usize>word(args, 3) + (gateCol << 2) : 0, <usize>word(args, 4) + (yRow << 2), G << 2,
  );
  product(scratch, m0, rows, w, word(args, 18), N, n0, n1, K, 1, scratch + TABLE);
}

export function linearQkv(args: usize, task: i32, scratch: usize): void {
  const M = <i32>word(args, 8), N = <i32>word(args, 9), K = <i32>word(args, 10);
  const xRow = <usize>word(args, 11), yRow = <usize>word(args, 12);
  const columnBlocks = (N + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS;
  const m0 = task / (3 * columnBlocks) * BLOCK_ROWS, rows = min(BLOCK_ROWS, M - m0);
  const part = task / columnBlocks % 3;
  const n0 = task % columnBlocks * BLOCK_COLUMNS, n1 = min(N, n0 + BLOCK_COLUMNS);
  listRows(<usize>word(args, 0) + ((xRow + m0) * K << 2), <usize>K << 2, rows, scratch);
  setOutput(
    <usize>word(args, 7) + ((yRow * 3 + part) * N << 2), <usize>(3 * N) << 2,
    word(args, 13) ? <usize>word(args, 4 + part) : 0, 0, 0, 0, 0, 0,
  );
  product(scratch, m0, rows, <usize>word(args, 1 + part), word(args, 14), N, n0, n1, K, 1, scratch + TABLE);
}

export function groupedLinear(args: usize, task: i32, scratch: usize): void {
  const x = <usize>word(args, 0), w = <usize>word(args, 1), y = <usize>word(args, 3);
  const P = <i32>word(args, 4), GI = <i32>word(args, 5), GO = <i32>word(args, 6), I = <i32>word(args, 7);
  const bias = word(args, 8) ? <usize>word(args, 2) : 0;
  const groups = GI / I, O = GO / groups;
  const m0 = task * BLOCK_ROWS, rows = min(BLOCK_ROWS, P - m0);
  for (let g = 0; g < groups; g++) {
    listRows(x + (<usize>(m0 * GI + g * I) << 2), <usize>GI << 2, rows, scratch);
    const at = <usize>(g * O) << 2;
    setOutput(y + at, <usize>GO << 2, bias ? bias + at : 0, 0, 0, 0, 0, 0);
    product(scratch, m0, rows, w + (<usize>(g * O * I) << 2), 0, O, 0, O, I, 1, scratch + TABLE);
  }
}
