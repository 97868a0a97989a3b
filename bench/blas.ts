/**
 * The cpu device with a BLAS of the system and without, in turns: a cached denoising step of FAR-B-Long, a training step of
 * FAR-B on 16 frames, prediction with the bundled model and a training step of its transformer.
 *
 *     deno run -A bench/blas.ts [--only denoise,train,predict,train-world] [--rounds 9] [--library PATH] [--python PATH] [--save]
 *
 * With `--python`, PyTorch takes its turn at the first two (bench/peers; README there), its modulation once per frame as ours.
 * denoise.ts and training.ts check it against recorded outputs of the authors' code.
 *
 * One thread, and process seconds, which other work on the machine disturbs less than the clock. The ratio is the median of
 * the rounds' own ratios.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { openDevice } from "../kernels/open.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { sliceFrames } from "../lib/io/frames.ts";
import { randomParams } from "../lib/params.ts";
import { encodeClip, loadModel, rollout } from "../lib/pipeline/model.ts";
import { normal, streamOf } from "../lib/random.ts";
import { prepareBatch } from "../lib/train/far_loss.ts";
import { readClip } from "../lib/pipeline/clip.ts";
import { config as farLong, ours } from "./denoise.ts";
import { environment, option } from "./environment.ts";
import { median, peerEnvironment, PeerProcess, processSeconds, saveResults } from "./peer_process.ts";
import { inputFor, Step } from "./training.ts";

/** A piece of work on a device: its parts, and how much of each part's time counts. */
type Work = (device: Device) => Promise<(readonly [part: () => Promise<unknown>, share: number])[]>;

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
const PEERS: Readonly<Record<string, string>> = { denoise: "far_torch.py", train: "train_torch.py" };

/** Our work on a device that is opened so, in process seconds. */
async function timed(name: string, blas: string) {
  const { device } = await openDevice({ device: "cpu", threads: 1, blas }), parts = await WORK[name](device);
  const seconds = async () => {
    let sum = 0;
    for (const [run, share] of parts) {
      const from = processSeconds();
      await run();
      sum += share * (processSeconds() - from);
    }
    return sum;
  };
  return { device, seconds };
}

if (import.meta.main) {
  const rounds = Number(option("rounds") ?? 9),
    library = option("library") ?? "auto",
    python = option("python");
  const only = option("only")?.split(",") ?? Object.keys(WORK), load = Deno.loadavg();
  const results = [];
  for (const name of only) {
    const off = await timed(name, "off"), blas = await timed(name, library);
    const script = new URL(`peers/${PEERS[name]}`, import.meta.url).pathname;
    const peer = python && PEERS[name]
      ? await PeerProcess.start(python, [script, "serve", "--threads", "1"], peerEnvironment(1))
      : null;
    const sides: Record<string, () => Promise<number>> = {
      off: off.seconds,
      blas: blas.seconds,
      ...(peer ? { torch: () => peer.processSeconds() } : {}),
    };
    const all: Record<string, number[]> = {};
    for (let round = -1; round < rounds; round++) {
      for (const [side, seconds] of Object.entries(sides)) {
        const spent = await seconds();
        if (round >= 0) (all[side] ??= []).push(Math.round(spent * 1e4) / 1e4);
      }
    }
    const ratio = (of: string, to: string) =>
      all[to] ? Math.round(1000 * median(all[of].map((s, i) => s / all[to][i]))) / 1000 : undefined;
    const ratios = { off_to_blas: ratio("off", "blas"), blas_to_torch: ratio("blas", "torch") };
    const seconds = Object.fromEntries(Object.entries(all).map(([side, list]) => [side, median(list)]));
    console.log(name, seconds, ratios, blas.device.info.blas);
    results.push({ name, rounds, blas: blas.device.info.blas, seconds, ratios, all, torch: peer?.info });
    await peer?.end();
    off.device.close();
    blas.device.close();
  }
  if (Deno.args.includes("--save")) {
    const what =
      "process seconds of one thread in alternating rounds: without a BLAS, with one, PyTorch; median ratios";
    const core = Deno.env.get("OPENBLAS_CORETYPE");
    await saveResults(`blas${core ? `_${core.toLowerCase()}` : ""}`, {
      what,
      ...await environment(),
      load_average: load,
      results,
    });
  }
}
