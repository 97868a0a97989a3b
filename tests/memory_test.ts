/**
 * Training that finds memory: its diagnostic, models that predict clean latents, and pure noise.
 */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { drawNoise, eulerSchedule, eulerWeights, flowMatchingLoss, latentLoss } from "../lib/far/flow.ts";
import { sample } from "../lib/far/sample.ts";
import { far } from "../lib/far/transformer.ts";
import { normal, streamOf } from "../lib/random.ts";
import { scope, Tensor } from "../lib/tensor.ts";
import { distantFrames, memoryCase, memoryLoss } from "../lib/train/memory.ts";
import { farLoss, prepareBatch } from "../lib/train/far_loss.ts";
import { randomParams } from "../lib/params.ts";
import { testOnDevices } from "./helpers.ts";
import { TINY, tinyConfig } from "./train_setup.ts";

const WINDOW = 3;
const LONG = farConfig("FAR_Long", {
  ...TINY,
  short_term_ctx_winsize: WINDOW,
  context_patch_size: 2,
  condition_cfg: { type: "action", num_action_classes: 3 },
});

/** Poses that differ in x. */
const posesOf = (...xs: number[]) => Int32Array.from(xs.flatMap((x) => [x, 0, 0]));

Deno.test("distant frames are those of the window whose pose was seen before it and not in it, no two neighbours", () => {
  assertEquals(distantFrames(posesOf(1, 2, 3, 4, 1, 5), 3), [4]);
  assertEquals(distantFrames(posesOf(1, 2, 3, 2, 1, 3), 3), [4]); // 3 is the window's first, and 5 follows 4
  assertEquals(distantFrames(posesOf(1, 2, 3, 9, 2, 1, 3), 4), [4, 6]);
  assertEquals(distantFrames(posesOf(1, 2, 3, 9, 1, 8, 1), 4), [4]); // 6 was seen in the window
  assertEquals(distantFrames(posesOf(1, 2, 3, 4, 5, 6), 3), []);
  assertEquals(distantFrames(posesOf(1, 1, 1), 3), []);
});

/** Two clips of six frames; the last frame of the first clip and the fifth of the second return to distant poses. */
function returning(seed = 0) {
  const shape = [2, 6, 2, 4, 4] as const;
  return {
    shape,
    latents: normal(streamOf(seed, "clips"), 2 * 6 * 32),
    actions: Int32Array.from({ length: 12 }, (_, i) => i % 3),
    poses: Int32Array.from([...posesOf(1, 2, 3, 4, 5, 1), ...posesOf(1, 2, 3, 7, 2, 8)]),
  };
}

Deno.test("memory is measured on the same frames and noise with the whole context and with the window", () => {
  const batch = returning();
  const { whole, window, targets } = memoryCase(LONG, batch, 0)!;
  assertEquals([targets, whole.shape[1], window.shape[1]], [2, 6, WINDOW]);
  const noisy = (draw: typeof whole.draw) =>
    [...draw.sigmas].flatMap((s, i) => s > 0 ? [[i, s, draw.weights[i]]] : []);
  assertEquals(noisy(whole.draw), [[5, 1, 0.5], [6 + 4, 1, 0.5]]);
  assertEquals(noisy(window.draw), [[2, 1, 0.5], [3 + 1, 1, 0.5]]);
  assertEquals(window.draw.noise.subarray(2 * 32, 3 * 32), whole.draw.noise.subarray(5 * 32, 6 * 32));
  assertEquals(window.latents.subarray(0, 96), batch.latents.subarray(96, 192));
  assertEquals([...(window.conditions.actions as Int32Array)], [0, 1, 2, 0, 1, 2]);
  assertEquals(memoryCase(LONG, { ...batch, poses: undefined }, 0), null);
  assertEquals(
    memoryCase(LONG, { ...batch, poses: Int32Array.from({ length: 36 }, (_, i) => i) }, 0),
    null,
  );
  assertEquals(memoryCase(farConfig("FAR", TINY), batch, 0), null);
});

testOnDevices("memory's error with the window alone does not depend on distant frames", async (device) => {
  const params = randomParams(device, farShapes(LONG), 3);
  const batch = returning(), other = { ...batch, latents: batch.latents.slice() };
  for (const clip of [0, 1]) other.latents.fill(1, clip * 192, clip * 192 + 96); // frames 0 to 2
  const [a, b] = [
    await memoryLoss(device, params, LONG, [batch]),
    await memoryLoss(device, params, LONG, [other]),
  ];
  assertAlmostEquals(a!.window, b!.window, 1e-6);
  assert(Math.abs(a!.whole - b!.whole) > 1e-4, `${a!.whole} and ${b!.whole}`);
  const twice = await memoryLoss(device, params, LONG, [batch, { ...batch, poses: undefined }]);
  assertEquals(twice, a, "a batch without poses changes nothing");
});

