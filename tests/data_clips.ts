/**
 * Clips, lists and option blocks that tests of data sets write.
 *
 * @module
 */
import { dirname } from "node:path";
import { dataSetOf } from "../lib/data/options.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { writeVideo } from "../lib/io/video_write.ts";

/** Grey frames that get lighter by 8 a frame. */
export function ramp(frames: number, height: number, width: number, from = 16) {
  const out = makeFrames(frames, height, width), size = height * width * 3;
  for (let f = 0; f < frames; f++) out.data.fill(from + 8 * f, f * size, (f + 1) * size);
  return out;
}

export async function video(
  path: string,
  frames: number,
  height = 48,
  width = 64,
  from = 16,
): Promise<string> {
  Deno.mkdirSync(dirname(path), { recursive: true });
  await writeVideo(path, ramp(frames, height, width, from), { fps: 10 });
  return path;
}

export const int64 = (values: number[]) => ({
  shape: [values.length],
  dtype: "I64" as const,
  data: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
});
export const count = (n: number) => Array.from({ length: n }, (_, i) => i % 4);
export const list = (path: string, entries: unknown) => Deno.writeTextFileSync(path, JSON.stringify(entries));
export const grey = (clip: { frames?: { data: Uint8Array } }, f: number, size: number) =>
  clip.frames!.data[f * size];

export const ucf = (data_list: string, data_cfg: object, split = "training", more = {}) =>
  dataSetOf(
    { type: "UCFDataset", data_list, split, data_cfg, batch_size_per_gpu: 2, ...more },
    "datasets.train",
  );
