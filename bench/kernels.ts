/**
 * GFLOP/s of the kernels of inference and training at the models' shapes, on each device and thread count.
 *
 *     deno run -A bench/kernels.ts [--devices cpu,webgpu] [--threads 1,2] [--rounds 15] [--only linear,adamw] [--save]
 *
 * Cases run alternately, one launch batch each per round, so that a noisy machine disturbs all of them alike; the median
 * round counts. `--save` writes bench/results/kernels.json with device, processor, date and commit.
 *
 * @module
 */
import { adamw } from "../kernels/adamw.ts";
import { attention, attentionGradKey, attentionGradQuery } from "../kernels/attention.ts";
import { conv2d } from "../kernels/conv2d.ts";
import type { Device, DeviceName, Launch, PackRequest, Storage } from "../kernels/device.ts";
import { accumulate, unaryGrad } from "../kernels/elementwise.ts";
import { linear, linearGradInput, linearGradWeight } from "../kernels/linear.ts";
import { normModulate, normModulateGrad, rmsNorm } from "../kernels/norm.ts";
import { openDevice } from "../kernels/open.ts";
import { countOf, holdsHalves, type Kernel, type Params, shapeOf } from "../kernels/spec.ts";
import { environment, numberList, option } from "./environment.ts";

interface Case {
  readonly name: string;
  readonly kernel: Kernel;
  readonly params: Params;
  readonly absent?: readonly string[];
  /** Index inputs. */
  readonly indices?: Readonly<Record<string, (i: number) => number>>;
  /** Input that is packed, and how. */
  readonly pack?: readonly [string, PackRequest["kind"]];
}

function linearCase(M: number, N: number, K: number, half = 0): Case {
  return {
    name: `linear ${M}x${N}x${K}${half ? " f16 weights" : ""}`,
    kernel: linear,
    params: {
      ...{ M, N, K, X: M, Y: M, G: 0, xRow: 0, yRow: 0, gateCol: 0 },
      ...{ act: 0, hasBias: 1, hasGate: 0, hasResidual: 0, half },
    },
    absent: ["modulation", "rows", "residual"],
    pack: ["w", "linear"],
  };
}

function convCase(C: number, size: number): Case {
  return {
    name: `conv2d 3x3 ${C}ch ${size}x${size}`,
    kernel: conv2d,
    params: {
      ...{ B: 1, H: size, W: size, I: C, O: C, KH: 3, KW: 3, OH: size, OW: size, stride: 1, pad: 1 },
      ...{ act: 0, hasBias: 1, half: 0 },
    },
    pack: ["w", "conv2d"],
  };
}

function attentionCase(T: number, S: number, A: number, hd: number): Case {
  return {
    name: `attention ${T} queries ${S} keys ${A} heads of ${hd}`,
    kernel: attention,
    params: {
      T,
      S,
      A,
      hd,
      D: A * hd,
      V: 4 * T,
      keys: S,
      scale: 1 / Math.sqrt(hd),
      slope: 0,
      hasSlope: 0,
      hasLse: 0,
    },
    absent: ["lse"],
    indices: { visible: (i) => i % 4 === 1 ? S : 0 },
  };
}

function gradientCases(M: number, N: number, K: number): Case[] {
  const params = { M, N, K, X: M, Y: M, Z: N, xRow: 0, yRow: 0, zCol: 0, accumulate: 0, half: 0, hasBias: 1 };
  return [linearGradInput, linearGradWeight].map((kernel) => ({
    name: `${kernel.name} ${M}x${N}x${K}`,
    kernel,
    params,
  }));
}

/** Frames of `n` tokens, frame-causal, with the forward pass at the same ranges beside the gradients. */
function causalCases(T: number, n: number, A: number, hd: number): Case[] {
  const keys = (T + n) / 2;
  const params = {
    ...{
      T,
      S: T,
      A,
      A2: 2 * A,
      hd,
      D: A * hd,
      V: 4 * T,
      keys,
      scale: 1 / Math.sqrt(hd),
      slope: 0,
      hasSlope: 0,
      hasLse: 0,
    },
  };
  return [attention, attentionGradQuery, attentionGradKey].map((kernel) => ({
    name: `${kernel.name} ${T / n} frames of ${n} tokens, ${A} heads of ${hd}`,
    kernel,
    params,
    absent: ["lse"],
    indices: { visible: (i) => i % 4 === 1 ? (Math.floor((i >> 2) / n) + 1) * n : 0 },
  }));
}

