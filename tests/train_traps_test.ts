/**
 * Traps of training that cost a night, and what is said about them: latents on the wrong scale, averages slower than the
 * run, more samples than there are.
 */
import { assert, assertEquals } from "@std/assert";
import { scaleAdvice, weightsAdvice } from "../lib/train/advice.ts";
import { openData } from "../lib/pipeline/training_data.ts";
import { writeLatents } from "../lib/data/latents.ts";
import { normal, streamOf } from "../lib/random.ts";
import type { DatasetOptions } from "../lib/train/options.ts";
import { far, inFolder, TINY_DCAE } from "./cli_helpers.ts";
import { CLIPS, trainArgs } from "./train_cli_setup.ts";

const values = (size: number, count = 4096) => normal(streamOf(1, "latents"), count).map((v) => size * v);

Deno.test("latents are measured against a root mean square of 1, and the factor that gives it is named", () => {
  const advice = (size: number, factor: number) => scaleAdvice([{ latents: values(size) }], factor);
  for (const size of [0.6, 1, 1.9]) assertEquals(advice(size, 0.4), null);
  const far = advice(12.7, 0.4)!;
  const [, rms, factor] = /root mean square of (\S+), expected about 1.*is 0\.4, these clips need (\S+)$/
    .exec(far)!;
  assert(Math.abs(Number(rms) / 12.7 - 1) < 0.05 && Math.abs(Number(factor) * 12.7 / 0.4 - 1) < 0.05, far);
  assert(advice(0.4, 1)!.includes("need 2."), advice(0.4, 1)!);
  // The size of all batches together: half of them at 0, half at 2.
  const mixed = scaleAdvice([{ latents: values(2) }, { latents: new Float32Array(3 * 4096) }], 1);
  assertEquals(mixed, null);
  assert(scaleAdvice([{ latents: new Float32Array(8) }], 1)!.includes("mean square of 0"));
});

Deno.test("the averages are recommended once they have forgotten the initial weights", () => {
  const advice = (decay: number | null, updates: number) => weightsAdvice("run/step-1", decay, updates);
  assertEquals(advice(0.99, 600), "weights: run/step-1/ema.safetensors (averaged)");
  assertEquals(advice(null, 600), "weights: run/step-1/model.safetensors");
  assertEquals(
    advice(0.9999, 600),
    "weights: run/step-1/model.safetensors (ema.safetensors still holds 94 % of the initial weights: train.ema_decay 0.9999 " +
      "averages over 10000 steps, the run had 600)",
  );
  assert(
    advice(0.99, 458).includes("model.safetensors") &&
      advice(0.99, 459).includes("ema.safetensors (averaged)"),
  );
});

const block = (more: Partial<DatasetOptions>): DatasetOptions => ({
  type: "FolderDataset",
  data_list: CLIPS,
  split: "validation",
  use_latent: false,
  data_cfg: { num_frames: 4, resolution: 16, part: "train", shares: [0, 0] },
  num_sample: null,
  batch_size_per_gpu: 4,
  ...more,
});

Deno.test("num_sample takes the first clips of any data set, and it is said where there are fewer", () =>
  inFolder(async (folder) => {
    for (const name of ["a", "b", "c"]) await Deno.copyFile(`${CLIPS}/dmlab_24.npz`, `${folder}/${name}.npz`);
    const open = (more: Partial<DatasetOptions>) =>
      openData(block({ data_list: folder, ...more }), "datasets.sample", 0);
    assertEquals(open({}).set.length, 3);
    const { set, options } = open({ num_sample: 2 });
    assertEquals([set.length, options.batch, set.source(0)], [2, 2, `${folder}/a.npz`]);
    assertEquals((await set.read(1)).frames?.frames, 24);
    assertEquals(open({ num_sample: 1, split: "training" }).set.length, 1);
    const more = open({ num_sample: 4 });
    assertEquals([more.set.length, set.length, open({}).warning], [3, 2, undefined]);
    const told = `datasets.sample.num_sample is 4, ${more.set.name} has 3 clips: all are used`;
    assertEquals(more.warning, told);
    const world = (num_sample: number, clips?: number) =>
      openData(
        block({
          type: "WorldDataset",
          data_list: null,
          num_sample,
          data_cfg: { num_frames: 4, resolution: 16, clips: clips ?? null },
        }),
        "datasets.sample",
        0,
      );
    assertEquals([world(300).set.length, world(5, 8).set.length], [300, 5]);
    assert(world(9, 8).warning!.includes("num_sample is 9"));
  }));

Deno.test("train warns of latents on the wrong scale before the first step, and says at the end which weights to use", () =>
  inFolder(async (folder) => {
    await writeLatents(
      `${folder}/latents`,
      (async function* () {
        for (let i = 0; i < 3; i++) {
          const latents = { shape: [6, 4, 8, 8] as const, data: values(8, 6 * 4 * 8 * 8) };
          yield await Promise.resolve({ latents, source: `${i}` });
        }
      })(),
      {},
    );
    const train = async (factor: number, decay: number) => {
      await Deno.writeTextFile(
        `${folder}/dcae.json`,
        JSON.stringify({ ...TINY_DCAE, scaling_factor: factor }),
      );
      const sets = [
        `datasets.train={type: LatentDataset, data_list: ${folder}/latents, split: training, data_cfg: {num_frames: 6}}`,
        `datasets.sample={type: WorldDataset, num_sample: 9, data_cfg: {num_frames: 6, resolution: 16, clips: 2}}`,
        "val.val_freq=~",
        `models.model_cfg.vae={from_config: ${folder}/dcae.json, from_config_pretrained: none.safetensors}`,
        "models.model_cfg.transformer.init_cfg.config.in_channels=4",
        "models.model_cfg.transformer.init_cfg.config.out_channels=4",
        "models.model_cfg.transformer.init_cfg.config.condition_cfg=~",
        `train.ema_decay=${decay}`,
      ];
      const out = `${folder}/run ${factor} ${decay}`;
      const { code, stderr } = await far(
        trainArgs("train", out, ...sets.flatMap((s) => ["--set", s])),
        {},
        "-A",
      );
      assertEquals(code, 0, stderr);
      return stderr.split("\n");
    };
    const wrong = await train(0.5, 0.9),
      at = wrong.findIndex((line) => line.startsWith("warning: scaled latents"));
    assert(at > 0 && at < wrong.findIndex((line) => line.startsWith("step ")), wrong.join("\n"));
    const factor = Number(/need (\S+)$/.exec(wrong[at])![1]);
    assert(Math.abs(8 * factor - 1) < 0.1, wrong[at]);
    assert(wrong.at(-1)!.includes("model.safetensors (ema.safetensors still holds 66 % "), wrong.at(-1)!);
    const right = await train(factor, 0.1);
    const warnings = right.filter((line) => line.startsWith("warning"));
    assert(warnings.length === 1 && warnings[0].includes("num_sample is 9"), right.join("\n"));
    assert(right.at(-1)!.endsWith("step-00000004/ema.safetensors (averaged)"), right.at(-1)!);
  }));
