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
  KH === 3 && KW === 3 && stride === 1 && pad === 1 && H >= 8 && W >= 8 && K >= 16 && N >= 8 &&
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
