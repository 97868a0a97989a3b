/**
 * Whether a clip is of the kind that a bundled model was trained on.
 *
 * The autoencoder is asked: frames of its own kind come back well, and their latents are of the size that it was scaled
 * to. Frames of other kinds come back worse or make larger latents. The bounds on the card hold for every window of 1, 4 and 16
 * frames of 60 test walks of either kind of steps (2026-11-21); clips of DMLab and UCF-101 lie outside them. Clips that look alike and behave
 * differently are not told apart, nor are frames of plain colour.
 *
 * @module
 */
import { type Frames, sliceFrames } from "../io/frames.ts";
import type { Card } from "./bundled.ts";

/** Frames that are looked at, spread over the context. */
const LOOKED_AT = 16;

/**
 * Says in one line how a clip differs from those that a model was trained on.
 *
 * @param psnr Of frames that went through the autoencoder, in dB.
 * @param rms Root mean square of their scaled latents.
 * @returns The line for a warning, or undefined where nothing is strange.
 */
export function strangeness(
  { kind: { what, bounds } }: Card,
  name: string,
  psnr: readonly number[],
  rms: number,
): string | undefined {
  const bound = bounds.findLast((b) => psnr.length >= b.frames);
  const median = [...psnr].sort((a, b) => a - b)[Math.floor(psnr.length / 2)];
  if (bound === undefined || (median >= bound.psnr && rms <= bound.rms)) return undefined;
  const found = median < bound.psnr
    ? `its frames come back from the autoencoder with ${
      median.toFixed(1)
    } dB, expected at least ${bound.psnr}`
    : `its latents have a root mean square of ${rms.toFixed(2)}, expected at most ${bound.rms}`;
  return `the clip does not look like what ${name} was trained on, ${what}: ${found}; the prediction will mean little`;
}

/**
 * Looks at some frames of the context.
 *
 * @param latents Scaled latents of all frames of the context, `[F, C, H, W]`.
 * @param decode Scaled latents to colours `[F, H, W, 3]` in [0, 1].
 * @returns One line for a warning, or undefined where nothing is strange.
 */
export async function strangeClip(
  card: Card,
  name: string,
  frames: Frames,
  latents: { readonly values: Float32Array },
  decode: (latents: Float32Array) => Promise<Float32Array>,
): Promise<string | undefined> {
  const count = Math.min(LOOKED_AT, frames.frames);
  if (count === 0) return undefined;
  const chosen = Array.from({ length: count }, (_, i) => Math.floor(i * frames.frames / count));
  const each = latents.values.length / frames.frames, some = new Float32Array(count * each);
  chosen.forEach((f, i) => some.set(latents.values.subarray(f * each, (f + 1) * each), i * each));
  const values = await decode(some), size = frames.height * frames.width * 3;
  const psnr = chosen.map((f, i) => {
    const { data } = sliceFrames(frames, f, f + 1);
    let sum = 0;
    for (let p = 0; p < size; p++) sum += (values[i * size + p] - data[p] / 255) ** 2;
    return 10 * Math.log10(size / Math.max(sum, 1e-9));
  });
  const rms = Math.sqrt(some.reduce((sum, v) => sum + v * v, 0) / some.length);
  return strangeness(card, name, psnr, rms);
}
