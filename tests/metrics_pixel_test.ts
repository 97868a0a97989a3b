import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { mse, pixelScores, psnr, ssim, ssimMap } from "../lib/metrics/pixel.ts";
import { uniform } from "../lib/random.ts";

const random = (count: number, seed: number) =>
  Float32Array.from(uniform({ seed, purpose: "images", stream: 1 }, count));

Deno.test("mse and psnr of known differences", () => {
  assertAlmostEquals(mse([0, 0.5, 1, 1], [0, 0, 0, 1]), 0.3125, 1e-15);
  assertAlmostEquals(psnr([0.5, 0.5], [0.6, 0.4]), 20, 1e-9);
  assertEquals(psnr([0.25], [0.25]), Infinity);
});

Deno.test("ssim is 1 for equal frames, symmetric, and lower the more noise there is", () => {
  const shape = [3, 16, 20] as const, a = random(960, 1), b = random(960, 2);
  const near = a.map((v, i) => 0.9 * v + 0.1 * b[i]);
  assertAlmostEquals(ssim(a, a, shape), 1, 1e-12);
  assertAlmostEquals(ssim(a, b, shape), ssim(b, a, shape), 1e-12);
  assert(ssim(near, a, shape) > 0.9 && ssim(b, a, shape) < 0.3);
});

Deno.test("ssim of flat frames follows the formula, with edges mirrored", () => {
  const flat = (v: number) => new Float32Array(64).fill(v);
  const luminance = (2 * 0.25 * 0.75 + 1e-4) / (0.25 ** 2 + 0.75 ** 2 + 1e-4);
  for (const value of ssimMap(flat(0.25), flat(0.75), [1, 8, 8])) assertAlmostEquals(value, luminance, 1e-12);
});

Deno.test("ssim at a pixel is the sum over its window, written out", () => {
  const H = 9, W = 7, a = random(H * W, 3), b = random(H * W, 4), map = ssimMap(a, b, [1, H, W]);
  const inside = (at: number, n: number) => at < 0 ? -at : at >= n ? 2 * n - 2 - at : at;
  for (const [y, x] of [[0, 0], [4, 3], [8, 6], [1, 5]]) {
    const sums = [0, 0, 0, 0, 0, 0];
    for (let dy = -5; dy <= 5; dy++) {
      for (let dx = -5; dx <= 5; dx++) {
        const w = Math.exp(-(dx * dx + dy * dy) / 4.5), i = inside(y + dy, H) * W + inside(x + dx, W);
        [1, a[i], b[i], a[i] * a[i], b[i] * b[i], a[i] * b[i]].forEach((v, k) => sums[k] += w * v);
      }
    }
    const [, ma, mb, aa, bb, ab] = sums.map((s) => s / sums[0]);
    const expected = (2 * ma * mb + 1e-4) * (2 * (ab - ma * mb) + 9e-4) /
      ((ma * ma + mb * mb + 1e-4) * (aa - ma * ma + bb - mb * mb + 9e-4));
    assertAlmostEquals(map[y * W + x], expected, 1e-12);
  }
});

Deno.test("scores of a clip are those of its frames", () => {
  const shape = [3, 8, 8] as const,
    a = random(2 * 192, 5),
    b = random(2 * 192, 6),
    scores = pixelScores(a, b, shape);
  assertEquals(scores.psnr[1], psnr(a.subarray(192), b.subarray(192)));
  assertEquals(
    [...scores.ssim],
    [0, 192].map((at) => ssim(a.subarray(at, at + 192), b.subarray(at, at + 192), shape)),
  );
});

Deno.test("frames that differ in size or are too small are refused", () => {
  assertThrows(() => mse([0], [0, 1]), RangeError, "found 1 and 2");
  assertThrows(
    () => ssim(new Float32Array(25), new Float32Array(25), [1, 5, 5]),
    RangeError,
    "at least 6 by 6",
  );
  assertThrows(
    () => pixelScores(new Float32Array(100), new Float32Array(100), [3, 8, 8]),
    RangeError,
    "[3,8,8]",
  );
});
