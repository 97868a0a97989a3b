/**
 * Gradient rules: how gradients pass back through one launch of a kernel, by launches of other kernels.
 *
 * A rule knows tensors only by shape and dtype, so that the same rule runs on a device (lib/autograd.ts) and in double
 * precision on the host (kernels/check.ts compares it with finite differences there).
 *
 * @module
 */
import type { Kernel, Params, Shaped } from "./spec.ts";

/** The context of a rule: one recorded launch in the backward pass. */
export interface Backward<T extends Shaped> {
  /** Sizes, scalars and flags of the launch. */
  readonly params: Params;
  /** A tensor that the rule's `saves` names. */
  saved(name: string): T;
  /** The gradient of an output, in the output's shape. */
  grad(output: string): T;
  /** Whether the gradient of an input is wanted. */
  wants(input: string): boolean;
  /** The gradient of an input so far, in the input's shape; zeros at first. Rules add to it in place. */
  sum(input: string): T;
  /** The same, uninitialised, if there is none yet: for kernels that can assign. Null when there is one already. */
  fresh(input: string): T | null;
  /** Adds alpha times a tensor to the gradient of an input, if that is wanted. */
  add(input: string, gradient: T, alpha?: number): void;
  /** Adds a tensor that the rule has just made and does not use again: it may become the gradient itself. */
  give(input: string, gradient: T): void;
  /** Launches a kernel: outputs by name, made unless `outs` gives them. */
  launch(
    kernel: Kernel,
    inputs: Readonly<Record<string, T | null | undefined>>,
    params: Params,
    outs?: Readonly<Record<string, T | null | undefined>>,
  ): Record<string, T>;
  /** A tensor full of zeros. */
  zeros(shape: readonly number[]): T;
  /** A tensor with undefined contents. */
  empty(shape: readonly number[]): T;
  /** The same memory as one axis. */
  flat(tensor: T): T;
}

/** How gradients pass through a kernel. Every rule adds to what is there, because a tensor may be used several times. */
export interface GradientRule {
  /** Inputs and outputs that the rule reads. */
  readonly saves: readonly string[];
  /** Float inputs and outputs that no gradient passes through. */
  readonly constant?: readonly string[];
  /** Launches that the rule holds for, by their flags; default all. Operations launch the others in parts under a gradient. */
  readonly when?: (p: Params) => boolean;
  /** Adds to the gradients of the inputs. */
  readonly backward: <T extends Shaped>(b: Backward<T>) => void;
}
