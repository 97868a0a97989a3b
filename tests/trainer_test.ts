/**
 * The training loop as a library: schedule, accumulation, clean context, dropout, skipping, checkpoints.
 */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { streamOf } from "../lib/random.ts";
import { Tensor } from "../lib/tensor.ts";
import { latestCheckpoint, saveCheckpoint } from "../lib/train/checkpoint.ts";
import { freshValues, initialParams } from "../lib/train/init.ts";
import { cutFrames, drawStretch, dropConditions, prepareBatch } from "../lib/train/far_loss.ts";
import { rateFactor } from "../lib/train/rate.ts";
import { DivergedError } from "../lib/train/trainer.ts";
import { testOnDevices, testOnEverySetting } from "./helpers.ts";
import { openReferenceDevice } from "./reference_device.ts";
import { madeUp, TINY, tinyConfig, tinyTrainer, valuesOf } from "./train_setup.ts";

const LONG = farConfig("FAR_Long", {
  ...TINY,
  short_term_ctx_winsize: 3,
  condition_cfg: { type: "action", num_action_classes: 4 },
});

Deno.test("the learning rate warms up from zero, stays, or falls to zero", () => {
  assertEquals([0, 1, 5, 10, 11].map((s) => rateFactor(s, { warmup: 10 })), [0, 0.1, 0.5, 1, 1]);
  assertEquals(rateFactor(0, { warmup: 0 }), 1);
  const falling = (shape: "linear" | "cosine") => (s: number) =>
    rateFactor(s, { warmup: 10, decay: { shape, until: 50 } });
  assertEquals([5, 10, 20, 30, 50, 60].map(falling("linear")), [0.5, 1, 0.75, 0.5, 0, 0]);
  for (const [s, factor] of [[5, 0.5], [10, 1], [20, (1 + Math.SQRT1_2) / 2], [30, 0.5], [50, 0], [60, 0]]) {
    assertAlmostEquals(falling("cosine")(s), factor, 1e-15);
  }
});

Deno.test("a long-context stretch has window to total - 1 frames and stays inside the clip", () => {
  const seen = new Set<number>(), starts = new Set<number>();
  for (let step = 0; step < 2000; step++) {
    const { start, count } = drawStretch(8, 3, streamOf(5, `step ${step}`));
    assert(count >= 3 && count <= 7 && start >= 0 && start + count <= 8, `${start}, ${count}`);
    seen.add(count);
    if (count === 3) starts.add(start);
  }
  assertEquals([...seen].sort(), [3, 4, 5, 6, 7]);
  assertEquals([...starts].sort(), [0, 1, 2, 3, 4, 5]);
  assertEquals(drawStretch(3, 3, streamOf(5, "step 0")), { start: 0, count: 3 });
});

Deno.test("cutting frames keeps latents and actions together", () => {
  const latents = Float32Array.from({ length: 2 * 4 * 2 }, (_, i) => i);
  const cut = cutFrames({ latents, shape: [2, 4, 1, 1, 2], actions: [0, 1, 2, 3, 4, 5, 6, 7] }, 1, 2);
  assertEquals([...cut.latents], [2, 3, 4, 5, 10, 11, 12, 13]);
  assertEquals([...cut.actions as Int32Array], [1, 2, 5, 6]);
  assertEquals(cut.shape, [2, 2, 1, 1, 2]);
});

Deno.test("long-context batches have clean long-term frames, and only short-term frames count", async () => {
  const config = tinyConfig(LONG, {
    objective: {
      cleanContextRatio: 0.3,
      weighting: "uniform",
      trainingType: "long_context",
      conditionDropout: 0,
    },
  });
  const given = await madeUp(LONG, [2, 8, 2, 4, 4]).batch(0);
  let cleanInWindow = 0;
  for (let position = 0; position < 50; position++) {
    const { shape: [B, F], draw } = prepareBatch(config, given, position);
    for (let i = 0; i < B * F; i++) {
      if (i % F < F - 3) assertEquals([draw.timesteps[i], draw.weights[i]], [-1, 0]);
      else if (draw.timesteps[i] === -1) {
        cleanInWindow++;
        assertEquals(draw.weights[i], 0);
      } else assert(draw.weights[i] > 0);
    }
  }
  assert(
    cleanInWindow > 40 && cleanInWindow < 150,
    `${cleanInWindow} of 300 frames of windows are clean, expected 90`,
  );
});

