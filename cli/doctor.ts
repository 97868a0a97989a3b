/**
 * `far.ts doctor`: what this machine offers, which device is used and why, and whether its kernels compute what they must.
 *
 * @module
 */
import { checkKernel, generator, toleranceOf } from "../kernels/check.ts";
import { KERNELS } from "../kernels/all.ts";
import type { Device } from "../kernels/device.ts";
import { findAdapter, openDevice } from "../kernels/open.ts";
import { linear } from "../kernels/linear.ts";
import { availableMemory } from "../lib/io/environment.ts";
import { findFfmpeg } from "../lib/io/ffmpeg.ts";
import { toggle, verb } from "./args.ts";
import { deviceFlags, openChosen, quietly } from "./flags.ts";
import { bytes } from "../lib/units.ts";
import { oneLine } from "./report.ts";

/** Result of checking one kernel. */
interface KernelReport {
  readonly kernel: string;
  readonly cases: number;
  /** Worst error against the f64 reference, relative to max(1, largest expected value); null when a case failed. */
  readonly worst: number | null;
  readonly bound: number;
  readonly error?: string;
}

/** Checks every case of every kernel against its double-precision reference. */
async function checkKernels(device: Device): Promise<KernelReport[]> {
  const reports: KernelReport[] = [];
  for (const kernel of KERNELS) {
    const { cases } = kernel, { bound } = toleranceOf(kernel);
    let worst = 0;
    try {
      for (const c of cases) worst = Math.max(worst, await checkKernel(device, { kernel, ...c }));
      reports.push({ kernel: kernel.name, cases: cases.length, worst, bound });
    } catch (error) {
      reports.push({ kernel: kernel.name, cases: cases.length, worst: null, bound, error: oneLine(error) });
    }
  }
  return reports;
}

/** Rows, outputs and inputs of the measured product: FAR-B's attention projection over a window of 16 frames. */
const MEASURED = { M: 1024, N: 768, K: 768 } as const;

/**
 * Median rate of the linear kernel with a packed weight.
 *
 * @param shape Rows, outputs and inputs.
 * @param repeats Runs whose median counts.
 * @returns GFLOP/s.
 */
export async function linearRate(
  device: Device,
  shape: { readonly M: number; readonly N: number; readonly K: number } = MEASURED,
  repeats = 7,
): Promise<number> {
  const { M, N, K } = shape, random = generator(1);
  const made = [M * K, N * K, M * N].map((count, i) => {
    const storage = device.alloc(4 * count);
    if (i < 2) device.write(storage, Float32Array.from({ length: count }, () => random() * 2 - 1));
    return storage;
  });
  device.pack(made[1], { kind: "linear", shape: [N, K], dtype: "f32" });
  const flags = { act: 0, hasBias: 0, hasGate: 0, hasResidual: 0, half: 0 };
  const params = { M, N, K, G: 1, xRow: 0, yRow: 0, gateCol: 0, ...flags };
  const buffers = [made[0], made[1], null, null, null, null, made[2]];
  const times: number[] = [];
  // One wait costs about 11 ms on WebGPU: enough launches between two waits to make that small.
  let launches = 1;
  try {
    for (let run = -1; run < repeats; run++) {
      const start = performance.now();
      for (let i = 0; i < launches; i++) device.run({ kernel: linear, buffers, params });
      await device.sync();
      const seconds = (performance.now() - start) / 1000;
      if (run < 0) {
        launches = device.info.name === "webgpu" ? Math.max(1, Math.min(200, Math.round(0.2 / seconds))) : 1;
      } else times.push(seconds / launches);
    }
  } finally {
    made.forEach((storage) => device.free(storage));
  }
  const median = times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
  return linear.flops({ M, N, K }) / median / 1e9;
}

/** The rate that the cpu device has without a BLAS, with as many threads. */
async function rateWithoutBlas(threads: number): Promise<number> {
  const { device } = await openDevice({ device: "cpu", threads, blas: "off" });
  try {
    return await linearRate(device);
  } finally {
    device.close();
  }
}

