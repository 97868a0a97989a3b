/**
 * Tests that need a program which a machine may not have: without it they are ignored, by name, and counted as ignored.
 * FAR_REQUIRE_TOOLS=1 runs them all the same, so that a machine which should have everything cannot hide a gap.
 *
 * @module
 */
import { loadBlas, usualPlaces } from "../kernels/cpu/blas.ts";
import { isFile } from "../lib/io/paths.ts";
import { findChromium } from "./browser.ts";

/** A program; `chromium` may be Chrome, `jupyter` is nbconvert; or a library, `blas`. */
export type Tool =
  | "blas"
  | "serialBlas"
  | "ffmpeg"
  | "script"
  | "git"
  | "bash"
  | "sleep"
  | "mount"
  | "mkfifo"
  | "chromium"
  | "jupyter";

/** Whether tests run whose tools are missing. */
const REQUIRED = Deno.env.get("FAR_REQUIRE_TOOLS") === "1";

const holds = (attempt: () => Promise<unknown>) => attempt().then(() => true, () => false);

/** Whether a program starts; what it says does not matter. */
const starts = (program: string) =>
  holds(async () =>
    await new Deno.Command(program, { args: ["--version"], stdout: "null", stderr: "null" }).output()
  );

/** Whether a program lies on the search path; for those that take long to start. */
const onPath = (program: string) =>
  (Deno.env.get("PATH") ?? "").split(":").some((folder) => isFile(`${folder}/${program}`));

/** Debian's OpenBLAS without threads. */
export const SERIAL_BLAS = `/usr/lib/${Deno.build.arch}-linux-gnu/openblas-serial/libopenblas.so.0`;

/** The BLAS that `--blas auto` looks at first, or undefined. */
export const BLAS: string | undefined = usualPlaces().find((path) => {
  try {
    return loadBlas(path, new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }), 2);
  } catch {
    return false;
  }
});

const THERE: Readonly<Record<Tool, boolean>> = {
  blas: BLAS !== undefined,
  serialBlas: isFile(SERIAL_BLAS),
  ffmpeg: await starts("ffmpeg"),
  script: await starts("script"),
  git: await starts("git"),
  bash: await starts("bash"),
  sleep: await starts("sleep"),
  mount: await starts("mount"),
  mkfifo: await starts("mkfifo"),
  chromium: findChromium() !== undefined,
  jupyter: onPath("jupyter-nbconvert"),
};

/** Whether a tool is there. */
export const hasTool = (tool: Tool): boolean => THERE[tool];

/** The options of a test that needs tools: `Deno.test({ ...needs(["git"], "name"), fn })`. */
export function needs(
  tools: readonly Tool[],
  name: string,
): { readonly name: string; readonly ignore: boolean } {
  const missing = tools.filter((tool) => !THERE[tool]);
  if (missing.length === 0) return { name, ignore: false };
  return { name: `${name} (needs ${missing.join(" and ")})`, ignore: !REQUIRED };
}

/** A test that needs tools. */
export function toolTest(tools: readonly Tool[], name: string, fn: () => Promise<void>): void {
  Deno.test({ ...needs(tools, name), fn });
}
