/**
 * Choice of the BLAS that the cpu device calls, if any: one that is there, may be called, and is faster than WebAssembly.
 *
 * @module
 */
import { linear } from "../linear.ts";
import type { Params } from "../spec.ts";
import { type Blas, loadBlas, mayLoad, OneCaller, usualPlaces } from "./blas.ts";
import { functionsOf, instantiate } from "./control.ts";
import { wordsOf } from "./declare.ts";

/** The decision about a BLAS. */
export interface BlasChoice {
  /** The library, or null. */
  readonly blas: Blas | null;
  /** Its name and path, or why there is none. */
  readonly report: string;
}

/** GFLOP/s on one thread. */
export interface Rates {
  readonly blas: number;
  readonly wasm: number;
}

/** Rows, outputs and inputs of the product that is timed: one task of a linear layer in both settings. */
const TIMED: Params = { M: 96, N: 48, K: 768 };
const SIZES = { ...TIMED, G: 1, xRow: 0, yRow: 0, gateCol: 0 };
const FLAGS = { act: 0, hasBias: 0, hasGate: 0, hasResidual: 0, half: 0 };

/** Milliseconds that timing takes at least. */
const LEAST_MS = 20;

/** The best of several products by the library and by WebAssembly, in turns; V8 compiles its own for speed meanwhile. */
function ratesOf(path: string, module: WebAssembly.Module): Rates {
  const { M, N, K } = TIMED, pages = 16, address = 512, x = 65536;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const w = x + 4 * M * K, y = w + 4 * N * K, scratch = y + 4 * M * N;
  new Float32Array(memory.buffer, x, M * K + N * K).fill(0.5);
  const values: Record<string, number> = { ...SIZES, ...FLAGS, x, w, y };
  new Int32Array(memory.buffer, address).set(wordsOf(linear).map(({ name }) => values[name] ?? 0));
  const products = [loadBlas(path, memory, 1).sgemm, null].map((sgemm) =>
    functionsOf(instantiate(module, memory, sgemm)).find(([name]) => name === linear.name)![1]
  );
  const best = [Infinity, Infinity], start = performance.now();
  for (let round = 0; round < 5 || performance.now() - start < LEAST_MS; round++) {
    products.forEach((product, i) => {
      const from = performance.now();
      product(address, 0, scratch);
      best[i] = Math.min(best[i], performance.now() - from);
    });
  }
  const [blas, wasm] = best.map((milliseconds) => linear.flops(TIMED) / milliseconds / 1e6);
  return { blas, wasm };
}

/**
 * Chooses the BLAS that `wanted` names: `off` is none, `auto` the first in the usual places that may be called without
 * asking, else a path. One that is slower than WebAssembly is refused.
 *
 * @param threads Threads of the device.
 * @param measure Times a library and WebAssembly.
 * @throws {Error} If a library that was named cannot be used.
 */
export function chooseBlas(
  wanted: string,
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  threads: number,
  measure: (path: string, module: WebAssembly.Module) => Rates = ratesOf,
): BlasChoice {
  if (wanted === "off") return { blas: null, report: "off" };
  const auto = wanted === "auto";
  const places = (auto ? usualPlaces() : [wanted]).filter((path) => !auto || mayLoad(path));
  if (places.length === 0) {
    return { blas: null, report: "off: needs permission to call libraries, run with -P=blas" };
  }
  let refused = "";
  for (const path of places) {
    try {
      const blas = loadBlas(path, memory, threads), rates = measure(path, module);
      if (rates.blas > rates.wasm) return { blas, report: `${blas.name} (${path})` };
      refused = `${blas.name} (${path}) is slower than WebAssembly`;
      if (!auto) {
        const found = `${rates.blas.toFixed(1)} GFLOP/s per thread, WebAssembly ${rates.wasm.toFixed(1)}`;
        throw new Error(`--blas ${path}: ${refused} (${found}); use --blas off or a faster library`);
      }
    } catch (error) {
      // A usual place where there is nothing, or nothing that can be called, is passed over.
      if (!auto) throw error;
      if (error instanceof OneCaller) refused ||= error.message;
    }
  }
  const none = `no OpenBLAS, MKL, oneDNN or Accelerate in the usual places (--blas PATH names one)`;
  return { blas: null, report: `off: ${refused || none}` };
}