Deno.test("prepared batches: the objective's ratio of clean frames and density, other numbers at every position", async () => {
  const model = farConfig("FAR", { ...TINY, short_term_ctx_winsize: 8 }),
    positions = 100,
    count = positions * 32;
  const given = await madeUp(model, [4, 8, 2, 1, 1]).batch(0);
  for (const cleanContextRatio of [0.1, 0.4]) {
    const objective = { ...tinyConfig().objective, cleanContextRatio, weighting: "uniform" } as const;
    const draws = Array.from(
      { length: positions },
      (_, i) => prepareBatch({ model, objective, seed: 3 }, given, i).draw,
    );
    const timesteps = draws.flatMap((d) => [...d.timesteps]), noisy = timesteps.filter((t) => t !== -1);
    // 4.5 standard errors of a share of 3200 frames, and of the mean and the upper half of uniform numbers.
    const bound = 4.5 * Math.sqrt(cleanContextRatio * (1 - cleanContextRatio) / count);
    assertAlmostEquals(1 - noisy.length / count, cleanContextRatio, bound);
    assertAlmostEquals(
      noisy.filter((t) => t > 500).length / noisy.length,
      0.5,
      2.25 / Math.sqrt(noisy.length),
    );
    assertEquals(new Set(draws.map((d) => d.noise[0])).size, positions);
    assertEquals(new Set(draws.map((d) => d.timesteps.join())).size, positions);
    assertEquals(prepareBatch({ model, objective, seed: 3 }, given, 7).draw, draws[7]);
    assert(prepareBatch({ model, objective, seed: 4 }, given, 7).draw.noise[0] !== draws[7].noise[0]);
  }
});

Deno.test("conditions are dropped frame by frame for actions and clip by clip for labels", () => {
  for (const [type, count] of [["action", 4000], ["label", 500]] as const) {
    const key = type === "action" ? "num_action_classes" : "num_classes";
    const model = farConfig("FAR", { ...TINY, condition_cfg: { type, [key]: 5 } });
    const batch = {
      latents: new Float32Array(500 * 8 * 2),
      shape: [500, 8, 2, 1, 1] as const,
      actions: new Int32Array(4000).fill(2),
      label: new Int32Array(500).fill(2),
    };
    const { actions, label } = dropConditions(model, batch, streamOf(1, "step 0"), 0.1);
    const values = [...(actions ?? label) as Int32Array];
    assertEquals(values.length, count);
    const dropped = values.filter((v) => v === 5).length / count;
    assert(dropped > 0.07 && dropped < 0.13, `${type}: dropped ${dropped}, expected 0.1`);
    assertEquals(new Set(values), new Set([2, 5]));
  }
});

Deno.test("fresh parameters: zero modulations and outputs, unit norms, Xavier matrices", () => {
  const shapes = farShapes(LONG);
  for (const [name, shape] of Object.entries(shapes)) {
    const values = freshValues(name, shape, 0),
      largest = values.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    if (/proj_out|norm\d?(_out)?\.linear|bias$/.test(name)) assertEquals(largest, 0, name);
    else if (/norm_(added_)?[qk]/.test(name)) assertEquals(new Set(values), new Set([1]), name);
    else if (shape.length === 2 && !/embedder/.test(name)) {
      const bound = Math.sqrt(6 / (shape[0] + shape[1]));
      assert(largest > 0.95 * bound && largest <= bound, name);
    } else assert(largest > 0, name);
  }
});

Deno.test("starting from a checkpoint takes what fits and names the rest", () => {
  const device = openReferenceDevice(), shapes = farShapes(farConfig("FAR", TINY));
  const data = (n: number) => new Uint8Array(new Float32Array(n).fill(7).buffer);
  const entry = (shape: number[]) => ({
    shape,
    dtype: "F32" as const,
    read: () => ({ shape, dtype: "F32" as const, data: data(shape.reduce((a, b) => a * b, 1)) }),
  });
  const from = new Map([["x_embedder.bias", entry([16])], ["x_embedder.weight", entry([16, 3])], [
    "other",
    entry([1]),
  ]]);
  const { match } = initialParams(device, shapes, 0, from);
  assertEquals(match.taken, ["x_embedder.bias"]);
  assert(match.fresh.includes("x_embedder.weight (found [16, 3], expected [16, 2])"), match.fresh[0]);
  assertEquals(match.fresh.length, Object.keys(shapes).length - 1);
  assertEquals(match.unused, ["other"]);
});

