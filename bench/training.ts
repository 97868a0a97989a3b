/**
 * Memory and time of training.
 *
 *     deno run -A bench/training.ts context [--device cpu|webgpu] [--frames 16,64,256] [--save]
 *         One step with long short-term context and with uniform context, by the number of frames (the paper's Figure 6),
 *         with and without checkpointing: 64 tokens a near frame, 4 a distant one, 256 channels, 6 blocks.
 *     deno run -A bench/training.ts step [--threads 1,2] [--rounds 5] [--python PATH] [--golden FOLDER,FOLDER] [--save]
 *         One step of FAR-B on 16 frames, ours and PyTorch's in turns (bench/peers/train_torch.py, which is checked against
 *         recorded steps of the authors' code before it is timed).
 *
 * Activation memory is the largest amount in use at once, less parameters and gradients, which exist from the start here;
 * moments and averages are no part of it. Without checkpointing, memory comes from a dry run of the same code.
 *
 * @module
 */
import type { Device, DeviceName } from "../kernels/device.ts";
import { openDevice } from "../kernels/open.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { countParameters, type FarConfig, farConfig, farShapes } from "../lib/far/config.ts";
import { full } from "../lib/ops.ts";
import { type Params, randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, unscoped } from "../lib/tensor.ts";
import { AdamW, clipFactor, Ema, gradientNorm } from "../lib/train/adamw.ts";
import { stepCost } from "../lib/train/cost.ts";
import { farLoss, type LossInput, prepareBatch, type TrainBatch } from "../lib/train/far_loss.ts";
import { environment, numberList, option } from "./environment.ts";
import { median, peerEnvironment, PeerProcess, saveResults } from "./peer_process.ts";

const round3 = (value: number) => Math.round(value * 1000) / 1000;
const MiB = (bytes: number) => Math.round(bytes / 2 ** 20);

const objective = {
  cleanContextRatio: 0,
  weighting: "logit_normal",
  trainingType: "base",
  conditionDropout: 0,
} as const;

export function inputFor(model: FarConfig, frames: number): LossInput {
  const shape: TrainBatch["shape"] = [1, frames, 32, 8, 8];
  const batch = {
    latents: normal(streamOf(1, "latents"), frames * 32 * 64),
    shape,
    actions: new Int32Array(frames),
  };
  return prepareBatch({ model, seed: 0, objective }, batch, 0);
}

/** A training step with everything that belongs to it. */
export class Step {
  readonly params: Params;
  readonly #grads: Params;
  readonly #optimizer: AdamW;
  readonly #ema: Ema;
  /** Bytes in use before a step. */
  readonly base: number;

