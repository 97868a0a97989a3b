/**
 * Sinusoidal features of diffusion timesteps.
 *
 * @module
 */
import { TIMESTEP_FREQUENCIES } from "./timestep_frequencies.ts";

/** Width of the features. */
export const TIMESTEP_FEATURES: number = 256;

/** Timestep of clean context frames in the short-term window (stochastic clean context; paper, section 3.2). */
export const CLEAN_TIMESTEP: number = -1;

/**
 * Features [cos(t f) | sin(t f)] of timesteps, `[R, 256]`. The product is rounded to f32 as in the authors' code.
 *
 * @param timesteps Raw values 0 … 1000, -1 for clean frames, -2 for clean distant frames of FAR-Long.
 */
export function timestepFeatures(timesteps: ArrayLike<number>): Float32Array {
  const half = TIMESTEP_FREQUENCIES.length, features = new Float32Array(timesteps.length * 2 * half);
  for (let r = 0; r < timesteps.length; r++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(Math.fround(timesteps[r]) * TIMESTEP_FREQUENCIES[i]);
      features[r * 2 * half + i] = Math.cos(angle);
      features[r * 2 * half + half + i] = Math.sin(angle);
    }
  }
  return features;
}
