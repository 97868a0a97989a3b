import { assert, assertEquals, assertLess, assertRejects } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { openDevice } from "../kernels/open.ts";
import { decode } from "../lib/dcae/autoencoder.ts";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { FAR_MODELS, type FarConfig, farConfig, farShapes } from "../lib/far/config.ts";
import { sample, type SampledFrame, type SampleOptions, Sampler } from "../lib/far/sample.ts";
import { type Params, randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, Tensor } from "../lib/tensor.ts";
import { sharedDevice, testOnDevices, testOnEverySetting } from "./helpers.ts";

const SMALL = farConfig("FAR_Long", {
  num_layers: 2,
  num_attention_heads: 2,
  attention_head_dim: 32,
  axes_dims_rope: [8, 12, 12],
  in_channels: 8,
  out_channels: 8,
  short_term_ctx_winsize: 3,
  condition_cfg: { type: "action", num_action_classes: 3 },
});

interface Run extends Partial<SampleOptions> {
  readonly contextFrames: number;
  readonly predict: number;
}

/** Samples with random context, actions and weights that depend on nothing but fixed seeds. */
async function* roll(
  device: Device,
  config: FarConfig,
  run: Run,
  given?: Params,
): AsyncGenerator<SampledFrame> {
  const params = given ?? randomParams(device, farShapes(config), 3), C = config.inChannels, size = 8;
  const count = run.contextFrames * C * size * size;
  const actions = Int32Array.from({ length: run.contextFrames + run.predict }, (_, f) => f % 3);
  yield* sample({
    device,
    params,
    config,
    frameShape: [1, C, size, size],
    context: count ? normal(streamOf(5, "context"), count) : undefined,
    actions: config.condition ? actions : undefined,
    steps: 4,
    seed: 11,
    ...run,
  });
  if (!given) disposeAll(params);
}

async function all(frames: AsyncGenerator<SampledFrame>): Promise<Float32Array[]> {
  const latents = [];
  for await (const frame of frames) latents.push(frame.latents);
  return latents;
}

Deno.test("timers run while the cpu device samples, though not after every step", async () => {
  const { device } = await openDevice({ device: "cpu", threads: 1 });
  let fired = 0, steps = 0;
  const timer = setInterval(() => fired++, 0);
  const busy = () => {
    steps++;
    for (const start = performance.now(); performance.now() - start < 2;);
  };
  await all(roll(device, SMALL, { contextFrames: 0, predict: 1, steps: 100, onStep: busy }));
  clearInterval(timer);
  assert(fired > 0 && fired < steps, `timers fired ${fired} times in ${steps} steps`);
  device.close();
});

testOnEverySetting("the same seed gives the same bytes twice, another seed others", async (device) => {
  const run = { contextFrames: 2, predict: 4 };
  const first = await all(roll(device, SMALL, run));
  assertEquals(first, await all(roll(device, SMALL, run)));
  const other = await all(roll(device, SMALL, { ...run, seed: 12 }));
  assert(first[0].some((v, i) => Math.abs(v - other[0][i]) > 0.1));
});

testOnEverySetting("a frame's bytes do not depend on how many frames are asked for", async (device) => {
  const [short, long] = [2, 5].map((predict) => all(roll(device, SMALL, { contextFrames: 2, predict })));
  assertEquals((await short)[1], (await long)[1]);
});

testOnDevices(
  "frames stepped one by one, each with its action, equal those of actions given at once",
  async (device) => {
    const params = randomParams(device, farShapes(SMALL), 3),
      context = normal(streamOf(5, "context"), 2 * 8 * 64);
    const options = {
      device,
      params,
      config: SMALL,
      frameShape: [1, 8, 8, 8] as const,
      context,
      predict: 3,
      steps: 2,
    };
    const actions = [0, 1, 2, 0, 1];
    for (const guidance of [1, 1.5]) {
      const whole = await all(sample({ ...options, guidance, actions }));
      using sampler = new Sampler({ ...options, guidance, actions: actions.slice(0, 2) });
      for (const [i, latents] of whole.entries()) {
        assertEquals(await sampler.next([actions[2 + i]]), { frame: 2 + i, latents });
      }
      await assertRejects(() => sampler.next([0]), RangeError, "all 5 frames have been made");
      using other = new Sampler({ ...options, guidance, actions: actions.slice(0, 2) });
      const { latents } = await other.next([1]); // another action makes another frame
      assert(latents.some((v, i) => v !== whole[0][i]));
    }
    await assertRejects(
      () => new Sampler({ ...options, actions: [0, 1] }).next([3.5]),
      RangeError,
      "action is 3.5",
    );
    disposeAll(params);
  },
);

Deno.test({
  name: "the same seed gives the same bytes with one, two and three threads",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const results: Float32Array[][] = [];
    for (const threads of [1, 2, 3]) {
      const { device } = await openDevice({ device: "cpu", threads });
      results.push(await all(roll(device, SMALL, { contextFrames: 5, predict: 2, guidance: 1.5 })));
      device.close();
    }
    assertEquals(results[0], results[1]);
    assertEquals(results[0], results[2]);
  },
});

