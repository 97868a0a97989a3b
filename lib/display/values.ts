/**
 * Numbers in a notebook: latents by channel, tensors as histograms, masks as pictures.
 *
 * @module
 */
import type { Mask } from "../ops.ts";
import { html, raw } from "./html.ts";
import { rangeText } from "../tensor_text.ts";
import { diverging, picture, pictureBundle, type Rgb } from "./pixels.ts";
import type { MediaBundle } from "./showing.ts";

/** Latent frames beside each other, and channels below each other. */
const MOST_COLUMNS = 16, MOST_CHANNELS = 16;

const WHITE: Rgb = [255, 255, 255];

/** At most `most` of the numbers 0 to `count` - 1, evenly spaced. */
const some = (count: number, most: number) =>
  Array.from({ length: Math.min(count, most) }, (_, i) => Math.floor(i * count / Math.min(count, most)));

/**
 * Latents: a column per frame and a row per channel, blue for negative, red for positive numbers, darkest from three times
 * the root mean square. Of many frames or channels evenly spaced ones are shown.
 */
export function latentsBundle(latents: {
  readonly values: Float32Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}): MediaBundle {
  const { values, channels: C, height: H, width: W } = latents, size = C * H * W, F = values.length / size;
  const text = `latents [${[F, C, H, W].join(", ")}], ${rangeText(values)}`;
  if (values.length === 0) return { "text/plain": text };
  const columns = some(F, MOST_COLUMNS), rows = some(C, MOST_CHANNELS);
  const rms = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length) || 1;
  const scale = Math.max(1, Math.floor(32 / Math.max(H, W)));
  const colour = (y: number, x: number) => {
    const [f, c, row, column] = [Math.floor(x / (W + 1)), Math.floor(y / (H + 1)), y % (H + 1), x % (W + 1)];
    if (row === H || column === W) return WHITE; // the gap between two
    return diverging(values[columns[f] * size + (rows[c] * H + row) * W + column] / (3 * rms));
  };
  return pictureBundle(picture(rows.length * (H + 1), columns.length * (W + 1), colour, scale), text);
}

/**
 * A mask: a row per query and a column per key, dark where the query sees the key. Under temporal decay, the lighter the
 * less a key counts.
 */
export function maskBundle({ ranges, keys, visible, decay }: Mask): MediaBundle {
  const queries = ranges.length / 4, count = (n: number, word: string) => `${n} ${word}`;
  const text = `mask of ${count(queries, "queries")} and ${count(keys, "keys")}: a query sees ${
    Number(visible.toFixed(1))
  } keys on average${decay ? `, temporal decay ${decay.slope}` : ""}`;
  if (queries === 0 || keys === 0) return { "text/plain": text };
  const colour = (q: number, k: number): Rgb => {
    const [a, b, c, d] = ranges.subarray(4 * q, 4 * q + 4);
    if (!((k >= a && k < b) || (k >= c && k < d))) return [235, 235, 235];
    const bias = decay ? decay.slope * (decay.keyFrames[k] - decay.queryFrames[q]) : 0;
    const shade = Math.exp(Math.min(0, bias)); // 1 where nothing decays
    return [0, 114, 178].map((dark) => Math.round(200 + (dark - 200) * shade)) as unknown as Rgb;
  };
  return pictureBundle(picture(queries, keys, colour), text);
}

const BINS = 48, WIDTH = 384, HEIGHT = 96;

/** Counts of the finite values between the smallest and the largest. */
export function histogram(values: ArrayLike<number>, bins = BINS): Uint32Array {
  const counts = new Uint32Array(bins);
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) continue;
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
  }
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) continue;
    const at = high > low ? Math.floor(bins * (values[i] - low) / (high - low)) : 0;
    counts[Math.min(bins - 1, at)]++;
  }
  return counts;
}

/**
 * A tensor: its line of text with the range of its values, and their histogram.
 *
 * @param name Shape, type and device.
 */
export function tensorBundle(name: string, values: ArrayLike<number>): MediaBundle {
  const text = `${name}, ${rangeText(values)}`;
  if (values.length === 0) return { "text/plain": text };
  const counts = histogram(values), most = Math.max(...counts, 1), width = WIDTH / BINS;
  const bars = Array.from(counts, (count, i) => {
    const height = HEIGHT * count / most;
    return `<rect x="${i * width}" y="${(HEIGHT - height).toFixed(2)}" width="${width - 1}" height="${
      height.toFixed(2)
    }"/>`;
  });
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" ` +
    `height="${HEIGHT}" fill="#0072b2" role="img" aria-label="histogram">${bars.join("")}</svg>`;
  return { "text/html": html`<div>${text}<br>${raw(svg)}</div>`.text, "text/plain": text };
}
