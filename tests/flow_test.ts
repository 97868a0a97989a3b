/**
 * What is random about a training step, as distributions: shares, moments and Kolmogorov-Smirnov distances of large draws
 * with fixed keys, within bounds that follow from the number of values. And the loss on numbers that a reader can check.
 */
import { assert, assertAlmostEquals, assertEquals, assertLess } from "@std/assert";
import { drawNoise, flowMatchingLoss, mixNoise, type NoiseDraw, noiseDraw } from "../lib/far/flow.ts";
import { streamOf } from "../lib/random.ts";
import { Tensor } from "../lib/tensor.ts";
import { drawStretch } from "../lib/train/far_loss.ts";
import { testOnDevices } from "./helpers.ts";

/** Standard errors that a correct draw may be off: one of 150,000 draws is further away by chance. */
const ERRORS = 4.5;

const mean = (x: ArrayLike<number>) => Array.from(x).reduce((a, b) => a + b, 0) / x.length;

function assertShare(found: number, expected: number, count: number, what: string): void {
  const bound = ERRORS * Math.sqrt(expected * (1 - expected) / count);
  assert(Math.abs(found - expected) <= bound, `${what}: found ${found}, expected ${expected} ± ${bound}`);
}

/** Pearson's correlation. */
function correlation(x: ArrayLike<number>, y: ArrayLike<number>): number {
  const mx = mean(x), my = mean(y);
  let xy = 0, xx = 0, yy = 0;
  for (let i = 0; i < x.length; i++) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) ** 2;
    yy += (y[i] - my) ** 2;
  }
  return xy / Math.sqrt(xx * yy);
}

