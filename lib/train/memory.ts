/**
 * Whether a model uses its distant context: its error on frames whose pose only long-term frames have shown, with the whole
 * context and with the short-term window alone.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { FarConfig } from "../far/config.ts";
import { noiseDraw } from "../far/flow.ts";
import type { Params } from "../params.ts";
import { normal, streamOf } from "../random.ts";
import { scope, unscoped } from "../tensor.ts";
import { cutFrames, dropConditions, farLoss, type LossInput, type TrainBatch } from "./far_loss.ts";
import { VALIDATION_SEED } from "./far_objective.ts";

/** Mean squared errors of frames that only the distant context has shown, each sampled from pure noise in one step. */
export interface MemoryLoss {
  /** With all frames before them. */
  readonly whole: number;
  /** With those of the short-term window. */
  readonly window: number;
}

/** Inputs that measure memory on a batch: the same frames and noise with long and with short context. */
export interface MemoryCase {
  /** All frames of the clips. */
  readonly whole: LossInput;
  /** The last frames, as many as the window has. */
  readonly window: LossInput;
  /** Frames whose error is measured. */
  readonly targets: number;
}

/**
 * Frames of a clip's window whose exact pose was seen before the window and not in it. Each follows a clean frame of the
 * window: its first frame is not taken, and of neighbours only the first.
 *
 * @param poses Poses of the clip, `[F, 3]`.
 * @param window Frames of the short-term window.
 */
export function distantFrames(poses: Int32Array, window: number): number[] {
  const frames = poses.length / 3, start = frames - window, found: number[] = [];
  const key = (f: number) => poses.subarray(3 * f, 3 * f + 3).join();
  const before = new Set(Array.from({ length: Math.max(0, start) }, (_, f) => key(f)));
  const inside = new Set<string>();
  for (let f = Math.max(0, start); f < frames; f++) {
    if (f > start && found.at(-1) !== f - 1 && before.has(key(f)) && !inside.has(key(f))) found.push(f);
    inside.add(key(f));
  }
  return found;
}

/**
 * The inputs that measure memory on a batch, or null where its clips have no poses, are no longer than the window, or return
 * to no place.
 *
 * @param position Number of the batch, which decides its noise.
 */
export function memoryCase(model: FarConfig, batch: TrainBatch, position: number): MemoryCase | null {
  const { shape: [B, F, C, H, W], poses } = batch;
  if (poses === undefined || F <= model.window || !model.long) return null;
  const { history: _, ...clips } = batch, key = streamOf(VALIDATION_SEED, `memory ${position}`);
  const clean = new Uint8Array(B * F).fill(1), per = C * H * W;
  for (let b = 0; b < B; b++) {
    const own = poses.subarray(3 * b * F, 3 * (b + 1) * F);
    for (const f of distantFrames(own, model.window)) clean[b * F + f] = 0;
  }
  const targets = clean.reduce((n, c) => n + 1 - c, 0);
  if (targets === 0) return null;
  const noise = new Float32Array(B * F * per);
  clean.forEach((c, i) => c || noise.set(normal(key, per, i * per), i * per));
  const input = (first: number): LossInput => {
    const count = F - first, cut = cutFrames(clips, first, count);
    const part = <T extends Uint8Array | Float32Array>(values: T, size: number): T => {
      const out = new (values.constructor as new (length: number) => T)(B * count * size);
      for (let b = 0; b < B; b++) {
        out.set(values.subarray((b * F + first) * size, (b + 1) * F * size), b * count * size);
      }
      return out;
    };
    const own = part(clean, 1);
    const draw = noiseDraw(cut.shape, {
      noise: part(noise, per),
      u: new Float32Array(B * count),
      clean: own,
    });
    const weights = Float32Array.from(own, (c) => c ? 0 : 1 / targets);
    return {
      config: model,
      shape: cut.shape,
      latents: cut.latents,
      draw: { ...draw, weights },
      conditions: dropConditions(model, cut, key, 0),
    };
  };
  return { whole: input(0), window: input(F - model.window), targets };
}

/** Memory's errors over held-out batches, or null where none of them has a frame to measure. */
export async function memoryLoss(
  device: Device,
  params: Params,
  model: FarConfig,
  batches: readonly TrainBatch[],
): Promise<MemoryLoss | null> {
  const sums = { whole: 0, window: 0 };
  let targets = 0;
  for (const [i, batch] of batches.entries()) {
    const found = memoryCase(model, batch, i);
    if (found === null) continue;
    targets += found.targets;
    for (const context of ["whole", "window"] as const) {
      const loss = unscoped(() => scope(() => farLoss(params, device, found[context])));
      sums[context] += found.targets * (await loss.read()).reduce((a, b) => a + b, 0);
      loss.dispose();
    }
  }
  return targets === 0 ? null : { whole: sums.whole / targets, window: sums.window / targets };
}
