/**
 * The jobs of lib/pipeline as a notebook runs them, without the command line: stopped anywhere they resume to the same bytes.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { batches } from "../lib/data/batches.ts";
import { latentSet, writeLatents } from "../lib/data/latents.ts";
import { dcaeShapes } from "../lib/dcae/config.ts";
import { farConfig } from "../lib/far/config.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { OwnershipError } from "../lib/io/owned_folder.ts";
import { writeVideo } from "../lib/io/video_write.ts";
import { ChoiceError } from "../lib/pipeline/choice.ts";
import { readClip } from "../lib/pipeline/clip.ts";
import { decodeTo, encodeTo, readLatentFile } from "../lib/pipeline/clip_latents.ts";
import { streamClip } from "../lib/pipeline/clip_stream.ts";
import { encodeSet } from "../lib/pipeline/encode_set.ts";
import { isScored, runEvaluation, scoreBatch } from "../lib/pipeline/evaluate.ts";
import { openEvaluationSet } from "../lib/pipeline/evaluation_set.ts";
import { Job, type JobOptions } from "../lib/pipeline/job.ts";
import { decodeClip, encodeClip, loadModel, type Model } from "../lib/pipeline/model.ts";
import { chooseDcae } from "../lib/pipeline/models.ts";
import { openFrameSet } from "../lib/pipeline/option_set.ts";
import { predictTo } from "../lib/pipeline/predict.ts";
import { checkRollouts, rollOutSet } from "../lib/pipeline/rollout_set.ts";
import { SavedLatents } from "../lib/pipeline/saved_latents.ts";
import { conditionsOf, generationTask, predictionTask, samplerText } from "../lib/pipeline/task.ts";
import { type Stage, unwatched, type Watch } from "../lib/pipeline/watch.ts";
import { normal, streamOf } from "../lib/random.ts";
import { readOptions } from "../lib/train/options.ts";
import { disposeAll } from "../lib/tensor.ts";
import { inFolder, tinyWorld } from "./cli_helpers.ts";
import { withEnvironment } from "./io_helpers.ts";
import { OPTIONS } from "./resume_cases.ts";

/** Runs the body with a tiny model and a clip of eight frames in a folder of its own, and a cache of its own. */
async function withModel(body: (folder: string, model: Model, clip: string) => Promise<void>): Promise<void> {
  await inFolder((folder) =>
    withEnvironment("FAR_CACHE", `${folder}/cache`, async () => {
      const [clip] = await tinyWorld(folder);
      const chosen = { model: `${folder}/far.json`, vae: `${folder}/dcae.json`, randomWeights: true };
      using model = await loadModel({ ...chosen, device: "cpu" });
      await body(folder, model, clip);
    })
  );
}

/** An observer that stops the work at its n-th pause, and remembers what it was told. */
function stoppingAt(pauses: number) {
  const said: string[] = [], stages: { what: string; from: number; last: number }[] = [];
  const watch: Watch = {
    ...unwatched(),
    say: (line) => void said.push(line),
    stage(what, _total, _unit, from = 0): Stage {
      const seen = { what, from, last: from };
      stages.push(seen);
      return { update: (done) => void (seen.last = done), [Symbol.dispose]() {} };
    },
    pause: () => --pauses === 0 ? Promise.reject(new Error("stopped")) : Promise.resolve(),
  };
  return { watch, said, stages };
}

const bytesOf = (folder: string, name: string) => Deno.readFileSync(`${folder}/${name}`);
const namesIn = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

Deno.test("a job resumes what an earlier one has left, refuses one with other settings, and drops it on request", async () => {
  await inFolder(async (folder) => {
    const options = (to: number): JobOptions => ({
      settings: { verb: "count", operands: [], flags: { to } },
    });
    const open = (to: number, more: Partial<JobOptions> = {}) =>
      Job.open(`${folder}/out`, { ...options(to), flag: "to", ...more });
    let digest = "";
    {
      using job = await open(3);
      assertEquals([job.hasBegun, await job.begin(null, { by: 1 }, ["*.txt"]), job.hasBegun], [
        false,
        false,
        true,
      ]);
      await writeAtomic(job.part("a.txt"), "half");
      digest = job.digest;
    }
    {
      using job = await open(3);
      assertEquals([await job.begin(null, { by: 1 }, ["*.txt"]), job.digest], [true, digest]);
      assertEquals(Deno.readTextFileSync(job.part("a.txt")), "half");
    }
    for (const [to, by] of [[4, 1], [3, 2]]) {
      using job = await open(to);
      await assertRejects(
        () => job.begin(null, { by }, ["*.txt"]),
        OwnershipError,
        to === 4 ? "another flags.to (3, now 4)" : "another by (1, now 2)",
      );
    }
    using job = await open(4, { restart: true });
    assertEquals(await job.begin(null, { by: 1 }, ["*.txt"]), false);
    assert(job.digest !== digest);
    assertEquals(namesIn(job.part("")), [], "the other job's file is still there");
    await writeAtomic(job.part("b.txt"), "whole");
    await job.place(["b.txt"]);
    assertEquals(Deno.readTextFileSync(`${folder}/out/b.txt`), "whole");
  });
});

