import { assertEquals } from "@std/assert";
import { openDevice } from "../kernels/open.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { sample } from "../lib/far/sample.ts";
import { randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll } from "../lib/tensor.ts";
import { DEVICES } from "./helpers.ts";
import { TINY_FAR } from "./cli_helpers.ts";

const FRAME = 4 * 8 * 8, CONTEXT = 2, PREDICT = 5, SEED = 3;

/** Predicts the frames after `done`, given the ones before, and returns all. */
async function predict(
  device: "cpu" | "webgpu",
  threads: number,
  guidance: number,
  done: Float32Array,
): Promise<Float32Array> {
  const opened = await openDevice(device === "cpu" ? { device, threads } : { device });
  const config = farConfig(TINY_FAR.type, TINY_FAR.config);
  const params = randomParams(opened.device, farShapes(config), 0);
  const before = done.length / FRAME;
  const given = normal(streamOf(1, "context"), CONTEXT * FRAME);
  const context = Float32Array.from([...given, ...done]), out = [...done];
  const run = sample({
    device: opened.device,
    params,
    config,
    frameShape: [1, 4, 8, 8],
    context,
    predict: PREDICT - before,
    actions: Int32Array.from({ length: CONTEXT + PREDICT }, (_, i) => i % 3),
    steps: 3,
    guidance,
    noise: normal(streamOf(SEED, "noise of clip 0"), (PREDICT - before) * FRAME, before * FRAME),
  });
  for await (const { latents } of run) out.push(...latents);
  disposeAll(params);
  opened.device.close();
  return Float32Array.from(out);
}

// The window is three frames: the first predicted frame comes before the hand-over to L2, the second at it.
for (const device of DEVICES) {
  Deno.test({
    name: `a roll-out that starts again after any of its frames gives the same bits (${device})`,
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

Deno.test("the sampler draws the same noise from a seed as a resumed run is given", async () => {
  const { device } = await openDevice({ device: "cpu", threads: 1 });
  const config = farConfig(TINY_FAR.type, TINY_FAR.config),
    params = randomParams(device, farShapes(config), 0);
  const common = {
    device,
    params,
    config,
    frameShape: [1, 4, 8, 8] as const,
    predict: 2,
    actions: [0, 1],
    steps: 2,
  };
  const rolls: Float32Array[][] = [];
  for (const noise of [undefined, normal(streamOf(SEED, "noise of clip 0"), 2 * FRAME)]) {
    const roll: Float32Array[] = [];
    for await (const { latents } of sample({ ...common, seed: SEED, noise })) roll.push(latents);
    rolls.push(roll);
  }
  assertEquals(rolls[0], rolls[1]);
  disposeAll(params);
  device.close();
});
