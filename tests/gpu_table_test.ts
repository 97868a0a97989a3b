import { assert, assertEquals } from "@std/assert";
import table from "../bench/results/gpu_table.json" with { type: "json" };
import { brokenBounds } from "../bench/gpu_bounds.ts";
import { gpuPipelines, HARDWARE } from "../bench/gpu_pipelines.ts";
import { type GpuRow, hottestLoop, readStatistics } from "../bench/gpu_table.ts";
import { attention } from "../kernels/attention.ts";
import { stepsOf } from "../kernels/webgpu/programs.ts";

const rows = table.rows as unknown as GpuRow[], pipelines = await gpuPipelines();
const AGAIN = "run bench/gpu_table.ts again (docs/kernels.md)";

Deno.test("every WebGPU pipeline is in the table of what a GPU's compiler makes of it, and nothing else is", () => {
  const known = new Set(rows.map(({ hash }) => hash)), wanted = new Set(pipelines.map(({ hash }) => hash));
  const name = ({ kernel, entry, workload }: { kernel: string; entry: string; workload: string }) =>
    `${kernel} ${entry} (${workload})`;
  assertEquals(pipelines.filter(({ hash }) => !known.has(hash)).map(name), [], `not in the table: ${AGAIN}`);
  assertEquals(rows.filter(({ hash }) => !wanted.has(hash)).map(name), [], `of no pipeline: ${AGAIN}`);
});

Deno.test("the pipelines spill nothing, and their loops keep to the bounds", () => {
  assertEquals(brokenBounds(rows), []);
});

Deno.test("attention of 64 queries in 12 heads over 1,536 keys fills a GPU: at least 128 workgroups", () => {
  const p = { T: 64, S: 1536, keys: 1536, D: 768, A: 12, hd: 64, hasSlope: 0, hasLse: 0 };
  const { steps: [{ program }] } = stepsOf(attention, p, HARDWARE);
  const groups = [program.wgsl.groups(p, HARDWARE)].flat().reduce((a, b) => a * b, 1);
  assert(groups >= 128, `found ${groups} workgroups`);
});

Deno.test("a table that breaks a bound is told apart", () => {
  const change = (pick: (row: GpuRow) => boolean, to: Partial<GpuRow>) => {
    const at = rows.findIndex(pick);
    assert(at >= 0);
    return brokenBounds(rows.with(at, { ...rows[at], ...to }));
  };
  const tile = (entry: string, kernel = "linear") => (row: GpuRow) =>
    row.kernel === kernel && row.entry === entry && row.constants.exact === 1 && row.constants.whole === 1;
  const loop = (issued: number) => ({ macs: issued, issued, instructions: 1000 });
  const already = brokenBounds(rows).length, found = (broken: string[]) => broken.length - already;
  assertEquals(found(change((row) => row.workload !== "cases", { spills: 1 })), 1);
  assertEquals(found(change(tile("large"), { loop: loop(849) })), 1);
  assertEquals(found(change(tile("large"), { loop: loop(850) })), 0);
  assertEquals(found(change(tile("small"), { loop: loop(749) })), 1);
  assertEquals(found(change(tile("small"), { loop: null })), 1);
  const heads = (row: GpuRow) =>
    row.kernel === "attention" && row.entry === "forward" && row.constants.hd === 64 &&
    row.constants.hasSlope === 0;
  assertEquals(found(change(heads, { loop: { macs: 1, issued: 1, instructions: 901 } })), 1);
  assertEquals(brokenBounds([]).length, 3); // no rows are no proof
});

Deno.test("the hottest loop is the one with the most multiply-adds of its own, without waits and inner loops", () => {
  const assembly = [
    "BB0:",
    "\tv_fma_f32 v0, v1, v2, v3                ; d613",
    "BB1:",
    "\ts_waitcnt vmcnt(0)",
    "\tv_add_f32_e32 v0, v1, v2",
    "BB2:",
    "\tv_fmac_f32_e32 v0, v1, v2",
    "\tv_dual_fmac_f32 v0, v1, v2 :: v_dual_mov_b32 v3, v4",
    "\tv_dual_fmac_f32 v0, v1, v2 :: v_dual_fmac_f32 v3, v4, v5",
    "\tv_pk_fma_f16 v0, v1, v2, v3",
    "\ts_barrier",
    "\ts_cbranch_scc0 BB2",
    "BB3:",
    "\tv_fmac_f32_e32 v0, v1, v2",
    "\ts_branch BB1",
    "BB4:",
    "\ts_endpgm",
  ];
  assertEquals(hottestLoop(assembly), { macs: 6, issued: 4, instructions: 6 });
  const outer = assembly.with(6, "\tv_mov_b32 v0, v1").with(7, "\tv_mov_b32 v0, v1").with(
    8,
    "\tv_mov_b32 v0, v1",
  )
    .with(9, "\tv_mov_b32 v0, v1");
  assertEquals(hottestLoop(outer), { macs: 1, issued: 1, instructions: 3 });
  assertEquals(hottestLoop(assembly.filter((line) => !line.includes("branch"))), null);
});

Deno.test("statistics belong to the pipeline whose mark comes before them", () => {
  const [a, b] = pipelines,
    stats = (vgprs: number) =>
      `=== pipeline 0 main result 0\nstat SGPRs: 8\nstat VGPRs: ${vgprs}\nstat Spilled SGPRs: 1\nstat Spilled VGPRs: 2\n` +
      "stat Code size: 40\nstat LDS size: 16\nstat Scratch size: 4\nstat Subgroups per SIMD: 9\n+++ Assembly\nBB0:\n\ts_endpgm\n";
  const read = readStatistics(
    `${stats(1)}\n@@ ${b.hash}\n${stats(24)}\n@@ ${a.hash}\n${stats(36)}`,
    pipelines,
  );
  assertEquals(read.map(({ hash, registers, spills }) => [hash, registers, spills]), [[b.hash, 24, 7], [
    a.hash,
    36,
    7,
  ]]);
  assertEquals(read[0].loop, null);
});
