/**
 * Every case of every kernel, for tools that go through all of them.
 *
 * @module
 */
import { KERNELS } from "./all.ts";
import type { KernelCase } from "./check.ts";

/** All cases in the order of {@linkcode KERNELS}. */
export const CASES: readonly KernelCase[] = KERNELS.flatMap((kernel) =>
  kernel.cases.map((test) => ({ kernel, ...test }))
);
