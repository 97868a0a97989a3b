/**
 * Cost of a launch on the host, in microseconds per launch; the kernels themselves take next to no time.
 *
 *     deno run -A bench/launch.ts [--rounds 200] [--devices cpu,webgpu,dry] [--save]
 *
 * - `tiny`: 17 operations on tensors of some 32 elements, in turns; the first round (code not compiled yet), the median;
 * - `gradient`: forward and backward pass of a small network, per launch;
 * - `step` (dry device): one cached denoising step of FAR-B-Long, host milliseconds and launches.
 *
 * The cpu device runs on one thread, its kernels included. On `webgpu` launches are recorded, 100 at a time, and sent outside
 * the measured time. The dry device shows what lies above the devices. `--save` writes bench/results/launch.json.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { openDryDevice } from "../kernels/dry.ts";
import { openDevice } from "../kernels/open.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { farShapes } from "../lib/far/config.ts";
import * as ops from "../lib/ops.ts";
import type { Params } from "../lib/params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../lib/tensor.ts";
import { config, ours } from "./denoise.ts";
import { environment, numberList, option } from "./environment.ts";
import { median, saveResults } from "./peer_process.ts";

/** Tensors of a few values, and operations on them: one launch each. */
function tinyOps(device: Device): (() => unknown)[] {
  const made = (...shape: number[]) =>
    Tensor.from(device, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5), shape);
  const x = made(4, 8), w = made(8, 8), b = made(8), modulation = made(1, 48), pixels = made(16, 4);
  const image = made(1, 4, 4, 4), filter = made(4, 4, 3, 3), depthwise = made(4, 1, 3, 3), c = made(4);
  const rows = Tensor.from(device, new Int32Array(4));
  const ranges = Int32Array.from({ length: 16 }, (_, i) => i % 4 === 1 ? 4 : 0);
  const mask = ops.placeMask(device, { ranges, keys: 4, visible: 4 });
  const gate = { modulation, rows, col: 0 };
  return [
    () => ops.add(x, x),
    () => ops.linear(x, w, { bias: b }),
    () => ops.normModulate(x, modulation, rows, { shift: 0, scale: 8 }),
    () => ops.maxPool2d(image, 2, 2),
    () => ops.slice(x, 0, 1, 2),
    () => ops.linear(x, w, { bias: b, act: "gelu", gate, residual: x }),
    () => ops.attention(x, x, x, 8, mask),
    () => ops.conv2d(image, filter, { bias: c }),
    () => ops.depthwiseConv2d(image, depthwise),
    () => ops.glu(pixels),
    () => ops.groupMean(pixels, 2),
    () => ops.rmsNorm(pixels, c),
    () => ops.embed(w, rows),
    () => ops.permute(x, [1, 0]),
    () => ops.linearQkv(x, [w, w, w], null),
    () => ops.activation(x, "silu"),
    () => ops.lerp(x, x, 0.5),
  ];
}

const round2 = (value: number) => Math.round(value * 100) / 100;

/** Microseconds per launch of `body`, round by round: of the first, and the median of the second half. */
async function measure(device: Device, rounds: number, body: () => void) {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const before = device.stats.dispatches, start = performance.now();
    body();
    times.push((performance.now() - start) * 1000 / (device.stats.dispatches - before));
    await device.sync();
  }
  return {
    first: round2(times[0]),
    median: round2(median(times.slice(rounds >> 1))),
  };
}

async function tiny(device: Device, rounds: number) {
  const all = tinyOps(device), turns = Math.floor(100 / all.length);
  return await measure(device, rounds, () =>
    scope(() => {
      for (let turn = 0; turn < turns; turn++) for (const op of all) op();
    }));
}

/** Eight residual layers with adaptive norms, as a transformer's, and their gradients. */
async function gradient(device: Device, rounds: number) {
  const made = (...shape: number[]) =>
    Tensor.from(device, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.1), shape);
  const x = made(4, 8), modulation = made(1, 16), rows = Tensor.from(device, new Int32Array(4));
  const params: Record<string, Tensor> = {};
  for (let i = 0; i < 8; i++) params[`w${i}`] = made(8, 8);
  const loss = valueAndGrad((p: Params) => {
    let h = x;
    for (let i = 0; i < 8; i++) {
      const normal = ops.normModulate(h, modulation, rows, { shift: 0, scale: 8 });
      h = ops.add(h, ops.linear(normal, p[`w${i}`], { act: "gelu" }));
    }
    return h;
  });
  return await measure(device, rounds, () => disposeAll(unscoped(() => loss(params))));
}

/** Host milliseconds of a denoising step on a device that computes nothing. */
async function step(rounds: number) {
  const device = openDryDevice();
  const params = unscoped(() =>
    Object.fromEntries(
      Object.entries(farShapes(config)).map(([name, shape]) => [name, Tensor.empty(device, shape)]),
    )
  );
  const { seconds } = ours(device, params), times: number[] = [];
  let launches = 0;
  for (let round = 0; round < rounds; round++) {
    const before = device.stats.dispatches;
    times.push(await seconds() * 1000);
    launches = device.stats.dispatches - before;
  }
  return { launches, firstMs: round2(times[0]), medianMs: round2(median(times.slice(rounds >> 1))) };
}

if (import.meta.main) {
  const rounds = numberList("rounds")?.[0] ?? 200;
  const results: Record<string, unknown> = {};
  for (const name of (option("devices") ?? "cpu,dry").split(",")) {
    const device = name === "dry"
      ? openDryDevice()
      : (await openDevice(name === "webgpu" ? { device: "webgpu" } : { device: "cpu", threads: 1 })).device;
    const result = {
      device: device.info.description,
      tiny: await tiny(device, rounds),
      gradient: await gradient(device, Math.min(rounds, 40)),
      ...(name === "dry" ? { step: await step(rounds) } : {}),
    };
    console.log(name, JSON.stringify(result));
    results[name] = result;
    device.close();
  }
  if (Deno.args.includes("--save")) {
    await saveResults("launch", {
      what:
        "microseconds of host time per launch: 17 tiny operations in turns, a small network with gradients; " +
        "milliseconds of a denoising step of FAR-B-Long on a device that computes nothing",
      rounds,
      ...await environment(),
      results,
    });
  }
}
