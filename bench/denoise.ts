/**
 * Seconds of one cached denoising step of FAR-B-Long, ours and PyTorch's in turns: 64 query tokens, 15 window frames and 128
 * distant frames cached, 1536 keys in all, 14.6 GFLOP.
 *
 *     deno run -A bench/denoise.ts [--threads 1,2] [--rounds 15] [--python PATH] [--golden FOLDER,FOLDER] [--save]
 *
 * The peer (`bench/peers/far_torch.py`) is checked against recorded outputs of the authors' code before it is timed. It is timed
 * twice: with the modulation of each token, as the authors compute it, and once per frame, as we do. Ours computes the
 * modulation of all steps of a frame at once; a step is charged its share of 25 steps. `--device webgpu` times a GPU, alone.
 *
 * @module
 */
import type { Device, DeviceName } from "../kernels/device.ts";
import { openDevice } from "../kernels/open.ts";
import { KvCache } from "../lib/far/cache.ts";
import { conditionCalls, ConditionRows, modulationOf } from "../lib/far/conditioning.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { prepareCall } from "../lib/far/layout.ts";
import { velocity } from "../lib/far/transformer.ts";
import { type Params, randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, Tensor, unscoped } from "../lib/tensor.ts";
import { environment, numberList, option } from "./environment.ts";
import { median, peerEnvironment, PeerProcess, saveResults } from "./peer_process.ts";

const FRAMES = 144, SIDE = 8, STEPS = 25;
export const config = farConfig("FAR_B_Long", { condition_cfg: { type: "action", num_action_classes: 4 } });

/** Our denoising step on a device: the timed function and what it leaves. */
export function ours(device: Device, params: Params) {
  return unscoped(() => {
    const cache = new KvCache(device, config, { clips: 1, height: SIDE, width: SIDE, frames: FRAMES });
    for (const [i, t] of [...cache.store.k, ...cache.store.v].entries()) {
      device.write(t.storage, normal(streamOf(2, `layer ${i}`), t.size));
    }
    const call = prepareCall(device, config, cache.noisyStep(FRAMES), "last");
    const latents = Tensor.from(
      device,
      normal(streamOf(1, "x"), FRAMES * 32 * SIDE * SIDE),
      [1, FRAMES, 32, SIDE, SIDE],
    );
    const timesteps = Array.from({ length: FRAMES }, (_, f) => f === FRAMES - 1 ? 500 : -1);
    const inputs = { frames: FRAMES, timesteps, conditions: new Int32Array(FRAMES) };
    const [conditioning] = conditionCalls(device, params, config, [{ call, inputs }]);
    const all = new ConditionRows();
    for (let k = 0; k < STEPS; k++) all.row(500 + k, 0);
    const step = () =>
      scope(() => velocity(params, config, call, { latents, conditioning, store: cache.store }));
    const time = async (body: () => unknown): Promise<number> => {
      await device.sync();
      const start = performance.now();
      const made = body();
      await device.sync();
      const seconds = (performance.now() - start) / 1000;
      disposeAll(made);
      return seconds;
    };
    return {
      seconds: () => time(step),
      modulationShare: async () =>
        await time(() => scope(() => modulationOf(device, params, config, all))) / STEPS,
    };
  });
}

const round3 = (value: number) => Math.round(value * 1000) / 1000;

if (import.meta.main) {
  const name = (option("device") ?? "cpu") as DeviceName;
  const rounds = numberList("rounds")?.[0] ?? 15, python = option("python") ?? "python3";
  const script = new URL("peers/far_torch.py", import.meta.url).pathname;
  const golden = option("golden")?.split(",") ??
    ["far_long_slope", "rollout_far_long_slope"].map((c) =>
      new URL(`../tests/golden/${c}`, import.meta.url).pathname
    );
  let checked: unknown = null;
  if (name === "cpu") {
    const check = await new Deno.Command(python, { args: [script, "check", ...golden], stderr: "inherit" })
      .output();
    if (!check.success) throw new Error("the peer does not equal the recorded outputs, so it is not timed");
    checked = JSON.parse(new TextDecoder().decode(check.stdout));
    console.log("peer, worst error on recorded cases:", JSON.stringify(checked));
  }
  const results = [], load = Deno.loadavg(); // other work on the machine when the run began
  for (const threads of name === "cpu" ? numberList("threads") ?? [1, navigator.hardwareConcurrency] : [0]) {
    const { device } = await openDevice(name === "cpu" ? { device: name, threads } : { device: name });
    const params = randomParams(device, farShapes(config), 0);
    const step = ours(device, params);
    const env = peerEnvironment(threads);
    const peerArgs = [script, "serve", "--threads", String(threads)];
    const peers = name === "cpu"
      ? {
        torch_once_per_frame: await PeerProcess.start(python, peerArgs, env),
        torch_per_token: await PeerProcess.start(python, [...peerArgs, "--per-token"], env),
      }
      : {};
    const times: Record<string, number[]> = { ours: [], modulation: [] };
    for (const peer of Object.keys(peers)) times[peer] = [];
    for (let round = -2; round < rounds; round++) {
      const now: Record<string, number> = {
        ours: await step.seconds(),
        modulation: await step.modulationShare(),
      };
      for (const [peer, process] of Object.entries(peers)) now[peer] = await process.seconds();
      if (round >= 0) { for (const [what, s] of Object.entries(now)) times[what].push(s); }
    }
    const infos = Object.fromEntries(Object.entries(peers).map(([what, p]) => [what, p.info]));
    for (const peer of Object.values(peers)) await peer.end();
    const ourSeconds = median(times.ours) + median(times.modulation);
    const seconds = {
      ours: round3(ourSeconds),
      ...Object.fromEntries(Object.keys(peers).map((p) => [p, round3(median(times[p]))])),
    };
    const ratios = Object.fromEntries(
      Object.keys(peers).map((p) => [p, round3(ourSeconds / median(times[p]))]),
    );
    console.log(
      device.info.description,
      "seconds",
      JSON.stringify(seconds),
      "ours / peer",
      JSON.stringify(ratios),
    );
    results.push({
      device: device.info.description,
      threads,
      rounds,
      seconds,
      ratios,
      ours: {
        step: round3(median(times.ours)),
        modulation_share: round3(median(times.modulation)),
        gflops: round3(14.6 / ourSeconds),
      },
      all: Object.fromEntries(Object.entries(times).map(([what, list]) => [what, list.map(round3)])),
      peers: infos,
    });
    disposeAll(params);
    device.close();
  }
  if (Deno.args.includes("--save")) {
    const what =
      "one cached denoising step of FAR-B-Long: 64 queries, 1536 keys, 14.6 GFLOP; median of alternating rounds";
    await saveResults(name === "cpu" ? "denoise" : "denoise_webgpu", {
      what,
      ...await environment(),
      load_average: load,
      checked,
      results,
    });
  }
}
