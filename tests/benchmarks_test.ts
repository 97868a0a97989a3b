import { assert, assertEquals } from "@std/assert";
import { benchmarkPage } from "../bench/page.ts";
import { videoSeconds } from "../bench/kv_cache.ts";

const read = (path: string) => Deno.readTextFile(new URL(`../${path}`, import.meta.url));

Deno.test("docs/benchmarks.md is what bench/page.ts makes of the results", async () => {
  const { text, charts } = await benchmarkPage();
  assertEquals(await read("docs/benchmarks.md"), text, "run deno run -A bench/page.ts");
  for (const [name, svg] of Object.entries(charts)) {
    assertEquals(await read(`bench/results/${name}`), svg, name);
  }
  for (const part of text.split("\n## ").slice(1)) {
    assert(/\d{4}-\d\d-\d\d(, [0-9a-f]{7}|$)/m.test(part), `no date and commit: ${part.slice(0, 60)}`);
    assert(part.includes("|---|"), `no table: ${part.slice(0, 60)}`);
  }
});

Deno.test("seconds of a video add up measured frames, and lie on lines between them", () => {
  const measured = [[1, 2], [3, 4], [5, 10]] as const; // 2, 3, 4, 7, 10
  assertEquals([1, 2, 3, 4, 5].map((frames) => videoSeconds(measured, frames)), [2, 5, 9, 16, 26]);
});
