/**
 * The learning rate over a run, by the names of the authors' option files (diffusers' `get_scheduler`).
 *
 * @module
 */

/** Learning-rate schedule. */
export interface RateSchedule {
  /** Steps of linear warm-up: step s has lr · min(1, s/warmup), so that step 0 of a warm-up changes nothing. */
  readonly warmup: number;
  /** Decay of the rate after the warm-up, to 0 at step `until`. Default: constant. */
  readonly decay?: { readonly shape: "linear" | "cosine"; readonly until: number };
}

/** Learning-rate factor of a step, from 0 to 1: rises linearly over the warm-up, then stays or falls. */
export function rateFactor(step: number, { warmup, decay }: RateSchedule): number {
  if (step < warmup) return step / warmup;
  if (decay === undefined) return 1;
  const gone = Math.min(1, (step - warmup) / Math.max(1, decay.until - warmup));
  return decay.shape === "linear" ? 1 - gone : (1 + Math.cos(Math.PI * gone)) / 2;
}