testOnDevices("step 0 of a warm-up changes no weight, later steps lower the loss", async (device) => {
  const config = tinyConfig(undefined, { lr: 2e-2 });
  const one = await madeUp(config.model, [2, 3, 2, 4, 4]).batch(0);
  one.latents.fill(1); // velocity then follows from the noisy frame and its noise level
  const trainer = await tinyTrainer(device, config, { batch: () => Promise.resolve(one) });
  const before = await trainer.params["x_embedder.weight"].read();
  const first = await trainer.step();
  assertEquals([first.step, first.lr, first.clips, first.frames], [0, 0, 2, 6]);
  assertEquals(await trainer.params["x_embedder.weight"].read(), before);
  assertEquals((await trainer.step()).lr, 1e-2);
  const losses: number[] = [];
  for (let i = 0; i < 80; i++) losses.push((await trainer.step()).loss);
  // A model that predicts zero velocity has a loss of 2: noise has variance 1, and so have the latents around 0.
  const last = losses.slice(-20).reduce((a, b) => a + b, 0) / 20;
  assert(losses[0] > 1.5 && last < 0.5, `loss ${losses[0]}, ${last} at the end, expected 2 and below 0.5`);
  trainer.dispose();
});

testOnDevices("two batches accumulated give the step of one batch with both", async (device) => {
  const model = farConfig("FAR", TINY);
  const objective = {
    cleanContextRatio: 0,
    weighting: "uniform",
    trainingType: "base",
    conditionDropout: 0,
  } as const;
  // The loss is compared at the first step, whose gradient would differ if one of the halves were lost.
  const halves = await Promise.all([0, 1].map((p) => madeUp(model, [1, 2, 2, 4, 4]).batch(p)));
  const config = tinyConfig(model, { objective, accumulate: 2, maxGradNorm: null });
  const trainer = await tinyTrainer(device, config, { batch: (p) => Promise.resolve(halves[p % 2]) });
  const report = await trainer.step();
  const singles: number[] = [], norms: number[] = [];
  for (const p of [0, 1]) {
    const single = await tinyTrainer(device, { ...config, accumulate: 1 }, {
      batch: () => Promise.resolve(halves[p]),
    });
    if (p === 1) await single.step(); // its second step draws the noise of position 1
    const { loss, gradientNorm } = await single.step();
    singles.push(loss);
    norms.push(gradientNorm);
    single.dispose();
  }
  assertAlmostEquals(report.loss, (singles[0] + singles[1]) / 2, 1e-6);
  assert(report.gradientNorm > 0 && report.gradientNorm <= (norms[0] + norms[1]) / 2 * 1.0001);
  trainer.dispose();
});

testOnDevices(
  "a loss that is not finite is named, skipped, and stops the run after its limit",
  async (device) => {
    const config = tinyConfig(undefined, { warmup: 0, nonFiniteLimit: 2 });
    const good = madeUp(config.model, [1, 2, 2, 4, 4]);
    const trainer = await tinyTrainer(device, config, {
      async batch(position) {
        const batch = await good.batch(position);
        if (position >= 1 && position !== 2) batch.latents.fill(Infinity);
        return batch;
      },
    });
    assertEquals((await trainer.step()).skipped, undefined);
    const before = await valuesOf(trainer);
    const { skipped } = await trainer.step();
    assert(skipped?.startsWith("the loss is "), skipped);
    assertEquals(await valuesOf(trainer), before);
    assertEquals((await trainer.step()).skipped, undefined);
    await trainer.step();
    const error = await assertRejects(() => trainer.step(), DivergedError);
    assert(error.message.includes("at step 4, the last of 2 such steps in a row"), error.message);
    trainer.dispose();
  },
);

testOnDevices("a gradient that is not finite is named by its parameter", async (device) => {
  const config = tinyConfig(undefined, { warmup: 0 });
  const trainer = await tinyTrainer(device, config, madeUp(config.model, [1, 2, 2, 4, 4]));
  // Zero output weights keep the loss finite; the huge shift before them makes their gradient overflow.
  const huge = Float32Array.from({ length: 32 }, (_, i) => i < 16 ? 0 : 1e30);
  const bias = Tensor.from(device, huge);
  const params = { ...trainer.params, "norm_out.linear.bias": bias };
  const source = madeUp(config.model, [1, 2, 2, 4, 4]);
  const broken = await tinyTrainer(device, config, source, { weights: { model: params } });
  const { skipped, loss } = await broken.step();
  assert(Number.isFinite(loss), `loss ${loss}`);
  assertEquals(skipped, "the gradient of proj_out.weight is not finite");
  broken.dispose();
});

