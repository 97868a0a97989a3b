/**
 * AdamW and the exponential moving average of weights.
 *
 * Moments, averages and the f32 masters of f16 weights stay on the device. They are needed once per step: the cpu device, whose
 * memory holds at most 4 GiB, moves them to ordinary memory where it needs the room for something else.
 *
 * @module
 */
import { adamw as adamwKernel } from "../../kernels/adamw.ts";
import { HALF_BLOCK, LARGEST_HALF, toHalf } from "../../kernels/half.ts";
import { SQUARE_SUM_BLOCK, squareSum } from "../../kernels/reduce.ts";
import { accumulate, concat, full, launch } from "../ops.ts";
import type { Params } from "../params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../tensor.ts";

/** Optimizer state: tensors shaped like the parameters (moments, masters, averages), on their device. */
export class OptimizerState {
  readonly #values: Params;

  /** Zeros, or copies of `initial`, shaped like `params`. */
  constructor(params: Params, initial?: Readonly<Record<string, Float32Array>>) {
    this.#values = unscoped(() =>
      Object.fromEntries(
        Object.entries(params).map(([name, { device, shape, size }]) => {
          const values = initial?.[name];
          if (values && values.length !== size) {
            throw new RangeError(`OptimizerState: ${name} has ${values.length} values, expected ${size}`);
          }
          const tensor = values ? Tensor.from(device, values, shape) : full(device, shape, 0);
          device.setAside(tensor.storage);
          return [name, tensor];
        }),
      )
    );
  }

  /** Whether there is a tensor of this name. */
  has(name: string): boolean {
    return name in this.#values;
  }

  /** The tensor of a name, to be changed in place. */
  of(name: string): Tensor {
    return this.#values[name];
  }

  /** Copies one tensor's values out. */
  async read(name: string): Promise<Float32Array> {
    return await this.#values[name].read();
  }

  /** Copies on the device. */
  async copies(): Promise<Params> {
    const out: Record<string, Tensor> = {};
    for (const [name, t] of Object.entries(this.#values)) {
      const values = await t.read();
      out[name] = unscoped(() => Tensor.from(t.device, values, t.shape));
    }
    return out;
  }

  /** Frees device memory. */
  dispose(): void {
    disposeAll([this.#values]);
  }
}

/** Settings of {@linkcode AdamW}; PyTorch's names and defaults. */
export interface AdamWOptions {
  /** Decay of the first and second moments. Default 0.9 and 0.999. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment. Default 1e-8. */
  readonly eps?: number;
  /** Decoupled: weights shrink by lr · weightDecay per step. Default 0. */
  readonly weightDecay?: number;
}

/** AdamW (decoupled weight decay), as PyTorch computes it. */
export class AdamW {
  /** First moments. */
  readonly m: OptimizerState;
  /** Second moments. */
  readonly v: OptimizerState;
  /** f32 masters of weights stored as f16. */
  readonly masters: OptimizerState;
  /** The largest sizes of masters, block by block, since they were last rounded; null where all weights are f32. */
  readonly sizes: Tensor | null;
  /** Updates done so far. */
  steps: number;
  readonly #options: Required<AdamWOptions>;
  /** First entry of each master in `sizes`. */
  readonly #at = new Map<string, number>();

  /**
   * Moments start at zero, or resume from a saved state.
   *
   * @param masters Values of the weights that are stored as f16.
   * @throws {RangeError} If the values of such a weight are missing.
   */
  constructor(
    params: Params,
    options: AdamWOptions = {},
    state?: {
      readonly steps: number;
      readonly m: Record<string, Float32Array>;
      readonly v: Record<string, Float32Array>;
    },
    masters: Readonly<Record<string, Float32Array>> = {},
  ) {
    const halves = Object.entries(params).filter(([, p]) => p.dtype === "f16");
    let blocks = 0;
    for (const [name, p] of halves) {
      if (!masters[name]) {
        throw new RangeError(`AdamW: ${name} is f16 and has no master: give its f32 values`);
      }
      this.#at.set(name, blocks);
      blocks += Math.ceil(p.size / HALF_BLOCK);
    }
    this.masters = new OptimizerState(Object.fromEntries(halves), masters);
    this.sizes = blocks === 0 ? null : unscoped(() => full(halves[0][1].device, [blocks], 0));
    this.m = new OptimizerState(params, state?.m);
    this.v = new OptimizerState(params, state?.v);
    this.steps = state?.steps ?? 0;
    this.#options = {
      betas: options.betas ?? [0.9, 0.999],
      eps: options.eps ?? 1e-8,
      weightDecay: options.weightDecay ?? 0,
    };
  }

  /** One update in place. `scale` multiplies the gradients (clipping). Weights stored as f16 are rounded from their masters. */
  step(params: Params, grads: Params, lr: number, scale = 1): Promise<void> {
    const { betas: [beta1, beta2], eps, weightDecay } = this.#options;
    const t = ++this.steps, bias1 = 1 - beta1 ** t, bias2 = 1 - beta2 ** t;
    const rest1 = 1 - beta1, rest2 = 1 - beta2;
    const scalars = { lr, beta1, rest1, beta2, rest2, eps, decay: weightDecay, bias1, bias2, scale };
    const flat = (x: Tensor) => x.reshape([x.size]);
    for (const [name, p] of Object.entries(params)) {
      const at = this.#at.get(name);
      scope(() => {
        const parameters = flat(at === undefined ? p : this.masters.of(name));
        const state = { m: flat(this.m.of(name)), v: flat(this.v.of(name)) };
        launch(adamwKernel, { gradient: flat(grads[name]) }, scalars, { parameters, ...state });
        if (at !== undefined) {
          launch(toHalf, { x: parameters }, { at }, { y: flat(p), largest: this.sizes });
        }
      });
    }
    return Promise.resolve();
  }

  /** A weight in f32: its master, where it is stored as f16. */
  async weight(params: Params, name: string): Promise<Float32Array> {
    return await (this.masters.has(name) ? this.masters.read(name) : params[name].read());
  }

  /** The first master that f16 cannot hold, with its size, from the values of `sizes`. */
  beyondHalf(values: Float32Array): string | undefined {
    const bad = values.findIndex((size) => !(size <= LARGEST_HALF));
    if (bad < 0) return undefined;
    const [name] = [...this.#at].findLast(([, at]) => at <= bad)!;
    return `${name} reached ${values[bad]}`;
  }

  /** Frees device memory. */
  dispose(): void {
    this.m.dispose();
    this.v.dispose();
    this.masters.dispose();
    this.sizes?.dispose();
  }
}

/**
 * AdamW for a parameter record.
 *
 * @example
 * ```ts
 * import { adamw, ema, openDevice, ops, Tensor, valueAndGrad } from "../../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const params = { w: Tensor.from(device, Float32Array.of(3)) };
 * const optimizer = adamw(params), average = await ema(params, 0.9);
 * const { grads } = valueAndGrad((p: typeof params) => ops.mul(p.w, p.w))(params);
 * await optimizer.step(params, grads, 0.1); // learning rate 0.1
 * await average.update(params);
 * console.assert(Math.abs((await params.w.read())[0] - 2.9) < 1e-6);
 * device.close();
 * ```
 */
export const adamw = (params: Params, options: AdamWOptions = {}): AdamW => new AdamW(params, options);

/** Sums of squares of tensors, still on the device. */
export interface SquareSums {
  /** Names in order. */
  readonly names: readonly string[];
  /** First entry of each name in `partial`, and the end. */
  readonly offsets: readonly number[];
  /** Sums in f32 over 4096 elements each. */
  readonly partial: Tensor;
}

/** Starts the sums of squares of all gradients: one tensor, so that reading it is one wait. */
export function squareSums(grads: Params): SquareSums {
  const names = Object.keys(grads), offsets = [0];
  const partial = scope(() =>
    concat(
      names.map((name) => {
        const g = grads[name], N = Math.ceil(g.size / SQUARE_SUM_BLOCK);
        offsets.push(offsets.at(-1)! + N);
        return launch(squareSum, { x: g.reshape([g.size]) }, { N }).y;
      }),
      0,
    )
  );
  return { names, offsets, partial };
}

/** L2 norms of each gradient, from the values of {@linkcode squareSums}: added up in double precision. */
export function normsOf(sums: SquareSums, values: Float32Array): Map<string, number> {
  return new Map(sums.names.map((name, i) => {
    const own = values.subarray(sums.offsets[i], sums.offsets[i + 1]);
    return [name, Math.sqrt(own.reduce((a, b) => a + b, 0))];
  }));
}

/** L2 norm of all gradients together. */
export async function gradientNorm(grads: Params): Promise<number> {
  const sums = squareSums(grads);
  const norms = normsOf(sums, await sums.partial.read());
  sums.partial.dispose();
  return Math.hypot(...norms.values());
}

/** The factor of `clip_grad_norm_`: min(1, maxNorm / (norm + 1e-6)). */
export const clipFactor = (norm: number, maxNorm: number): number => Math.min(1, maxNorm / (norm + 1e-6));

/** Exponential moving average of weights: shadow ← decay · shadow + (1 - decay) · p, starting from the weights. */
export class Ema {
  /** The averages. */
  readonly shadow: OptimizerState;
  readonly #decay: number;

  private constructor(shadow: OptimizerState, decay: number) {
    this.shadow = shadow;
    this.#decay = decay;
  }

  /**
   * Starts from the weights, or resumes from saved averages.
   *
   * @param optimizer Whose masters stand for the weights that are stored as f16.
   */
  static async start(
    params: Params,
    decay: number,
    saved?: Record<string, Float32Array>,
    optimizer?: AdamW,
  ): Promise<Ema> {
    const read = (name: string) => optimizer?.weight(params, name) ?? params[name].read();
    const initial = saved ?? Object.fromEntries(
      await Promise.all(Object.keys(params).map(async (name) => [name, await read(name)] as const)),
    );
    return new Ema(new OptimizerState(params, initial), decay);
  }

  /** One update, after the optimizer's, whose masters stand for the weights that are stored as f16. */
  update(params: Params, optimizer?: AdamW): Promise<void> {
    for (const [name, p] of Object.entries(params)) {
      const weights = optimizer?.masters.has(name) ? optimizer.masters.of(name) : p;
      scope(() => accumulate(this.shadow.of(name), weights, 1 - this.#decay, this.#decay));
    }
    return Promise.resolve();
  }

  /** Copies of the averages on the device; the caller disposes of them. */
  async params(): Promise<Params> {
    return await this.shadow.copies();
  }

  /** Frees device memory. */
  dispose(): void {
    this.shadow.dispose();
  }
}

/** Exponential moving average of a parameter record, starting from its values; `update` follows each optimizer step. */
export const ema = (params: Params, decay: number): Promise<Ema> => Ema.start(params, decay);
