/**
 * The autoencoder on the cpu device with a BLAS of the system and without, in turns with PyTorch and with another checkout of
 * this repository: DC-AE 8x (the authors' sizes) and the bundled model decode, encode and train on frames of 64 x 64 pixels.
 *
 *     deno run -A bench/autoencoder.ts [--only decode,encode,decode-world,encode-world,train-world] [--threads 1,2] [--frames 16]
 *         [--rounds 5] [--library PATH] [--python PATH] [--before FOLDER] [--golden FOLDER,FOLDER] [--save NAME]
 *
 * Every side is a process of its own that is asked for one pass at a time. PyTorch (bench/peers/dcae_torch.py) is checked against
 * recorded outputs of the authors' code first. `--before` is a working tree of an earlier commit, without a BLAS. Process
 * seconds, which other work on the machine disturbs less than the clock; a ratio is the median of the rounds' own ratios.
 *
 * @module
 */
import process from "node:process";
import { DCAE_MODELS, type DcaeConfig, dcaeConfig, dcaeShapes, downsampling } from "../lib/dcae/config.ts";
import { environment, numberList, option } from "./environment.ts";
import { median, peerEnvironment, PeerProcess, saveResults } from "./peer_process.ts";

const SIDE = 64;

const bundled = () =>
  dcaeConfig(JSON.parse(Deno.readTextFileSync(new URL("../models/world/dcae.json", import.meta.url))));

/** The measured work by name: a model and its task. */
const WORK: Readonly<
  Record<string, readonly [config: () => DcaeConfig, what: "decode" | "encode" | "train"]>
> = {
  decode: [() => DCAE_MODELS["8x"], "decode"],
  encode: [() => DCAE_MODELS["8x"], "encode"],
  "decode-world": [bundled, "decode"],
  "encode-world": [bundled, "encode"],
  "train-world": [bundled, "train"],
};

/** A configuration under the authors' keys. */
function authorsKeys(config: DcaeConfig): Record<string, unknown> {
  const side = (name: "encoder" | "decoder") => ({
    [`${name}_block_out_channels`]: config[name].map((s) => s.channels),
    [`${name}_layers_per_block`]: config[name].map((s) => s.layers),
    [`${name}_block_types`]: config[name].map((s) => s.block),
    [`${name}_qkv_multiscales`]: config[name].map((s) => s.multiscales),
  });
  return {
    in_channels: config.inChannels,
    latent_channels: config.latentChannels,
    attention_head_dim: config.headDim,
    ...side("encoder"),
    ...side("decoder"),
    decoder_norm_types: config.decoder.map((s) => s.norm),
    decoder_act_fns: config.decoder.map((s) => s.act),
  };
}

/** Answers each line on stdin with one pass of the modules of a working tree, in seconds. */
async function serve(root: URL, name: string, frames: number, threads: number, blas: string): Promise<void> {
  const load = <T>(path: string): Promise<T> => import(new URL(path, root).href);
  const { openDevice } = await load<typeof import("../kernels/open.ts")>("kernels/open.ts");
  const { decode, encode } = await load<typeof import("../lib/dcae/autoencoder.ts")>(
    "lib/dcae/autoencoder.ts",
  );
  const { randomParams, splitBuffers } = await load<typeof import("../lib/params.ts")>("lib/params.ts");
  const { normal, streamOf } = await load<typeof import("../lib/random.ts")>("lib/random.ts");
  const { disposeAll, Tensor, unscoped } = await load<typeof import("../lib/tensor.ts")>("lib/tensor.ts");
  const { reconstructionStep } = await load<typeof import("../lib/train/vae_loss.ts")>(
    "lib/train/vae_loss.ts",
  );

  const [configOf, what] = WORK[name], config = configOf(), r = downsampling(config);
  const { device } = await openDevice({ device: "cpu", threads, blas });
  const all = randomParams(device, dcaeShapes(config), 0, what === "train" ? { pack: false } : {});
  const { params, buffers } = splitBuffers(all);
  const shape = what === "decode"
    ? [frames, config.latentChannels, SIDE / r, SIDE / r]
    : [frames, config.inChannels, SIDE, SIDE];
  const count = shape.reduce((a, b) => a * b, 1);
  const x = unscoped(() => Tensor.from(device, normal(streamOf(1, "x"), count), shape));
  const run = async () => {
    if (what === "train") {
      const step = await reconstructionStep(
        { config, perceptual: null, discriminatorWeight: 0 },
        params,
        buffers,
        x,
      );
      disposeAll([step.grads, step.running]);
      return;
    }
    const y = unscoped(() => (what === "decode" ? decode : encode)(all, config, x));
    await device.sync();
    disposeAll(y);
  };
  const out = (value: unknown) =>
    Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify(value) + "\n"));
  out({ device: device.info.description });
  for await (const _ of Deno.stdin.readable) {
    const begin = performance.now(), used = process.cpuUsage();
    await run();
    const { user, system } = process.cpuUsage(used);
    out({ seconds: (performance.now() - begin) / 1000, process_seconds: (user + system) / 1e6 });
  }
}