Deno.test("latents that a job has saved are read back by the same job, and by no other one", async () => {
  await inFolder(async (folder) => {
    const part = (name: string) => `${folder}/${name}`, values = normal(streamOf(0, "saved"), 2 * 12);
    await new SavedLatents({ digest: "a", part }).save("clip", () => values, [3, 2, 2], false);
    assertEquals(new SavedLatents({ digest: "a", part }).latents, { clip: { values, shape: [2, 3, 2, 2] } });
    assertEquals(new SavedLatents({ digest: "b", part }).latents, {});
  });
});

Deno.test("predictTo, stopped after any frame, resumes with the next one to the same bytes, and predicts as predict does", async () => {
  await withModel(async (folder, model, clip) => {
    const options = { context: 3, predict: 4, steps: 2, seed: 5, format: "gif" } as const;
    const whole = await predictTo(`${folder}/whole`, model, clip, options);
    const { frames, scores } = await model.predict(clip, options);
    assertEquals(whole.scores[0].frames, [...scores]);
    using file = openTensorFile(`${folder}/whole/prediction.npz`);
    assertEquals(file.read("video").data, frames.data);
    // Pauses: one batch of the context, then each predicted frame.
    for (let frame = 1; frame < 4; frame++) {
      const out = `${folder}/stopped_${frame}`;
      await assertRejects(
        () =>
          predictTo(out, model, clip, {
            ...options,
            watch: { ...stoppingAt(1 + frame).watch, interrupted: true },
          }),
        Error,
        "stopped",
      );
      const other = { ...options, seed: 6 };
      await assertRejects(
        () => predictTo(out, model, clip, other),
        OwnershipError,
        "another flags.seed (5, now 6)",
      );
      const { watch, said, stages } = stoppingAt(Infinity);
      const { scores } = await predictTo(out, model, clip, { ...options, watch });
      assert(said.includes("resuming an interrupted run"), said.join("\n"));
      assertEquals(stages.map(({ what, from, last }) => [what, from, last]), [["predict", frame, 4], [
        "decode",
        0,
        4,
      ]]);
      assertEquals(scores, whole.scores);
      assertEquals(namesIn(out), namesIn(`${folder}/whole`));
      for (const name of ["prediction.npz", "prediction.gif", "side_by_side.gif", "sheet.png"]) {
        assertEquals(bytesOf(out, name), bytesOf(`${folder}/whole`, name), `${name} after frame ${frame}`);
      }
    }
  });
});

Deno.test("progress counts work, not frames: it grows within 0 to 1 and ends at 1, resumed or not", async () => {
  await withModel(async (folder, model, clip) => {
    const run = async (pauses: number) => {
      const shares: number[] = [], { watch } = stoppingAt(pauses);
      const stage = (what: string): Stage => ({
        update: (_, share) => void (what === "predict" && shares.push(share!)),
        [Symbol.dispose]() {},
      });
      const options = { context: 3, predict: 4, steps: 3, watch: { ...watch, interrupted: true, stage } };
      await predictTo(`${folder}/out`, model, clip, options).catch((error) =>
        assertEquals(error.message, "stopped")
      );
      return shares;
    };
    // Two of four frames, then the other two: a resumed run counts its own work.
    for (const shares of [await run(3), await run(Infinity)]) {
      assert(shares[0] < 0.4, `the first step is ${shares[0]} of the work`);
      assert(shares.length >= 8, `${shares}`);
      assert(shares.every((share, i) => share > (shares[i - 2] ?? 0) && share <= 1), `${shares}`);
    }
    assertEquals((await run(Infinity)).at(-1), 1);
  });
});

