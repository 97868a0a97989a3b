/**
 * Output of a prediction: videos, a contact sheet, and the numbers.
 *
 * @module
 */
import { type Frames, sliceFrames } from "../io/frames.ts";
import { stampFrames } from "../io/font.ts";
import { writePng } from "../io/image.ts";
import { contactSheet, type Labelled, sideBySide } from "../io/sheet.ts";
import { writeFrames, writeVideo } from "../io/video_write.ts";
import { writeAtomic } from "../io/atomic.ts";

/** The file with settings and results that every result folder has. */
export const RESULT_FILE = "result.json";

/** The ending of videos: `mp4` unless another kind is asked for. */
export const videoEnding = (wanted: "auto" | "mp4" | "gif" | "webm"): string =>
  wanted === "auto" ? "mp4" : wanted;

/** Frames per second of videos where nothing says another. */
export const FPS = 10;

/** Pixels that the shorter side of a video for viewing has at least. */
export const VIEWED = 256;

/** Output to write. */
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

/** Names of the files that {@linkcode writePictures} writes. */
export const PICTURE_FILE = /^(prediction(_\d+)?|side_by_side)\.[a-z0-9]+$|^sheet\.png$/;

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
  const predictions = async () => {
    for (const [i, clip] of clips.entries()) {
      // For viewing; a stamp goes below the pixels. The exact ones, of the prediction alone, go beside it.
      const shown = stamp === undefined ? clip.frames : stampFrames(clip.frames, stamp);
      await writeVideo(`${folder}/${name(i)}.${ending}`, shown, { fps, least: VIEWED });
      await writeFrames(`${folder}/${name(i)}.npz`, p.predicted[i]);
    }
  };
  const beside = async () => {
    if (truth.length === 0) return;
    const frames = sideBySide([...truth, ...clips], { stamp });
    await writeVideo(`${folder}/side_by_side.${ending}`, frames, { fps, least: VIEWED });
  };
  await Promise.all([predictions(), beside()]); // each has an encoder of its own
  for (const i of clips.keys()) names.push(`${name(i)}.${ending}`, `${name(i)}.npz`);
  if (truth.length > 0) names.push(`side_by_side.${ending}`);
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
