/**
 * What a prediction leaves behind: videos, a contact sheet, and the numbers.
 *
 * @module
 */
import { type Frames, sliceFrames } from "../lib/io/frames.ts";
import { stampFrames } from "../lib/io/font.ts";
import { writePng } from "../lib/io/image.ts";
import { toPlanes } from "../lib/io/planes.ts";
import { contactSheet, type Labelled, sideBySide } from "../lib/io/sheet.ts";
import { writeFrames, writeVideo } from "../lib/io/video_write.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { mse, ssim } from "../lib/metrics/pixel.ts";

/** The file with settings and results that every result folder has. */
export const RESULT_FILE = "result.json";

/** The ending of videos: `mp4` unless another kind is asked for. */
export const videoEnding = (wanted: "auto" | "mp4" | "gif" | "webm"): string =>
  wanted === "auto" ? "mp4" : wanted;

/** Pixels that the shorter side of a video for viewing has at least. */
const VIEWED = 256;

/** A mean squared error and the PSNR that follows from it. */
export interface FrameScore {
  /** Index in the clip. */
  readonly frame: number;
  readonly mse: number;
  /** 10 log10(1 / mse) in dB; null (infinite) for identical frames. */
  readonly psnr: number | null;
  /** Structural similarity; null for frames below 6 by 6 pixels, which have none. */
  readonly ssim: number | null;
}

/** How {@linkcode scoreFrames} measures, for the result file. */
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

/** Everything to write. */
export interface Pictures {
  /** Context frames as the model was given them, decoded or original. */
  readonly context: Frames;
  /** Predicted frames, one clip a trajectory. */
  readonly predicted: readonly Frames[];
  /** Frames that really followed, as many as there are. */
  readonly truth: Frames;
  readonly fps: number;
  readonly ending: string;
  /** Said on every picture, e.g. that weights were random. */
  readonly stamp?: string;
}

const joined = (parts: readonly Frames[]): Frames => {
  const shown = parts.filter((p) => p.frames > 0), [{ height, width }] = shown;
  const data = new Uint8Array(shown.reduce((n, p) => n + p.data.length, 0));
  shown.reduce((at, p) => (data.set(p.data, at), at + p.data.length), 0);
  return { frames: shown.reduce((n, p) => n + p.frames, 0), height, width, data };
};

/** Writes the pictures into a folder and returns their names. */
export async function writePictures(folder: string, p: Pictures): Promise<string[]> {
  const { fps, ending, stamp, context } = p, names: string[] = [];
  const many = p.predicted.length > 1;
  const name = (i: number) => many ? `prediction_${i}` : "prediction";
  const from = context.frames;
  const clips: Labelled[] = p.predicted.map((frames, i) => ({
    label: many ? `prediction ${i}` : "prediction",
    frames: joined([context, frames]),
    predictedFrom: from,
  }));
  const truth: Labelled[] = p.truth.frames > 0
    ? [{ label: "truth", frames: joined([context, p.truth]) }]
    : [];
  for (const [i, clip] of clips.entries()) {
    // For viewing; a stamp goes below the pixels. The exact ones, of the prediction alone, go beside it.
    const shown = stamp === undefined ? clip.frames : stampFrames(clip.frames, stamp);
    await writeVideo(`${folder}/${name(i)}.${ending}`, shown, { fps, least: VIEWED });
    await writeFrames(`${folder}/${name(i)}.npz`, p.predicted[i]);
    names.push(`${name(i)}.${ending}`, `${name(i)}.npz`);
  }
  if (truth.length > 0) {
    await writeVideo(`${folder}/side_by_side.${ending}`, sideBySide([...truth, ...clips], { stamp }), {
      fps,
      least: VIEWED,
    });
    names.push(`side_by_side.${ending}`);
  }
  const shown = Math.max(0, from - 4);
  const cut = (clip: Labelled): Labelled => ({
    label: clip.label,
    frames: sliceFrames(clip.frames, shown),
    predictedFrom: clip.predictedFrom === undefined ? undefined : clip.predictedFrom - shown,
  });
  await writePng(
    `${folder}/sheet.png`,
    contactSheet([...truth, ...clips].map(cut), { stamp, firstFrame: shown }),
  );
  return [...names, "sheet.png"];
}

/** Writes the result file. */
export async function writeResult(folder: string, result: unknown): Promise<void> {
  await writeAtomic(`${folder}/${RESULT_FILE}`, JSON.stringify(result, null, 2) + "\n");
}
