/**
 * Training the autoencoder: one picture learnt by heart, the discriminator, what a resumed run computes, what a bad batch
 * leaves alone.
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { decode, encode } from "../lib/dcae/autoencoder.ts";
import { type DcaeConfig, dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { discriminatorShapes } from "../lib/dcae/discriminator.ts";
import { openSafetensors } from "../lib/io/safetensors.ts";
import { frameLoss, full } from "../lib/ops.ts";
import { isMatrix, loadParams, type Params, randomParams, splitBuffers } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, sizeOf, Tensor, unscoped } from "../lib/tensor.ts";
import { latestCheckpoint, saveCheckpoint } from "../lib/train/checkpoint.ts";
import { vaeStepCost } from "../lib/train/cost.ts";
import type { BatchSource } from "../lib/train/source.ts";
import { Trainer, type TrainerStart } from "../lib/train/trainer.ts";
import { vaeObjective, type VaeTrainingConfig } from "../lib/train/vae_objective.ts";
import { testOnDevices } from "./helpers.ts";
import { openReferenceDevice } from "./reference_device.ts";

const SIZE = 32;

/** 8x, 4 latent channels, one block a stage. */
const TINY: DcaeConfig = tiny();

function tiny(more: Record<string, unknown> = {}): DcaeConfig {
  const channels = [8, 8, 16, 16], layers = [0, 1, 1, 1], none = [[], [], [], []];
  const blocks = ["ResBlock", "ResBlock", "ResBlock", "EfficientViTBlock"];
  return dcaeConfig({
    ...{ in_channels: 3, latent_channels: 4, attention_head_dim: 8, scaling_factor: 0.3 },
    ...{ downsample_block_type: "pixel_unshuffle", upsample_block_type: "pixel_shuffle" },
    ...{
      encoder_block_types: blocks,
      encoder_block_out_channels: channels,
      encoder_layers_per_block: layers,
    },
    ...{
      decoder_block_types: blocks,
      decoder_block_out_channels: channels,
      decoder_layers_per_block: layers,
    },
    ...{ encoder_qkv_multiscales: none, decoder_qkv_multiscales: none },
    decoder_norm_types: ["batch_norm", "batch_norm", "batch_norm", "rms_norm"],
    decoder_act_fns: ["relu", "relu", "relu", "silu"],
    ...more,
  });
}

function configured(more: Partial<VaeTrainingConfig> = {}): VaeTrainingConfig {
  return {
    model: TINY,
    lr: 3e-3,
    betas: [0.5, 0.9],
    discriminator: { lr: 1e-3, betas: [0.5, 0.9] },
    perceptualWeight: null,
    discriminatorWeight: 0.5,
    discriminatorStart: 1000,
    warmup: 0,
    maxGradNorm: 1,
    emaDecay: 0.9,
    accumulate: 1,
    checkpoint: false,
    seed: 1,
    nonFiniteLimit: 2,
    ...more,
  };
}

/** A picture with edges and a slope of colour, `[1, 1, 3, 32, 32]`, the same at every position or another each time. */
function pictures(varied: boolean): BatchSource {
  return {
    batch(position) {
      const shift = varied ? position * 3 : 0;
      const latents = Float32Array.from({ length: 3 * SIZE * SIZE }, (_, i) => {
        const column = (i + shift) % SIZE,
          row = Math.floor(i / SIZE) % SIZE,
          channel = Math.floor(i / SIZE ** 2);
        const inside = Math.hypot(column - 12, row - 18) < 8;
        return inside ? [0.8, -0.2, -0.6][channel] : [row, column, 31 - row][channel] / 15.5 - 1;
      });
      return Promise.resolve({ latents, shape: [1, 1, 3, SIZE, SIZE] });
    },
  };
}

const fresh = (device: Device, config = TINY) => randomParams(device, dcaeShapes(config), 5, { pack: false });

const start = (
  device: Device,
  config: VaeTrainingConfig,
  source = pictures(false),
  from: TrainerStart = { weights: { model: fresh(device, config.model) } },
) => Trainer.start(device, vaeObjective(device, config, source, null), config, from);

