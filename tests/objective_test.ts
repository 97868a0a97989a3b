/**
 * The trainer over objectives that it has never seen: a linear layer with known gradients, two networks against each
 * other, a small part of a frozen model; and what a whole run of one writes, validates and resumes.
 */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { openSafetensors } from "../lib/io/safetensors.ts";
import { StepLog } from "../lib/io/run_folder.ts";
import { accumulate, add, mean, mul, sub } from "../lib/ops.ts";
import { defaultValues, type Params } from "../lib/params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../lib/tensor.ts";
import { latestCheckpoint, saveCheckpoint } from "../lib/train/checkpoint.ts";
import { lossObjective, type Objective } from "../lib/train/objective.ts";
import { type RunOptions, trainRun } from "../lib/train/run.ts";
import { Trainer, type TrainerConfig } from "../lib/train/trainer.ts";
import { testOnDevices } from "./helpers.ts";
import { inFolder } from "./cli_helpers.ts";
import { openReferenceDevice } from "./reference_device.ts";

const CONFIG: TrainerConfig = {
  lr: 0.1,
  warmup: 0,
  maxGradNorm: null,
  emaDecay: null,
  accumulate: 1,
  seed: 0,
  nonFiniteLimit: 2,
};

/** One clip of two frames, and a number that differs from position to position. */
interface Numbered {
  readonly shape: readonly [1, 2];
  readonly x: number;
}

const numbers = (position: number): Promise<Numbered> =>
  Promise.resolve({ shape: [1, 2] as const, x: 1 + position });

/** loss = w · x: the gradient of w is x. */
const slope = (device: Device, more: Partial<Objective<Numbered>> = {}): Objective<Numbered> => ({
  ...lossObjective({
    shapes: { "w": [1] },
    initial: () => Float32Array.of(3),
    batch: numbers,
    loss: ({ w }, { x }) => mul(w, Tensor.from(device, Float32Array.of(x))),
  }),
  ...more,
});

/** A game of two players, a and b, with gradients made by hand: a descends on b, b on -a, as a generator and its judge. */
function game(device: Device, from: number): Objective<Numbered> {
  const times = (t: Tensor, factor: number, into?: Tensor) => {
    if (into === undefined) return unscoped(() => scope(() => mul(t, factor)));
    scope(() => accumulate(into, t, factor));
    return into;
  };
  return {
    networks: {
      model: { shapes: { "a": [1], "norm.running_mean": [1] }, initial: () => Float32Array.of(1) },
      judge: {
        shapes: { "b": [1] },
        initial: () => Float32Array.of(2),
        optimizer: { lr: 0.5, betas: [0, 0] },
      },
    },
    batch: numbers,
    gradients({ model, judge }, { x }, { step, scale, into }) {
      const plays = step >= from;
      return {
        loss: x,
        terms: { plays: plays ? 1 : 0 },
        grads: {
          model: { a: times(model.params.a, scale, into?.model.a) },
          ...(plays ? { judge: { b: times(judge.params.b, -scale, into?.judge.b) } } : {}),
        },
        buffers: {
          model: {
            "norm.running_mean": unscoped(() =>
              scope(() => add(model.buffers["norm.running_mean"], Tensor.from(device, Float32Array.of(x))))
            ),
          },
        },
      };
    },
  };
}

const first = async (t: Tensor) => (await t.read())[0];

testOnDevices(
  "a loss over parameters of one's own is averaged over batches, clipped and descended",
  async (device) => {
    const config = { ...CONFIG, accumulate: 2, maxGradNorm: 0.5, betas: [0, 0], eps: 0 } as const;
    const trainer = await Trainer.start(device, slope(device), config);
    const report = await trainer.step();
    // Batches 0 and 1 have x = 1 and 2: the loss is 3 · 1.5, the gradient 1.5 before it is clipped.
    assertEquals([report.loss, report.gradientNorm], [4.5, 1.5]);
    assertEquals([report.clips, report.frames, report.shapes.length], [2, 4, 2]);
    assertEquals(report.terms, {});
    // AdamW without memory moves by the learning rate whatever the gradient; its first moment is the clipped gradient.
    assertAlmostEquals(await first(trainer.params.w), 2.9, 1e-6);
    assertAlmostEquals((await trainer.optimizer.m.read("w"))[0], 0.5, 1e-6);
    const second = await trainer.step();
    assertAlmostEquals(second.gradientNorm, 3.5, 1e-6); // batches 2 and 3
    trainer.dispose();
  },
);

