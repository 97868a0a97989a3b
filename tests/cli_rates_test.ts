import { assert, assertEquals } from "@std/assert";
import { openDryDevice } from "../kernels/dry.ts";
import { dcaeCost, flopsOf, sampleCost, totalCost } from "../lib/pipeline/cost.ts";
import {
  costsOf,
  expectedWriting,
  learnWriting,
  measureRates,
  sampleSeconds,
  secondsAt,
} from "../lib/pipeline/rates.ts";
import { linear } from "../lib/ops.ts";
import { dcaeConfig } from "../lib/dcae/config.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { sample } from "../lib/far/sample.ts";
import { scope, Tensor, unscoped } from "../lib/tensor.ts";
import { inFolder, TINY_DCAE, TINY_FAR } from "./cli_helpers.ts";
import { withEnvironment } from "./io_helpers.ts";
import { testOnDevices } from "./helpers.ts";

/** Runs the body with a cache folder of its own. */
async function withCache(body: (folder: string) => Promise<void>): Promise<void> {
  await inFolder((folder) => withEnvironment("FAR_CACHE", folder, () => body(`${folder}/rates`)));
}

const SHAPE = { clips: 1, height: 4, width: 4, context: 3, predict: 4, steps: 5, guidance: 1, cache: true };

Deno.test("a dry run groups launches by kernel and size, and keeps all of their work", () => {
  const device = openDryDevice(),
    product = (rows: number) => {
      const [x, w] = unscoped(() => [Tensor.empty(device, [rows, 64]), Tensor.empty(device, [64, 64])]);
      scope(() => linear(x, w));
    };
  for (const rows of [100, 101, 200]) product(rows);
  const kinds = [...device.kinds].filter(([, { sample }]) => sample.kernel.name === "linear");
  assertEquals(kinds.map(([, { unit }]) => unit), [100, 200].map((rows) => 2 * rows * 64 * 64));
  assertEquals(kinds.map(([kind]) => device.cost.work[kind]), [201, 200].map((rows) => 2 * rows * 64 * 64));
});

Deno.test("the cost of frames that are not run dry is that of running them all", async () => {
  const long = { ...TINY_FAR.config, short_term_ctx_winsize: 5 };
  for (
    const [type, config, cache, context, remember] of [
      ["FAR_Long", long, true, 2, undefined],
      ["FAR_Long", long, true, 20, undefined],
      ["FAR", TINY_FAR.config, true, 3, undefined],
      ["FAR", TINY_FAR.config, false, 3, undefined],
      ["FAR_Long", long, true, 2, 17],
      ["FAR_Long", long, true, 30, 21],
      ["FAR", TINY_FAR.config, true, 3, 12],
      ["FAR", TINY_FAR.config, false, 3, 12],
    ] as const
  ) {
    const model = farConfig(type, config), device = openDryDevice(), C = model.inChannels, predict = 80;
    const found = await sampleCost(model, {
      ...SHAPE,
      context,
      predict,
      steps: 2,
      cache,
      remember,
    }, "f32");
    const params = unscoped(() =>
      Object.fromEntries(
        Object.entries(farShapes(model)).map(([name, shape]) => [name, Tensor.empty(device, shape)]),
      )
    );
    const sum = () => Object.values(device.cost.flops).reduce((a, b) => a + b, 0), steps: number[] = [];
    let before = 0;
    const frames = sample({
      device,
      params,
      config: model,
      frameShape: [1, C, 4, 4],
      context: new Float32Array(context * C * 16),
      predict,
      steps: 2,
      actions: new Int32Array(context + predict),
      label: [0],
      cache,
      remember,
      onStep: () => {
        steps.push(sum() - before);
        before = sum();
      },
    });
    for await (const _ of frames);
    assertEquals(found.length, predict);
    found.flatMap(({ first, further }) => [first, further]).forEach((cost, i) => {
      const wrong = Math.abs(flopsOf(cost) / steps[i] - 1);
      assert(wrong < 1e-9, `${type}, step ${i}: ${flopsOf(cost)}, expected ${steps[i]}`);
      // Both are FLOP or bytes, added up over the same launches.
      const work = Object.values(cost.work).reduce((a, b) => a + b, 0);
      assert(work >= flopsOf(cost));
    });
    assertEquals(totalCost(found, 2).memory, device.stats.peakBytes);
  }
});

