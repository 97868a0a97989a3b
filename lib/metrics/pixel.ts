/**
 * Scores of a predicted frame against the true one, pixel by pixel: MSE, PSNR and SSIM as torchmetrics computes them and the
 * paper reports them. All sums are in double precision.
 *
 * @module
 */

/** C, H, W of a frame. */
export type FrameShape = readonly [channels: number, height: number, width: number];

function checkFrames(
  who: string,
  predicted: ArrayLike<number>,
  truth: ArrayLike<number>,
  size?: number,
): void {
  const expected = size ?? truth.length;
  if (truth.length !== expected || predicted.length !== expected || expected === 0) {
    throw new RangeError(
      `${who}: expected two frames of ${
        size ?? "as many"
      } values, found ${predicted.length} and ${truth.length}`,
    );
  }
}

/**
 * Mean squared error over channels and pixels.
 *
 * @param predicted A frame, `[C, H, W]`, 0 to 1.
 * @param truth The true frame, in the same layout.
 * @throws {RangeError} If the frames differ in size or are empty.
 */
export function mse(predicted: ArrayLike<number>, truth: ArrayLike<number>): number {
  checkFrames("mse", predicted, truth);
  let sum = 0;
  for (let i = 0; i < truth.length; i++) {
    const difference = predicted[i] - truth[i];
    sum += difference * difference;
  }
  return sum / truth.length;
}

/**
 * Peak signal-to-noise ratio in decibels, 10 log10(1 / MSE); infinite for equal frames.
 *
 * @param predicted A frame, `[C, H, W]`, 0 to 1.
 * @param truth The true frame, in the same layout.
 * @throws {RangeError} If the frames differ in size or are empty.
 *
 * @example
 * ```ts
 * import { psnr } from "./pixel.ts";
 * console.assert(Math.abs(psnr([0.5, 0.5], [0.6, 0.4]) - 20) < 1e-9);
 * ```
 */
export function psnr(predicted: ArrayLike<number>, truth: ArrayLike<number>): number {
  checkFrames("psnr", predicted, truth);
  return 10 * Math.log10(1 / mse(predicted, truth));
}

/** Pixels that the window of {@linkcode ssim} reaches to each side: 11 by 11 in all. */
const REACH = 5;
/** Standard deviation of the Gaussian window, in pixels. */
const SIGMA = 1.5;
/** (0.01 L)² and (0.03 L)² for the data range L = 1. */
const C1 = 0.01 * 0.01, C2 = 0.03 * 0.03;

const WINDOW = (() => {
  const bell = Float64Array.from(
    { length: 2 * REACH + 1 },
    (_, i) => Math.exp(-(((i - REACH) / SIGMA) ** 2) / 2),
  );
  const sum = bell.reduce((a, b) => a + b, 0);
  return bell.map((v) => v / sum);
})();

/** Places -5 to n + 4 of a line of n, mirrored at its ends without repeating the end itself. */
function mirrored(n: number): Int32Array {
  return Int32Array.from({ length: n + 2 * REACH }, (_, i) => {
    const at = Math.abs(i - REACH);
    return at < n ? at : 2 * n - 2 - at;
  });
}

/** The Gaussian mean around every pixel of a plane, `[H, W]`, mirrored beyond its edges. */
class Blur {
  readonly #rows: Int32Array;
  readonly #columns: Int32Array;
  readonly #across: Float64Array;

  constructor(readonly height: number, readonly width: number) {
    this.#rows = mirrored(height);
    this.#columns = mirrored(width);
    this.#across = new Float64Array(height * width);
  }
  mean(plane: Float64Array): Float64Array {
    const { height, width } = this, across = this.#across, out = new Float64Array(height * width);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        let sum = 0;
        for (let k = 0; k <= 2 * REACH; k++) sum += WINDOW[k] * plane[y * width + this.#columns[x + k]];
        across[y * width + x] = sum;
      }
    }
    for (let y = 0; y < height; y++) {
      for (let k = 0; k <= 2 * REACH; k++) {
        const from = this.#rows[y + k] * width, weight = WINDOW[k];
        for (let x = 0; x < width; x++) out[y * width + x] += weight * across[from + x];
      }
    }
    return out;
  }
}

