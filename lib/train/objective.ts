/**
 * Objectives of training: networks, batches, losses and their gradients. {@linkcode lossObjective} makes an objective of one
 * loss function; any object with the members of {@linkcode Objective} can do more, e.g. train two networks against each
 * other.
 *
 * @module
 */
import { valueAndGrad } from "../autograd.ts";
import type { Params } from "../params.ts";
import { type Tensor, unscoped } from "../tensor.ts";
import type { NetworkSpec, NetworkWeights } from "./network.ts";

/** Values by network. `model` is the network that is averaged, and whose gradient norm is reported. */
export type ByNetwork<T> = { readonly model: T } & { readonly [network: string]: T };

/** Shape of a batch: clips, frames per clip, and whatever follows. */
export type BatchShape = readonly [clips: number, frames: number, ...rest: number[]];

/** Prepared input of one loss. */
export interface TrainInput {
  /** Its shape. */
  readonly shape: BatchShape;
}

/** Settings of the gradients of one batch. */
export interface GradientOptions {
  /** Number of the step, 0 first. */
  readonly step: number;
  /** Factor of the gradients: 1 over the number of accumulated batches. */
  readonly scale: number;
  /** Gradients of the step's earlier batches, by network: to be added to in place. */
  readonly into?: Readonly<Record<string, Params>>;
}

/** Loss and gradients of one batch. The trainer owns all tensors. */
export interface Gradients {
  /** The loss: a number, or a tensor whose values add up to it. A tensor is read together with the norms, in one wait. */
  readonly loss: Tensor | number;
  /** Terms of the loss by name, for the log. */
  readonly terms?: Readonly<Record<string, number>>;
  /** Gradients by network and parameter. Parameters without gradients are not updated. */
  readonly grads: Readonly<Record<string, Params>>;
  /** Batch-norm statistics after the batch, by network. */
  readonly buffers?: Readonly<Record<string, Params>>;
}

/**
 * The subject of a training run: the networks, how a batch is drawn, and the gradients of its loss.
 *
 * {@linkcode lossObjective} makes one from a loss function; `farObjective` and `vaeObjective` are those of the paper.
 */
export interface Objective<Input extends TrainInput = TrainInput> {
  /** Networks that are trained, each by an optimizer of its own. */
  readonly networks: ByNetwork<NetworkSpec>;
  /** Prepares the batch at a position, 0 first. A function of the position alone; called one position ahead. */
  batch(position: number): Promise<Input>;
  /** Loss and gradients of one batch. */
  gradients(
    weights: ByNetwork<NetworkWeights>,
    input: Input,
    options: GradientOptions,
  ): Gradients | Promise<Gradients>;
  /** Floating-point operations of the gradients of a batch, without recomputation; for the reported rate. */
  flops?(shape: BatchShape, step: number): number | Promise<number>;
  /** Frees what the objective owns, e.g. frozen weights. */
  dispose?(): void;
}

/** A loss and what it is computed of. */
export interface LossOptions<Input extends TrainInput> extends Pick<NetworkSpec, "shapes" | "initial"> {
  /** Prepares the batch at a position, 0 first: a function of the position alone. */
  readonly batch: (position: number) => Promise<Input>;
  /** The loss of a batch: a tensor whose values add up to it. Must be a pure function of weights, batch and step. */
  readonly loss: (params: Params, input: Input, step: number) => Tensor;
  /** See {@linkcode Objective}. */
  readonly flops?: Objective<Input>["flops"];
}

/**
 * An objective with one network and one loss function, which is differentiated with respect to its parameters. Weights that
 * the loss takes from elsewhere are frozen. {@linkcode Trainer} has an example.
 */
export function lossObjective<Input extends TrainInput>(options: LossOptions<Input>): Objective<Input> {
  const { shapes, initial, batch, loss, flops } = options;
  return {
    networks: { model: { shapes, initial } },
    batch,
    gradients({ model: { params, buffers } }, input, { step, scale, into }) {
      const { value, grads } = unscoped(() =>
        valueAndGrad((p: Params) => loss({ ...p, ...buffers }, input, step), { scale, into: into?.model })(
          params,
        )
      );
      return { loss: value, grads: { model: grads } };
    },
    flops,
  };
}
