/**
 * The cpu device with a BLAS of the system and without, in turns: a cached denoising step of FAR-B-Long, a forward pass and a
 * training step of FAR-B on 16 frames, prediction with the bundled model and a training step of its transformer.
 *
 *     deno run -A bench/blas.ts [--only denoise,forward,train,predict,train-world] [--threads 1,2] [--rounds 9]
 *         [--library PATH] [--python PATH] [--save]
 *
 * With `--python`, PyTorch takes its turn at the first three (bench/peers; README there), its modulation once per frame as ours.
 * denoise.ts and training.ts check it against recorded outputs of the authors' code.
 *
 * Process seconds of all threads, which other work on the machine disturbs less than the clock, and the clock, which alone
 * shows what a second thread gains. A ratio is the median of the rounds' own ratios.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { openDevice } from "../kernels/open.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { far } from "../lib/far/transformer.ts";
import { sliceFrames } from "../lib/io/frames.ts";
import { randomParams } from "../lib/params.ts";
import { encodeClip, loadModel, rollout } from "../lib/pipeline/model.ts";
import { normal, streamOf } from "../lib/random.ts";
import { scope, Tensor, unscoped } from "../lib/tensor.ts";
import { prepareBatch } from "../lib/train/far_loss.ts";
import { readClip } from "../lib/pipeline/clip.ts";
import { config as farLong, ours } from "./denoise.ts";
import { environment, numberList, option } from "./environment.ts";
import {
  median,
  peerEnvironment,
  PeerProcess,
  type PeerSeconds,
  processSeconds,
  saveResults,
} from "./peer_process.ts";
import { inputFor, Step } from "./training.ts";

/** A piece of work on a device: its parts, and how much of each part's time counts. */
type Work = (device: Device) => Promise<(readonly [part: () => Promise<unknown>, share: number])[]>;

const round4 = (value: number) => Math.round(value * 1e4) / 1e4;

async function trainingStep(
  device: Device,
  model: ReturnType<typeof farConfig>,
  input: ReturnType<typeof inputFor>,
) {
  const step = await Step.make(device, model);
  return [[() => step.run(input, false), 1] as const];
}

const WORK: Readonly<Record<string, Work>> = {
  denoise: (device) => {
    const step = ours(device, randomParams(device, farShapes(farLong), 0));
    // One step is charged its share of the modulation of 25.
    return Promise.resolve([[() => step.seconds(), 1], [() => step.modulationShare(), 1 / 25]]);
  },
  forward: (device) => {
    const model = farConfig("FAR_B"),
      params = randomParams(device, farShapes(model), 0),
      shape = [1, 16, 32, 8, 8];
    const latents = unscoped(() => Tensor.from(device, normal(streamOf(1, "latents"), 16 * 32 * 64), shape));
    const timesteps = Array.from({ length: 16 }, (_, f) => 50 * f);
    const pass = async () => {
      using velocity = scope(() => far(params, model, { latents, timesteps }));
      await velocity.read();
    };
    return Promise.resolve([[pass, 1]]);
  },
  train: (device) => {
    const model = farConfig("FAR_B");
    return trainingStep(device, model, inputFor(model, 16));
  },
  predict: async (device) => {
    const model = await loadModel({ model: "world", device });
    const clip = await readClip("world:0", { frames: 160 }), actions = clip.actions;
    const given = await encodeClip(model, sliceFrames(clip.frames, 0, 144));
    const predict = async () => {
      using walk = rollout(model, given, { predict: 16, steps: 10, seed: 0, actions });
      for await (const _ of walk);
    };
    return [[predict, 1]];
  },
  "train-world": (device) => {
    const sizes = {
      num_layers: 6,
      num_attention_heads: 4,
      attention_head_dim: 32,
      axes_dims_rope: [8, 12, 12],
    };
    const model = farConfig("FAR_Long", {
      ...sizes,
      condition_cfg: { type: "action", num_action_classes: 3 },
    });
    const shape = [4, 300, 32, 4, 4] as const, count = shape.reduce((n, s) => n * s, 1);
    const batch = { latents: normal(streamOf(1, "latents"), count), shape, actions: new Int32Array(4 * 300) };
    const objective = {
      cleanContextRatio: 0.2,
      weighting: "logit_normal",
      trainingType: "long_context",
      conditionDropout: 0,
    } as const;
    return trainingStep(device, model, prepareBatch({ model, seed: 0, objective }, batch, 0));
  },
};

