/**
 * How a 3x3 convolution by Winograd's algorithm (winograd.wasm.ts, winograd_grad.wasm.ts) is split into tasks on the cpu
 * device, and the memory that it needs. The numbers are those of the WebAssembly side.
 *
 * @module
 */
import type { Params } from "../spec.ts";

const padded = (N: number) => Math.ceil(N / 8) * 8;

/** Whether a convolution of K into N channels is computed so. */
export const isWinograd = ({ H, W, KH, KW, stride, pad }: Params, K: number, N: number): boolean =>
  KH === 3 && KW === 3 && stride === 1 && pad === 1 && H >= 4 && W >= 4 && K >= 8 && N >= 8 &&
  K % 4 === 0 && N % 4 === 0;

const tilesOf = ({ B, H, W }: Params) => B * Math.ceil(H / 2) * Math.ceil(W / 2);

const tilesOfTask = (K: number, blas: boolean) =>
  blas ? K <= 256 ? 256 : 128 : K <= 128 ? 192 : K <= 256 ? 96 : 48;

/** Tasks that transform the filters, then tasks that transform inputs, multiply, and transform back. */
export function winogradTasks(p: Params, K: number, N: number, blas: boolean): number[] {
  const blocks = Math.ceil(tilesOf(p) / tilesOfTask(K, blas));
  const parts = Math.min(Math.ceil(N / 96), Math.max(1, Math.floor(16 / blocks)));
  return [Math.ceil(N / 16), blocks * parts];
}

/** Bytes of the transformed filters. */
export const winogradShared = (K: number, N: number): number => 16 * (4 * K * padded(N) + 64);

/** Bytes of scratch of a task: panels of filters; or the border's pixels, inputs, products and addresses of rows. */
export function winogradScratch(K: number, blas: boolean): number {
  const tiles = tilesOfTask(K, blas), row = K % 128 === 0 ? K + 16 : K, columns = blas ? 192 : 96;
  const task = 64 * K + 16 * (4 * tiles * row + 64) + 16 * (4 * tiles * columns + 64) + 64 * tiles;
  return Math.max(64 * 9 * K, task);
}

/** Blocks of filters of the weight's gradient, and parts of the tiles that are summed apart. */
function gradientSplit(p: Params): { blocks: number; parts: number } {
  const blocks = Math.ceil(p.O / 192) * Math.ceil(p.I / 192), tiles = tilesOf(p);
  const each = Math.ceil(Math.ceil(tiles / Math.max(1, Math.floor(32 / blocks))) / 128) * 128;
  return { blocks, parts: Math.ceil(tiles / each) };
}

/** Tasks of the weight's gradient: sums over the tiles, then tasks that add them up. */
export function winogradGradTasks(p: Params): number[] {
  const { blocks, parts } = gradientSplit(p);
  return [blocks * parts, Math.ceil(p.O / 8)];
}

/** Bytes of the sums of all parts. */
export const winogradGradShared = (p: Params): number => gradientSplit(p).parts * 16 * (4 * p.O * p.I + 64);

/** Bytes of scratch: the border's pixels, both operands, one of them turned, addresses and a register tile. */
export function winogradGradScratch(p: Params): number {
  const rows = Math.min(192, p.O), columns = Math.min(192, p.I);
  const operand = (width: number) => 16 * (4 * 128 * (Math.ceil(width / 8) * 8 + 16) + 64);
  return 64 * columns + operand(rows) + operand(columns) + rows * 4 * 144 + 4 * (rows + 6) + 256;
}