testOnDevices(
  "networks have optimizers of their own; one without gradients rests; statistics are taken over",
  async (device) => {
    const before = device.stats.liveBytes;
    const trainer = await Trainer.start(device, game(device, 1), {
      ...CONFIG,
      betas: [0, 0],
      eps: 0,
      emaDecay: 0.5,
    });
    const values = async () => [
      await first(trainer.params.a),
      await first(trainer.networks.judge.params.b),
      await first(trainer.params["norm.running_mean"]),
    ];
    assertEquals((await trainer.step()).terms, { plays: 0 });
    let [a, b, statistic] = await values();
    assertAlmostEquals(a, 0.9, 1e-6);
    assertEquals([b, statistic], [2, 2]); // 1 of the start and x = 1
    assertEquals(trainer.state, { step: 1, updates: 1, skippedInRow: 0, networkUpdates: { judge: 0 } });
    assertEquals((await trainer.step()).terms, { plays: 1 });
    [a, b, statistic] = await values();
    assertAlmostEquals(a, 0.8, 1e-6);
    assertAlmostEquals(b, 2.5, 1e-6); // ascends, at its own rate
    assertEquals(statistic, 4);
    assertEquals(trainer.state, { step: 2, updates: 2, skippedInRow: 0, networkUpdates: { judge: 1 } });
    // Averages follow the model alone, statistics included: ((1 + 2) / 2 + 4) / 2.
    assertEquals((await trainer.ema!.shadow.read("norm.running_mean"))[0], 2.75);
    assertEquals(trainer.ema!.shadow.has("b"), false);
    trainer.dispose();
    assertEquals(device.stats.liveBytes, before);
  },
);