/** Path of ffmpeg, or the reason why there is none. */
async function ffmpegHere(): Promise<{ path?: string; version?: string; error?: string }> {
  try {
    return await findFfmpeg() ?? { error: "none that may be run; videos are read and written in-process" };
  } catch (error) {
    return { error: oneLine(error) };
  }
}

/** Prints rows in columns that are as wide as their longest cell; the last one, which may be a sentence, is left as it is. */
export function table(
  rows: readonly (readonly string[])[],
  print: (line: string) => void = console.log,
): void {
  const widths: number[] = [];
  for (const row of rows) {
    row.slice(0, -1).forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  }
  for (const row of rows) {
    print(`  ${row.map((cell, i) => i < row.length - 1 ? cell.padEnd(widths[i]) : cell).join("  ")}`);
  }
}

/** `far.ts doctor`. */
export const doctor = verb({
  name: "doctor",
  summary: "Show which device is used and why, check every kernel on it, look for ffmpeg",
  about:
    "Prints the adapter, the device that was chosen and why, its limits and features, a check of every kernel " +
    "against its double-precision reference, the rate of the linear kernel (where there is a BLAS, with and without it), and where ffmpeg was found. " +
    "Exit code 1 when a kernel is wrong.",
  flags: { ...deviceFlags, json: toggle("print everything as one JSON object") },
  examples: [
    { does: "show the device that would be chosen", line: "doctor" },
    {
      does: "check the cpu device with one thread, as JSON for a program",
      line: "doctor --device cpu --threads 1 --json",
    },
  ],
  run: async ({ flags }) => {
    const adapter = await quietly(findAdapter);
    const { device, reason } = await openChosen(flags);
    try {
      const { info } = device;
      const kernels = await checkKernels(device);
      const gflops = await linearRate(device);
      const withBlas = info.blas !== undefined && !info.blas.startsWith("off");
      const withoutBlas = withBlas ? await rateWithoutBlas(info.threads) : undefined;
      const ffmpeg = await ffmpegHere();
      const memory = availableMemory();
      const failed = kernels.filter((k) => k.worst === null);
      if (flags.json) {
        console.log(JSON.stringify(
          {
            deno: Deno.version.deno,
            adapter,
            reason,
            device: info,
            memory,
            kernels,
            linear: { ...MEASURED, gflops, withoutBlas },
            ffmpeg,
          },
          null,
          2,
        ));
        return failed.length === 0 ? 0 : 1;
      }
      const row = (name: string, value: string) => console.log(`${name.padEnd(10)}${value}`);
      row("deno", `${Deno.version.deno}, ${Deno.build.target}`);
      row(
        "adapter",
        adapter ? `${adapter.description || adapter.vendor}${adapter.software ? " (software)" : ""}` : "none",
      );
      row("device", info.description);
      row("chosen", reason);
      if (info.blas !== undefined) row("blas", info.blas);
      row("memory", memory === undefined ? "unknown" : `${bytes(memory)} available`);
      row(
        "ffmpeg",
        ffmpeg.path ? `${ffmpeg.path}${ffmpeg.version ? ` (${ffmpeg.version})` : ""}` : ffmpeg.error!,
      );
      row("features", info.features.length === 0 ? "none" : info.features.join(" "));
      row("limits", Object.keys(info.limits).length === 0 ? "none" : "");
      table(Object.entries(info.limits).map(([name, value]) => [name, String(value)]));
      row("kernels", "worst error against the f64 reference, allowed error");
      table(kernels.map((k) => [
        k.kernel,
        ...(k.error !== undefined
          ? [k.error]
          : [k.worst!.toExponential(1), k.bound.toExponential(0), `${k.cases} cases`, "ok"]),
      ]));
      const { M, N, K } = MEASURED;
      row(
        "linear",
        `${gflops.toFixed(1)} GFLOP/s at ${M} x ${N} x ${K}, f32, median of 7${
          withoutBlas === undefined ? "" : `; ${withoutBlas.toFixed(1)} without the BLAS`
        }`,
      );
      if (failed.length > 0) {
        throw new Error(`doctor: ${failed.length} of ${kernels.length} kernels are wrong on ${info.name}`);
      }
    } finally {
      device.close();
    }
  },
});
