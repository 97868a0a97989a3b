/**
 * `far.ts train-vae` as a user runs it: the discriminator comes in, an interrupted run ends with the same bits, what is
 * missing is said, and what it writes is an autoencoder that the other verbs take.
 */
import { assert, assertEquals } from "@std/assert";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { readPng } from "../lib/io/image.ts";
import { openSafetensors } from "../lib/io/safetensors.ts";
import { loadParams } from "../lib/params.ts";
import { optionsVaeTrainer, readOptions } from "../lib/train/options.ts";
import { disposeAll } from "../lib/tensor.ts";
import { far, type Ran } from "./cli_helpers.ts";
import { openReferenceDevice } from "./reference_device.ts";

const file = (path: string) => new URL(path, import.meta.url).pathname;
const CONFIG = file("data/train_vae_clip.yml");

const train = (out: string, ...more: string[]): Promise<Ran> =>
  far(["train-vae", "--config", CONFIG, "--out", out, "--device", "cpu", ...more], {}, "-P");

const CLIPS = Deno.makeTempDirSync();
Deno.copyFileSync(file("../assets/dmlab_24.npz"), `${CLIPS}/dmlab_24.npz`);
globalThis.addEventListener("unload", () => Deno.removeSync(CLIPS, { recursive: true }));

const SETS = [
  `datasets.train.data_list=${CLIPS}`,
  `datasets.sample.data_list=${CLIPS}`,
  `models.model_cfg.vae.from_config=${file("../experiments/configs/dcae_8x_tiny.json")}`,
].flatMap((set) => ["--set", set]);

Deno.test("train-vae: the discriminator comes in, and two halves end with the same bits as the whole", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const whole = await train(`${folder}/whole`, ...SETS, "--without-perceptual");
    assertEquals(whole.code, 0, whole.stderr);
    assert(whole.stderr.includes("L1 without LPIPS"), whole.stderr);
    const half = await train(
      `${folder}/parts`,
      ...SETS,
      "--without-perceptual",
      "--set",
      "train.total_iter=4",
    );
    assertEquals(half.code, 0, half.stderr);
    const rest = await train(`${folder}/parts`, ...SETS, "--without-perceptual");
    assert(rest.stderr.includes("step 4"), rest.stderr);
    const last = "checkpoints/step-00000006";
    for (const name of ["model", "ema", "optimizer", "discriminator", "discriminator_optimizer"]) {
      const [a, b] = ["whole", "parts"].map((run) =>
        Deno.readFileSync(`${folder}/${run}/${last}/${name}.safetensors`)
      );
      assert(a.length === b.length && a.every((byte, i) => byte === b[i]), `${name} differs`);
    }

    const lines = Deno.readTextFileSync(`${folder}/whole/log.jsonl`).trim().split("\n").map((l) =>
      JSON.parse(l)
    );
    const steps = lines.filter((l) => "reconstruction" in l);
    assertEquals(steps.map((l) => l.discriminator > 0), [false, false, false, true, true, true]);
    const validations = lines.filter((l) => "validation_loss_ema" in l);
    assertEquals(validations.map((l) => l.step), [2, 5]);
    assert(readPng(`${folder}/whole/samples/step-00000006.png`).width > 0);

    const config = dcaeConfig(
      JSON.parse(Deno.readTextFileSync(file("../experiments/configs/dcae_8x_tiny.json"))),
    );
    for (const name of ["model", "ema"]) {
      using weights = openSafetensors(`${folder}/whole/${last}/${name}.safetensors`);
      disposeAll(loadParams(openReferenceDevice(), weights, dcaeShapes(config)));
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("train-vae: without the weights of LPIPS it stops, unless --without-perceptual is given", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const missing = await train(`${folder}/x`, ...SETS);
    assertEquals(missing.code, 2, missing.stderr);
    assert(missing.stderr.includes("no weights of LPIPS: give --perceptual FILE"), missing.stderr);
    const both = await train(`${folder}/x`, ...SETS, "--without-perceptual", "--perceptual", "vgg.pth");
    assert(both.code === 2 && both.stderr.includes("expected one of them"), both.stderr);
    const wrong = await train(
      `${folder}/x`,
      ...SETS,
      "--perceptual",
      file("golden/dcae_8x_quad/weights.safetensors"),
    );
    assert(wrong.code === 1 && wrong.stderr.includes("not the weights of LPIPS (vgg)"), wrong.stderr);
    assertEquals(wrong.stderr.trim().split("\n").length, 2, wrong.stderr); // the device, the error
    const other = await far(["train-vae", "--config", file("data/train_clip.yml"), "--out", `${folder}/x`]);
    assert(other.code === 2 && other.stderr.includes("far.ts train takes it"), other.stderr);
    assertEquals([...Deno.readDirSync(folder)], []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the authors' options of the autoencoder are read as they are", () => {
  const options = readOptions(file("data/options/train_DCAE_dmlab.yml"));
  const config = optionsVaeTrainer(options, true);
  assertEquals(config.model.encoder.map((s) => s.channels), [128, 256, 512, 512]);
  const { lr, betas, weightDecay, discriminator, perceptualWeight, discriminatorWeight, discriminatorStart } =
    config;
  assertEquals({ lr, betas, weightDecay }, { lr: 1e-4, betas: [0.5, 0.9], weightDecay: 0 });
  assertEquals(discriminator, { lr: 1e-4, betas: [0.5, 0.9], weightDecay: 0 });
  assertEquals([perceptualWeight, discriminatorWeight, discriminatorStart], [1, 0.5, 100000]);
  assertEquals([config.emaDecay, config.maxGradNorm, config.warmup, options.train.total_iter], [
    0.9999,
    1,
    0,
    200000,
  ]);
  assertEquals(optionsVaeTrainer(options, false).perceptualWeight, null);
});
