/**
 * Rate of the linear kernel beside OpenBLAS (through NumPy), in turns, at 1024x768x768, and of 3x3 convolutions beside the
 * linear kernel in the same run.
 *
 *     deno run -A bench/linear.ts [--threads 1,2] [--rounds 15] [--python PATH] [--coretype Haswell] [--save]
 *
 * `--coretype Haswell` keeps OpenBLAS to AVX2, whose 256 bits are twice what WebAssembly SIMD has: the ceiling is then one half.
 *
 * @module
 */
import { conv2d } from "../kernels/conv2d.ts";
import type { Device, Launch, PackRequest } from "../kernels/device.ts";
import { linear } from "../kernels/linear.ts";
import { openDevice } from "../kernels/open.ts";
import type { Kernel, Params } from "../kernels/spec.ts";
import { environment, numberList, option } from "./environment.ts";
import { median, PeerProcess, saveResults } from "./peer_process.ts";

const M = 1024, N = 768, K = 768;

function launchOf(
  device: Device,
  kernel: Kernel,
  params: Params,
  inputs: readonly (readonly number[] | null)[],
  output: readonly number[],
  pack: PackRequest["kind"],
): Launch {
  const buffers = [...inputs, output].map((shape, i) => {
    if (shape === null) return null;
    const count = shape.reduce((a, b) => a * b, 1), storage = device.alloc(4 * count);
    device.write(storage, Float32Array.from({ length: count }, (_, j) => (j * 7919 % 2003) / 1001 - 1));
    if (i === 1) device.pack(storage, { kind: pack, shape, dtype: "f32" });
    return storage;
  });
  return { kernel, buffers, params };
}

const flags = { act: 0, hasBias: 0, hasGate: 0, hasResidual: 0, half: 0 };
const linearLaunch = (device: Device) =>
  launchOf(
    device,
    linear,
    { M, N, K, X: M, Y: M, G: 0, xRow: 0, yRow: 0, gateCol: 0, ...flags },
    [[M, K], [N, K], null, null, null, null],
    [M, N],
    "linear",
  );
const convLaunch = (device: Device, C: number, side: number) =>
  launchOf(
    device,
    conv2d,
    {
      ...{ B: 1, H: side, W: side, I: C, O: C, KH: 3, KW: 3, OH: side, OW: side, stride: 1, pad: 1 },
      ...{ act: 0, hasBias: 0, half: 0 },
    },
    [[1, side, side, C], [C, C, 3, 3], null],
    [1, side, side, C],
    "conv2d",
  );

async function secondsOf(device: Device, launch: Launch): Promise<number> {
  const start = performance.now();
  device.run(launch);
  await device.sync();
  return (performance.now() - start) / 1000;
}

const round2 = (value: number) => Math.round(value * 100) / 100;

if (import.meta.main) {
  const rounds = numberList("rounds")?.[0] ?? 15, python = option("python") ?? "python3";
  const coretype = option("coretype");
  const script = new URL("peers/openblas.py", import.meta.url).pathname;
  const results = [];
  for (const threads of numberList("threads") ?? [1, navigator.hardwareConcurrency]) {
    const { device } = await openDevice({ device: "cpu", threads });
    const launches = {
      linear: linearLaunch(device),
      conv_256ch_32x32: convLaunch(device, 256, 32),
      conv_512ch_16x16: convLaunch(device, 512, 16),
    };
    const env = {
      OPENBLAS_NUM_THREADS: String(threads),
      ...(coretype ? { OPENBLAS_CORETYPE: coretype } : {}),
    };
    const peer = await PeerProcess.start(python, [script, M, N, K].map(String), env);
    const rates: Record<string, number[]> = { openblas: [] };
    for (const name of Object.keys(launches)) rates[name] = [];
    for (let round = -5; round < rounds; round++) {
      const now: Record<string, number> = { openblas: 2 * M * N * K / await peer.seconds() / 1e9 };
      for (const [name, launch] of Object.entries(launches)) {
        now[name] = launch.kernel.flops(launch.params) / await secondsOf(device, launch) / 1e9;
      }
      if (round >= 0) { for (const [name, rate] of Object.entries(now)) rates[name].push(rate); }
    }
    await peer.end();
    const gflops = Object.fromEntries(
      Object.entries(rates).map(([name, list]) => [name, round2(median(list))]),
    );
    const ratios = {
      linear_to_openblas: round2(gflops.linear / gflops.openblas),
      conv_256ch_32x32_to_linear: round2(gflops.conv_256ch_32x32 / gflops.linear),
      conv_512ch_16x16_to_linear: round2(gflops.conv_512ch_16x16 / gflops.linear),
    };
    console.log(device.info.description, JSON.stringify(gflops), JSON.stringify(ratios));
    results.push({
      device: device.info.description,
      threads,
      rounds,
      coretype: coretype ?? "as found",
      gflops,
      ratios,
    });
    device.close();
  }
  if (Deno.args.includes("--save")) {
    const what =
      `linear ${M}x${N}x${K} beside OpenBLAS, 3x3 convolutions beside linear; GFLOP/s, median of alternating runs`;
    await saveResults(coretype ? `linear_${coretype.toLowerCase()}` : "linear", {
      what,
      ...await environment(),
      results,
    });
  }
}
