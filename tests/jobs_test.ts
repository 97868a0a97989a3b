/**
 * The jobs of lib/pipeline as a notebook runs them, without the command line: stopped anywhere they resume to the same bytes.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { batches } from "../lib/data/batches.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { OwnershipError } from "../lib/io/owned_folder.ts";
import { isScored, runEvaluation, scoreBatch } from "../lib/pipeline/evaluate.ts";
import { openEvaluationSet } from "../lib/pipeline/evaluation_set.ts";
import { Job, type JobOptions } from "../lib/pipeline/job.ts";
import { predictTo } from "../lib/pipeline/predict.ts";
import { SavedLatents } from "../lib/pipeline/saved_latents.ts";
import { type Stage, unwatched, type Watch } from "../lib/pipeline/watch.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll } from "../lib/tensor.ts";
import { inFolder } from "./cli_helpers.ts";

import { bytesOf, namesIn, stoppingAt, withModel } from "./jobs_helpers.ts";

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
