import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { openNpz } from "../lib/io/npz.ts";
import { far } from "./cli_helpers.ts";
import { inFolder } from "./io_helpers.ts";

Deno.test("data make writes clips in DMLab's layout, and check, stats and list read them", async () => {
  await inFolder(async (folder) => {
    const out = join(folder, "world"),
      make = ["data", "make", "world", "--clips", "2", "--frames", "10", "--size", "16"];
    const made = await far([...make, "--split", "test", "--out", out, "--json"], {}, "-P");
    assertEquals(made.code, 0, made.stderr);
    const list = join(out, "world_test.json");
    assertEquals(JSON.parse(made.stdout.trim().split("\n").at(-1)!), { event: "done", list, clips: 2 });
    using file = openNpz(join(out, "test/1.npz"));
    assertEquals([...file.tensors].map(([name, t]) => `${name} ${t.dtype} ${t.shape}`), [
      "video U8 10,16,16,3",
      "actions I64 10",
      "poses I64 10,3",
    ]);
    const stats = await far(["data", "stats", list], {}, "-P");
    assertEquals(stats.code, 0, stats.stderr);
    assert(stats.stdout.includes("2 of 2 clips, 20 frames, 10 to 10 per clip"), stats.stdout);
    assertEquals((await far(["data", "check", out], {}, "-P")).code, 0);
    Deno.truncateSync(join(out, "test/1.npz"), 200);
    const check = await far(["data", "check", list], {}, "-P");
    assertEquals(check.code, 1);
    assert(/far: .*1\.npz: .*truncated/.test(check.stderr), check.stderr);
    assert(check.stderr.includes("2 clips, 1 cannot be used"), check.stderr);
    const sets = await far(["data", "list", "--root", folder, "--json"], {}, "-P");
    const names = (JSON.parse(sets.stdout) as { name: string; get: string }[]).map(({ name }) => name);
    assertEquals(names, ["ucf101", "bair", "minecraft", "minecraft_latent", "dmlab", "dmlab_latent"]);
  });
});

Deno.test("data says in one line what it does not understand", async () => {
  for (
    const [args, message] of [
      [["make", "maze"], "data make: expected world or grid, found maze"],
      [["check"], "data check: expected WHAT, found nothing"],
      [["chek", "world"], "did you mean"],
      [["check", "some/list.json"], "give --type"],
      [["make", "world", "--size", "8"], "--size: expected a whole number from 16 to 512"],
    ] as const
  ) {
    const { code, stderr } = await far(["data", ...args], {}, "-P");
    assertEquals(code, 2, stderr);
    assert(stderr.includes(message) && !stderr.includes("\n"), stderr);
  }
});