testOnDevices(
  "every kind of training takes a step: labels, long context, Video DiT, checkpointing",
  async (device) => {
    const label = farConfig("FAR", { ...TINY, condition_cfg: { type: "label", num_classes: 3 } });
    const kinds = [
      tinyConfig(label),
      tinyConfig(LONG, { objective: { ...tinyConfig().objective, trainingType: "long_context" } }),
      tinyConfig(undefined, {
        objective: { ...tinyConfig().objective, videoDiT: true, cleanContextRatio: 0 },
      }),
      tinyConfig(undefined, { checkpoint: true }),
    ];
    for (const config of kinds) {
      const trainer = await tinyTrainer(device, config, madeUp(config.model, [2, 6, 2, 4, 4]));
      for (let i = 0; i < 2; i++) assert(Number.isFinite((await trainer.step()).loss));
      trainer.dispose();
    }
  },
);

testOnDevices("steps free everything that they make, and wait for a GPU once each", async (device) => {
  const config = tinyConfig();
  const trainer = await tinyTrainer(device, config, madeUp(config.model, [1, 3, 2, 4, 4]));
  await trainer.step();
  const { liveBytes, waits } = device.stats;
  for (let i = 0; i < 3; i++) await trainer.step();
  assertEquals(device.stats.liveBytes, liveBytes);
  if (device.info.name === "webgpu") assertEquals(device.stats.waits - waits, 3);
  trainer.dispose();
});

testOnEverySetting("a run that resumes from a checkpoint ends with the same bits", async (device) => {
  const folder = Deno.makeTempDirSync();
  const config = tinyConfig(LONG, { objective: { ...tinyConfig().objective, trainingType: "long_context" } });
  const source = madeUp(LONG, [2, 6, 2, 4, 4]);
  try {
    const whole = await tinyTrainer(device, config, source);
    const losses: number[] = [];
    for (let i = 0; i < 6; i++) losses.push((await whole.step()).loss);
    const part = await tinyTrainer(device, config, source);
    for (let i = 0; i < 3; i++) await part.step();
    await saveCheckpoint(part, folder);
    part.dispose();
    const saved = latestCheckpoint(folder, whole.objective.networks, true)!;
    const resumed = await tinyTrainer(device, config, source, { saved });
    const again: number[] = [];
    for (let i = 0; i < 3; i++) again.push((await resumed.step()).loss);
    assertEquals(again, losses.slice(3));
    assertEquals(await valuesOf(resumed), await valuesOf(whole));
    whole.dispose();
    resumed.dispose();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("only the last checkpoints are kept, and one of another model is refused", async () => {
  const device = openReferenceDevice(), folder = Deno.makeTempDirSync(), config = tinyConfig();
  try {
    const trainer = await tinyTrainer(device, config, madeUp(config.model, [1, 1, 2, 2, 2]));
    for (let i = 0; i < 4; i++) {
      await trainer.step();
      await saveCheckpoint(trainer, folder, { keep: 2 });
    }
    const names = () => [...Deno.readDirSync(folder)].map((e) => e.name).sort();
    assertEquals(names(), ["step-00000003", "step-00000004"]);
    // What somebody has put beside a checkpoint's files keeps all of it.
    Deno.writeTextFileSync(`${folder}/step-00000003/notes.txt`, "the best one");
    for (let i = 0; i < 2; i++) {
      await trainer.step();
      await saveCheckpoint(trainer, folder, { keep: 1 });
    }
    assertEquals(names(), ["step-00000003", "step-00000006"]);
    assertEquals([...Deno.readDirSync(`${folder}/step-00000003`)].length, 5);
    const wide = farShapes(farConfig("FAR", { ...TINY, num_attention_heads: 2 }));
    const networks = { model: { shapes: wide } };
    let message = "";
    try {
      latestCheckpoint(folder, networks, true);
    } catch (error) {
      message = (error as Error).message;
    }
    assert(
      message.includes("x_embedder.weight has shape [16, 2], the configuration makes it [32, 2]"),
      message,
    );
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