testOnDevices("two networks resume with the same bits from files named after them", async (device) => {
  const config = { ...CONFIG, emaDecay: 0.9 }, folder = Deno.makeTempDirSync();
  try {
    const whole = await Trainer.start(device, game(device, 1), config);
    for (let i = 0; i < 2; i++) await whole.step();
    const path = await saveCheckpoint(whole, folder);
    const names = [...Deno.readDirSync(path)].map(({ name }) => name).sort();
    assertEquals(names, [
      "ema.safetensors",
      "judge.safetensors",
      "judge_optimizer.safetensors",
      "model.safetensors",
      "optimizer.safetensors",
      "state.json",
    ]);
    const saved = latestCheckpoint(folder, whole.objective.networks, true)!;
    const again = await Trainer.start(device, game(device, 1), config, { saved });
    assertEquals(again.state, whole.state);
    for (const trainer of [whole, again]) await trainer.step();
    for (const name of ["model", "judge"] as const) {
      for (const [key, t] of Object.entries(whole.networks[name].all)) {
        assertEquals(await again.networks[name].all[key].read(), await t.read(), key);
      }
      for (const key of Object.keys(whole.networks[name].params)) {
        for (const moment of ["m", "v"] as const) {
          const [a, b] = [whole, again].map((t) => t.networks[name].optimizer[moment].read(key));
          assertEquals(await b, await a, `${moment}.${key}`);
        }
      }
    }
    for (const name of ["a", "norm.running_mean"]) {
      assertEquals(await again.ema!.shadow.read(name), await whole.ema!.shadow.read(name));
    }
    // A checkpoint of one network is none of an objective with two.
    const single = await Trainer.start(device, slope(device), config);
    const other = `${folder}/single`;
    await saveCheckpoint(single, other);
    assertThrows(
      () =>
        latestCheckpoint(
          other,
          { ...single.objective.networks, judge: whole.objective.networks.judge },
          true,
        ),
      FileFormatError,
      "expected judge.safetensors, found model.safetensors",
    );
    [whole, again, single].forEach((trainer) => trainer.dispose());
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

testOnDevices(
  "accumulated batches hand statistics on, and add up the gradients of all networks",
  async (device) => {
    const config = { ...CONFIG, accumulate: 2, betas: [0, 0], eps: 0 } as const;
    const trainer = await Trainer.start(device, game(device, 0), config), before = device.stats.liveBytes;
    const { terms, gradientNorm, loss } = await trainer.step();
    assertEquals([terms.plays, gradientNorm, loss], [1, 1, 1.5]); // gradient a = 1, half of it in each batch
    assertEquals(await first(trainer.params["norm.running_mean"]), 4); // 1 of the start, then x = 1 and x = 2
    assertAlmostEquals((await trainer.networks.judge.optimizer.m.read("b"))[0], -2, 1e-6);
    assertEquals(device.stats.liveBytes, before);
    trainer.dispose();
  },
);

testOnDevices(
  "a network without gradients takes statistics over all the same, and is not updated",
  async (device) => {
    const objective = game(device, 0), { gradients } = objective;
    const trainer = await Trainer.start(device, {
      ...objective,
      async gradients(...args) {
        const { grads: { model, ...others }, ...rest } = await gradients(...args);
        disposeAll(model);
        return { ...rest, grads: others };
      },
    }, CONFIG);
    const { gradientNorm } = await trainer.step();
    assertEquals([gradientNorm, trainer.state.updates, trainer.state.networkUpdates], [0, 0, { judge: 1 }]);
    assertEquals([await first(trainer.params.a), await first(trainer.params["norm.running_mean"])], [1, 2]);
    trainer.dispose();
  },
);

testOnDevices(
  "a term that is not finite is named and changes nothing, though the loss is finite",
  async (device) => {
    const objective = slope(device), { gradients } = objective;
    const trainer = await Trainer.start(
      device,
      {
        ...objective,
        gradients: async (...args) => ({ ...await gradients(...args), terms: { judge: NaN } }),
      },
      CONFIG,
    );
    const { skipped, loss } = await trainer.step();
    assertEquals([skipped, loss], ["the loss term judge is NaN", 3]);
    assertEquals([await first(trainer.params.w), trainer.state.updates], [3, 0]);
    trainer.dispose();
  },
);

testOnDevices("weights that a loss takes from elsewhere stay frozen", async (device) => {
  const frozen = Tensor.from(device, Float32Array.of(2)), disposed: string[] = [];
  const objective: Objective<Numbered> = {
    ...lossObjective({
      shapes: { "delta": [1] },
      initial: () => new Float32Array(1),
      batch: numbers,
      loss({ delta }, { x }) {
        const error = sub(mul(add(frozen, delta), x), 5 * x);
        return mean(mul(error, error));
      },
    }),
    dispose: () => disposed.push("frozen"),
  };
  const trainer = await Trainer.start(device, objective, CONFIG);
  for (let i = 0; i < 80; i++) await trainer.step();
  const delta = await first(trainer.params.delta);
  assert(Math.abs(delta - 3) < 0.2, `the difference to 5 is ${delta}, expected 3`);
  assertEquals(await first(frozen), 2);
  trainer.dispose();
  assertEquals(disposed, ["frozen"]);
  frozen.dispose();
});

testOnDevices(
  "other weights than the objective declares, and gradients of other networks, are refused by name",
  async (device) => {
    const start = (model: Params) => Trainer.start(device, slope(device), CONFIG, { weights: { model } });
    const w = Tensor.from(device, new Float32Array(2)), v = Tensor.from(device, new Float32Array(1));
    await assertRejects(() => start({ w }), RangeError, "model: w has shape [2], the objective expects [1]");
    await assertRejects(() => start({ v }), RangeError, "model: w has shape none, the objective expects [1]");
    disposeAll([w, v]);
    const objective = slope(device);
    const trainer = await Trainer.start(device, {
      ...objective,
      gradients: (...args) => ({
        loss: 1,
        grads: { other: valueAndGrad((p: Params) => mul(p.w, p.w))(args[0].model.params).grads },
      }),
    }, CONFIG);
    await assertRejects(
      () => trainer.step(),
      RangeError,
      "gradients of other, a network that it does not declare",
    );
    trainer.dispose();
  },
);

testOnDevices(
  "networks start as in PyTorch unless the objective says otherwise, from the seed of the run",
  async (device) => {
    const shapes = { "layer.weight": [3, 4], "layer.bias": [3], "norm.weight": [4] };
    const objective = () => lossObjective({ shapes, batch: numbers, loss: (p) => mean(p["layer.bias"]) });
    for (const seed of [0, 1]) {
      const trainer = await Trainer.start(device, objective(), { ...CONFIG, seed });
      for (const [name, shape] of Object.entries(shapes)) {
        assertEquals(await trainer.params[name].read(), defaultValues(name, shape, seed, shapes), name);
      }
      trainer.dispose();
    }
  },
);

Deno.test("a run logs and validates measures of raw and averaged weights, and resumes any objective", () =>
  inFolder(async (folder) => {
    const device = openReferenceDevice(), sampled: [number, number][] = [];
    const run = (name: string, steps: number, stop?: () => boolean) => {
      const options: RunOptions<Numbered> = {
        ...{ device, folder: `${folder}/${name}`, name, steps, logEvery: 1, saveEvery: 2, keep: 1, stop },
        objective: slope(device, { flops: ([B, F], step) => 100 * B * F + step }),
        config: { ...CONFIG, emaDecay: 0.5, accumulate: 2 },
        fingerprint: { run: "slope" },
        validation: {
          every: 2,
          measure: async ({ w }) => ({ validation_loss: await first(w), other: 1 }),
          async sample({ w }, step) {
            sampled.push([step, await first(w)]);
            return {};
          },
        },
        onStep: ({ report: { step }, flopsPerSecond, seconds }) => {
          if (step === 0) assertAlmostEquals(flopsPerSecond * seconds, 400, 1e-6);
        },
      };
      return trainRun(options);
    };
    const whole = await run("whole", 4);
    assertEquals([whole.step, whole.updates, whole.finished], [4, 4, true]);
    const lines = (name: string) => new StepLog(`${folder}/${name}/log.jsonl`).lines();
    const validations = lines("whole").filter((line) => "other" in line);
    assertEquals(validations.map(({ step }) => step), [1, 3]);
    // AdamW of gradients of one sign moves by the rate: 3, 2.9, 2.8; the averages follow at half the distance.
    const [{ validation_loss: raw, validation_loss_ema: averaged, other_ema }] = validations;
    assertAlmostEquals(raw as number, 2.8, 1e-2);
    assertAlmostEquals(averaged as number, (2.95 + 2.8) / 2, 1e-2);
    assertEquals([other_ema, sampled[0]], [1, [2, averaged]]);

    let steps = 0;
    const half = await run("parts", 4, () => ++steps === 3);
    assertEquals([half.step, half.finished], [3, false]);
    await run("parts", 4);
    const value = (name: string, file: string) => {
      using saved = openSafetensors(`${folder}/${name}/checkpoints/step-00000004/${file}.safetensors`);
      return [...saved.read("w").data];
    };
    for (const file of ["model", "ema"]) assertEquals(value("parts", file), value("whole", file));
    const losses = (name: string) =>
      lines(name).flatMap(({ step, loss }) => loss === undefined ? [] : [[step, loss]]);
    assertEquals(losses("parts"), losses("whole"));
  }));
