/**
 * The shaders in Chromium, whose compiler (Tint) is not the one of Deno (naga), with WebGPU's default limits.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { gpuPipelines, HARDWARE, layoutEntries } from "../bench/gpu_pipelines.ts";
import { withPage } from "./browser.ts";
import { toolTest } from "./tools.ts";

/** What the page is given: one pipeline for each text and entry point. */
interface Job {
  readonly name: string;
  readonly code: string;
  readonly entry: string;
  readonly constants: Readonly<Record<string, number>>;
  readonly layout: readonly GPUBindGroupLayoutEntry[];
}

/** Runs in the page: compiles every text; returns what went wrong, and how many compiled. Written without outside names. */
async function compile(
  jobs: readonly Job[],
  pipelines: boolean,
): Promise<{ compiled: number; errors: string[] }> {
  const adapter = await navigator.gpu.requestAdapter(), errors: string[] = [];
  if (!adapter) return { compiled: 0, errors: ["no adapter"] };
  const gpu = await adapter.requestDevice();
  let compiled = 0;
  for (const { name, code, entry, constants, layout } of jobs) {
    const module = gpu.createShaderModule({ code }), { messages } = await module.getCompilationInfo();
    for (const m of messages) errors.push(`${name}: ${m.type} in line ${m.lineNum}: ${m.message}`);
    if (pipelines && messages.length === 0) {
      const bindings = gpu.createBindGroupLayout({ entries: layout as GPUBindGroupLayoutEntry[] });
      const of = { layout: gpu.createPipelineLayout({ bindGroupLayouts: [bindings] }) };
      await gpu.createComputePipelineAsync({ ...of, compute: { module, entryPoint: entry, constants } })
        .catch((error) => errors.push(`${name}: ${error.message}`));
    }
    compiled++;
  }
  return { compiled, errors };
}

async function inChromium(jobs: readonly Job[], pipelines: boolean) {
  const file = await Deno.makeTempFile({ suffix: ".html" });
  try {
    await Deno.writeTextFile(file, '<!doctype html><html data-ready="true"><title>shaders</title></html>');
    return await withPage(
      file,
      (page) =>
        page.evaluate<Awaited<ReturnType<typeof compile>>>(
          `(${compile})(${JSON.stringify(jobs)}, ${pipelines})`,
        ),
      { webgpu: true },
    );
  } finally {
    await Deno.remove(file);
  }
}

async function jobsOf(software: boolean): Promise<Job[]> {
  const jobs = new Map<string, Job>();
  for (const pipeline of await gpuPipelines({ ...HARDWARE, software })) {
    const { code, entry, constants, kernel } = pipeline, key = `${entry} ${code}`;
    if (!jobs.has(key)) {
      jobs.set(key, { name: `${kernel} ${entry}`, code, entry, constants, layout: layoutEntries(pipeline) });
    }
  }
  return [...jobs.values()];
}

toolTest(["chromium"], "every shader compiles in Chromium with WebGPU's default limits", async () => {
  const jobs = [...await jobsOf(false), ...await jobsOf(true)];
  assert(jobs.length > 100);
  assertEquals(await inChromium(jobs, false), { compiled: jobs.length, errors: [] });
});

toolTest(["chromium"], "a shader that Chromium refuses is told", async () => {
  const [job] = await jobsOf(false);
  const wrong = { ...job, name: "wrong", code: job.code.replace("fn ", "fn fn ") };
  const large = { ...job, name: "large", code: `${job.code}\nvar<workgroup> much: array<vec4f, 1025>;\n` };
  large.code = large.code.replace(/(fn forward\([^{]*\{)/, "$1 much[0] = vec4f();");
  const { errors } = await inChromium([wrong, large], true);
  assertEquals(errors.map((line) => line.split(":")[0]), ["wrong", "large"], errors.join("\n"));
});