Deno.test("runEvaluation takes the scores that other processes have written, in any order, and predicts only what is missing", async () => {
  await withModel(async (folder, model) => {
    const options = { ctx: 3, pred: 2, short: 2, steps: 1, guidance: 1, seed: 0, batch: 1, sheets: 1 };
    const clips = openEvaluationSet("world", options, { clips: 3, side: 16 });
    const settings = { verb: "evaluate", operands: ["world"], flags: options };
    const whole = await evaluated(`${folder}/whole`);
    async function evaluated(out: string, watch?: Watch) {
      using job = await Job.open(out, { settings, watch });
      return await runEvaluation(job, model, clips, options);
    }
    const out = `${folder}/shared`, store = { part: (name: string) => `${out}/part/${name}`, digest: "" };
    // The first process stops after the first clip: its pauses come after each of 2 * 2 frames, and after the clip.
    {
      using job = await Job.open(out, { settings, watch: stoppingAt(5).watch });
      await assertRejects(() => runEvaluation(job, model, clips, options), Error, "stopped");
      store.digest = job.digest;
    }
    assertEquals([0, 1, 2].map((i) => isScored(store, i, 1)), [true, false, false]);
    // A second process scores the last clip.
    const { device, far, vae } = model;
    const loaded = {
      device,
      far,
      vae,
      transformer: far.weights.load(device),
      autoencoder: vae.weights.load(device),
    };
    for await (const batch of batches(clips.set, { batch: 1, frames: 5, split: "validation", position: 2 })) {
      await scoreBatch(store, loaded, batch, options, unwatched(), () => {});
    }
    assertEquals([0, 1, 2].map((i) => isScored(store, i, 1)), [true, false, true]);
    disposeAll([loaded.transformer, loaded.autoencoder]);
    assertEquals(
      isScored({ ...store, digest: "another" }, 2, 1),
      false,
      "scores of another evaluation count",
    );
    let frames = 0;
    const { watch } = stoppingAt(Infinity);
    const counting = { ...watch, pause: () => Promise.resolve(void frames++) };
    const { result, tables } = await evaluated(out, counting);
    assertEquals(frames, 2 * options.pred + 1, "clips that had scores were predicted again");
    assertEquals(tables, whole.tables);
    assertEquals(result.clip_scores, whole.result.clip_scores);
    assertEquals(namesIn(out), namesIn(`${folder}/whole`));
  });
});

Deno.test("encodeTo and decodeTo write what encodeClip and decodeClip compute, for an array and for a video", async () => {
  await withModel(async (folder, model, path) => {
    const clip = await readClip(path),
      latents = await encodeClip(model, clip),
      file = `${folder}/z.safetensors`;
    assertEquals(await encodeTo(model, path, file), [8, 4, 4, 4]);
    {
      using open = openTensorFile(file);
      assertEquals(toFloat32(open.read("latents")), latents.values);
      assertEquals([open.metadata.scaling_factor, open.metadata.weights], ["0.5", "RANDOM WEIGHTS"]);
    }
    assertEquals(await decodeTo(model, readLatentFile(file, 4), `${folder}/y.npz`), 8);
    const decoded = await readClip(`${folder}/y.npz`);
    assertEquals(decoded.frames.data, (await decodeClip(model, latents)).frames.data);
    assertThrows(
      () => readLatentFile(file, 5),
      Error,
      "expected latents [frames, 5, height, width], found latents",
    );
    await assertRejects(
      () => encodeTo(model, path, `${folder}/z.pth`),
      ChoiceError,
      ".safetensors or .npz, found",
    );
    await assertRejects(
      () => decodeTo(model, { latents }, `${folder}/y.txt`),
      ChoiceError,
      ".gif or .npz, found",
    );

    const video = `${folder}/in.mp4`;
    await writeVideo(video, makeFrames(23, 16, 16), { fps: 10 });
    await encodeTo(model, video, file, { every: 2, size: 16 });
    assertEquals(readLatentFile(file, 4).fps, 5);
    for (
      const [options, frames, fps] of [
        [{}, 23, 10],
        [{ start: 2, every: 2 }, 11, 5],
        [{ fromFps: 5 }, 12, 5],
        [{ start: 20, frames: 9 }, 3, 10],
        [{ frames: 4 }, 4, 10],
      ] as const
    ) {
      const stream = await streamClip(video, { ...options, size: 16 });
      assertEquals([stream.frames, stream.fps, stream.height, stream.width], [frames, fps, 16, 16]);
      let seen = 0;
      for await (const batch of stream.batches) seen += batch.frames;
      assertEquals(seen, frames, JSON.stringify(options));
    }
  });
});

