/**
 * Compiler statistics of every GPU pipeline: registers, spills, occupancy, instructions of the hottest loop. No GPU is
 * needed: Mesa's RADV compiles for a GPU that is not there (its null winsys).
 *
 *     deno run -A bench/gpu_table.ts --layer LAYER.json --driver ICD.json [--family navi31]
 *
 * writes bench/results/gpu_table.json, which tests/gpu_table_test.ts compares with the kernels. Run it after every change of a
 * shader. `--layer` is the manifest of a Vulkan layer that appends the statistics and the assembly of each compute pipeline
 * (VK_KHR_pipeline_executable_properties) to the file that PIPELINE_STATS names, and makes do with a device that cannot run
 * anything; `--driver` is RADV's manifest, of Mesa 25 or later. docs/kernels.md describes both.
 *
 * @module
 */
import { fromFileUrl } from "@std/path";
import { type Bounded, brokenBounds } from "./gpu_bounds.ts";
import { environment, option } from "./environment.ts";
import { type GpuPipeline, gpuPipelines, layoutEntries } from "./gpu_pipelines.ts";

/** Instructions of a loop, without those of the loops inside it. */
export interface LoopCount {
  /** Multiply-adds of one invocation. */
  readonly macs: number;
  /** Instructions that are multiply-adds. */
  readonly issued: number;
  /** All instructions but waits. */
  readonly instructions: number;
}

/** One pipeline as the compiler sees it. */
export interface GpuRow extends Bounded {
  readonly registers: number;
  readonly shared: number;
  readonly waves: number;
  readonly bytes: number;
}

/** Marks in the file of statistics which pipeline comes next. */
const MARK = "@@ ";

const WAITS = /^s_(waitcnt|wait_|delay_alu|nop|clause)/;

/** Multiply-adds of an instruction: two of a packed or dual one may be. */
function macsOf(line: string): number {
  const count = line.match(/\bv_(pk_|dual_)?(fma|mac)/g)?.length ?? 0;
  return /\bv_pk_(fma|mac)/.test(line) ? 2 * count : count;
}

/** The loop with the most multiply-adds of its own, or null where there is no loop. */
export function hottestLoop(assembly: readonly string[]): LoopCount | null {
  const blocks: { readonly label: string; readonly lines: string[] }[] = [];
  for (const line of assembly) {
    const label = /^(BB\d+):/.exec(line)?.[1];
    if (label) blocks.push({ label, lines: [] });
    else if (line.startsWith("\t")) blocks.at(-1)?.lines.push(line.trim());
  }
  const index = new Map(blocks.map(({ label }, i) => [label, i])), ends = new Map<number, number>();
  blocks.forEach(({ lines }, i) => {
    for (const line of lines) {
      const target = /^s_c?branch\S*\s+(BB\d+)/.exec(line)?.[1], to = target && index.get(target);
      if (typeof to === "number" && to <= i) ends.set(to, Math.max(ends.get(to) ?? 0, i)); // backwards: a loop
    }
  });
  const loops = [...ends],
    count = (lines: readonly string[]): LoopCount => {
      const counted = lines.filter((line) => !WAITS.test(line)), macs = counted.map(macsOf);
      return {
        macs: macs.reduce((a, b) => a + b, 0),
        issued: macs.filter((n) => n > 0).length,
        instructions: counted.length,
      };
    };
  let best: LoopCount | null = null, most = -1;
  for (const [from, to] of loops) {
    const inner = loops.filter(([f, t]) => f >= from && t <= to && (f !== from || t !== to));
    const own = blocks.filter((_, i) => i >= from && i <= to && !inner.some(([f, t]) => i >= f && i <= t));
    const counts = count(own.flatMap(({ lines }) => lines));
    if (counts.macs > most) [best, most] = [counts, counts.macs];
  }
  return best;
}

/** Reads the file of statistics: a row for each pipeline that a mark names. */
export function readStatistics(text: string, pipelines: readonly GpuPipeline[]): GpuRow[] {
  const byHash = new Map(pipelines.map((p) => [p.hash, p]));
  return text.split(`\n${MARK}`).slice(1).map((part) => {
    const lines = part.split("\n"), pipeline = byHash.get(lines[0]);
    if (!pipeline) throw new Error(`gpu_table: the statistics name ${lines[0]}, which is no pipeline`);
    const stats = new Map<string, number>();
    for (const line of lines) {
      const found = /^stat (.+): (\d+)$/.exec(line);
      if (found) stats.set(found[1], Number(found[2]));
    }
    const { kernel, entry, workload, groups, constants, sizes } = pipeline,
      stat = (name: string) => {
        const value = stats.get(name);
        if (value === undefined) throw new Error(`gpu_table: the layer says nothing of ${kernel}'s ${name}`);
        return value;
      };
    return {
      ...{ hash: pipeline.hash, kernel, entry, workload, groups },
      registers: stat("VGPRs"),
      spills: stat("Spilled VGPRs") + stat("Spilled SGPRs") + stat("Scratch size"),
      shared: stat("LDS size"),
      waves: stat("Subgroups per SIMD"),
      bytes: stat("Code size"),
      loop: hottestLoop(lines.slice(lines.findIndex((line) => line.startsWith("+++")) + 1)),
      ...{ constants, sizes },
    };
  });
}

