/**
 * `far.ts doctor`: what this machine offers, which device is used and why, and whether its kernels compute what they must.
 *
 * @module
 */
import { findAdapter } from "../kernels/open.ts";
import { printable } from "../lib/io/errors.ts";
import { checkKernels, ffmpegHere, linearRate, MEASURED, rateWithoutBlas } from "../lib/pipeline/health.ts";
import { bytes } from "../lib/units.ts";
import { toggle, verb } from "./args.ts";
import { availableMemory } from "../lib/io/environment.ts";
import { deviceFlags, openChosen, quietly } from "./flags.ts";
import { columnLines, printJson } from "./report.ts";

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
        const rate = { ...MEASURED, gflops, withoutBlas }, deno = Deno.version.deno;
        printJson({ deno, adapter, reason, device: info, memory, kernels, linear: rate, ffmpeg }, 2);
        return failed.length === 0 ? 0 : 1;
      }
      const row = (name: string, value: string) => console.log(printable(`${name.padEnd(10)}${value}`));
      const table = (rows: readonly (readonly string[])[]) =>
        columnLines(rows).forEach((line) => console.log(printable(`  ${line}`)));
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
