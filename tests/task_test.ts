/**
 * Tasks of predictions, and the names of weights.
 *
 * @module
 */
import { assertEquals, assertThrows } from "@std/assert";
import { dcaeShapes } from "../lib/dcae/config.ts";
import { farConfig } from "../lib/far/config.ts";
import { makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { ChoiceError } from "../lib/pipeline/choice.ts";
import { chooseDcae } from "../lib/pipeline/models.ts";
import { conditionsOf, generationTask, predictionTask, samplerText } from "../lib/pipeline/task.ts";
import { readOptions } from "../lib/train/options.ts";
import { inFolder } from "./cli_helpers.ts";

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
