import { assert, assertEquals, assertRejects } from "@std/assert";
import { openDevice } from "../kernels/open.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { clipNoise, sample, type SampleOptions } from "../lib/far/sample.ts";
import { randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll } from "../lib/tensor.ts";
import { optionsOf, type Setting, SETTINGS, testOf } from "./helpers.ts";
import { TINY_FAR } from "./cli_helpers.ts";

const FRAME = 4 * 8 * 8, CONTEXT = 2, PREDICT = 5, SEED = 3;

/** Predicts the frames after `done`, given the ones before, and returns all. */
async function predict(
  setting: Setting,
  threads: number,
  guidance: number,
  done: Float32Array,
): Promise<Float32Array> {
  const opened = await openDevice({ ...optionsOf(setting), threads });
  const config = farConfig(TINY_FAR.type, TINY_FAR.config);
  const params = randomParams(opened.device, farShapes(config), 0);
  const context = normal(streamOf(1, "context"), CONTEXT * FRAME), out = [...done];
  const run = sample({
    device: opened.device,
    params,
    config,
    frameShape: [1, 4, 8, 8],
    context,
    made: done,
    predict: PREDICT,
    actions: Int32Array.from({ length: CONTEXT + PREDICT }, (_, i) => i % 3),
    steps: 3,
    guidance,
    seed: SEED,
  });
  for await (const { latents } of run) out.push(...latents);
  disposeAll(params);
  opened.device.close();
  return Float32Array.from(out);
}

// The window is three frames: the first predicted frame comes before the hand-over to L2, the second at it.
for (const device of SETTINGS) {
  Deno.test({
    ...testOf(device, `a roll-out that starts again after any of its frames gives the same bits (${device})`),
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      for (const guidance of [1, 1.5]) {
        const whole = await predict(device, 2, guidance, new Float32Array());
        for (let frames = 1; frames < PREDICT; frames++) {
          const again = await predict(device, frames % 2 + 1, guidance, whole.slice(0, frames * FRAME));
          assertEquals(new Uint32Array(again.buffer), new Uint32Array(whole.buffer), `after frame ${frames}`);
        }
      }
    },
  });
}

Deno.test("a clip's noise belongs to its stream: it is that of another batch, of a seed, and of numbers that are given", async () => {
  const { device } = await openDevice({ device: "cpu", threads: 1 });
  const config = farConfig(TINY_FAR.type, TINY_FAR.config),
    params = randomParams(device, farShapes(config), 0);
  const roll = async (clips: number, more: Partial<SampleOptions>) => {
    const made: Float32Array[] = [];
    const common = { device, params, config, predict: 2, steps: 2, seed: SEED };
    const actions = Array.from({ length: clips * 2 }, (_, i) => i % 2);
    const run = sample({ ...common, frameShape: [clips, 4, 8, 8], actions, ...more });
    for await (const { latents } of run) made.push(latents.slice(-FRAME));
    return made;
  };
  const alone = await roll(1, { streams: [1] });
  assertEquals(await roll(2, {}), alone, "clip 1 of a batch has stream 1");
  assertEquals(await roll(2, { streams: [7, 1] }), alone);
  assertEquals(await roll(1, { noise: clipNoise(SEED, 1, 2 * FRAME) }), alone);
  assert((await roll(1, {}))[0].some((v, i) => v !== alone[0][i]), "stream 0 is another");
  assert((await roll(1, { streams: [1], seed: SEED + 1 }))[0].some((v, i) => v !== alone[0][i]));
  assertEquals(clipNoise(SEED, 1, FRAME, FRAME), clipNoise(SEED, 1, 2 * FRAME).slice(FRAME));
  await assertRejects(() => roll(2, { streams: [1] }), RangeError, "found 1 streams of noise, expected 2");
  await assertRejects(() => roll(1, { made: new Float32Array(3) }), RangeError, "made has 3 values");
  disposeAll(params);
  device.close();
});
