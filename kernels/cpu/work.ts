/**
 * Data that launches need for each kernel and for each set of sizes, made once.
 *
 * @module
 */
import type { Kernel, Params } from "../spec.ts";
import { ARGS_WORDS, type KernelFunction } from "./control.ts";
import { type Word, wordsOf } from "./declare.ts";

/** Launches of fewer operations run on the calling thread alone: waking a worker costs about 5 microseconds. */
const ALONE_FLOPS = 100_000;

/** Data that all launches of a kernel share. */
export interface Binding {
  readonly index: number;
  readonly fn: KernelFunction;
  /** Names of scalars and flags, in the order of the arguments behind the buffers. */
  readonly words: readonly Word[];
  /** Work derived from sizes, scalars and flags, by their object: lib/launch.ts passes the same one for the same launch. */
  readonly work: WeakMap<Params, Work>;
}

/** Values derived from the sizes, scalars and flags of a launch. */
export interface Work {
  /** Tasks of each phase. */
  readonly phases: readonly number[];
  readonly scratch: number;
  /** Bytes that the phases share. */
  readonly shared: number;
  /** Whether it is too small to share. */
  readonly alone: boolean;
  /** Scalars and flags as the kernel reads them. */
  readonly words: Int32Array;
  /** Weights that may come packed, by input name. */
  readonly packed: ReturnType<NonNullable<Kernel["wasm"]["packed"]>>;
}

/**
 * Finds the function of a kernel.
 *
 * @throws {Error} If the module has none, or the arguments are too many.
 */
export function bindingOf(kernel: Kernel, functions: readonly [string, KernelFunction][]): Binding {
  const index = functions.findIndex(([name]) => name === kernel.name);
  if (index < 0) {
    throw new Error(`${kernel.name}: the kernels module has no such function; run deno task build:wasm`);
  }
  const words = wordsOf(kernel);
  if (words.length > ARGS_WORDS) {
    throw new Error(`${kernel.name}: more than ${ARGS_WORDS} words of arguments`);
  }
  const scalars = words.slice(kernel.buffers.length).filter(({ name }) => name !== "shared");
  return { index, fn: functions[index][1], words: scalars, work: new WeakMap() };
}

/**
 * Works out what follows from the params of a launch.
 *
 * @throws {RangeError} If a scalar or flag is missing.
 */
export function workOf(
  kernel: Kernel,
  binding: Binding,
  params: Params,
  threads: number,
  blas: boolean,
): Work {
  const words = new Int32Array(binding.words.length), floats = new Float32Array(words.buffer);
  binding.words.forEach(({ name, type }, i) => {
    const value = params[name];
    if (value === undefined) throw new RangeError(`${kernel.name}: the value of ${name} is missing`);
    if (type === "f32") floats[i] = value;
    else words[i] = value;
  });
  const { wasm } = kernel, flops = kernel.flops(params);
  const phases = [wasm.tasks(params, blas)].flat(), tasks = Math.max(...phases);
  return {
    phases,
    scratch: wasm.scratch?.(params, blas) ?? 0,
    shared: wasm.shared?.(params, blas) ?? 0,
    alone: threads === 1 || tasks === 1 || (flops > 0 ? flops < ALONE_FLOPS : tasks < 3),
    words,
    packed: wasm.packed?.(params) ?? {},
  };
}