async function valuesOf(params: Params): Promise<Record<string, number[]>> {
  const values: Record<string, number[]> = {};
  for (const [name, t] of Object.entries(params)) values[name] = [...await t.read()];
  return values;
}

testOnDevices(
  "one picture is learnt by heart: L1 falls to a quarter in 40 steps, with f16 matrices too",
  async (device) => {
    for (const dtype of ["f32", "f16"] as const) {
      const trainer = await start(device, configured({ dtype }));
      const losses: number[] = [];
      for (let i = 0; i < 40; i++) losses.push((await trainer.step()).loss);
      console.log(`  ${dtype}: L1 ${losses[0].toFixed(3)} to ${losses[39].toFixed(3)}`);
      assert(losses[39] < losses[0] / 4, `${dtype}: ${losses[0]} fell to ${losses[39]}`);
      trainer.dispose();
    }
  },
);

Deno.test("with f16 matrices a step takes as much less memory as they are smaller", async () => {
  const shape = [1, 1, 3, SIZE, SIZE] as const, trained = { ...dcaeShapes(TINY), ...discriminatorShapes() };
  const matrices = Object.entries(trained).filter(([name, s]) => isMatrix(name, s));
  const saved = matrices.reduce((bytes, [, s]) => bytes + 2 * sizeOf(s), 0);
  for (const adversarial of [false, true]) {
    const [full, half] = await Promise.all(
      (["f32", "f16"] as const).map((dtype) => vaeStepCost(configured({ dtype }), shape, adversarial)),
    );
    assertEquals(full.peakBytes - half.peakBytes, saved);
    assertEquals(half.flops, full.flops);
  }
});

testOnDevices(
  "the discriminator starts at its step, freezes the encoder and leaves no memory behind",
  async (device) => {
    for (const dtype of ["f32", "f16"] as const) {
      const config = configured({ discriminatorStart: 2, accumulate: 2, dtype });
      const trainer = await start(device, config, pictures(true));
      const losses = [(await trainer.step()).terms, (await trainer.step()).terms];
      assertEquals(losses.map((l) => [l.generator, l.discriminator]), [[0, 0], [0, 0]]);
      const before = await valuesOf(trainer.params);
      const first = await trainer.step(), live = device.stats.liveBytes, second = await trainer.step();
      assertEquals(device.stats.liveBytes, live, "bytes in use after a step and after the next");
      for (const { terms: l } of [first, second]) {
        assert(l.adaptiveWeight > 0 && l.discriminator > 0 && l.generator !== 0, JSON.stringify(l));
      }
      const after = await valuesOf(trainer.params);
      const changed = Object.keys(before).filter((n) => before[n].join() !== after[n].join());
      assertEquals(changed.filter((n) => n.startsWith("encoder.")), []);
      assertEquals(changed.length, Object.keys(before).filter((n) => n.startsWith("decoder.")).length);
      const { updates, networkUpdates } = trainer.state;
      assertEquals([updates, networkUpdates], [4, { discriminator: 2 }]);
      trainer.dispose();
    }
  },
);

testOnDevices(
  "a run that stops and resumes computes the same bits, discriminator and averages included",
  async (device) => {
    for (const dtype of ["f32", "f16"] as const) {
      const folder = await Deno.makeTempDir(), config = configured({ discriminatorStart: 2, dtype });
      const whole = await start(device, config, pictures(true));
      for (let i = 0; i < 3; i++) await whole.step();
      await saveCheckpoint(whole, folder);
      const last = await whole.step(), expected = await valuesOf(whole.params);
      const saved = latestCheckpoint(folder, whole.objective.networks, true)!;
      const again = await start(device, config, pictures(true), { saved });
      assertEquals((await again.step()).terms, last.terms);
      assertEquals(await valuesOf(again.params), expected);
      assertEquals(again.params["decoder.conv_in.weight"].dtype, dtype);
      const master = saved.networks.model.params["decoder.conv_in.weight"];
      assert(master.some((v) => v !== Math.f16round(v)), "checkpoints hold f32");
      for (const name of ["decoder.conv_in.weight", "decoder.up_blocks.1.1.norm.running_var"]) {
        assertEquals([...await again.ema!.shadow.read(name)], [...await whole.ema!.shadow.read(name)]);
      }
      // Either file of a checkpoint is a whole autoencoder.
      for (const name of ["model", "ema"]) {
        using file = openSafetensors(`${saved.path}/${name}.safetensors`);
        disposeAll(loadParams(device, file, dcaeShapes(TINY)));
      }
      whole.dispose();
      again.dispose();
      await Deno.remove(folder, { recursive: true });
    }
  },
);

