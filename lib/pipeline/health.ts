/**
 * Whether a machine computes what it must, and how fast: every kernel against its double-precision reference, the rate of
 * the linear kernel with and without a BLAS, and where ffmpeg is.
 *
 * @module
 */
import { KERNELS } from "../../kernels/all.ts";
import { checkKernel, generator, toleranceOf } from "../../kernels/check.ts";
import type { Device } from "../../kernels/device.ts";
import { linear } from "../../kernels/linear.ts";
import { openDevice } from "../../kernels/open.ts";
import { findFfmpeg } from "../io/ffmpeg.ts";

/** Result of checking one kernel. */
export interface KernelReport {
  /** Its name. */
  readonly kernel: string;
  /** Cases that it was checked on. */
  readonly cases: number;
  /** Worst error against the f64 reference, relative to max(1, largest expected value); null when a case failed. */
  readonly worst: number | null;
  /** Largest error that is allowed. */
  readonly bound: number;
  /** Why a case failed. */
  readonly error?: string;
}

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error);

/** Checks every case of every kernel against its double-precision reference. */
export async function checkKernels(device: Device): Promise<KernelReport[]> {
  const reports: KernelReport[] = [];
  for (const kernel of KERNELS) {
    const { cases } = kernel, { bound } = toleranceOf(kernel);
    let worst = 0;
    try {
      for (const c of cases) worst = Math.max(worst, await checkKernel(device, { kernel, ...c }));
      reports.push({ kernel: kernel.name, cases: cases.length, worst, bound });
    } catch (error) {
      reports.push({ kernel: kernel.name, cases: cases.length, worst: null, bound, error: messageOf(error) });
    }
  }
  return reports;
}

/** Rows, outputs and inputs of the measured product: FAR-B's attention projection over a window of 16 frames. */
export const MEASURED = { M: 1024, N: 768, K: 768 } as const;

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

/** The rate that the cpu device has without a BLAS, with as many threads, in GFLOP/s. */
export async function rateWithoutBlas(threads: number): Promise<number> {
  const { device } = await openDevice({ device: "cpu", threads, blas: "off" });
  try {
    return await linearRate(device);
  } finally {
    device.close();
  }
}

/** Path of ffmpeg, or the reason why there is none. */
export async function ffmpegHere(): Promise<{ path?: string; version?: string; error?: string }> {
  try {
    return await findFfmpeg() ?? { error: "none that may be run; videos are read and written in-process" };
  } catch (error) {
    return { error: messageOf(error) };
  }
}