Deno.test("encodeSet and rollOutSet, stopped after a clip, make only the others, to the same bytes", async () => {
  await withModel(async (folder, model, clip) => {
    Deno.mkdirSync(`${folder}/clips`);
    for (let i = 0; i < 3; i++) Deno.copyFileSync(clip, `${folder}/clips/${i}.npz`);
    Deno.writeTextFileSync(`${folder}/set.yml`, OPTIONS(folder));
    const { set, sources } = openFrameSet(`${folder}/set.yml`, "train");
    assert(sources.includes(`${folder}/clips`), sources.join());
    assertThrows(() => openFrameSet(`${folder}/set.yml`, "sample"), ChoiceError, "has no datasets.sample");
    const shape = [6, 4, 4, 4] as const;
    await writeLatents(
      `${folder}/latents`,
      [1, 2, 3, 4].map((i) => ({
        source: `${i}`,
        latents: { shape, data: normal(streamOf(i, "latents"), 384) },
        actions: Int32Array.of(0, 1, 2, 0, 1, 2),
      })),
    );
    const latents = latentSet(`${folder}/latents`);
    const rollouts = { first: 1, clips: 2, least: 2, most: 4, steps: 1, seed: 0, batch: 1 };
    await checkRollouts(latents, model.far, rollouts);
    for (
      const [change, message] of [
        [{ least: 5 }, "least: expected at most most 4, found 5"],
        [{ most: 6 }, "most: expected fewer than the 6 frames"],
        [{ clips: 4 }, "expected some of the 4 clips"],
        [{ first: 4, clips: 0 }, "expected some of the 4 clips"],
      ] as const
    ) {
      await assertRejects(
        () => checkRollouts(latents, model.far, { ...rollouts, ...change }),
        ChoiceError,
        message,
      );
    }
    const runs = {
      encode: (job: Job) => encodeSet(job, model, set),
      rollout: (job: Job) => rollOutSet(job, model, latents, rollouts),
    };
    for (const [verb, run] of Object.entries(runs)) {
      const go = async (out: string, watch?: Watch) => {
        using job = await Job.open(`${folder}/${out}`, {
          settings: { verb, operands: [], flags: {} },
          watch,
        });
        return await run(job);
      };
      const whole = await go(`${verb}_whole`), out = `${verb}_stopped`, part = `${folder}/${out}/part`;
      await assertRejects(() => go(out, stoppingAt(2).watch), Error, "stopped");
      assertEquals(namesIn(part), ["clip-0000000.safetensors", "clip-0000001.safetensors"]);
      const before = Deno.statSync(`${part}/clip-0000001.safetensors`).ino;
      await assertRejects(() => go(out, stoppingAt(2).watch), Error, "stopped");
      assertEquals(Deno.statSync(`${part}/clip-0000001.safetensors`).ino, before, `${verb}: made again`);
      assertEquals(await go(out), whole);
      assertEquals(namesIn(`${folder}/${out}`), namesIn(`${folder}/${verb}_whole`));
      const shard = "latents-00000.safetensors";
      assertEquals(bytesOf(`${folder}/${out}`, shard), bytesOf(`${folder}/${verb}_whole`, shard), verb);
    }
    assertEquals(latentSet(`${folder}/rollout_whole`).rollouts, 2);
    const { mean, deviation } = await (async () => {
      using job = await Job.open(`${folder}/again`, {
        settings: { verb: "encode", operands: [], flags: {} },
      });
      return await encodeSet(job, model, set);
    })();
    const all = await Promise.all([0, 1, 2].map((i) => latentSet(`${folder}/again`).read(i)));
    const values = all.flatMap(({ latents }) => [...latents!.data]);
    const average = values.reduce((a, b) => a + b, 0) / values.length;
    const spread = Math.sqrt(values.reduce((sum, v) => sum + (v - average) ** 2, 0) / values.length);
    // Shards are f16, the statistics are of the latents before.
    assert(Math.abs(mean - average) < 1e-3 && Math.abs(deviation - spread) < 1e-3, `${mean} ${average}`);
  });
});

