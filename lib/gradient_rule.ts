/**
 * What a gradient rule is.
 *
 * @module
 */
import type { Params } from "../kernels/spec.ts";
import type { Tensor } from "./tensor.ts";

/** What a rule works with: one recorded launch on its way back. */
export interface Backward {
  /** Sizes, scalars and flags of the launch. */
  readonly params: Params;
  /** A tensor that the rule's `saves` names. */
  saved(name: string): Tensor;
  /** The gradient of an output, in the output's shape. */
  grad(output: string): Tensor;
  /** Whether the gradient of an input is wanted. */
  wants(input: string): boolean;
  /** The gradient of an input so far, in the input's shape; zeros at first. Rules add to it in place. */
  sum(input: string): Tensor;
  /** The same, uninitialised, if there is none yet: for kernels that can assign. Null when there is one already. */
  fresh(input: string): Tensor | null;
  /** Adds alpha times a tensor to the gradient of an input, if that is wanted. */
  add(input: string, gradient: Tensor, alpha?: number): void;
  /** Adds a tensor that the rule has just made and does not use again: it may become the gradient itself. */
  give(input: string, gradient: Tensor): void;
}

/** One row of the table. */
export interface GradientRule {
  /** Inputs and outputs that the gradient reads. */
  readonly saves: readonly string[];
  /** Adds to the gradients of the inputs. */
  readonly backward: (b: Backward) => void;
}
