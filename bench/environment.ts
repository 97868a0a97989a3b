/**
 * The surroundings that every benchmark records beside its figures, and the few command-line options of benchmarks.
 *
 * @module
 */

/** Processor, its vector units, runtime, date and commit. */
export async function environment(): Promise<Record<string, unknown>> {
  const text = await Deno.readTextFile("/proc/cpuinfo").catch(() => "");
  const line = (key: string) => text.match(new RegExp(`^${key}\\s*: (.*)$`, "m"))?.[1] ?? "unknown";
  const present = new Set(line("flags").split(" "));
  const root = new URL("..", import.meta.url);
  const git = await new Deno.Command("git", { args: ["rev-parse", "--short", "HEAD"], cwd: root }).output()
    .catch(() => null);
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: git?.success ? new TextDecoder().decode(git.stdout).trim() : "unknown",
    processor: `${line("model name")}, family ${line("cpu family")}, model ${line("model")}`,
    cpuFlags: ["avx2", "fma", "avx512f"].filter((flag) => present.has(flag)),
    cores: navigator.hardwareConcurrency,
    deno: Deno.version.deno,
    v8: Deno.version.v8,
  };
}

/** Value of `--name value`. */
export function option(name: string): string | undefined {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? undefined : Deno.args[at + 1];
}

/** Value of `--name 1,2` as numbers. */
export function numberList(name: string): number[] | undefined {
  return option(name)?.split(",").map(Number);
}