testOnDevices("frames equal those of the cpu device within 1/255", async (device) => {
  const stage = { attention_head_dim: 8, in_channels: 3, latent_channels: 8, scaling_factor: 0.2889 };
  const blocks = ["ResBlock", "ResBlock", "EfficientViTBlock"];
  const config = dcaeConfig({
    ...stage,
    downsample_block_type: "pixel_unshuffle",
    upsample_block_type: "pixel_shuffle",
    ...Object.fromEntries(["encoder", "decoder"].flatMap((side) => [
      [`${side}_block_out_channels`, [16, 24, 32]],
      [`${side}_block_types`, blocks],
      [`${side}_layers_per_block`, [0, 1, 1]],
      [`${side}_qkv_multiscales`, [[], [], []]],
    ])),
    decoder_norm_types: ["batch_norm", "batch_norm", "rms_norm"],
    decoder_act_fns: ["relu", "relu", "silu"],
  });
  const frames: number[][] = [];
  for (const d of [device, await sharedDevice("cpu")]) {
    const vae = randomParams(d, dcaeShapes(config), 4), decoded: number[] = [];
    for (const latents of await all(roll(d, SMALL, { contextFrames: 4, predict: 3 }))) {
      const pixels = scope(() => decode(vae, config, Tensor.from(d, latents, [1, 8, 8, 8])));
      decoded.push(...await pixels.read());
      pixels.dispose();
    }
    disposeAll(vae);
    frames.push(decoded.map((v) => Math.min(1, Math.max(0, v / 2 + 0.5))));
  }
  const worst = frames[0].reduce((m, v, i) => Math.max(m, Math.abs(v - frames[1][i])), 0);
  assertLess(worst, 1 / 255);
});

testOnDevices("f16 storage is within 1e-3 of the same f16-rounded weights in f32", async (device) => {
  const shapes = farShapes(SMALL), run = { contextFrames: 4, predict: 2 };
  const half = randomParams(device, shapes, 3, { dtype: "f16" });
  assert(Object.values(half).some((t) => t.dtype === "f16"));
  const rounded: Record<string, Tensor> = {};
  for (const [name, t] of Object.entries(half)) rounded[name] = Tensor.from(device, await t.read(), t.shape);
  const [a, b] = [await all(roll(device, SMALL, run, half)), await all(roll(device, SMALL, run, rounded))];
  for (const [f, frame] of a.entries()) {
    const difference = frame.reduce((s, v, i) => s + (v - b[f][i]) ** 2, 0);
    assertLess(Math.sqrt(difference / b[f].reduce((s, v) => s + v * v, 0)), 1e-3);
  }
  disposeAll([half, rounded]);
});

testOnDevices(
  "guidance between 0 and 1 is plain conditional sampling, -1 drops every action",
  async (device) => {
    const run = { contextFrames: 2, predict: 2 };
    const plain = await all(roll(device, SMALL, { ...run, guidance: 1 }));
    assertEquals(await all(roll(device, SMALL, { ...run, guidance: 0.5 })), plain);
    const none = Int32Array.of(3, 3, 3, 3); // the null index is the number of classes
    assertEquals(
      await all(roll(device, SMALL, { ...run, guidance: -1 })),
      await all(roll(device, SMALL, { ...run, actions: none })),
    );
  },
);

/** FAR-B-Long's blocks and cache, with one head so that a software adapter can run them: the counts are the same. */
const COUNTED: FarConfig = {
  ...FAR_MODELS.FAR_B_Long,
  heads: 1,
  window: 4,
  condition: { type: "action", classes: 3 },
};

testOnDevices(
  "FAR-B-Long: few dispatches per step, one wait per frame, nothing new after the second frame",
  async (device) => {
    const steps = 3, params = randomParams(device, farShapes(COUNTED), 1);
    const seen: { dispatches: number; waits: number; pipelines: number; held: number; live: number }[] = [];
    const dispatchesAtStep: number[] = [];
    const frames = roll(device, COUNTED, {
      contextFrames: 2,
      predict: 8, // the window of four is full at the third frame: both cache levels
      steps,
      onStep: () => dispatchesAtStep.push(device.stats.dispatches),
    }, params);
    for await (const _ of frames) {
      const { dispatches, waits, pipelines, heldBytes: held, liveBytes: live } = device.stats;
      seen.push({ dispatches, waits, pipelines, held, live });
    }
    const perStep = dispatchesAtStep.map((d, i) => i % steps ? d - dispatchesAtStep[i - 1] : 0);
    assertLess(Math.max(...perStep), 200 + 1);
    assertLess(Math.max(...perStep), 8 * COUNTED.layers + 40 + 1);
    if (device.info.name === "webgpu") {
      seen.slice(1).forEach((s, i) => assertEquals(s.waits - seen[i].waits, 1, `waits of frame ${i + 1}`));
    }
    assertEquals(
      seen.at(-1)!.pipelines,
      seen[2].pipelines,
      "pipelines after the first frame with both cache levels",
    );
    assertEquals(seen.at(-1)!.held, seen[3].held, "device memory held");
    assertEquals(seen.at(-1)!.live, seen[3].live, "device memory in use");
    disposeAll(params);
  },
);

testOnDevices(
  "with a full window, all pipelines are compiled by the second frame and memory is flat after the third",
  async (device) => {
    const params = randomParams(device, farShapes(COUNTED), 1);
    const seen: { pipelines: number; held: number }[] = [];
    for await (const _ of roll(device, COUNTED, { contextFrames: 6, predict: 6, steps: 2 }, params)) {
      seen.push({ pipelines: device.stats.pipelines, held: device.stats.heldBytes });
    }
    assertEquals(seen.at(-1)!.pipelines, seen[1].pipelines);
    assertEquals(seen.at(-1)!.held, seen[2].held);
    disposeAll(params);
  },
);