/** In a process that has the driver and the layer: compiles everything. */
async function compile(file: string): Promise<string> {
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("gpu_table: no adapter, expected RADV's: --driver names its manifest");
  const gpu = await adapter.requestDevice();
  for (const pipeline of await gpuPipelines()) {
    Deno.writeTextFileSync(file, `\n${MARK}${pipeline.hash}\n`, { append: true });
    gpu.pushErrorScope("validation");
    const bindings = gpu.createBindGroupLayout({ entries: layoutEntries(pipeline) });
    gpu.createComputePipeline({
      layout: gpu.createPipelineLayout({ bindGroupLayouts: [bindings] }),
      compute: {
        module: gpu.createShaderModule({ code: pipeline.code }),
        entryPoint: pipeline.entry,
        constants: pipeline.constants,
      },
    });
    const error = await gpu.popErrorScope();
    if (error) throw new Error(`gpu_table: ${pipeline.kernel} ${pipeline.entry}: ${error.message}`);
  }
  return adapter.info.description;
}

/** Starts the process that compiles, and returns the compiler's name and the statistics. */
async function statistics(layer: string, driver: string, family: string) {
  const file = await Deno.makeTempFile();
  try {
    const manifest = JSON.parse(await Deno.readTextFile(layer));
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", fromFileUrl(import.meta.url), "--compile", file],
      env: {
        RADV_FORCE_FAMILY: family,
        VK_DRIVER_FILES: driver,
        VK_ICD_FILENAMES: driver,
        VK_ADD_LAYER_PATH: layer.slice(0, layer.lastIndexOf("/")),
        VK_INSTANCE_LAYERS: manifest.layer.name,
        NODEVICE_SELECT: "1",
        PIPELINE_STATS: file,
        PIPELINE_STATS_NULL: "1",
      },
    }).output();
    const text = new TextDecoder();
    if (!success) throw new Error(`gpu_table: nothing was compiled: ${text.decode(stderr)}`);
    return { compiler: text.decode(stdout).trim(), text: await Deno.readTextFile(file) };
  } finally {
    await Deno.remove(file);
  }
}

if (import.meta.main) {
  const file = option("compile");
  if (file) {
    console.log(await compile(file));
    Deno.exit(0);
  }
  const layer = option("layer"), driver = option("driver"), family = option("family") ?? "navi31";
  if (!layer || !driver) {
    console.error(
      "gpu_table: expected --layer LAYER.json and --driver ICD.json; docs/kernels.md says where they come from",
    );
    Deno.exit(1);
  }
  const [layerPath, driverPath] = await Promise.all([layer, driver].map((path) => Deno.realPath(path)));
  const { compiler, text } = await statistics(layerPath, driverPath, family);
  const rows = readStatistics(text, await gpuPipelines()), { date, deno } = await environment();
  for (const { kernel, entry, workload, registers, spills, waves, loop } of rows) {
    if (workload === "cases") continue;
    const share = loop
      ? `${loop.issued}/${loop.instructions} ${Math.round(100 * loop.issued / loop.instructions)} %`
      : "";
    const figures = [registers, spills, waves].map((n) => String(n).padStart(4)).join("");
    console.log(`${kernel}:${entry}`.padEnd(32), figures, share.padStart(15), ` ${workload}`);
  }
  const broken = brokenBounds(rows);
  for (const line of broken) console.error(line);
  const table = JSON.stringify(rows).replaceAll('{"hash"', '\n{"hash"');
  const head = {
    what: "every pipeline as the compiler sees it; see bench/gpu_table.ts",
    date,
    deno,
    compiler,
    family,
  };
  const out = new URL("results/gpu_table.json", import.meta.url);
  await Deno.writeTextFile(out, `${JSON.stringify(head).slice(0, -1)},"rows":${table}}\n`);
  console.log(`${rows.length} pipelines compiled by ${compiler}, ${broken.length} bounds broken`);
  Deno.exit(broken.length ? 1 : 0);
}
