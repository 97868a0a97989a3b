/**
 * Roll-outs: what `far.ts rollout` makes, how latents keep it, and what training takes from it.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { openDevice } from "../kernels/open.ts";
import { batches } from "../lib/data/batches.ts";
import { latentSet, writeLatents } from "../lib/data/latents.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { clipNoise, sample } from "../lib/far/sample.ts";
import { normal, streamOf } from "../lib/random.ts";
import { randomParams } from "../lib/params.ts";
import { prepareBatch } from "../lib/train/far_loss.ts";
import { far, inFolder, killedEarly, TINY_DCAE, TINY_FAR, tinyWorld } from "./cli_helpers.ts";
import { madeUp, TINY, tinyConfig } from "./train_setup.ts";

const LONG = farConfig("FAR_Long", { ...TINY, short_term_ctx_winsize: 3 });

/** A batch of two clips of eight frames; the first has a roll-out that is 100 more everywhere. */
async function given() {
  const batch = await madeUp(LONG, [2, 8, 2, 4, 4]).batch(0), per = batch.latents.length / 2;
  return { ...batch, history: [batch.latents.subarray(0, per).map((v) => v + 100), null] };
}

const configured = (rolloutRatio: number, rolloutClean?: "first" | "random") =>
  tinyConfig(LONG, {
    objective: {
      cleanContextRatio: 0.3,
      weighting: "uniform",
      trainingType: "long_context",
      conditionDropout: 0,
      rolloutRatio,
      rolloutClean,
    },
  });

Deno.test("a rolled-out clip with random clean frames has those that it would have without a roll-out", async () => {
  const batch = await given(), per = 32;
  let behindNoise = 0;
  for (let position = 0; position < 60; position++) {
    const { shape: [, F], latents, draw } = prepareBatch(configured(1, "random"), batch, position);
    const plain = prepareBatch(configured(0), { ...batch, history: undefined }, position);
    assertEquals(draw, plain.draw);
    for (let f = 0; f < F; f++) {
      const clean = draw.timesteps[f] === -1, truth = batch.latents[f * per];
      assertEquals(latents[f * per], clean ? Math.fround(truth + 100) : truth);
      if (clean && f > 0 && draw.timesteps[f - 1] !== -1) behindNoise++;
    }
  }
  assert(behindNoise > 0);
});

Deno.test("a rolled-out clip: clean frames come from the roll-out, the others from the truth", async () => {
  const batch = await given(), per = 32, firsts = new Set<number>(), ends = new Set<number>();
  for (let position = 0; position < 60; position++) {
    const { shape: [, F], latents, draw } = prepareBatch(configured(1), batch, position);
    const plain = prepareBatch(configured(0), { ...batch, history: undefined }, position);
    assertEquals(F, plain.shape[1]);
    ends.add(F);
    const clean = [...draw.timesteps.subarray(0, F)].map((t) => t === -1);
    const first = clean.indexOf(false);
    assert(first >= F - 3 && first < F, `frame ${first} of ${F} is the first noisy one`);
    assert(clean.every((c, f) => c === f < first), `clean frames are not the first ones: ${clean}`);
    firsts.add(first - (F - 3));
    for (let f = 0; f < F; f++) {
      for (let i = 0; i < per; i++) {
        const at = f * per + i, truth = batch.latents[at];
        assertEquals(latents[at], clean[f] ? Math.fround(truth + 100) : truth);
      }
      assertEquals(draw.weights[f] > 0, !clean[f]);
    }
    // The clip without a roll-out is what it would be in a batch that has none.
    assertEquals(latents.slice(F * per), plain.latents.slice(F * per));
    for (const what of ["timesteps", "sigmas", "weights"] as const) {
      assertEquals(draw[what].slice(F), plain.draw[what].slice(F));
    }
    assertEquals(draw.noise.slice(F * per), plain.draw.noise.slice(F * per));
  }
  assertEquals([...firsts].sort(), [0, 1, 2]);
  assert(ends.size > 2);
});

Deno.test("roll-outs are used as often as the ratio says, and not at all without it", async () => {
  const batch = await given();
  const used = (ratio: number) =>
    Array.from({ length: 400 }, (_, position) => prepareBatch(configured(ratio), batch, position))
      .filter(({ latents }) => latents[0] > 50).length;
  assertEquals(used(0), 0);
  const half = used(0.5); // true values are far below 50, those of the roll-out above; five standard errors around 200
  assert(half > 150 && half < 250, `${half} of 400`);
});

Deno.test("latents keep roll-outs where clips have them, and batches hand them on", async () => {
  await inFolder(async (folder) => {
    const shape = [6, 2, 2, 2] as const, data = Float32Array.from({ length: 48 }, (_, i) => i);
    const history = data.map((v) => -v);
    const clips = [{ source: "a", latents: { shape, data, history } }, {
      source: "b",
      latents: { shape, data },
    }];
    await writeLatents(folder + "/set", clips);
    const set = latentSet(folder + "/set");
    assertEquals([set.length, set.rollouts], [2, 1]);
    const part = await set.read(0, { start: 2, interval: 2, count: 2 });
    assertEquals(
      part.latents!.history,
      Float32Array.from([...history.slice(16, 24), ...history.slice(32, 40)]),
    );
    for await (const batch of batches(set, { batch: 2, frames: 6, split: "validation" })) {
      assertEquals(batch.history, [history, null]);
    }
  });
});

