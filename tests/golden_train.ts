/**
 * Recorded training steps: noisy latents, prediction, loss, gradients of all parameters, AdamW, EMA, the loss curve.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import type { Conditions } from "../lib/far/conditioning.ts";
import { farShapes } from "../lib/far/config.ts";
import type { Params } from "../lib/params.ts";
import { disposeAll, type Tensor, unscoped } from "../lib/tensor.ts";
import { AdamW, clipFactor, Ema, gradientNorm } from "../lib/train/adamw.ts";
import { flowMatchingLoss, mixNoise, noiseDraw, velocityTarget } from "../lib/far/flow.ts";
import { far } from "../lib/far/transformer.ts";
import {
  type Differences,
  farOf,
  floats,
  type GoldenCase,
  has,
  ints,
  paramsOf,
  type Runner,
  shapeOf,
  upload,
} from "./golden_case.ts";

/** Bounds of the comparison, with reasons. */
export const GRADIENT = {
  bound: 1e-4,
  zero: 1e-7,
  why: "relative L2 of each tensor; the authors' f32 is 8e-7 from f64",
};

/** Conditions that reached the table, put back together: long-term frames first. */
function conditionsOf(c: GoldenCase, B: number, F: number): Conditions {
  if (has(c, "label_effective")) return { label: ints(c, "label_effective") };
  if (!has(c, "action_effective")) return has(c, "label") ? { label: ints(c, "label") } : {};
  const near = ints(c, "action_effective"),
    distant = has(c, "action_effective_ctx") ? ints(c, "action_effective_ctx") : [];
  const win = near.length / B, nc = F - win;
  const actions = Int32Array.from({ length: B * F }, (_, i) => {
    const b = Math.floor(i / F), f = i % F;
    return f < nc ? distant[b * nc + f] : near[b * win + f - nc];
  });
  return { actions };
}

async function lossOf(value: Tensor): Promise<number> {
  return (await value.read()).reduce((a, b) => a + b, 0);
}

/** Compares gradients with the recorded `PREFIX.NAME`, tensor by tensor. */
export async function checkGradients(
  c: GoldenCase,
  grads: Params,
  differences: Differences,
  prefix = "grad",
): Promise<void> {
  for (const [name, gradient] of Object.entries(grads)) {
    const got = await gradient.read(), want = floats(c, `${prefix}.${name}`);
    let difference = 0, size = 0, largest = 0;
    for (let i = 0; i < want.length; i++) {
      difference += (got[i] - want[i]) ** 2;
      size += want[i] ** 2;
      largest = Math.max(largest, Math.abs(got[i]));
    }
    if (size === 0) differences.within(`${prefix}.${name}, recorded as zero`, largest, GRADIENT.zero);
    else differences.within(`${prefix}.${name}`, Math.sqrt(difference / size), GRADIENT.bound);
  }
}

/** AdamW's first step is about lr·sign(g): where g is tiny, the sign may differ. */
async function checkUpdated(
  c: GoldenCase,
  params: Params,
  lr: number,
): Promise<void> {
  for (const [name, p] of Object.entries(params)) {
    if (!has(c, `updated.${name}`)) continue;
    const got = await p.read(), want = floats(c, `updated.${name}`), gradient = floats(c, `grad.${name}`);
    const largest = gradient.reduce((m, g) => Math.max(m, Math.abs(g)), 0);
    for (let i = 0; i < want.length; i++) {
      const bound = Math.abs(gradient[i]) < 1e-5 * largest ? 2 * lr : 2e-6 * Math.max(1, Math.abs(want[i]));
      const difference = Math.abs(got[i] - want[i]);
      if (!(difference <= bound)) {
        throw new Error(`updated.${name}[${i}]: differs by ${difference}, expected at most ${bound}`);
      }
    }
  }
}

/** Training steps on recorded noise. */
export const training: Runner = {
  kind: "training step",
  device: true,
  recognises: (c) =>
    /^FAR(_Long)?$/.test(c.config.model ?? "") && has(c, "noisy_latents", "grad.proj_out.weight"),
  async run(c, device: Device, differences) {
    const config = farOf(c), params = paramsOf(device, c, farShapes(config), { pack: false });
    const shape = shapeOf(c, "latents_used"), [B, F] = shape, latents = upload(device, c, "latents_used");
    const given = { noise: floats(c, "noise"), u: floats(c, "u"), clean: ints(c, "context_mask") };
    const draw = noiseDraw(shape, given, config.window);
    const noisy = mixNoise(latents, draw), target = velocityTarget(latents, draw);
    differences.check("noisy_latents", await noisy.read(), floats(c, "noisy_latents"), "table");
    differences.check("timesteps", draw.timesteps, floats(c, "timesteps"), "exact");
    differences.check("target", await target.read(), floats(c, "target"), "table");

    const conditions = conditionsOf(c, B, F), predictions: Tensor[] = [];
    const step = (checkpoint = false) =>
      valueAndGrad((p: Params) =>
        flowMatchingLoss(
          (latents, timesteps) => {
            const v = far(p, config, { latents, timesteps, ...conditions }, { checkpoint });
            predictions.push(unscoped(() => v.reshape(v.shape)));
            return v;
          },
          latents,
          draw,
        )
      )(params);
    const { value, grads } = step();
    differences.check("model_pred", await predictions[0].read(), floats(c, "model_pred"), "forward");
    const losses = [await lossOf(value)];
    differences.check("loss", losses, floats(c, "loss"), "forward");
    await checkGradients(c, grads, differences);
    const norm = await gradientNorm(grads);
    differences.within("gradient norm", Math.abs(norm / c.config.grad_norm - 1), 1e-4);

    const again = step(true);
    for (const name of Object.keys(params)) {
      const [a, b] = await Promise.all([grads[name].read(), again.grads[name].read()]);
      const largest = a.reduce((m, g) => Math.max(m, Math.abs(g)), 0);
      const difference = a.reduce((m, g, i) => Math.max(m, Math.abs(g - b[i])), 0);
      // The forward pass of a checkpointed block runs fused kernels, which round once less.
      differences.within(`grad.${name} with checkpointing`, difference / Math.max(largest, 1e-3), 1e-5);
    }
    disposeAll([again, noisy, target]);

    const { lr, betas, eps, weight_decay: weightDecay } = c.config.adamw;
    const optimizer = new AdamW(params, { betas, eps, weightDecay });
    const ema = await Ema.start(params, c.config.ema_decay);
    let gradients = grads, total = norm;
    for (let i = 0; i < 3; i++) {
      await optimizer.step(params, gradients, lr, clipFactor(total, c.config.max_grad_norm));
      await ema.update(params);
      if (i === 0) {
        await checkUpdated(c, params, lr);
        for (const name of Object.keys(params)) {
          if (has(c, `ema.${name}`)) {
            differences.check(
              `ema.${name}`,
              await ema.shadow.read(name),
              floats(c, `ema.${name}`),
              "rollout",
            );
          }
        }
      }
      disposeAll(gradients);
      if (i === 2) break;
      const next = step();
      losses.push(await lossOf(next.value));
      next.value.dispose();
      gradients = next.grads;
      total = await gradientNorm(gradients);
    }
    differences.check("loss_3steps", losses, floats(c, "loss_3steps"), "curve");
    for (const name of c.io!.tensors.keys()) {
      if (!name.startsWith("after3.")) continue;
      differences.check(name, await params[name.slice(7)].read(), floats(c, name), "curve");
    }
    optimizer.dispose();
    ema.dispose();
    disposeAll([params, value, latents, predictions]);
  },
};