Deno.test("pure noise is drawn with its probability, and without it nothing changes", () => {
  const shape = [4, 200, 1, 1, 1], key = streamOf(1, "step 0");
  const at = (pureNoiseRatio?: number) => drawNoise(shape, key, { weighting: "uniform", pureNoiseRatio });
  const pure = ({ sigmas }: ReturnType<typeof at>) => sigmas.filter((s) => s === 1).length;
  assertEquals(at(0), at());
  assert(pure(at(0)) < 10, `${pure(at(0))}`);
  const noisy = at().sigmas.filter((s) => s > 0).length;
  assert(Math.abs(pure(at(0.5)) / noisy - 0.5) < 0.06, `${pure(at(0.5))} of ${noisy}`);
  assertEquals(pure(at(1)), noisy);
  const some = at(0.5), plain = at();
  some.sigmas.forEach((s, i) => assert(s === 1 || s === plain.sigmas[i]));
  const config = tinyConfig(LONG, { objective: { ...tinyConfig(LONG).objective, pureNoiseRatio: 1 } });
  const { draw } = prepareBatch(config, returning(), 0);
  assert(draw.sigmas.every((s) => s === 0 || s === 1), "the objective hands the ratio on");
});

Deno.test("an Euler step from clean latents is that of their velocity, and the last one arrives at them", () => {
  const x = 0.7, clean = -0.4;
  for (const steps of [1, 4, 50]) {
    const schedule = eulerSchedule(steps);
    for (let k = 0; k < steps; k++) {
      const velocity = (x - clean) / schedule.sigmas[k];
      const [a, v] = eulerWeights(schedule, k, "velocity"), [b, c] = eulerWeights(schedule, k, "latents");
      assertAlmostEquals(b * x + c * clean, a * x + v * velocity, 1e-6);
      if (k === steps - 1) assertEquals([b, c], [0, 1]);
    }
  }
});

const CLEAN = { ...LONG, prediction: "latents" } as const;

testOnDevices("a model of clean latents: loss and samples are those of its velocity", async (device) => {
  assertEquals(farConfig("FAR_Long", { prediction: "latents" }).prediction, "latents");
  const params = randomParams(device, farShapes(CLEAN), 5), shape = [2, 6, 2, 4, 4] as const;
  const config = tinyConfig(CLEAN), input = prepareBatch(config, returning(), 0), { draw } = input;
  const shares = await scope(() => farLoss(params, device, input)).read();
  const latents = Tensor.from(device, input.latents, input.shape), per = 32;
  const output = await scope(() => {
    const noisy = input.latents.map((v, i) => {
      const s = draw.sigmas[Math.floor(i / per)];
      return s * draw.noise[i] + (1 - s) * v;
    });
    const { timesteps } = draw;
    return far(params, CLEAN, {
      latents: Tensor.from(device, noisy, input.shape),
      timesteps,
      ...input.conditions,
    });
  }).read();
  draw.weights.forEach((weight, f) => {
    let sum = 0;
    for (let i = f * per; i < (f + 1) * per; i++) sum += (output[i] - input.latents[i]) ** 2;
    assertAlmostEquals(shares[f], weight * sum / per, 1e-4 * (1 + shares[f]));
  });
  // As a velocity, (x_σ - x̂)/σ, each noisy frame's share is 1/σ² times as large.
  const velocity = (noisy: Tensor) =>
    Tensor.from(
      device,
      output.map((v, i) => {
        const f = Math.floor(i / per), s = draw.sigmas[f];
        return s === 0 ? 0 : (s * draw.noise[i] + (1 - s) * input.latents[i] - v) / s;
      }),
      noisy.shape,
    );
  const flow = await scope(() => flowMatchingLoss(velocity, latents, draw)).read();
  flow.forEach((share, f) =>
    assertAlmostEquals(share * draw.sigmas[f] ** 2, shares[f], 1e-3 * (1 + shares[f]))
  );
  const same = await scope(() => latentLoss(() => latents, latents, draw)).read();
  assert(same.every((share) => share === 0));
  latents.dispose();

  const context = normal(streamOf(2, "context"), 2 * 5 * per), actions = new Int32Array(12).fill(1);
  const noise = normal(streamOf(2, "noise"), 2 * per);
  const options = {
    device,
    params,
    config: CLEAN,
    frameShape: [2, 2, 4, 4] as const,
    context,
    predict: 1,
    actions,
    noise,
  };
  const frames = await Array.fromAsync(sample({ ...options, steps: 1 }));
  const expected = await scope(() => {
    const clip = new Float32Array(2 * 6 * per);
    for (const b of [0, 1]) {
      clip.set(context.subarray(b * 5 * per, (b + 1) * 5 * per), b * 6 * per);
      clip.set(noise.subarray(b * per, (b + 1) * per), (b * 6 + 5) * per);
    }
    const timesteps = Float32Array.from({ length: 12 }, (_, i) => i % 6 === 5 ? 1000 : -1);
    return far(params, CLEAN, { latents: Tensor.from(device, clip, shape), timesteps, actions }, {
      output: "last",
    });
  }).read();
  frames[0].latents.forEach((v, i) => assertAlmostEquals(v, expected[i], 1e-4 * (1 + Math.abs(expected[i]))));
});
