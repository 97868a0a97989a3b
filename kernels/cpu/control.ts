/**
 * The first page of the shared memory, where the calling thread and its workers meet.
 *
 * A launch, or a phase of one, is the words FN … FIRST and the arguments, then its number of tasks in TICKETS. A thread takes a task
 * by subtracting one: what it read is its task, counted from the end, and a value of zero or less is none. Whoever holds
 * a ticket keeps the launch from completing, so a thread that comes late either finds no ticket or one of the launch
 * whose words it then reads: no generation is needed.
 *
 * @module
 */

import type { Sgemm } from "./blas.ts";

/** Word indices; the counters that threads fight for have a cache line each. */
export const CONTROL = {
  TICKETS: 32,
  /** Tasks that are done. */
  DONE: 48,
  /** Changes with every launch; sleeping workers wait on it. */
  WAKE: 64,
  SLEEPERS: 65,
  /** 1 while the calling thread sleeps on DONE. */
  WAITING: 66,
  /** 1 after a worker's kernel threw; its message follows in ERROR_TEXT. */
  ERROR: 67,
  /** 1 when the workers are to return. */
  CLOSED: 68,
  FN: 80,
  TASKS: 81,
  SCRATCH: 82,
  SCRATCH_STRIDE: 83,
  /** Number of the first task. */
  FIRST: 84,
} as const;

/** Byte address of the arguments of a launch. The module's constants start at 1024. */
export const ARGS = 512;
/** Number of words that the arguments may take. */
export const ARGS_WORDS = 128;
/** Byte address and room of a worker's error message, UTF-16 units with their count in the first word. */
export const ERROR_TEXT = 16384;
export const ERROR_UNITS = 1000;
/** First byte that the allocator may hand out. */
export const HEAP = 65536;

/** Data that a worker starts with. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Index of this thread; the calling one is 0. */
  readonly thread: number;
  /** The BLAS that the thread loads, or null. */
  readonly blas: string | null;
}

/** A kernel: arguments, task, scratch. */
export type KernelFunction = (args: number, task: number, scratch: number) => void;

/** The module's functions by name, sorted: FN is an index into this list on every thread. */
export function functionsOf(exports: WebAssembly.Exports): [string, KernelFunction][] {
  return Object.entries(exports)
    .filter((entry): entry is [string, KernelFunction] => typeof entry[1] === "function")
    .sort(([a], [b]) => a < b ? -1 : 1);
}

/** `Atomics.pause` where the runtime has it: tells the processor that a loop only waits. */
export const pause: () => void = (Atomics as { pause?: () => void }).pause ?? (() => {});

/** Instantiates the kernels on a shared memory; with `sgemm`, their products go through it. */
export function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  sgemm: Sgemm | null,
): WebAssembly.Exports {
  const { exports } = new WebAssembly.Instance(module, { env: { memory, sgemm: sgemm ?? missing } });
  if (sgemm) (exports.useBlas as (on: number) => void)(1);
  return exports;
}

function missing(): never {
  throw new Error("a kernel called a BLAS, and none was loaded");
}