Deno.test("a task cuts a clip into context and truth, and takes the conditions that its model knows", () => {
  const data = Uint8Array.from({ length: 6 * 12 }, (_, i) => i), frames = makeFrames(6, 2, 2, data);
  const clip = { path: "mine", frames, actions: Int32Array.of(0, 1, 2, 3, 0, 1) };
  const of = (condition: Record<string, unknown>) => ({
    name: "model",
    config: farConfig("FAR_B_Long", condition),
  });
  const plain = of({}), moving = of({ condition_cfg: { type: "action", num_action_classes: 4 } });
  const short = farConfig("FAR_B", { condition_cfg: { type: "label", num_classes: 5 } });
  const named = { name: "model", config: short };

  const task = predictionTask(plain, clip, { context: 2, predict: 3 });
  assertEquals(task.context.data, sliceFrames(frames, 0, 2).data);
  assertEquals(task.truth.data, sliceFrames(frames, 2, 5).data);
  assertEquals([task.actions, task.label, task.steps, task.guidance, task.seed], [
    undefined,
    undefined,
    50,
    1,
    0,
  ]);
  assertEquals(predictionTask(plain, clip, { context: 4, predict: 9 }).truth.frames, 2);
  assertEquals(predictionTask({ ...plain, name: "world" }, clip, { context: 1, predict: 1 }).steps, 1);
  assertThrows(
    () => predictionTask(plain, clip, { context: 7 }),
    RangeError,
    "has 6 frames to give, expected at least 7",
  );

  assertEquals(
    predictionTask(moving, clip, { context: 2, predict: 3 }).actions,
    Int32Array.of(0, 1, 2, 3, 0),
  );
  assertEquals(generationTask(moving, 8, { predict: 3, actions: "2,1*2" }).actions, Int32Array.of(2, 1, 1));
  assertThrows(
    () => generationTask(moving, 8, {}),
    ChoiceError,
    "model needs one action per frame: give actions",
  );
  assertThrows(
    () => predictionTask(moving, { ...clip, actions: undefined }, { context: 1 }),
    ChoiceError,
    "mine: has no",
  );
  assertThrows(
    () => conditionsOf(moving, 1, { actions: [4] }),
    RangeError,
    "action of frame 0 is 4, expected 0 to 3",
  );
  assertThrows(
    () => conditionsOf(moving, 1, { actions: [0], label: 1 }),
    ChoiceError,
    "its condition is action",
  );
  assertThrows(() => conditionsOf(plain, 1, { label: 1 }), ChoiceError, "label: model has no labels");
  assertEquals(conditionsOf(named, 1, { label: 4 }), { label: 4 });
  assertEquals(conditionsOf(named, 1, {}), {});
  assertThrows(() => conditionsOf(named, 1, { label: 5 }), ChoiceError, "expected 0 to 4, found 5");

  const { context, truth, predict } = generationTask(plain, 8, { predict: 3, steps: 1, seed: 2 });
  assertEquals([context.frames, truth.frames, context.height, predict], [0, 0, 8, 3]);
  assertEquals(samplerText({ steps: 1, guidance: 1.5, seed: 2 }), "Euler, 1 step, guidance 1.5, seed 2");
  assertEquals(samplerText({ steps: 50, guidance: 1, seed: 0 }), "Euler, 50 steps, guidance 1, seed 0");
});

Deno.test("ema and raw name the weights of an autoencoder's run, and of nothing else", async () => {
  await inFolder((folder) => {
    const options = readOptions(
      new URL("../experiments/configs/world_vae_tiny.yml", import.meta.url).pathname,
    );
    const step = `${folder}/run/checkpoints/step-00000003`;
    Deno.mkdirSync(step, { recursive: true });
    Deno.writeTextFileSync(`${folder}/run/options.json`, JSON.stringify(options));
    for (const name of ["ema", "model"]) Deno.writeTextFileSync(`${step}/${name}.safetensors`, "");
    const pathOf = (vaeWeights?: string) => chooseDcae({ vae: `${folder}/run`, vaeWeights }).weights.path;
    assertEquals([undefined, "ema", "raw", "other.pth"].map(pathOf), [
      `${step}/ema.safetensors`,
      `${step}/ema.safetensors`,
      `${step}/model.safetensors`,
      "other.pth",
    ]);
    Deno.removeSync(`${step}/ema.safetensors`);
    assertEquals(pathOf(), `${step}/model.safetensors`);
    assertThrows(() => pathOf("ema"), ChoiceError, "has no averaged weights, expected raw");
    assertThrows(() => chooseDcae({ vaeWeights: "raw" }), ChoiceError, "raw names weights of a training run");
    const { weights, config } = chooseDcae({ vae: `${folder}/run`, randomWeights: true, dtype: "f16" });
    assertEquals([weights.path, weights.dtype, weights.shapes], [null, "f16", dcaeShapes(config)]);
    return Promise.resolve();
  });
});