  private constructor(
    readonly device: Device,
    readonly model: FarConfig,
    params: Params,
    optimizer: AdamW,
    ema: Ema,
  ) {
    this.params = params;
    this.#optimizer = optimizer;
    this.#ema = ema;
    this.#grads = unscoped(() =>
      Object.fromEntries(Object.entries(params).map(([name, t]) => [name, full(device, t.shape, 0)]))
    );
    this.base = device.stats.liveBytes;
  }

  static async make(device: Device, model: FarConfig): Promise<Step> {
    const params = randomParams(device, farShapes(model), 0, { pack: false });
    return new Step(device, model, params, new AdamW(params), await Ema.start(params, 0.9999));
  }

  /** Seconds and peak activation bytes of one step. */
  async run(input: LossInput, checkpoint: boolean): Promise<{ seconds: number; activations: number }> {
    const { device, params } = this, grads = this.#grads;
    unscoped(() => {
      for (const g of Object.values(grads)) device.write(g.storage, new Float32Array(g.size));
    });
    await device.sync();
    device.stats.peakBytes = device.stats.liveBytes;
    const start = performance.now();
    const { value, grads: made } = unscoped(() =>
      valueAndGrad((p: Params) => farLoss(p, device, { ...input, checkpoint }), { into: grads })(
        params,
      )
    );
    const loss = (await value.read()).reduce((a, b) => a + b, 0);
    const activations = device.stats.peakBytes - this.base;
    await this.#optimizer.step(params, made, 1e-4, clipFactor(await gradientNorm(made), 1));
    await this.#ema.update(params);
    await device.sync();
    const seconds = (performance.now() - start) / 1000;
    if (!Number.isFinite(loss)) throw new Error(`the loss is ${loss}`);
    disposeAll(value);
    return { seconds, activations };
  }

  dispose(): void {
    this.#optimizer.dispose();
    this.#ema.dispose();
    disposeAll([this.params, this.#grads]);
  }
}

async function context(): Promise<void> {
  const name = (option("device") ?? "cpu") as DeviceName;
  const { device } = await openDevice({ device: name });
  const sizes = {
    num_layers: 6,
    num_attention_heads: 4,
    condition_cfg: { type: "action", num_action_classes: 4 },
  };
  const models = { long: farConfig("FAR_Long", sizes), uniform: farConfig("FAR", sizes) };
  const rows: Record<string, unknown>[] = [], load = Deno.loadavg()[0];
  for (const frames of numberList("frames") ?? [16, 32, 64, 128, 256]) {
    const row: Record<string, number> = { frames };
    for (const [kind, model] of Object.entries(models)) {
      const input = inputFor(model, frames), shape = input.shape;
      const step = await Step.make(device, model);
      const parameters = 4 * countParameters(farShapes(model));
      await step.run(inputFor(model, 4), true); // compiles, and makes pools
      const again = await step.run(input, true);
      const kept = stepCost(model, shape), recomputed = stepCost(model, shape, { checkpoint: true });
      row[`${kind}_seconds`] = round3(again.seconds);
      row[`${kind}_gflop`] = Math.round(recomputed.flops / 1e9);
      row[`${kind}_activations_mib`] = MiB(again.activations);
      row[`${kind}_activations_dry_mib`] = MiB(recomputed.activationBytes);
      row[`${kind}_activations_without_checkpointing_mib`] = MiB(kept.activationBytes);
      // Parameters, gradients, two moments, averages.
      row[`${kind}_total_mib`] = MiB(again.activations + 5 * parameters);
      step.dispose();
      device.trim();
    }
    row.memory_ratio = round3(row.uniform_activations_mib / row.long_activations_mib);
    row.time_ratio = round3(row.uniform_seconds / row.long_seconds);
    rows.push(row);
    console.log(JSON.stringify(row));
  }
  if (Deno.args.includes("--save")) {
    await saveResults(`training_context${name === "cpu" ? "" : "_webgpu"}`, {
      what:
        "one training step (loss, gradients, AdamW, averages), batch 1, 8x8 latents, 256 channels, 6 blocks, with " +
        "checkpointing: long short-term context (window 16) and uniform context",
      device: device.info.description,
      load_before: load,
      load_after: Deno.loadavg()[0],
      ...await environment(),
      rows,
    });
  }
  device.close();
}

async function step(): Promise<void> {
  const python = option("python") ?? "python3", rounds = numberList("rounds")?.[0] ?? 5;
  const script = new URL("peers/train_torch.py", import.meta.url).pathname;
  const golden = option("golden")?.split(",") ??
    [new URL("../tests/golden/train_far_short_action", import.meta.url).pathname];
  const check = await new Deno.Command(python, { args: [script, "check", ...golden], stderr: "inherit" })
    .output();
  if (!check.success) throw new Error("the peer does not equal the recorded steps, so it is not timed");
  const checked = JSON.parse(new TextDecoder().decode(check.stdout));
  console.log("peer, worst error on recorded steps:", JSON.stringify(checked));
  const model = farConfig("FAR_B"), input = inputFor(model, 16), results = [], load = Deno.loadavg()[0];
  for (const threads of numberList("threads") ?? [navigator.hardwareConcurrency]) {
    const { device } = await openDevice({ device: "cpu", threads });
    const ours = await Step.make(device, model);
    const env = peerEnvironment(threads);
    const args = [script, "serve", "--threads", String(threads)];
    const peers = {
      torch_once_per_frame: await PeerProcess.start(python, args, env),
      torch_per_token: await PeerProcess.start(python, [...args, "--per-token"], env),
    };
    const times: Record<string, number[]> = { ours: [], torch_once_per_frame: [], torch_per_token: [] };
    for (let round = -1; round < rounds; round++) {
      const now: Record<string, number> = { ours: (await ours.run(input, false)).seconds };
      for (const [peer, process] of Object.entries(peers)) now[peer] = await process.seconds();
      console.log(round < 0 ? "warm-up" : `round ${round}`, JSON.stringify(now));
      if (round >= 0) { for (const [what, s] of Object.entries(now)) times[what].push(s); }
    }
    const infos = Object.fromEntries(Object.entries(peers).map(([what, p]) => [what, p.info]));
    for (const peer of Object.values(peers)) await peer.end();
    const seconds = Object.fromEntries(
      Object.entries(times).map(([what, list]) => [what, round3(median(list))]),
    );
    const ratios = Object.fromEntries(
      Object.keys(peers).map((p) => [p, round3(median(times.ours) / median(times[p]))]),
    );
    console.log(device.info.description, JSON.stringify(seconds), "ours / peer", JSON.stringify(ratios));
    results.push({
      device: device.info.description,
      threads,
      rounds,
      seconds,
      ratios,
      gflops: round3(stepCost(model, input.shape).flops / 1e9 / median(times.ours)),
      all: Object.fromEntries(Object.entries(times).map(([what, list]) => [what, list.map(round3)])),
      peers: infos,
    });
    ours.dispose();
    device.close();
  }
  if (Deno.args.includes("--save")) {
    await saveResults("training_step", {
      what:
        "one training step of FAR-B (loss, gradients, clipping, AdamW, averages), 16 frames, batch 1, no checkpointing; " +
        "median of alternating rounds",
      load_before: load,
      load_after: Deno.loadavg()[0],
      ...await environment(),
      checked,
      results,
    });
  }
}

if (import.meta.main) {
  const parts: Record<string, () => Promise<void>> = { context, step };
  const part = parts[Deno.args[0]];
  if (!part) {
    throw new Error(`bench/training.ts: expected context or step, found ${Deno.args[0] ?? "nothing"}`);
  }
  await part();
}
