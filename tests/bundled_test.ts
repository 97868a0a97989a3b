import { assert, assertEquals, assertMatch } from "@std/assert";
import { BUNDLED, bundledFile } from "../lib/pipeline/bundled.ts";
import { openSafetensors } from "../lib/io/safetensors.ts";
import { far, inFolder } from "./cli_helpers.ts";

const root = new URL("../models/", import.meta.url);

Deno.test("every bundled model has its card, configurations, weights as f16, options, logs and curves, in at most 10 MB", () => {
  for (const name of Object.keys(BUNDLED)) {
    const files = [...Deno.readDirSync(new URL(`${name}/`, root))].map((entry) => entry.name);
    const bytes = files.reduce((sum, file) => sum + Deno.statSync(new URL(`${name}/${file}`, root)).size, 0);
    assert(bytes <= 10_000_000, `${name}: ${bytes} bytes`);
    assert(files.includes("card.json"));
    for (const part of ["far", "dcae"] as const) {
      using weights = openSafetensors(bundledFile(name, part, "weights"));
      const types = new Set([...weights.tensors.values()].map((t) => t.dtype));
      assertEquals([...types].filter((t) => t !== "I64"), ["F16"], part);
      assert(Deno.statSync(bundledFile(name, part, "config")).isFile);
      assert(files.includes(`${part}.yml`), part);
      const logs = files.filter((file) => file.startsWith(part) && file.endsWith("_log.jsonl")); // one per stage
      assert(logs.length > 0, part);
      for (const log of logs) assert(files.includes(log.replace("_log.jsonl", "_loss.svg")), log);
    }
  }
});

Deno.test("predict without arguments takes a walk through the world and the bundled model", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    const { code, stderr } = await far([
      "predict",
      "--ctx",
      "20",
      "--pred",
      "3",
      "--steps",
      "2",
      "--out",
      out,
    ]);
    assertEquals(code, 0, stderr);
    assert(!/RANDOM/i.test(stderr), stderr);
    assertMatch(stderr, /PSNR \d+\.\d+ dB, mean of 3 predicted frames/);
    const { settings, random_weights, models } = JSON.parse(Deno.readTextFileSync(`${out}/result.json`));
    assertEquals([settings.operands, random_weights, models.far.name], [["grid:0"], false, "world"]);
  });
});

Deno.test("over twelve frames, the bundled model remembers: it beats itself with a short context, and both baselines", async () => {
  await inFolder(async (folder) => {
    const run = [
      "--clips",
      "4",
      "--ctx",
      "96",
      "--pred",
      "12",
      "--steps",
      "1",
      "--batch",
      "4",
      "--sheets",
      "0",
    ];
    const { code, stderr } = await far(["evaluate", "grid", ...run, "--quiet", "--out", `${folder}/out`]);
    assertEquals([code, stderr], [0, ""]);
    const { methods } = JSON.parse(Deno.readTextFileSync(`${folder}/out/result.json`));
    const ahead = Object.fromEntries(
      methods.map(({ method, ahead }: { method: string; ahead?: { psnr: { mean: number } } }) => [
        method,
        ahead?.psnr.mean,
      ]),
    );
    // Measured on 2026-11-21: 5.5, 10.4 and 7.7 dB.
    for (const method of ["short", "last", "mean"]) assert(ahead[method] > 3, JSON.stringify(ahead));
  });
});