testOnDevices(
  "kernels are timed at a run's own sizes, and read from the cache folder by the next run",
  async (device) => {
    await withCache(async (folder) => {
      const frames = await sampleCost(farConfig(TINY_FAR.type, TINY_FAR.config), SHAPE, "f32");
      const decode = dcaeCost(dcaeConfig(TINY_DCAE), "decode", 4, [16, 16], "f32"),
        costs = [decode, ...costsOf(frames)];
      const rates = await measureRates(device, costs);
      const kinds = new Set(costs.flatMap((cost) => Object.keys(cost.work)));
      assertEquals(new Set(rates.seconds.keys()), kinds);
      for (const [kind, seconds] of rates.seconds) assert(seconds > 0 && Number.isFinite(seconds), kind);
      const [file, ...others] = [...Deno.readDirSync(folder)].map((entry) => `${folder}/${entry.name}`);
      assertEquals(others, []);
      const saved = JSON.parse(Deno.readTextFileSync(file)).seconds;
      // A slow or busy device runs out of time: what it did not time is like what it did.
      assert(Object.keys(saved).length > 0 && Object.keys(saved).every((kind) => kinds.has(kind)));
      // Marked rates come back, times one factor that says how busy the machine is.
      const marked = Object.fromEntries([...kinds].map((kind, i) => [kind, (i + 1) * 1e-16]));
      Deno.writeTextFileSync(file, JSON.stringify({ seconds: marked, random: 1000 }));
      const again = await measureRates(device, costs);
      const factors = [...again.seconds].map(([kind, s]) => s / marked[kind]);
      assert(Math.abs(again.random * factors[0] / 1000 - 1) < 1e-9, `${again.random}`);
      for (const factor of factors) {
        assert(factor > 2 && Math.abs(factor / factors[0] - 1) < 1e-9, `${factors}`);
      }
      assertEquals(
        JSON.parse(Deno.readTextFileSync(file)).seconds,
        marked,
        "what is known is not timed again",
      );
    });
  },
);

Deno.test("seconds are the sum over launches and what the host takes, and further steps count as often as they come", async () => {
  const frames = await sampleCost(farConfig(TINY_FAR.type, TINY_FAR.config), SHAPE, "f32");
  const kinds = new Set(costsOf(frames).flatMap((cost) => Object.keys(cost.work)));
  const rates = { seconds: new Map([...kinds].map((kind) => [kind, 1e-6])), random: 1 };
  const work = (cost: typeof frames[0]["first"]) =>
    Object.values(cost.work).reduce((a, b) => a + b, 0) * 1e-6 + cost.host;
  const near = (a: number, b: number) => assert(Math.abs(a - b) < 1e-9 * Math.abs(b), `${a} ${b}`);
  near(secondsAt(frames[0].first, rates), work(frames[0].first));
  for (const steps of [1, 2, 5]) {
    const wanted = frames.reduce((sum, f) => sum + work(f.first) + (steps - 1) * work(f.further), 0);
    near(sampleSeconds(frames, steps, rates), wanted);
  }
});

Deno.test("how long writing takes is learnt from what it took", async () => {
  await withCache(async () => {
    const small = { ending: "mp4", videos: 1, pixels: 1e6 }, large = { ...small, videos: 2, pixels: 2e6 };
    const first = expectedWriting(small);
    assert(Math.abs(expectedWriting(large) - 2 * first) < 1e-9);
    await learnWriting(small, 6 * first);
    assert(Math.abs(expectedWriting(large) - 12 * first) < 1e-9);
    await learnWriting(small, 2 * first);
    assert(Math.abs(expectedWriting(small) - 4 * first) < 1e-9, "half of it new");
    assertEquals(expectedWriting({ ...small, ending: "gif" }), first, "each kind of video by itself");
  });
});