/** PyTorch's programs for the same work. */
const PEERS: Readonly<Record<string, readonly string[]>> = {
  denoise: ["far_torch.py", "serve"],
  forward: ["far_torch.py", "forward"],
  train: ["train_torch.py", "serve"],
};

/** Our work on a device that is opened so. */
async function timed(name: string, threads: number, blas: string) {
  const { device } = await openDevice({ device: "cpu", threads, blas }), parts = await WORK[name](device);
  const seconds = async (): Promise<PeerSeconds> => {
    const sum = { clock: 0, process: 0 };
    for (const [run, share] of parts) {
      const clock = performance.now(), used = processSeconds();
      await run();
      sum.clock += share * (performance.now() - clock) / 1000;
      sum.process += share * (processSeconds() - used);
    }
    return sum;
  };
  return { device, seconds };
}

/** One piece of work, all sides in turns. */
async function compare(name: string, threads: number, rounds: number, library: string, python?: string) {
  const off = await timed(name, threads, "off"), blas = await timed(name, threads, library);
  const [script, mode] = PEERS[name] ?? [];
  const args = [new URL(`peers/${script}`, import.meta.url).pathname, mode, "--threads", String(threads)];
  const peer = python && script ? await PeerProcess.start(python, args, peerEnvironment(threads)) : null;
  const sides: Record<string, () => Promise<PeerSeconds>> = {
    off: off.seconds,
    blas: blas.seconds,
    ...(peer ? { torch: () => peer.bothSeconds() } : {}),
  };
  const all: Record<string, PeerSeconds[]> = {};
  for (let round = -1; round < rounds; round++) {
    for (const [side, seconds] of Object.entries(sides)) {
      const spent = await seconds();
      if (round >= 0) (all[side] ??= []).push(spent);
    }
  }
  const summary = (of: keyof PeerSeconds) => {
    const ratio = (a: string, b: string) =>
      all[b] ? round4(median(all[a].map((s, i) => s[of] / all[b][i][of]))) : undefined;
    return {
      seconds: Object.fromEntries(
        Object.entries(all).map(([side, s]) => [side, round4(median(s.map((v) => v[of])))]),
      ),
      ratios: {
        off_to_blas: ratio("off", "blas"),
        blas_to_torch: ratio("blas", "torch"),
        off_to_torch: ratio("off", "torch"),
      },
      all: Object.fromEntries(Object.entries(all).map(([side, s]) => [side, s.map((v) => round4(v[of]))])),
    };
  };
  const process = summary("process"), clock = summary("clock"), torch = peer?.info;
  console.log(
    name,
    `${threads} threads, process`,
    process.seconds,
    process.ratios,
    "clock",
    clock.seconds,
    clock.ratios,
  );
  await peer?.end();
  off.device.close();
  blas.device.close();
  return { name, threads, rounds, blas: blas.device.info.blas, process, clock, torch };
}

if (import.meta.main) {
  const rounds = Number(option("rounds") ?? 9),
    library = option("library") ?? "auto",
    python = option("python");
  const only = option("only")?.split(",") ?? Object.keys(WORK), load = Deno.loadavg();
  const results = [];
  for (const threads of numberList("threads") ?? [1]) {
    for (const name of only) results.push(await compare(name, threads, rounds, library, python));
  }
  if (Deno.args.includes("--save")) {
    const what =
      "seconds in alternating rounds, of the process and by the clock: without a BLAS, with one, PyTorch; median ratios";
    const core = Deno.env.get("OPENBLAS_CORETYPE");
    await saveResults(`blas${core ? `_${core.toLowerCase()}` : ""}`, {
      what,
      ...await environment(),
      load_average: load,
      results,
    });
  }
}
