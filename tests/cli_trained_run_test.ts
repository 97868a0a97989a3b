import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { makeFrames } from "../lib/io/frames.ts";
import { writePng } from "../lib/io/image.ts";
import { ChoiceError } from "../lib/pipeline/choice.ts";
import { chooseFar } from "../lib/pipeline/models.ts";
import { far, inFolder } from "./cli_helpers.ts";

const path = (name: string) => new URL(`../${name}`, import.meta.url).pathname;

/** Two clips as folders of images, 6 frames of 40x30 each. */
async function ownClips(folder: string): Promise<string> {
  for (const clip of ["beach", "harbour"]) {
    Deno.mkdirSync(`${folder}/clips/${clip}`, { recursive: true });
    for (let i = 0; i < 6; i++) {
      const data = Uint8Array.from(
        { length: 30 * 40 * 3 },
        (_, p) => (p * (clip === "beach" ? 3 : 7) + 20 * i) % 256,
      );
      await writePng(`${folder}/clips/${clip}/${i}.png`, makeFrames(1, 30, 40, data));
    }
  }
  return `${folder}/clips`;
}

const CONFIG = ["--config", path("experiments/configs/own_clips.yml"), "--device", "cpu"];

/** A run of two steps, each with its checkpoint, on one's own clips. */
async function trained(folder: string, out: string, ...more: string[]): Promise<void> {
  const clips = await ownClips(folder);
  const { code, stderr } = await far([
    ...["train", ...CONFIG, "--out", out, "--quiet", "--format", "gif"],
    ...["datasets.train", "datasets.sample"].flatMap((at) => [
      ...["--set", `${at}.data_list=${clips}`, "--set", `${at}.data_cfg.num_frames=6`],
    ]),
    ...["total_iter=2", "warmup_iter=0"].flatMap((set) => ["--set", `train.${set}`]),
    ...["val_freq=1", "sample_cfg.context_length=3", "sample_cfg.unroll_length=3"].flatMap((set) => [
      ...["--set", `val.${set}`],
    ]),
    ...["--set", "logger.save_checkpoint_freq=1"],
    ...["--set", "models.model_cfg.transformer.init_cfg.config.num_layers=1", ...more],
  ]);
  assertEquals(code, 0, stderr);
}

Deno.test("one's own folder of clips is trained on with the example option file, and the run's folder is a model", async () => {
  await inFolder(async (folder) => {
    const run = `${folder}/run`, out = `${folder}/out`;
    await trained(folder, run);
    const predict = ["predict", `${folder}/clips/beach`, "--ctx", "3", "--pred", "2", "--steps", "1"];
    const { code, stderr } = await far([...predict, "--model", run, "--device", "cpu", "--out", out]);
    assertEquals(code, 0, stderr);
    const { models, random_weights, clip } = JSON.parse(Deno.readTextFileSync(`${out}/result.json`));
    assertEquals(random_weights, false);
    assertEquals(models.far.weights, `${run}/checkpoints/step-00000002/ema.safetensors`);
    assertEquals(models.far.config.layers, 1, "the run's configuration, not that of the file");
    assertMatch(models.vae.weights, /models\/world\/dcae\.safetensors$/);
    assertEquals([clip.height, clip.width], [64, 64], "the resolution of the run");
    const words = ["raw", "ema"].map((word) => chooseFar({ model: run, weights: word }).weights.path);
    assertEquals(
      words,
      ["model", "ema"].map((name) => `${run}/checkpoints/step-00000002/${name}.safetensors`),
    );
    assertThrows(() => chooseFar({ weights: "ema" }), ChoiceError, "ema names weights of a training run");
    // Without an average there are the weights themselves.
    Deno.removeSync(`${run}/checkpoints/step-00000002/ema.safetensors`);
    assertThrows(() => chooseFar({ model: run, weights: "ema" }), ChoiceError, "has no averaged weights");
    const raw = await far([...predict, "--model", `${run}/`, "--device", "cpu", "--out", `${folder}/raw`]);
    assertEquals(raw.code, 0, raw.stderr);
    assertMatch(
      JSON.parse(Deno.readTextFileSync(`${folder}/raw/result.json`)).models.far.weights,
      /run\/checkpoints\/step-00000002\/model\.safetensors$/,
    );
  });
});

Deno.test("a folder that is no run, one without a checkpoint, one on pixels and one of an autoencoder are refused by name", async () => {
  await inFolder(async (folder) => {
    const refused = async (model: string, message: RegExp, flag = "--model") => {
      const { code, stderr } = await far(["predict", "world:0", flag, model, "--out", `${folder}/out`]);
      assertEquals(code, 2, stderr);
      assertMatch(stderr, message);
      assert(!/\n/.test(stderr), stderr);
    };
    Deno.mkdirSync(`${folder}/empty`);
    await refused(
      `${folder}/empty`,
      /^far: .*empty: is a folder without options\.json, expected the folder of a training/,
    );
    await refused(
      path("experiments/configs/own_clips.yml"),
      /its run is not at out\/train\/own_clips; train it first/,
    );
    const run = `${folder}/run`;
    await trained(
      folder,
      run,
      "--set",
      "models.model_cfg.vae=~",
      "--set",
      "datasets.train.data_cfg.resolution=8",
      ...[
        ...["--set", "datasets.sample=~"],
        ...["in_channels=3", "out_channels=3"].flatMap((set) => [
          ...["--set", `models.model_cfg.transformer.init_cfg.config.${set}`],
        ]),
      ],
    );
    await refused(run, /was trained on pixels .*expected a run on latents/);
    await refused(
      run,
      /is the run of a transformer, expected one of an autoencoder; --model takes it/,
      "--vae",
    );
    Deno.removeSync(`${run}/checkpoints`, { recursive: true });
    await refused(
      run,
      /has no checkpoint yet; far\.ts train writes one every logger\.save_checkpoint_freq \(1\) steps/,
    );
  });
});