/** Normal distribution function (Abramowitz and Stegun 7.1.26: within 1.5e-7). */
function normalCdf(x: number): number {
  const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
  const series = t *
    (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const upper = series * Math.exp(-z * z) / 2;
  return x < 0 ? upper : 1 - upper;
}

/** Largest distance between the distribution of values and a distribution function. */
function ksDistance(values: ArrayLike<number>, cdf: (x: number) => number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted.reduce((worst, x, i) => {
    const expected = cdf(x);
    return Math.max(
      worst,
      Math.abs(expected - i / sorted.length),
      Math.abs(expected - (i + 1) / sorted.length),
    );
  }, 0);
}

/** Kolmogorov's bound: one of 5,000 samples of n values is further away by chance. */
const ksBound = (n: number) => 2.15 / Math.sqrt(n);

const noisy = ({ timesteps }: NoiseDraw) => timesteps.filter((t) => t !== -1);

Deno.test("the share of clean frames is the ratio that is asked for, 0.1 unless given", () => {
  const shape = [500, 16, 1, 1, 1], count = 8000;
  for (const [options, ratio] of [[{}, 0.1], [{ cleanContextRatio: 0.3 }, 0.3]] as const) {
    const { timesteps, sigmas, weights } = drawNoise(shape, streamOf(1, "clean frames"), options);
    assertShare(timesteps.filter((t) => t === -1).length / count, ratio, count, "clean frames");
    timesteps.forEach((t, i) => assertEquals([sigmas[i] === 0, weights[i] === 0], [t === -1, t === -1]));
    // Frames are drawn one by one: a clip's clean frames have the variance of a binomial number.
    const perClip = Array.from(
      { length: 500 },
      (_, b) => timesteps.subarray(16 * b, 16 * b + 16).filter((t) => t === -1).length,
    );
    const variance = mean(perClip.map((n) => (n - 16 * ratio) ** 2)), expected = 16 * ratio * (1 - ratio);
    assertLess(Math.abs(variance / expected - 1), ERRORS * Math.sqrt(2.5 / 500));
  }
  assertEquals(drawNoise(shape, streamOf(1, "x"), { cleanContextRatio: 0 }).timesteps.includes(-1), false);
});

Deno.test("uniform noise levels fill all of 0 to 1000 evenly", () => {
  const levels = noisy(drawNoise([500, 16, 1, 1, 1], streamOf(2, "levels"), { weighting: "uniform" }));
  // The 1000 levels are steps of 0.001 in the distribution function.
  assertLess(ksDistance(levels, (t) => t / 1000), ksBound(levels.length) + 0.001);
  assertLess(Math.abs(mean(levels) - 500.5), ERRORS * 1000 / Math.sqrt(12 * levels.length));
});

Deno.test("logit-normal noise levels: the logit of the level is a standard normal number", () => {
  const levels = noisy(drawNoise([500, 16, 1, 1, 1], streamOf(3, "levels")));
  const cdf = (t: number) => t >= 1000 ? 1 : normalCdf(Math.log(t / (1000 - t)));
  // The density of the levels is at most 1.6 at 0.5: a step of 0.001 is at most 0.0016 in the distribution function.
  assertLess(ksDistance(levels, cdf), ksBound(levels.length) + 0.002);
  // Quantiles of the logit-normal distribution: a sixth of a normal sample is below -0.967.
  for (const [z, share] of [[-0.9674, 1 / 6], [0, 1 / 2], [0.9674, 5 / 6]]) {
    const bound = 1000 / (1 + Math.exp(-z)), below = levels.filter((t) => t < bound).length / levels.length;
    assertLess(Math.abs(below - share), ERRORS * Math.sqrt(share * (1 - share) / levels.length) + 0.002);
  }
});

Deno.test("every frame has its own noise level; the Video DiT baseline has one per clip", () => {
  const shape = [300, 8, 1, 1, 1],
    of = (levelPerClip: boolean) =>
      drawNoise(shape, streamOf(4, "levels"), { levelPerClip, weighting: "uniform", cleanContextRatio: 0 })
        .timesteps;
  const own = of(false), shared = of(true);
  const at = (t: Float32Array, f: number) => Array.from({ length: 300 }, (_, b) => t[8 * b + f]);
  assertLess(Math.abs(correlation(at(own, 0), at(own, 1))), ERRORS / Math.sqrt(300));
  for (let b = 0; b < 300; b++) assertEquals(new Set(shared.subarray(8 * b, 8 * b + 8)).size, 1);
  assert(new Set(shared).size > 200);
  assertLess(ksDistance(at(shared, 0), (t) => t / 1000), ksBound(300) + 0.001);
});

Deno.test("noise is standard normal, independent between places, steps and noise levels", () => {
  const shape = [4, 8, 8, 8, 8],
    [first, second] = [0, 1].map((step) => drawNoise(shape, streamOf(5, `step ${step}`)));
  const x = first.noise, n = x.length, m = mean(x);
  assertLess(Math.abs(m), ERRORS / Math.sqrt(n));
  assertLess(Math.abs(mean(x.map((v) => v ** 2)) - 1), ERRORS * Math.sqrt(2 / n));
  assertLess(Math.abs(mean(x.map((v) => v ** 3))), ERRORS * Math.sqrt(15 / n));
  assertLess(Math.abs(mean(x.map((v) => v ** 4)) - 3), ERRORS * Math.sqrt(96 / n));
  assertLess(ksDistance(x, normalCdf), ksBound(n));
  for (const lag of [1, 8, 512, 4096]) { // the next pixel, row, frame and clip
    assertLess(Math.abs(correlation(x.subarray(lag), x.subarray(0, n - lag))), ERRORS / Math.sqrt(n - lag));
  }
  assertLess(Math.abs(correlation(x, second.noise)), ERRORS / Math.sqrt(n));
  const frame = (d: NoiseDraw) => Array.from(d.timesteps, (_, i) => d.noise[512 * i]);
  const many = drawNoise([500, 8, 1, 1, 1], streamOf(6, "step 0"), { cleanContextRatio: 0 });
  assertLess(Math.abs(correlation(many.noise, many.timesteps)), ERRORS / Math.sqrt(4000));
  assertEquals(frame(first), frame(drawNoise(shape, streamOf(5, "step 0")))); // a function of the key
});

Deno.test("long-term frames are clean and without noise; only short-term frames count in the loss", () => {
  const { timesteps, noise, weights } = drawNoise([50, 6, 2, 1, 1], streamOf(7, "x"), {
    longTerm: 2,
    shortTerm: 3,
  });
  for (let i = 0; i < 300; i++) {
    const f = i % 6;
    if (f < 2) assertEquals([timesteps[i], noise[2 * i], noise[2 * i + 1]], [-1, 0, 0]);
    else assert(noise[2 * i] !== 0);
    assertEquals(weights[i] > 0, f >= 3 && timesteps[i] !== -1);
  }
});

Deno.test("a clip's noisy frames share its weight, and all clips weigh the same", () => {
  const clean = [0, 1, 0, 0, 1, 1, 1, 1], u = new Float32Array(8).fill(0.5);
  const { weights } = noiseDraw([2, 4, 1, 1, 1], { noise: new Float32Array(8), u, clean });
  [1 / 6, 0, 1 / 6, 1 / 6, 0, 0, 0, 0].forEach((w, i) => assertAlmostEquals(weights[i], w, 1e-7));
});

Deno.test("clips with clean frames first: all numbers of them are as likely, and the last frame is noisy", () => {
  const B = 2000, cleanFirst = Array.from({ length: B }, (_, b) => b % 2 === 0);
  const { timesteps } = drawNoise([B, 5, 1, 1, 1], streamOf(8, "x"), { longTerm: 1, cleanFirst });
  const counts = [0, 0, 0, 0];
  for (let b = 0; b < B; b += 2) {
    const clean = Array.from(timesteps.subarray(5 * b, 5 * b + 5), (t) => t === -1),
      first = clean.indexOf(false);
    assert(first >= 1 && clean.every((c, f) => c === f < first), `${clean}`);
    counts[first - 1]++;
  }
  counts.forEach((n, i) => assertShare(n / (B / 2), 1 / 4, B / 2, `${i + 1} clean frames`));
});

Deno.test("stretches: every length from the window to one less than all is as likely, and so is every start", () => {
  const lengths = new Map<number, number>(), starts = new Map<number, number>(), count = 6000;
  for (let step = 0; step < count; step++) {
    const stretch = drawStretch(9, 4, streamOf(9, `step ${step}`));
    lengths.set(stretch.count, (lengths.get(stretch.count) ?? 0) + 1);
    if (stretch.count === 4) starts.set(stretch.start, (starts.get(stretch.start) ?? 0) + 1);
  }
  assertEquals([...lengths.keys()].sort(), [4, 5, 6, 7, 8]);
  for (const [length, n] of lengths) assertShare(n / count, 1 / 5, count, `${length} frames`);
  assertEquals([...starts.keys()].sort(), [0, 1, 2, 3, 4, 5]);
  const fours = lengths.get(4)!;
  for (const [start, n] of starts) assertShare(n / fours, 1 / 6, fours, `from frame ${start}`);
});

/** Two frames of two values: one at noise level 0.25, one clean. */
const HAND = noiseDraw([1, 2, 1, 1, 2], {
  noise: Float32Array.of(8, -4, 1, 1),
  u: Float32Array.of(0.75, 0.5),
  clean: [0, 1],
});

testOnDevices("noise is mixed in by its level; clean frames stay", async (device) => {
  const latents = Tensor.from(device, Float32Array.of(4, 2, 3, 5), [1, 2, 1, 1, 2]);
  using mixed = mixNoise(latents, HAND);
  assertEquals([...HAND.timesteps], [250, -1]);
  assertEquals([...await mixed.read()], [5, 0.5, 3, 5]); // 0.25 · 8 + 0.75 · 4, 0.25 · -4 + 0.75 · 2
  latents.dispose();
});

testOnDevices("the loss compares with noise minus latents, on noisy frames alone", async (device) => {
  const latents = Tensor.from(device, Float32Array.of(4, 2, 3, 5), [1, 2, 1, 1, 2]);
  const given = (...values: number[]) => (noisy: Tensor) =>
    Tensor.from(device, Float32Array.from(values), noisy.shape);
  const loss = async (velocity: (noisy: Tensor) => Tensor) =>
    (await flowMatchingLoss(velocity, latents, HAND).read()).reduce((a, b) => a + b, 0);
  assertEquals(await loss(given(4, -6, 100, 100)), 0); // 8 - 4 and -4 - 2; the clean frame does not matter
  assertAlmostEquals(await loss(given(5, -4, 0, 0)), 2.5, 1e-6); // (1² + 2²) / 2
  let seen: number[] = [];
  flowMatchingLoss((noisy, timesteps) => (seen = [...timesteps], noisy), latents, HAND);
  assertEquals(seen, [250, -1]);
});
