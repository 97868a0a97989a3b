/**
 * Rotary position embedding over (frame, row, column), and the ways to stretch its frame axis at test time.
 *
 * @module
 */

/** Extension of the frame axis beyond the training length. */
export type RopeExtension = "none" | "interpolation" | "ntk" | "yarn" | "riflex";

/** Settings of {@linkcode ropeFrequencies}. */
export interface RopeOptions {
  /** Base of the frequencies; default 10000. */
  readonly theta?: number;
  /** Default `none`. */
  readonly extension?: RopeExtension;
  /** Frames of training. */
  readonly trainLength?: number;
  /** Frames of the test. */
  readonly testLength?: number;
}

/**
 * Angular frequencies of one axis, in f64: theta^(-2j/dim) for j = 0 … dim/2-1, extended as asked.
 *
 * Interpolation divides by s = test/train length; NTK raises theta by s^(dim/(dim-2)); YaRN mixes both by parts
 * (beta 32 and 1, no attention temperature); RIFLEx lowers the one frequency whose period is nearest to the training
 * length so that the test length stays within 0.9 of a period (f32 as in its own code).
 *
 * @param dim Channels of the axis, even.
 * @throws {RangeError} If an extension has no lengths.
 */
export function ropeFrequencies(dim: number, options: RopeOptions = {}): Float64Array {
  const { theta = 10000, extension = "none", trainLength, testLength } = options;
  const plain = (base: number) => Float64Array.from({ length: dim / 2 }, (_, j) => 1 / base ** (2 * j / dim));
  if (extension === "none") return plain(theta);
  if (!trainLength || !testLength) {
    throw new RangeError(
      `ropeFrequencies: ${extension} needs trainLength and testLength, found ${trainLength} and ${testLength}`,
    );
  }
  const s = testLength / trainLength;
  if (extension === "interpolation") return plain(theta).map((f) => f / s);
  if (extension === "ntk") return plain(theta * s ** (dim / (dim - 2)));
  if (extension === "yarn") {
    const { low, high } = yarnRange(dim, theta, trainLength);
    return plain(theta).map((f, j) => {
      const ramp = Math.min(1, Math.max(0, (j - low) / (high - low)));
      return f / s * ramp + f * (1 - ramp);
    });
  }
  const { k } = riflexComponent(dim, theta, trainLength);
  const f32 = Float64Array.from(Float32Array.from(plain(theta)));
  f32[k - 1] = Math.fround(0.9 * 2 * Math.PI / testLength);
  return f32;
}

/** Components between which YaRN goes from extrapolation to interpolation. */
export function yarnRange(dim: number, theta: number, trainLength: number): { low: number; high: number } {
  const component = (rotations: number) =>
    dim * Math.log(trainLength / (rotations * 2 * Math.PI)) / (2 * Math.log(theta));
  const low = Math.max(Math.floor(component(32)), 0);
  let high = Math.min(Math.ceil(component(1)), dim - 1);
  if (high === low) high = low + 0.001;
  return { low, high };
}

/** RIFLEx's intrinsic component: 1-based index and its period in frames, rounded, nearest to the training length. */
export function riflexComponent(
  dim: number,
  theta: number,
  trainLength: number,
): { k: number; period: number } {
  let k = 1, period = 0, best = Infinity;
  for (let j = 0; j < dim / 2; j++) {
    const n = Math.round(2 * Math.PI * theta ** (2 * j / dim));
    if (Math.abs(n - trainLength) < best) {
      best = Math.abs(n - trainLength);
      k = j + 1;
      period = n;
    }
  }
  return { k, period };
}

/** Cosines and sines of tokens, `[T, headDim/2]` each, f32: one angle for each pair of adjacent channels. */
export interface RopeTable {
  /** Cosines. */
  readonly cos: Float32Array;
  /** Sines. */
  readonly sin: Float32Array;
}

/**
 * Angles of tokens at (frame, row, column), computed in f64 and rounded once, so that they are the same bits everywhere.
 *
 * @param ids `[T, 3]` positions.
 * @param axes Channels of each axis.
 * @param frame Extension of the frame axis.
 */
export function ropeTable(
  ids: ArrayLike<number>,
  axes: readonly [number, number, number],
  frame: RopeOptions = {},
): RopeTable {
  const half = (axes[0] + axes[1] + axes[2]) / 2, tokens = ids.length / 3;
  const frequencies = axes.map((dim, axis) =>
    ropeFrequencies(dim, axis === 0 ? frame : { theta: frame.theta })
  );
  const cos = new Float32Array(tokens * half), sin = new Float32Array(tokens * half);
  for (let t = 0; t < tokens; t++) {
    let at = t * half;
    for (let axis = 0; axis < 3; axis++) {
      for (const f of frequencies[axis]) {
        const angle = ids[3 * t + axis] * f;
        cos[at] = Math.cos(angle);
        sin[at++] = Math.sin(angle);
      }
    }
  }
  return { cos, sin };
}