Deno.test("rollout predicts a set's clips after some true frames; killed, it resumes; train takes what it wrote", async () => {
  await inFolder(async (folder) => {
    await tinyWorld(folder);
    const shape = [8, 4, 4, 4] as const,
      clips = Array.from({ length: 6 }, (_, i) => ({
        source: `clip ${i}`,
        latents: { shape, data: normal(streamOf(i, "latents"), 512).map((v) => Math.fround(v)) },
        actions: Int32Array.from({ length: 8 }, (_, f) => (i + f) % 3),
      }));
    await writeLatents(`${folder}/latents`, clips, { dtype: "F32" });
    const args = [
      ...["rollout", `${folder}/latents`, "--model", `${folder}/far.json`, "--vae", `${folder}/dcae.json`],
      ...[
        "--random-weights",
        "--device",
        "cpu",
        "--first",
        "1",
        "--clips",
        "5",
        "--batch",
        "2",
        "--least",
        "3",
        "--most",
        "5",
      ],
      ...["--steps", "2", "--seed", "4"],
    ];
    const whole = await far([...args, "--to", `${folder}/whole`]);
    assertEquals(whole.code, 0, whole.stderr);
    assertMatch(whole.stderr, /^estimate: .+ for 5 clips, .+ of device memory$/m);

    const config = farConfig(TINY_FAR.type, TINY_FAR.config), scale = TINY_DCAE.scaling_factor;
    const { device } = await openDevice({ device: "cpu" }),
      params = randomParams(device, farShapes(config), 0);
    const set = latentSet(`${folder}/whole`), contexts = new Set<number>();
    assertEquals([set.length, set.rollouts], [6, 5]);
    assertEquals((await set.read(0)).latents!.history, undefined);
    for (let i = 1; i < 6; i++) {
      const { latents, actions } = await set.read(i), { data, history } = latents!;
      const ctx = data.findIndex((v, at) => v !== history![at]) / 64;
      contexts.add(ctx);
      assert(ctx >= 3 && ctx <= 5, `${ctx} true frames`);
      const first = Math.max(1, i - i % 2); // of the clips that are rolled out together
      const noise = clipNoise(4 + first, i - first, (8 - ctx) * 64);
      const context = clips[i].latents.data.subarray(0, ctx * 64).map((v) => v * scale);
      const frameShape = [1, 4, 4, 4] as const, predict = 8 - ctx;
      const run = sample({ device, params, config, frameShape, context, predict, actions, steps: 2, noise });
      for await (const { frame, latents } of run) {
        const worst = latents.reduce(
          (m, v, k) => Math.max(m, Math.abs(v / scale - history![frame * 64 + k])),
          0,
        );
        assert(worst < 2e-2, `clip ${i} frame ${frame}: differs by ${worst}; roll-outs are stored as f16`);
      }
    }
    assert(contexts.size > 1);
    device.close();

    await killedEarly([...args, "--to", `${folder}/killed`], "-P");
    const again = await far([...args, "--to", `${folder}/killed`]);
    assertEquals(again.code, 0, again.stderr);
    const shard = (name: string) => Deno.readFileSync(`${folder}/${name}/latents-00000.safetensors`);
    assertEquals(shard("killed"), shard("whole"));

    Deno.writeTextFileSync(
      `${folder}/run.yml`,
      `name: run
datasets: { train: { type: LatentDataset, data_list: ${folder}/whole, split: training, data_cfg: { num_frames: 8 }, batch_size_per_gpu: 2 } }
models:
  model_cfg:
    transformer: { init_cfg: { type: FAR_Long, config: ${JSON.stringify(TINY_FAR.config)} } }
    vae: { from_config: ${folder}/dcae.json, from_config_pretrained: none }
  training_type: long_context
  rollout_ratio: 0.5
train: { optim_g: { lr: 0.001 }, total_iter: 2 }
`,
    );
    // An option file names the same clips by its training set.
    const byFile = await far([
      ...args.map((word) => word === `${folder}/latents` ? `${folder}/run.yml` : word),
      ...["--set", `datasets.train.data_list=${folder}/latents`, "--to", `${folder}/by_file`],
    ]);
    assertEquals(byFile.code, 0, byFile.stderr);
    assertEquals(shard("by_file"), shard("whole"));

    const train = ["train", "--config", `${folder}/run.yml`, "--device", "cpu"];
    const trained = await far([...train, "--out", `${folder}/run`]);
    assertEquals(trained.code, 0, trained.stderr);
    const without = await far([
      ...train,
      ...["--out", `${folder}/x`, "--set", `datasets.train.data_list=${folder}/latents`],
    ]);
    assertEquals(without.code, 1);
    assertMatch(without.stderr.trim(), /^.*models\.rollout_ratio: expected 0, .*far\.ts rollout.*$/);
    const long = await far([...args, "--to", `${folder}/y`, "--most", "8"]);
    assertEquals(long.code, 2);
    assertMatch(long.stderr, /--most: expected fewer than the 8 frames/);
  });
});
