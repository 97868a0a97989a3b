/**
 * Flags that several verbs share, and the device that they ask for.
 *
 * @module
 */
import type { DeviceName } from "../kernels/device.ts";
import { openDevice, type Opened } from "../kernels/open.ts";
import { choice, integer, path, text, toggle, UsageError } from "./args.ts";
import { environment } from "../lib/io/environment.ts";

const DEVICES = ["auto", "webgpu", "cpu"] as const;

/** Flags that choose the device. */
export const deviceFlags = {
  // The device that was opened is part of a run's fingerprint, however it was chosen; threads change no bit.
  device: choice(DEVICES, "where to compute; auto takes a hardware GPU, else the cpu (also FAR_DEVICE)", {
    presentation: true,
  }),
  threads: integer("threads of the cpu device (default: all cores)", { min: 1, max: 64, presentation: true }),
  // The library that computes is named by the device, so it is part of a run's fingerprint like the device.
  blas: text(
    "auto, off or the path of a library that computes the products of the cpu device; needs -P=blas (also FAR_BLAS)",
    { presentation: true },
  ),
};

/** Flags of progress and output. */
export const progressFlags = {
  json: toggle("print events as one JSON object per line on stdout", { presentation: true }),
  quiet: toggle("print errors and nothing else", { presentation: true }),
  profile: path(
    "print the time per kernel at the end, and write a trace for Perfetto or chrome://tracing to this file",
    {
      presentation: true,
    },
  ),
};

/** Treatment of an interrupted run in the result folder. */
export const restartFlag = {
  restart: toggle("discard an interrupted run with other settings in the result folder", {
    presentation: true,
  }),
};

/** The folder of a verb's result, and what happens to an interrupted run in it. */
export const resultFlags = (folder: string) => ({
  out: path("folder for the result: new, empty, or an earlier result of this verb, which is replaced", {
    default: folder,
    presentation: true,
  }),
  ...restartFlag,
});

/**
 * Opens the device that the flags or FAR_DEVICE name.
 *
 * @throws {UsageError} If FAR_DEVICE is no device.
 * @throws {Error} If the device is not there, or a library that was named cannot be used.
 */
export async function openChosen(
  flags: { readonly device?: DeviceName | "auto"; readonly threads?: number; readonly blas?: string },
): Promise<Opened> {
  const named = environment("FAR_DEVICE");
  let device = flags.device;
  if (device === undefined && named) {
    if (!(DEVICES as readonly string[]).includes(named)) {
      throw new UsageError(
        `FAR_DEVICE: expected ${DEVICES.join(" or ")}, found ${named}`,
      );
    }
    device = named as DeviceName | "auto";
  }
  const blas = flags.blas ?? (environment("FAR_BLAS") || "auto");
  const opened = await quietly(() => openDevice({ device, threads: flags.threads, blas }));
  const how = flags.device === undefined && device !== undefined && device !== "auto";
  return how ? { ...opened, reason: `${device}: named by FAR_DEVICE` } : opened;
}

/**
 * Mesa's Vulkan drivers print a line where XDG_RUNTIME_DIR is not set, though computing needs no such folder: it is named
 * while drivers are loaded, where that is permitted.
 */
export async function quietly<T>(load: () => Promise<T>): Promise<T> {
  const name = "XDG_RUNTIME_DIR";
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  if (Deno.build.os !== "linux" || state !== "granted" || Deno.env.get(name)) return await load();
  Deno.env.set(name, "/tmp");
  try {
    return await load();
  } finally {
    Deno.env.delete(name);
  }
}
