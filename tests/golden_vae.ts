/**
 * Recorded cases of the autoencoder: evaluation, training with L1.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { decode, encode } from "../lib/dcae/autoencoder.ts";
import { type DcaeConfig, dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { absLoss, full } from "../lib/ops.ts";
import { type Params, splitBuffers } from "../lib/params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../lib/tensor.ts";
import {
  type Differences,
  floats,
  type GoldenCase,
  has,
  paramsOf,
  type Runner,
  shapeOf,
  upload,
} from "./golden_case.ts";
import { checkGradients } from "./golden_train.ts";

/** Evaluation: every module, latents, frames. */
export const autoencoder: Runner = {
  kind: "DC-AE forward",
  device: true,
  recognises: (c) => c.config.model === "MyAutoencoderDC" && has(c, "x", "z", "y"),
  async run(c, device, differences) {
    const config = dcaeConfig(c.config.config), params = paramsOf(device, c, dcaeShapes(config));
    const seen = new Map<string, Tensor>();
    const tap = (module: string, output: Tensor) =>
      seen.set(module, unscoped(() => output.reshape(output.shape)));
    const [x, z2] = ["x", "z2"].map((name) => upload(device, c, name));
    const z = scope(() => encode(params, config, x, { tap })),
      y2 = scope(() => decode(params, config, z2, { tap }));
    const y = scope(() => decode(params, config, z));
    for (const [name, value] of Object.entries({ z, y2, y })) {
      differences.check(name, await value.read(), floats(c, name), "forward");
    }
    for (const name of c.io!.tensors.keys()) {
      const match = /^(enc|dec)\.(.*?)(_nhwc)?$/.exec(name);
      if (!match) continue;
      const output = seen.get(`${match[1]}oder.${match[2]}`);
      if (!output) throw new Error(`${name}: the model shows no such module`);
      const values = await output.read(), [B, H, W, C] = output.shape;
      const got = match[3] ? values : Float32Array.from({ length: values.length }, (_, i) => {
        const column = i % W, row = Math.floor(i / W) % H, channel = Math.floor(i / (W * H)) % C;
        return values[((Math.floor(i / (W * H * C)) * H + row) * W + column) * C + channel];
      });
      assertEquals(B, shapeOf(c, name)[0]);
      differences.check(name, got, floats(c, name), "forward");
    }
    disposeAll([params, x, z2, z, y2, y, [...seen.values()]]);
  },
};

/** One step in train mode: forward, L1, all gradients, batch-norm statistics; with checkpointing the same. */
export const autoencoderTraining: Runner = {
  kind: "DC-AE in train mode",
  device: true,
  recognises: (c) => c.config.model === "MyAutoencoderDC" && has(c, "x", "train.y", "train.l1_loss"),
  async run(c, device, differences) {
    await autoencoder.run(c, device, differences);
    const config = dcaeConfig(c.config.config),
      all = paramsOf(device, c, dcaeShapes(config), { pack: false });
    const { params, buffers } = splitBuffers(all), x = upload(device, c, "x");
    const before = await Promise.all(Object.values(buffers).map((t) => t.read()));
    for (const checkpoint of [false, true]) {
      await trainStep(c, { device, config, params, buffers, x, checkpoint }, differences);
    }
    const after = await Promise.all(Object.values(buffers).map((t) => t.read()));
    assertEquals(after, before, "the running statistics that came in stay as they are");
    disposeAll([all, x]);
  },
};

interface TrainStep {
  readonly device: Device;
  readonly config: DcaeConfig;
  readonly params: Params;
  readonly buffers: Params;
  readonly x: Tensor;
  readonly checkpoint: boolean;
}

async function trainStep(c: GoldenCase, s: TrainStep, differences: Differences): Promise<void> {
  const { device, config, params, buffers, x, checkpoint } = s, updated: Record<string, Tensor> = {};
  let y: Tensor | undefined;
  const { value, grads } = valueAndGrad((p: Params) => {
    const every = { ...p, ...buffers };
    const z = encode(every, config, x, { checkpoint });
    const rec = decode(every, config, z, { updated, checkpoint });
    y = unscoped(() => rec.reshape(rec.shape));
    return absLoss(rec.reshape([1, rec.size]), x.reshape([1, x.size]), full(device, [1], 1));
  })(params);
  differences.check("train.y", await y!.read(), floats(c, "train.y"), "forward");
  differences.check("train.l1_loss", await value.read(), floats(c, "train.l1_loss"), "forward");
  assertEquals(Object.keys(updated).sort(), Object.keys(buffers).sort());
  for (const [name, t] of Object.entries(updated)) {
    differences.check(`train.after.${name}`, await t.read(), floats(c, `train.after.${name}`), "forward");
  }
  await checkGradients(c, grads, differences, "train.grad");
  disposeAll([y, value, grads, updated]);
}
