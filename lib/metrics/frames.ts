/**
 * Scores of predicted frames against the truth, frame by frame.
 *
 * @module
 */
import { type Frames, sliceFrames } from "../io/frames.ts";
import { toPlanes } from "../io/planes.ts";
import { mse, ssim } from "./pixel.ts";

/** A mean squared error and the PSNR that follows from it. */
export interface FrameScore {
  /** Index in the clip. */
  readonly frame: number;
  /** Mean squared error. */
  readonly mse: number;
  /** 10 log10(1 / mse) in dB; null (infinite) for identical frames. */
  readonly psnr: number | null;
  /** Structural similarity; null for frames below 6 by 6 pixels, which have none. */
  readonly ssim: number | null;
}

/** Protocol of {@linkcode scoreFrames}, for the result file. */
export const SCORE_PROTOCOL =
  "per frame over all pixels and channels, colours in [0, 1], prediction before rounding to 8 bits, truth as 8 bits / 255, " +
  "no crop; SSIM with a Gaussian window of 11 by 11, sigma 1.5; context frames are not counted";

/**
 * Scores predicted frames against the truth, as many as there is truth for.
 *
 * @param values `[F, H, W, 3]` in [0, 1].
 * @param truth The frames that really followed.
 * @param first Index of the first one in the clip.
 */
export function scoreFrames(values: Float32Array, truth: Frames, first: number): FrameScore[] {
  const { height, width } = truth, size = height * width * 3;
  const count = Math.min(truth.frames, values.length / size), shape = [3, height, width] as const;
  // Values stay as they are: 0 to 255 onto 0 to 255.
  const made = toPlanes({ frames: count, height, width, data: values.subarray(0, count * size) }, [0, 255]);
  const real = toPlanes(sliceFrames(truth, 0, count), [0, 1]);
  return Array.from({ length: count }, (_, f) => {
    const [p, t] = [made, real].map((planes) => planes.subarray(f * size, (f + 1) * size));
    const error = mse(p, t);
    return {
      frame: first + f,
      mse: error,
      psnr: error === 0 ? null : 10 * Math.log10(1 / error),
      ssim: Math.min(height, width) < 6 ? null : ssim(p, t, shape),
    };
  });
}

/** Means of the scores over frames; null where one of them is. The PSNR is the mean of the frames' PSNRs. */
export function meanScore(scores: readonly FrameScore[]): Omit<FrameScore, "frame"> | null {
  if (scores.length === 0) return null;
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const whole = (key: "psnr" | "ssim") =>
    scores.every((s) => s[key] !== null) ? mean(scores.map((s) => s[key]!)) : null;
  return { mse: mean(scores.map((s) => s.mse)), psnr: whole("psnr"), ssim: whole("ssim") };
}
