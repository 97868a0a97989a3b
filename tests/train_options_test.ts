/**
 * Option files: the authors' are read as they are, anything else is refused by path.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { DCAE_MODELS } from "../lib/dcae/config.ts";
import { FAR_MODELS, farConfig } from "../lib/far/config.ts";
import type { YamlValue } from "../lib/io/yaml.ts";
import {
  optionsDcaeConfig,
  optionsTrainer,
  optionsVaeTrainer,
  parseOptions,
  readOptions,
} from "../lib/train/options.ts";
import { OptionError } from "../lib/train/schema.ts";

const LONG = new URL("data/options/train_FAR_B_Long_dmlab.yml", import.meta.url).pathname;
const DCAE = new URL("data/options/train_DCAE_dmlab.yml", import.meta.url).pathname;

/** The smallest file that is taken. */
const SMALL = (): { [key: string]: YamlValue } => ({
  name: "small",
  datasets: { train: { type: "World" } },
  models: { model_cfg: { transformer: { init_cfg: { type: "FAR_B" } } } },
  train: { total_iter: 10 },
});

function refused(value: YamlValue): string {
  return assertThrows(() => parseOptions(value), OptionError).message;
}

Deno.test("the authors' long-context options map to the model, the objective and the schedule", () => {
  const options = readOptions(LONG), run = optionsTrainer(options);
  assertEquals(
    run.model,
    farConfig("FAR_B_Long", { condition_cfg: { type: "action", num_action_classes: 4 } }),
  );
  assertEquals(run.objective, {
    cleanContextRatio: 0.1,
    weighting: "logit_normal",
    trainingType: "long_context",
    conditionDropout: 0.1,
    videoDiT: false,
    rolloutRatio: 0,
    rolloutClean: "first",
    pureNoiseRatio: 0,
  });
  assertEquals([run.lr, run.warmup, run.maxGradNorm, run.emaDecay, run.weightDecay], [
    1e-4,
    10000,
    1,
    0.9999,
    0,
  ]);
  assertEquals(run.betas, [0.9, 0.999]);
  assertEquals(options.logger.save_checkpoint_freq, 50000);
  assertEquals(options.train.total_iter, 1000000);
  assertEquals(optionsDcaeConfig(options), DCAE_MODELS["8x"]);
});

Deno.test("the authors' autoencoder options are read", () => {
  const options = readOptions(DCAE);
  assertEquals(options.train.train_pipeline, "DCAETrainer");
  assertEquals(options.train.optim_d?.betas, [0.5, 0.9]);
  assertEquals(options.models.disc_start_iter, 100000);
});

Deno.test("the smallest file gets every default", () => {
  const options = parseOptions(SMALL()), run = optionsTrainer(options);
  assertEquals(run.model, FAR_MODELS.FAR_B);
  assertEquals([run.emaDecay, run.maxGradNorm, run.accumulate, run.checkpoint], [null, null, 1, false]);
  assertEquals(optionsDcaeConfig(options), null);
});

Deno.test("an option replaced on the command line wins over the file", () => {
  const options = readOptions(LONG, [
    "train.optim_g.lr=!!float 3e-4",
    "train.optim_g.betas.1=0.99",
    "models.clean_context_ratio=0",
    "train.gradient_checkpointing=true",
    "models.model_cfg.transformer.init_cfg.config.num_layers=2",
  ]);
  const run = optionsTrainer(options);
  assertEquals([run.lr, run.betas, run.objective.cleanContextRatio], [3e-4, [0.9, 0.99], 0]);
  assertEquals([run.checkpoint, run.model.layers], [true, 2]);
});

Deno.test("unknown options are refused by path, with the nearest name", () => {
  assertEquals(
    refused({ ...SMALL(), train: { total_iter: 1, warm_up_iter: 3 } }),
    'train.warm_up_iter: there is no such option, did you mean "warmup_iter"?',
  );
  const message = assertThrows(() => readOptions(LONG, ["train.optim_g.rate=1"]), OptionError).message;
  assert(
    message.endsWith("train.optim_g.rate: there is no such option; here are type, lr, weight_decay, betas"),
    message,
  );
});

Deno.test("values of the wrong type or range are refused by path", () => {
  for (
    const [options, expected] of [
      [{ ...SMALL(), train: {} }, "train.total_iter: is missing, expected a whole number of at least 0"],
      [
        { ...SMALL(), train: { total_iter: 1.5 } },
        "train.total_iter: expected a whole number of at least 0, found 1.5",
      ],
      [
        { ...SMALL(), train: { total_iter: 1, optim_g: { lr: "fast" } } },
        'train.optim_g.lr: expected a number of at least 0, found "fast"',
      ],
      [
        { ...SMALL(), train: { total_iter: 1, optim_g: { betas: [0.9] } } },
        "train.optim_g.betas: expected a list of 2 x a number from 0 to 1, found a list",
      ],
      [{ ...SMALL(), train: 3 }, "train: expected a mapping, found 3"],
      [
        { ...SMALL(), mixed_precision: "bf17" },
        'mixed_precision: expected no, fp16, bf16, found bf17, did you mean "bf16"?',
      ],
    ] as const
  ) assertEquals(refused(options as unknown as YamlValue), expected);
  assertThrows(
    () => optionsTrainer(readOptions(LONG, ["models.model_cfg.transformer.init_cfg.config={num_layer: 3}"])),
    TypeError,
    "num_layer",
  );
});

Deno.test("the name of a run is one segment of a path, so that it cannot write outside out/train", () => {
  for (
    const name of ["../../../x", "..", ".", "", "a/b", "/tmp/x", "a\\b", " a", "a\nb", "a\0", "x".repeat(201)]
  ) {
    assertEquals(
      refused({ ...SMALL(), name }),
      `name: expected the name of a folder, without slashes and of at most 200 bytes, found ${
        JSON.stringify(name)
      }`,
    );
  }
  for (const name of ["far_b.v2", "..x", ".x", "Läufe 3", "x".repeat(200)]) {
    assertEquals(parseOptions({ ...SMALL(), name } as YamlValue).name, name);
  }
});

Deno.test("both kinds of mixed precision store matrices as f16", () => {
  const stored = ["no", "fp16", "bf16"].map((kind) =>
    optionsTrainer(readOptions(LONG, [`mixed_precision=${kind}`])).dtype
  );
  assertEquals(stored, [undefined, "f16", "f16"]);
  assertEquals(optionsVaeTrainer(readOptions(DCAE), true).dtype, "f16"); // the authors' bf16
});

Deno.test("what cannot be done is refused instead of ignored", () => {
  assert(
    refused({ ...SMALL(), train: { total_iter: 1, param_names_to_optimize: ["a"] } }).startsWith(
      "train.param_names",
    ),
  );
  const from = SMALL();
  from.models = { model_cfg: { transformer: { from_pretrained: "x", init_cfg: { type: "FAR_B" } } } };
  assert(refused(from).includes("from_pretrained"));
  assertThrows(() => readOptions(LONG, ["train.total_iter"]), OptionError, "expected path=value");
  assertThrows(() => readOptions(LONG, ["name.first=1"]), OptionError, "name is");
});