/**
 * Structural similarity at every pixel: Gaussian window of 11 by 11, sigma 1.5, data range 1, mirrored edges, variances
 * not below 0.
 *
 * @param predicted A frame, `[C, H, W]`, 0 to 1.
 * @param truth The true frame, in the same layout.
 * @param shape C, H and W; H and W at least 6.
 * @returns `[C, H, W]`.
 * @throws {RangeError} If the frames are not of that shape, or too small to be mirrored.
 */
export function ssimMap(
  predicted: ArrayLike<number>,
  truth: ArrayLike<number>,
  shape: FrameShape,
): Float64Array {
  const [C, H, W] = shape, size = H * W;
  checkFrames("ssim", predicted, truth, C * size);
  if (H <= REACH || W <= REACH) {
    throw new RangeError(`ssim: expected at least 6 by 6 pixels, found ${H} by ${W}`);
  }
  const blur = new Blur(H, W), map = new Float64Array(C * size);
  for (let c = 0; c < C; c++) {
    const p = Float64Array.from({ length: size }, (_, i) => predicted[c * size + i]);
    const t = Float64Array.from({ length: size }, (_, i) => truth[c * size + i]);
    const meanP = blur.mean(p), meanT = blur.mean(t);
    const meanPP = blur.mean(p.map((v) => v * v)), meanTT = blur.mean(t.map((v) => v * v));
    const meanPT = blur.mean(p.map((v, i) => v * t[i]));
    for (let i = 0; i < size; i++) {
      const pp = meanP[i] * meanP[i], tt = meanT[i] * meanT[i], pt = meanP[i] * meanT[i];
      const varP = Math.max(0, meanPP[i] - pp), varT = Math.max(0, meanTT[i] - tt), cov = meanPT[i] - pt;
      map[c * size + i] = (2 * pt + C1) * (2 * cov + C2) / ((pp + tt + C1) * (varP + varT + C2));
    }
  }
  return map;
}

/**
 * Structural similarity of two frames: the mean of {@linkcode ssimMap} over channels and pixels, 1 for equal frames.
 *
 * @param predicted A frame, `[C, H, W]`, 0 to 1.
 * @param truth The true frame, in the same layout.
 * @param shape C, H and W; H and W at least 6.
 * @throws {RangeError} If the frames are not of that shape, or too small.
 */
export function ssim(predicted: ArrayLike<number>, truth: ArrayLike<number>, shape: FrameShape): number {
  const map = ssimMap(predicted, truth, shape);
  return map.reduce((a, b) => a + b, 0) / map.length;
}

/** Scores of every frame of a clip. */
export interface PixelScores {
  /** `[F]` mean squared errors. */
  readonly mse: Float64Array;
  /** `[F]` decibels. */
  readonly psnr: Float64Array;
  /** `[F]` structural similarities. */
  readonly ssim: Float64Array;
}

/**
 * Scores each frame of a clip.
 *
 * @param predicted Frames, `[F, C, H, W]`, 0 to 1.
 * @param truth The true frames, in the same layout.
 * @param shape C, H and W of a frame.
 * @throws {RangeError} If the clips differ in size or hold no whole number of frames.
 */
export function pixelScores(predicted: Float32Array, truth: Float32Array, shape: FrameShape): PixelScores {
  const [C, H, W] = shape, size = C * H * W, frames = truth.length / size;
  if (!Number.isInteger(frames)) {
    throw new RangeError(`pixelScores: expected frames of [${shape}], found ${truth.length} values`);
  }
  checkFrames("pixelScores", predicted, truth, frames * size);
  const each = (score: (p: Float32Array, t: Float32Array) => number) =>
    Float64Array.from(
      { length: frames },
      (_, f) => score(predicted.subarray(f * size, (f + 1) * size), truth.subarray(f * size, (f + 1) * size)),
    );
  return { mse: each(mse), psnr: each(psnr), ssim: each((p, t) => ssim(p, t, shape)) };
}
