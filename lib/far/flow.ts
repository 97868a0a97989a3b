/**
 * The flow-matching schedule: noise levels of training and of Euler sampling (paper, section 3.1).
 *
 * @module
 */

const TRAIN_STEPS = 1000;

/** Noise levels and timesteps of one sampling run. */
export interface Schedule {
  /** `[K]` timesteps given to the model, f32(sigma · 1000). */
  readonly timesteps: Float32Array;
  /** `[K + 1]` noise levels; the last is 0. The one before is 0.001, not 1/K. */
  readonly sigmas: Float32Array;
}

/**
 * Noise levels of K Euler steps: 1000 … 1 in equal steps, divided by 1000, then 0.
 *
 * @throws {RangeError} If K is not a positive integer.
 */
export function eulerSchedule(steps: number): Schedule {
  if (!Number.isInteger(steps) || steps < 1) {
    throw new RangeError(`eulerSchedule: steps is ${steps}, expected a positive integer`);
  }
  const sigmas = new Float32Array(steps + 1);
  const step = steps === 1 ? 0 : (1 - TRAIN_STEPS) / (steps - 1);
  for (let i = 0; i < steps; i++) {
    const t = i === steps - 1 && steps > 1 ? 1 : TRAIN_STEPS + i * step;
    sigmas[i] = t / TRAIN_STEPS;
  }
  const timesteps = Float32Array.from(sigmas.subarray(0, steps), (s) => Math.fround(s * TRAIN_STEPS));
  return { timesteps, sigmas };
}

/** The step of x at Euler step i: Δσ = σ(i+1) - σ(i), in f32. x ← x + Δσ·v. */
export function eulerDelta(schedule: Schedule, i: number): number {
  return Math.fround(schedule.sigmas[i + 1] - schedule.sigmas[i]);
}

/** Training timesteps `[1000]`, index 0 the noisiest: f32(f32((1000 - i)/1000) · 1000). */
export function trainTimesteps(): Float32Array {
  return trainSigmas().map((s) => Math.fround(s * TRAIN_STEPS));
}

/** Training noise levels `[1000]`: f32((1000 - i)/1000). */
export function trainSigmas(): Float32Array {
  return Float32Array.from({ length: TRAIN_STEPS }, (_, i) => (TRAIN_STEPS - i) / TRAIN_STEPS);
}
