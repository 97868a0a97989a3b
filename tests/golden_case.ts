/**
 * Recorded cases: opening, comparing, and what a runner is.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { type FarConfig, farConfig } from "../lib/far/config.ts";
import { toFloat32, toInt32 } from "../lib/io/host.ts";
import { openSafetensors } from "../lib/io/safetensors.ts";
import type { TensorFile } from "../lib/io/tensor_file.ts";
import { loadParams, type ParamOptions, type Params } from "../lib/params.ts";
import { Tensor } from "../lib/tensor.ts";

/** Bounds relative to max(1, the largest absolute expected value of the tensor). */
export const GOLDEN_TOLERANCES = {
  forward: {
    bound: 1e-5,
    why: "the authors' own f32 is 0.6 to 1.4e-6 from f64; a wrong eps or GELU moves 3e-6 to 1e-4",
  },
  rollout: { bound: 5e-5, why: "errors of some 24 forward passes add up" },
  cached: {
    bound: 1e-5,
    why: "the same sums in another order; the authors' cache differs from none by at most 2e-6",
  },
  table: { bound: 2e-7, why: "tables are rounded once from f64, the authors' f32 cos and sin within an ulp" },
  curve: {
    bound: 1e-3,
    why: "AdamW divides by the size of the gradient: rounding of tiny entries moves weights by up to lr",
  },
  metric: { bound: 1e-5, why: "the recorded means were summed in f32" },
  ssim: { bound: 1e-4, why: "f32 variances of flat regions are noise by cancellation" },
  ssimMap: { bound: 2e-3, why: "the same at a single pixel" },
  exact: { bound: 0, why: "the same f32 operations" },
} as const;

/** A recorded case that is open. */
export interface GoldenCase {
  readonly name: string;
  readonly folder: string;
  // deno-lint-ignore no-explicit-any -- recorded by another program; runners look at what they need
  readonly config: any;
  readonly io: TensorFile | null;
}

/** Collects the worst difference of a case. */
export class Differences {
  worst = 0;
  #what = "";

  /** Compares a tensor; `kind` names the row of the tolerance table. */
  check(
    what: string,
    got: ArrayLike<number>,
    want: ArrayLike<number>,
    kind: keyof typeof GOLDEN_TOLERANCES,
  ): void {
    assertEquals(got.length, want.length, `${what}: number of values`);
    let scale = 1, worst = 0;
    for (let i = 0; i < want.length; i++) scale = Math.max(scale, Math.abs(want[i]));
    for (let i = 0; i < want.length; i++) {
      const difference = Math.abs(got[i] - want[i]) / scale;
      if (!(difference <= worst)) worst = Number.isNaN(difference) ? Infinity : difference;
    }
    const { bound } = GOLDEN_TOLERANCES[kind];
    if (worst > bound) {
      throw new Error(`${what}: differs by ${worst} of ${scale}, expected at most ${bound} (${kind})`);
    }
    if (worst >= this.worst) [this.worst, this.#what] = [worst, what];
  }

  /** Compares a difference that is relative already. */
  within(what: string, difference: number, bound: number): void {
    if (!(difference <= bound)) {
      throw new Error(`${what}: differs by ${difference}, expected at most ${bound}`);
    }
    if (difference >= this.worst) [this.worst, this.#what] = [difference, what];
  }

  toString(): string {
    return `${this.worst.toExponential(1)}${this.#what ? ` (${this.#what})` : ""}`;
  }
}

/** A kind of case: how to recognise it, and what to compare. `device` kinds run on every device. */
export interface Runner {
  readonly kind: string;
  readonly device: boolean;
  readonly recognises: (c: GoldenCase) => boolean;
  readonly run: (c: GoldenCase, device: Device, differences: Differences) => Promise<void> | void;
}

/** Shorthand of the runners. */
export const has = (c: GoldenCase, ...names: string[]) => names.every((n) => c.io?.tensors.has(n));
/** Shorthand of the runners. */
export const floats = (c: GoldenCase, name: string) => toFloat32(c.io!.read(name));
/** Shorthand of the runners. */
export const ints = (c: GoldenCase, name: string) => toInt32(c.io!.read(name));
/** Shorthand of the runners. */
export const shapeOf = (c: GoldenCase, name: string) => c.io!.tensors.get(name)!.shape;
/** Shorthand of the runners. */
export const upload = (device: Device, c: GoldenCase, name: string) =>
  Tensor.from(device, floats(c, name), shapeOf(c, name));

/** The model of a FAR case: `FAR` or `FAR_Long` with the recorded configuration. */
export function farOf(c: GoldenCase): FarConfig {
  return farConfig(c.config.model, c.config.config);
}

/** Opens `weights.safetensors` of a case as parameters. */
export function paramsOf(
  device: Device,
  c: GoldenCase,
  shapes: Parameters<typeof loadParams>[2],
  options: ParamOptions = {},
): Params {
  using file = openSafetensors(`${c.folder}/weights.safetensors`);
  return loadParams(device, file, shapes, options);
}