testOnDevices(
  "a batch that is not finite changes nothing, statistics included, and too many stop the run",
  async (device) => {
    const latents = new Float32Array(3 * SIZE * SIZE).fill(NaN);
    const source: BatchSource = {
      batch: (position) =>
        position === 0
          ? pictures(false).batch(0)
          : Promise.resolve({ latents, shape: [1, 1, 3, SIZE, SIZE] }),
    };
    const trainer = await start(device, configured({ discriminatorStart: 0 }), source);
    await trainer.step();
    const before = await valuesOf(trainer.params), report = await trainer.step();
    assert(report.skipped?.startsWith("the loss is NaN"), report.skipped);
    assertEquals(await valuesOf(trainer.params), before);
    await assertRejects(() => trainer.step(), Error, "the last of 2 such steps in a row");
    trainer.dispose();
  },
);

Deno.test("training with LPIPS and without the weights of VGG16 is refused", () => {
  const config = configured({ perceptualWeight: 1 });
  assertThrows(
    () => vaeObjective(openReferenceDevice(), config, pictures(false), null),
    Error,
    "weights of VGG16 are missing",
  );
});

testOnDevices(
  "gradients through multi-scale attention and its batch norm agree with finite differences",
  async (device) => {
    const model = tiny({
      encoder_qkv_multiscales: [[], [], [], [3]],
      decoder_qkv_multiscales: [[], [], [], [3, 5]],
      decoder_norm_types: ["batch_norm", "batch_norm", "batch_norm", "batch_norm"],
    });
    const { params, buffers } = splitBuffers(fresh(device, model));
    const x = Tensor.from(device, normal(streamOf(2, "images"), 2 * 3 * SIZE * SIZE), [2, 3, SIZE, SIZE]);
    const forward = (p: Params) => {
      const updated = {}, all = { ...p, ...buffers };
      const y = decode(all, model, encode(all, model, x), { updated });
      unscoped(() => disposeAll(updated));
      return y.reshape([2, y.size / 2]);
    };
    const target = x.reshape([2, x.size / 2]), weight = full(device, [2], 1);
    const { value, grads } = valueAndGrad((p: Params) => frameLoss(forward(p), target, weight))(params);
    const wanted = await x.read();
    const along = await valuesOf(grads), at = await valuesOf(params);
    for (const part of ["to_qkv_multiscale", "up_blocks.3.0.attn", "encoder.", "decoder."]) {
      const names = Object.keys(params).filter((n) => n.includes(part));
      const square = names.reduce((s, n) => s + along[n].reduce((a, g) => a + g * g, 0), 0);
      const moved = async (by: number) => {
        const p = unscoped(() => ({
          ...params,
          ...Object.fromEntries(names.map((n) => [
            n,
            Tensor.from(device, Float32Array.from(at[n], (v, i) => v + by * along[n][i]), params[n].shape),
          ])),
        }));
        // Squares are added in f64: the rounding of a single f32 loss would be as large as what the step changes.
        const result = scope(() => forward(p)), y = await result.read();
        disposeAll([result, names.map((n) => p[n])]);
        return y.reduce((sum, v, i) => sum + (v - wanted[i]) ** 2, 0) * 2 / y.length;
      };
      // Few ReLUs change sides within so small a step.
      const h = 3e-5 / square, slope = (await moved(h) - await moved(-h)) / (2 * h);
      assert(Math.abs(slope / square - 1) < 1e-2, `${part}: ${slope}, expected ${square}`);
    }
    disposeAll([params, buffers, x, target, weight, value, grads]);
  },
);
