import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { readActions } from "../lib/pipeline/clip.ts";
import { labelNumber, UCF101_CLASSES } from "../lib/pipeline/labels.ts";
import { far, inFolder, TINY_FAR, tinyWorld } from "./cli_helpers.ts";

Deno.test("generate makes clips from noise, and each label and action pattern its own", async () => {
  await inFolder(async (folder) => {
    const [, ...models] = await tinyWorld(folder);
    const { condition_cfg: _, context_patch_size: _c, short_term_ctx_winsize: _w, ...config } =
      TINY_FAR.config;
    const labels = { type: "FAR", config: { ...config, condition_cfg: { type: "label", num_classes: 101 } } };
    Deno.writeTextFileSync(`${folder}/labels.json`, JSON.stringify(labels));
    const run = async (name: string, ...args: string[]) => {
      const out = `${folder}/${name}`;
      const own = args[0] === "--from" ? [] : [...models, "--frames", "3", "--size", "16"];
      const { code, stderr } = await far(["generate", ...own, "--out", out, ...args]);
      assertEquals(code, 0, stderr);
      const result = JSON.parse(Deno.readTextFileSync(`${out}/result.json`));
      assertEquals([result.settings.verb, result.scores[0].frames, result.clip.frames], ["generate", [], 3]);
      assertMatch(Deno.readTextFileSync(`${out}/report.html`), /3 frames of 16×16 generated/);
      return Deno.readFileSync(`${out}/sheet.png`).join();
    };
    const model = ["--model", `${folder}/labels.json`];
    const diving = await run("diving", ...model, "--label", "cliff-diving");
    assertEquals(await run("number", ...model, "--label", "21"), diving);
    assertEquals(await run("again", "--from", `${folder}/diving/result.json`), diving);
    assert(await run("archery", ...model, "--label", "Archery") !== diving);
    assert(await run("none", ...model) !== diving);
    assert(await run("zero", "--actions", "0") !== await run("pattern", "--actions", "0,1*2"));
    const refused = await far(["generate", ...models, "--label", "3", "--out", `${folder}/x`]);
    assertEquals(refused.code, 2);
    assertMatch(refused.stderr, /has no labels, its condition is action/);
  });
});

Deno.test("labels are found by number and by name", () => {
  assertEquals([labelNumber("YoYo", 101), labelNumber("apply_eye makeup", 101), labelNumber("4", 5)], [
    100,
    0,
    4,
  ]);
  assertEquals(new Set(UCF101_CLASSES).size, 101);
  assertThrows(() => labelNumber("CliffDriving", 101), Error, 'did you mean "CliffDiving"?');
  assertThrows(() => labelNumber("5", 5), Error, "expected 0 to 4, found 5");
  assertThrows(() => labelNumber("Archery", 5), Error, "names are known for UCF-101 only");
});

Deno.test("a pattern of actions repeats until there are enough", () => {
  assertEquals([...readActions("0*2,1", 7)], [0, 0, 1, 0, 0, 1, 0]);
  assertThrows(() => readActions("0*0", 3), Error, "expected 1 to 1000000 repeats, found 0*0");
});
