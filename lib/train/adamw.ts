/**
 * AdamW and the exponential moving average of weights.
 *
 * On the cpu device moments and averages live in ordinary memory and pass through the device tensor by tensor, because
 * its shared memory holds at most 4 GiB; on a GPU they stay on the device.
 *
 * @module
 */
import { adamw } from "../../kernels/adamw.ts";
import { SQUARE_SUM_BLOCK, squareSum } from "../../kernels/reduce.ts";
import { accumulate, concat, full, launch } from "../ops.ts";
import type { Params } from "../params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../tensor.ts";

/** A set of tensors like the parameters, on the device or in ordinary memory. */
export class Slots {
  readonly #values: Map<string, Tensor | Float32Array>;
  readonly #shapes: Params;

  /** Zeros, or copies of `initial`, shaped like `params`. */
  constructor(params: Params, initial?: Readonly<Record<string, Float32Array>>) {
    this.#shapes = params;
    this.#values = new Map(
      Object.entries(params).map(([name, t]): [string, Tensor | Float32Array] => {
        const values = initial?.[name];
        if (values && values.length !== t.size) {
          throw new RangeError(`Slots: ${name} has ${values.length} values, expected ${t.size}`);
        }
        if (t.device.info.name === "cpu") return [name, values?.slice() ?? new Float32Array(t.size)];
        return [
          name,
          unscoped(() => values ? Tensor.from(t.device, values, t.shape) : full(t.device, t.shape, 0)),
        ];
      }),
    );
  }

  /** Lends the tensors of one name to `body`, which may change them in place. */
  static async lend(
    name: string,
    slots: readonly Slots[],
    body: (...tensors: Tensor[]) => void,
  ): Promise<void> {
    const lent = slots.map((s) => {
      const value = s.#values.get(name)!, like = s.#shapes[name];
      return value instanceof Tensor ? value : unscoped(() => Tensor.from(like.device, value, like.shape));
    });
    scope(() => body(...lent));
    for (const [i, s] of slots.entries()) {
      if (s.#values.get(name) instanceof Tensor) continue;
      s.#values.set(name, await lent[i].read());
      lent[i].dispose();
    }
  }

  /** Copies one tensor's values out. */
  async read(name: string): Promise<Float32Array> {
    const value = this.#values.get(name)!;
    return value instanceof Tensor ? await value.read() : value;
  }

  /** Copies on the device. */
  async copies(): Promise<Params> {
    const out: Record<string, Tensor> = {};
    for (const [name, like] of Object.entries(this.#shapes)) {
      const values = await this.read(name);
      out[name] = unscoped(() => Tensor.from(like.device, values, like.shape));
    }
    return out;
  }

  /** Gives device memory back. */
  dispose(): void {
    disposeAll([...this.#values.values()]);
  }
}

/** Settings of {@linkcode AdamW}; PyTorch's names and defaults. */
export interface AdamWOptions {
  /** Decay of the first and second moments. Default 0.9 and 0.999. */
  readonly betas?: readonly [number, number];
  /** Added to the root of the second moment. Default 1e-8. */
  readonly eps?: number;
  /** Decoupled: weights shrink by lr · weightDecay a step. Default 0. */
  readonly weightDecay?: number;
}

/** AdamW (decoupled weight decay), as PyTorch computes it. */
export class AdamW {
  /** First and second moments. */
  readonly m: Slots;
  /** See `m`. */
  readonly v: Slots;
  /** Updates done so far. */
  steps: number;
  readonly #options: Required<AdamWOptions>;

  /** Moments start at zero, or go on from a saved state. */
  constructor(
    params: Params,
    options: AdamWOptions = {},
    state?: {
      readonly steps: number;
      readonly m: Record<string, Float32Array>;
      readonly v: Record<string, Float32Array>;
    },
  ) {
    this.m = new Slots(params, state?.m);
    this.v = new Slots(params, state?.v);
    this.steps = state?.steps ?? 0;
    this.#options = {
      betas: options.betas ?? [0.9, 0.999],
      eps: options.eps ?? 1e-8,
      weightDecay: options.weightDecay ?? 0,
    };
  }

  /** One update in place. `scale` multiplies the gradients (clipping, unscaling). */
  async step(params: Params, grads: Params, lr: number, scale = 1): Promise<void> {
    const { betas: [beta1, beta2], eps, weightDecay } = this.#options;
    const t = ++this.steps, bias1 = 1 - beta1 ** t, bias2 = 1 - beta2 ** t;
    const rest1 = 1 - beta1, rest2 = 1 - beta2;
    const scalars = { lr, beta1, rest1, beta2, rest2, eps, decay: weightDecay, bias1, bias2, scale };
    const flat = (x: Tensor) => x.reshape([x.size]);
    for (const [name, p] of Object.entries(params)) {
      await Slots.lend(name, [this.m, this.v], (m, v) => {
        launch(adamw, { gradient: flat(grads[name]) }, scalars, { p: flat(p), m: flat(m), v: flat(v) });
      });
    }
  }

  /** Gives memory back. */
  dispose(): void {
    this.m.dispose();
    this.v.dispose();
  }
}

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
  readonly shadow: Slots;
  readonly #decay: number;

  private constructor(shadow: Slots, decay: number) {
    this.shadow = shadow;
    this.#decay = decay;
  }

  /** Starts from the weights, or goes on from saved averages. */
  static async start(params: Params, decay: number, saved?: Record<string, Float32Array>): Promise<Ema> {
    const initial = saved ?? Object.fromEntries(
      await Promise.all(Object.entries(params).map(async ([name, t]) => [name, await t.read()] as const)),
    );
    return new Ema(new Slots(params, initial), decay);
  }

  /** One update, after the optimiser's. */
  async update(params: Params): Promise<void> {
    for (const [name, p] of Object.entries(params)) {
      await Slots.lend(name, [this.shadow], (s) => accumulate(s, p, 1 - this.#decay, this.#decay));
    }
  }

  /** Copies of the averages on the device, to compute with; the caller disposes of them. */
  async params(): Promise<Params> {
    return await this.shadow.copies();
  }

  /** Gives memory back. */
  dispose(): void {
    this.shadow.dispose();
  }
}
