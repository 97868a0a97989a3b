/**
 * What surrounds the steps of a run: cost, log, curve.
 */
import { assert, assertEquals } from "@std/assert";
import { farConfig } from "../lib/far/config.ts";
import { StepLog } from "../lib/io/run_folder.ts";
import { stepCost } from "../lib/train/cost.ts";
import { testOnDevices } from "./helpers.ts";
import { TINY, tinyConfig } from "./train_setup.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { farShapes } from "../lib/far/config.ts";
import { full } from "../lib/ops.ts";
import { type Params } from "../lib/params.ts";
import { disposeAll, unscoped } from "../lib/tensor.ts";
import { initialParams } from "../lib/train/init.ts";
import { farLoss, prepareBatch } from "../lib/train/far_loss.ts";

Deno.test("long short-term context needs a fifth of the activation memory at 256 frames (paper, Figure 6)", () => {
  const sizes = { num_layers: 6, num_attention_heads: 4 }, shape = [1, 256, 32, 8, 8] as const;
  const long = farConfig("FAR_Long", sizes), uniform = farConfig("FAR", sizes);
  for (const checkpoint of [false, true]) {
    const a = stepCost(long, shape, { checkpoint }), b = stepCost(uniform, shape, { checkpoint });
    assert(
      b.activationBytes >= 5 * a.activationBytes,
      `${b.activationBytes} against ${a.activationBytes} bytes`,
    );
    assert(b.flops >= 20 * a.flops, `${b.flops} against ${a.flops} FLOP`);
  }
});

Deno.test("a step of FAR-B on 16 frames is some 600 GFLOP, and a forward pass more with checkpointing", () => {
  const model = farConfig("FAR_B"), shape = [1, 16, 32, 8, 8] as const;
  const kept = stepCost(model, shape), again = stepCost(model, shape, { checkpoint: true });
  // Products alone: 6 x 1024 tokens x 85 M parameters of the blocks are 522 GFLOP; attention and modulations come on top.
  assert(kept.flops > 5.7e11 && kept.flops < 6.5e11, `${kept.flops}`);
  const forward = again.flops - kept.flops;
  assert(forward > 0.29 * kept.flops && forward < 0.35 * kept.flops, `${forward} of ${kept.flops}`);
  assert(
    again.activationBytes < 0.25 * kept.activationBytes,
    `${again.activationBytes} of ${kept.activationBytes}`,
  );
});

testOnDevices("the counted memory of a step is what a device needs", async (device) => {
  const model = farConfig("FAR_Long", {
    ...TINY,
    num_layers: 3,
    num_attention_heads: 6,
    short_term_ctx_winsize: 6,
  });
  const batch = { latents: new Float32Array(2 * 8 * 2 * 64).fill(0.5), shape: [2, 8, 2, 8, 8] as const };
  const objective = { ...tinyConfig().objective, cleanContextRatio: 0 };
  const input = prepareBatch({ model, objective, seed: 0 }, batch, 0);
  const { params } = initialParams(device, farShapes(model), 0);
  const into: Params = unscoped(() =>
    Object.fromEntries(Object.entries(params).map(([name, t]) => [name, full(device, t.shape, 0)]))
  );
  for (const checkpoint of [false, true]) {
    const before = device.stats.peakBytes = device.stats.liveBytes;
    const step = valueAndGrad((p: Params) => farLoss(p, device, { ...input, checkpoint }), { into });
    const { value } = unscoped(() => step(params));
    await value.read();
    const measured = device.stats.peakBytes - before;
    value.dispose();
    const counted = stepCost(model, batch.shape, { checkpoint }).activationBytes;
    // Devices round sizes up; small tensors feel that most.
    assert(
      measured > 0.9 * counted && measured < 1.3 * counted,
      `measured ${measured}, counted ${counted} bytes`,
    );
  }
  disposeAll([params, into]);
});

Deno.test("a log that was cut off in the middle of a line loses that line, and steps that are done again", async () => {
  const folder = Deno.makeTempDirSync(), path = `${folder}/log.jsonl`;
  try {
    const log = new StepLog(path);
    assertEquals(log.lines(), []);
    for (let step = 0; step < 5; step++) log.append({ step, loss: step / 2 });
    Deno.writeTextFileSync(path, '{"step":5,"lo', { append: true });
    assertEquals(log.lines().map((l) => l.step), [0, 1, 2, 3, 4]);
    await log.cutFrom(3);
    log.append({ step: 3, loss: 9 });
    assertEquals(log.lines().map((l) => l.loss), [0, 0.5, 1, 9]);
    // What follows a first line that was cut off must not be written behind it.
    Deno.writeTextFileSync(path, '{"step":0,"lo');
    await log.cutFrom(0);
    log.append({ step: 0, loss: 7 });
    assertEquals(log.lines().map((l) => l.loss), [7]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