/** The commit of a working tree. */
async function commitOf(tree: string): Promise<string> {
  const git = await new Deno.Command("git", { args: ["rev-parse", "--short", "HEAD"], cwd: tree }).output();
  return new TextDecoder().decode(git.stdout).trim();
}

/** The worst errors of the peer on recorded outputs. */
async function checkPeer(python: string, script: string): Promise<unknown> {
  const golden = option("golden")?.split(",") ??
    ["dcae_8x_quad", "dcae_multiscale"].map((c) => new URL(`../tests/golden/${c}`, import.meta.url).pathname);
  const check = await new Deno.Command(python, { args: [script, "check", ...golden], stderr: "inherit" })
    .output();
  if (!check.success) throw new Error("the peer does not equal the recorded outputs, so it is not timed");
  return JSON.parse(new TextDecoder().decode(check.stdout));
}

if (Deno.args[0] === "serve") {
  const [root, name, frames, threads, blas] = Deno.args.slice(1);
  await serve(new URL(root), name, Number(frames), Number(threads), blas);
} else {
  const rounds = Number(option("rounds") ?? 5), frames = Number(option("frames") ?? 16);
  const python = option("python"), before = option("before"), load = Deno.loadavg();
  const script = new URL("peers/dcae_torch.py", import.meta.url).pathname;
  const checked = python ? await checkPeer(python, script) : undefined;
  const results = [];
  for (const name of option("only")?.split(",") ?? Object.keys(WORK)) {
    const [config, what] = WORK[name];
    for (const threads of numberList("threads") ?? [1, navigator.hardwareConcurrency]) {
      const ours = (root: URL, blas: string) =>
        PeerProcess.start(
          Deno.execPath(),
          ["run", "-A", import.meta.url, "serve", root.href, name, String(frames), String(threads), blas],
          {},
        );
      const here = new URL("..", import.meta.url);
      const sides: Record<string, PeerProcess> = {
        off: await ours(here, "off"),
        blas: await ours(here, option("library") ?? "auto"),
      };
      if (before) sides.before = await ours(new URL(`file://${Deno.realPathSync(before)}/`), "off");
      if (python) {
        const sizes = ["--frames", String(frames), "--side", String(SIDE), "--threads", String(threads)];
        const args = ["serve", "--work", what, "--config", JSON.stringify(authorsKeys(config())), ...sizes];
        sides.torch = await PeerProcess.start(python, [script, ...args], peerEnvironment(threads));
      }
      const all: Record<string, number[]> = {};
      for (let round = -1; round < rounds; round++) {
        for (const [side, peer] of Object.entries(sides)) {
          const spent = (await peer.bothSeconds()).process;
          if (round >= 0) (all[side] ??= []).push(Math.round(spent * 1e4) / 1e4);
        }
      }
      const ratio = (of: string, to: string) =>
        all[of] && all[to]
          ? Math.round(1000 * median(all[of].map((s, i) => s / all[to][i]))) / 1000
          : undefined;
      const ratios = {
        before_to_off: ratio("before", "off"),
        off_to_blas: ratio("off", "blas"),
        blas_to_torch: ratio("blas", "torch"),
        off_to_torch: ratio("off", "torch"),
      };
      const seconds = Object.fromEntries(Object.entries(all).map(([side, list]) => [side, median(list)]));
      const infos = Object.fromEntries(Object.entries(sides).map(([side, peer]) => [side, peer.info]));
      for (const peer of Object.values(sides)) await peer.end();
      console.log(name, threads, JSON.stringify(seconds), JSON.stringify(ratios));
      results.push({ name, threads, frames, rounds, seconds, ratios, all, sides: infos });
    }
  }
  if (Deno.args.includes("--save")) {
    await saveResults(`autoencoder_${option("save")}`, {
      what:
        `process seconds of one pass over ${frames} frames of ${SIDE}x${SIDE} in alternating rounds: without a BLAS, with ` +
        "one, an earlier commit, PyTorch; median ratios",
      ...await environment(),
      before: before && await commitOf(before),
      load_average: load,
      checked,
      results,
    });
  }
}