const CASES: readonly Case[] = [
  linearCase(64, 768, 768),
  linearCase(64, 2304, 768),
  linearCase(64, 3072, 768),
  linearCase(64, 768, 3072),
  linearCase(1024, 768, 768),
  linearCase(1024, 3072, 768),
  linearCase(64, 768, 768, 1),
  linearCase(1024, 768, 768, 1),
  convCase(256, 32),
  convCase(512, 16),
  attentionCase(64, 1600, 12, 64),
  attentionCase(1024, 1024, 12, 64),
  {
    name: "normModulate 1024x768",
    kernel: normModulate,
    params: { T: 1024, D: 768, R: 1, G: 2304, shiftCol: 0, scaleCol: 768, eps: 1e-6 },
    indices: { rows: () => 0 },
  },
  {
    name: "rmsNorm 1024x512",
    kernel: rmsNorm,
    params: { P: 1024, C: 512, eps: 1e-5, act: 0, hasBias: 1, hasResidual: 1 },
  },
  linearCase(1024, 2304, 768),
  linearCase(1024, 768, 3072),
  ...gradientCases(1024, 768, 768),
  ...gradientCases(1024, 2304, 768),
  ...gradientCases(1024, 3072, 768),
  ...gradientCases(1024, 768, 3072),
  ...causalCases(1024, 64, 12, 64),
  {
    name: "normModulateGrad 1024x768",
    kernel: normModulateGrad,
    params: { T: 1024, D: 768, R: 1, G: 2304, scaleCol: 768, eps: 1e-6 },
    indices: { rows: () => 0 },
  },
  { name: "unaryGrad gelu 1024x3072", kernel: unaryGrad, params: { E: 1024 * 3072, act: 2 } },
  { name: "accumulate 4M", kernel: accumulate, params: { E: 1 << 22, alpha: 1, beta: 1 } },
  {
    name: "adamw 16M",
    kernel: adamw,
    params: {
      ...{ E: 1 << 24, lr: 1e-4, beta1: 0.9, rest1: 0.1, beta2: 0.999, rest2: 0.001, eps: 1e-8, decay: 0.1 },
      ...{ bias1: 0.1, bias2: 0.001, scale: 1 },
    },
  },
].filter(({ name }) => (option("only") ?? "").split(",").some((part) => name.includes(part)));

/** Buffers with made-up contents for a case. */
function prepare(device: Device, test: Case): Launch {
  const buffers: (Storage | null)[] = [];
  for (const contract of test.kernel.buffers) {
    const { name, dtypes } = contract;
    if (test.absent?.includes(name)) {
      buffers.push(null);
      continue;
    }
    const count = countOf(contract, test.params), half = holdsHalves(contract, test.params);
    const value = (i: number) => (i * 7919 % 2003) / 1001 - 1;
    const data = dtypes[0] === "i32"
      ? Int32Array.from({ length: count }, (_, i) => test.indices![name](i))
      : half
      ? new Uint16Array(Float16Array.from({ length: count }, (_, i) => value(i)).buffer)
      : Float32Array.from({ length: count }, (_, i) => value(i));
    const storage = device.alloc(data.byteLength);
    device.write(storage, data);
    if (test.pack?.[0] === name) {
      const shape = shapeOf(contract, test.params);
      device.pack(storage, { kind: test.pack[1], shape, dtype: half ? "f16" : "f32" });
    }
    buffers.push(storage);
  }
  return { kernel: test.kernel, buffers, params: test.params };
}

/** Median over the rounds of each case's GFLOP/s. */
async function measure(device: Device, rounds: number): Promise<Record<string, number>> {
  const launches = CASES.map((test) => prepare(device, test));
  const flops = CASES.map((test) => test.kernel.flops(test.params));
  const time = async (i: number, repeats: number): Promise<number> => {
    const start = performance.now();
    for (let r = 0; r < repeats; r++) device.run(launches[i]);
    device.flush();
    await device.sync();
    return (performance.now() - start) / repeats;
  };
  // As many launches as make about 20 ms, once code is compiled to its last tier.
  const repeats: number[] = [];
  for (let i = 0; i < CASES.length; i++) {
    const warm = performance.now();
    while (performance.now() - warm < 60) await time(i, 1);
    repeats.push(Math.max(1, Math.round(20 / await time(i, 1))));
  }
  const rates: number[][] = CASES.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < CASES.length; i++) rates[i].push(flops[i] / await time(i, repeats[i]) / 1e6);
  }
  return Object.fromEntries(CASES.map(({ name }, i) => {
    const sorted = rates[i].sort((a, b) => a - b);
    return [name, Number(sorted[rounds >> 1].toFixed(2))];
  }));
}

if (import.meta.main) {
  const devices = (option("devices") ?? "cpu").split(",") as DeviceName[];
  const cores = navigator.hardwareConcurrency;
  const threads = numberList("threads") ?? (cores > 1 ? [1, cores] : [1]);
  const rounds = numberList("rounds")?.[0] ?? 15;
  const results = [];
  for (const name of devices) {
    for (const count of name === "cpu" ? threads : [0]) {
      const { device } = await openDevice(
        name === "cpu" ? { device: name, threads: count } : { device: name },
      );
      const gflops = await measure(device, rounds);
      console.log(device.info.description);
      for (const [test, rate] of Object.entries(gflops)) console.log(`  ${test.padEnd(48)} ${rate} GFLOP/s`);
      results.push({ device: device.info.description, threads: count, rounds, gflops });
      device.close();
    }
  }
  if (Deno.args.includes("--save")) {
    const file = new URL("results/kernels.json", import.meta.url);
    await Deno.mkdir(new URL(".", file), { recursive: true });
    await Deno.writeTextFile(file, JSON.stringify({ ...await environment(), results }, null, 2) + "\n");
  }
}
