/**
 * The jobs that encode, decode and roll out, without the command line.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { latentSet, writeLatents } from "../lib/data/latents.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { writeVideo } from "../lib/io/video_write.ts";
import { ChoiceError } from "../lib/pipeline/choice.ts";
import { readClip } from "../lib/pipeline/clip.ts";
import { decodeTo, encodeTo, readLatentFile } from "../lib/pipeline/clip_latents.ts";
import { streamClip } from "../lib/pipeline/clip_stream.ts";
import { encodeSet } from "../lib/pipeline/encode_set.ts";
import { Job } from "../lib/pipeline/job.ts";
import { decodeClip, encodeClip } from "../lib/pipeline/model.ts";
import { openFrameSet } from "../lib/pipeline/option_set.ts";
import { checkRollouts, rollOutSet } from "../lib/pipeline/rollout_set.ts";
import { type Watch } from "../lib/pipeline/watch.ts";
import { normal, streamOf } from "../lib/random.ts";
import { OPTIONS } from "./resume_cases.ts";

import { bytesOf, namesIn, stoppingAt, withModel } from "./jobs_helpers.ts";

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
