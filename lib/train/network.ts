/**
 * A network under training: its weights, its batch-norm statistics and its optimizer.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { accumulate as addInto } from "../ops.ts";
import { type Params, splitBuffers, type WeightStorage } from "../params.ts";
import { disposeAll, scope, type Shape, Tensor, unscoped } from "../tensor.ts";
import { AdamW, type AdamWOptions, normsOf, type SquareSums, squareSums } from "./adamw.ts";
import { storeWeights } from "./half.ts";
import { type FreshValues, initialParams } from "./init.ts";

/** A network as an objective declares it. */
export interface NetworkSpec {
  /** Names and shapes of its state dict, batch-norm statistics included. Frozen weights do not belong here. */
  readonly shapes: Readonly<Record<string, Shape>>;
  /** Values that a new run starts from. Default: PyTorch's initialization of linear and convolution layers. */
  readonly initial?: FreshValues;
  /** Learning rate and AdamW settings where they differ from the run's. */
  readonly optimizer?: AdamWOptions & { readonly lr: number };
}

/** The weights of a network as a loss computes with them. */
export interface NetworkWeights {
  /** Trained parameters; matrices may be stored as f16. */
  readonly params: Params;
  /** Batch-norm statistics. */
  readonly buffers: Params;
}

/** Saved weights and moments of a network, f32 and row-major. */
export interface SavedNetwork {
  /** Parameters and batch-norm statistics. */
  readonly params: Readonly<Record<string, Float32Array>>;
  /** First moments. */
  readonly m: Record<string, Float32Array>;
  /** Second moments. */
  readonly v: Record<string, Float32Array>;
}

/** Sums of squares of a network's gradients, on the device. */
export interface Measurement {
  /** Gradients that were measured. */
  readonly sums: SquareSums;
  /** Tensors to read, one after another, for {@linkcode Network.norms}. */
  readonly tensors: readonly Tensor[];
}

/** Places values on a device, under their names. */
export function placed(
  device: Device,
  shapes: Readonly<Record<string, Shape>>,
  values: Readonly<Record<string, Float32Array>>,
): Params {
  return unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, Tensor.from(device, values[name], shape)]),
    )
  );
}

/** A network under training. */
export class Network implements NetworkWeights {
  readonly params: Params;
  readonly buffers: Params;
  /** Moments, and f32 masters of weights stored as f16. */
  readonly optimizer: AdamW;
  /** Learning rate after the warm-up. */
  readonly lr: number;
  /** Prefix of names in messages: `NETWORK.` unless it is the model. */
  readonly #prefix: string;

  private constructor(weights: NetworkWeights, optimizer: AdamW, lr: number, prefix: string) {
    this.params = weights.params;
    this.buffers = weights.buffers;
    this.optimizer = optimizer;
    this.lr = lr;
    this.#prefix = prefix;
  }

  /**
   * Starts from given, saved or fresh weights.
   *
   * @param name Name of the network, for messages.
   * @param config Settings of the run.
   * @param from Weights, f32, owned by the network from now on; or those of a checkpoint with its moments.
   * @throws {RangeError} If given weights have other names or shapes; if a matrix to be stored as f16 exceeds 65504.
   */
  static async start(
    device: Device,
    name: string,
    spec: NetworkSpec,
    config: AdamWOptions & WeightStorage & { readonly lr: number; readonly seed: number },
    from: { readonly weights?: Params; readonly saved?: SavedNetwork; readonly updates?: number },
  ): Promise<Network> {
    const { weights, saved, updates = 0 } = from, settings = spec.optimizer ?? config;
    if (weights) checkShapes(name, weights, spec.shapes);
    const all = weights ??
      (saved
        ? placed(device, spec.shapes, saved.params)
        : initialParams(device, spec.shapes, config.seed, undefined, spec.initial).params);
    const { params: trained, buffers } = splitBuffers(all);
    const { params, masters } = await storeWeights(trained, config);
    const optimizer = new AdamW(
      params,
      settings,
      saved && { steps: updates, m: saved.m, v: saved.v },
      masters,
    );
    return new Network({ params, buffers }, optimizer, settings.lr, name === "model" ? "" : `${name}.`);
  }

  /** Parameters and batch-norm statistics under one record. */
  get all(): Params {
    return { ...this.params, ...this.buffers };
  }

  /** A parameter or statistic in f32. */
  async values(name: string): Promise<Float32Array> {
    return await this.optimizer.weight(this.all, name);
  }

  /** Starts measuring gradients, so that one wait can serve several networks. */
  measure(grads: Params): Measurement {
    const sums = unscoped(() => squareSums(grads)), { sizes } = this.optimizer;
    return { sums, tensors: sizes ? [sums.partial, sizes] : [sums.partial] };
  }

  /**
   * Norms of the gradients by name, and the first weight that has outgrown f16.
   *
   * @param values Values of the tensors of {@linkcode measure}, one after another.
   */
  norms(
    { sums }: Measurement,
    values: Float32Array,
  ): { readonly norms: ReadonlyMap<string, number>; readonly beyond?: string } {
    const named = [...normsOf(sums, values)].map(([name, norm]) => [this.#prefix + name, norm] as const);
    const beyond = this.optimizer.beyondHalf(values.subarray(sums.partial.size));
    return { norms: new Map(named), ...(beyond ? { beyond: this.#prefix + beyond } : {}) };
  }

  /** Updates the parameters that have gradients. */
  async update(grads: Params, lr: number, scale: number): Promise<void> {
    const trained = Object.fromEntries(Object.keys(grads).map((name) => [name, this.params[name]]));
    await this.optimizer.step(trained, grads, lr, scale);
  }

  /** Replaces batch-norm statistics. */
  assign(running: Params): void {
    scope(() => Object.entries(running).forEach(([name, t]) => addInto(this.buffers[name], t, 1, 0)));
  }

  /** Frees all tensors, the weights included. */
  dispose(): void {
    this.optimizer.dispose();
    disposeAll([this.params, this.buffers]);
  }
}

/** Refuses weights that are not those of the network. */
function checkShapes(network: string, weights: Params, shapes: Readonly<Record<string, Shape>>): void {
  for (const name of new Set([...Object.keys(shapes), ...Object.keys(weights)])) {
    const [found, expected] = [weights[name]?.shape, shapes[name]].map((s) =>
      s ? `[${s.join(", ")}]` : "none"
    );
    if (found === expected) continue;
    throw new RangeError(
      `Trainer: ${network}: ${name} has shape ${found}, the objective expects ${expected}`,
    );
  }
}
