import { assert, assertEquals, assertMatch } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { columnLines } from "../cli/report.ts";
import { far, farArgs, inFolder, tinyWorld } from "./cli_helpers.ts";

// deno-lint-ignore no-explicit-any -- the file as it was written
const resultOf = (folder: string): any => JSON.parse(Deno.readTextFileSync(`${folder}/result.json`));

Deno.test("--version names the program, Deno and the machine", async () => {
  const { code, stdout } = await far(["--version"]);
  assertEquals([code, stdout], [
    0,
    `far ${config.version}, deno ${Deno.version.deno}, ${Deno.build.target}\n`,
  ]);
});

Deno.test("the first command of README has the settings of its task: the bundled model's card says them", async () => {
  const { command } = config.tasks.predict, [, words] = /far\.ts (.*)$/.exec(command)!;
  assertEquals(words, "predict --ctx 144 --pred 156 --out out/predict");
  await inFolder(async (folder) => {
    const small = ["--ctx", "6", "--pred", "2", "--device", "cpu"];
    const plain = await far(["predict", ...small, "--out", `${folder}/plain`]);
    assertEquals(plain.code, 0, plain.stderr);
    const { settings, warnings, clip } = resultOf(`${folder}/plain`);
    assertEquals(settings.operands, ["grid:0"]);
    assertEquals([settings.flags.steps, settings.flags.model, clip.height], [1, "world", 64]);
    assertEquals(warnings, []);
    const spelled = await far([
      ...["predict", "grid:0", "--model", "world", "--steps", "1", ...small, "--out", `${folder}/spelled`],
    ]);
    assertEquals(spelled.code, 0, spelled.stderr);
    assertEquals(resultOf(`${folder}/spelled`).scores, resultOf(`${folder}/plain`).scores);
    const more = await far(["predict", "--steps", "2", ...small, "--out", `${folder}/more`]);
    assertEquals(more.code, 0, more.stderr);
    assertEquals(resultOf(`${folder}/more`).settings.flags.steps, 2, "what is given wins");
    const again = await far(["predict", "--from", `${folder}/more/result.json`, "--out", `${folder}/again`]);
    assertEquals(again.code, 0, again.stderr);
    assertEquals(
      resultOf(`${folder}/again`).settings.flags.steps,
      2,
      "an earlier run's settings win over the card",
    );
  });
});

Deno.test("generate takes the bundled model and the actions on its card", async () => {
  await inFolder(async (folder) => {
    const run = ["generate", "--frames", "2", "--steps", "1", "--device", "cpu", "--out", `${folder}/out`];
    const { code, stderr } = await far(run);
    assertEquals(code, 0, stderr);
    const { models, random_weights, clip } = resultOf(`${folder}/out`);
    assertEquals([models.far.name, random_weights, clip.actions], ["world", false, [2, 2]]);
  });
});

Deno.test("world:N is a clip in every verb that takes one, and world alone is none", async () => {
  await inFolder(async (folder) => {
    const to = `${folder}/z.safetensors`;
    const encoded = await far(["encode", "world:2", "--count", "3", "--device", "cpu", "--to", to]);
    assertEquals(encoded.code, 0, encoded.stderr);
    assertMatch(encoded.stderr, /latents \[3, 32, 4, 4\]/);
    for (const [verb, out] of [["encode", "--to"], ["predict", "--out"]]) {
      const { code, stderr } = await far([verb, "world", "--device", "cpu", out, `${folder}/none.npz`]);
      assertEquals([verb, code, /^far: .*expected a clip; did you mean world:0/m.test(stderr)], [
        verb,
        2,
        true,
      ]);
    }
  });
});

Deno.test("all weights that are missing are named at once", async () => {
  await inFolder(async (folder) => {
    const { code, stderr } = await far(["predict", "world:0", "--model", "FAR_B"]);
    assertEquals([code, stderr], [
      2,
      "far: FAR_B and DC-AE 8x have no weights: give --weights FILE and --vae-weights FILE, or --random-weights to try " +
      "the program without a trained model",
    ]);
    const flags = (await tinyWorld(folder)).filter((f) => f !== "--random-weights");
    const one = await far(["predict", ...flags, "--weights", "models/world/far.safetensors"]);
    assertMatch(one.stderr, /^far: DC-AE \S+dcae\.json has no weights: give --vae-weights FILE, or/);
  });
});

Deno.test("weights inspect names the bundled model that a checkpoint fits", async () => {
  const path = (part: string) => new URL(`../models/world/${part}.safetensors`, import.meta.url).pathname;
  for (const [part, fits] of [["far", "world (bundled) with 3 actions"], ["dcae", "DC-AE world (bundled)"]]) {
    const { stdout } = await far(["weights", "inspect", path(part)]);
    assertMatch(stdout, new RegExp(`^fits ${fits.replace(/[()]/g, "\\$&")}$`, "m"));
  }
});

Deno.test("errors and help have colours where they are asked for, and none elsewhere", async () => {
  const run = async (env: Record<string, string>, ...args: string[]) => {
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: farArgs(args), env }).output();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  };
  // deno-lint-ignore no-control-regex -- the escape is what is looked for
  const colour = /\x1b\[\d+m(far:|Usage:|--ctx N)/;
  for (const args of [["nonsense"], ["--help"], ["predict", "--help"]]) {
    for (const NO_COLOR of ["", "1"]) assertMatch(await run({ FORCE_COLOR: "1", NO_COLOR }, ...args), colour);
    for (const env of [{ FORCE_COLOR: "", NO_COLOR: "1" }, { FORCE_COLOR: "0", NO_COLOR: "" }]) {
      assert(!colour.test(await run(env, ...args)), `${args}: ${JSON.stringify(env)}`);
    }
  }
});

Deno.test("a terminal gets colours unless NO_COLOR is set", async () => {
  const at = new URL("../cli/colour.ts", import.meta.url).href;
  const script = `import { hasColour } from ${JSON.stringify(at)};
    console.log(hasColour({ isTerminal: () => true }), hasColour({ isTerminal: () => false }));`;
  for (const [NO_COLOR, found] of [["", "true false"], ["1", "false false"]]) {
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["eval", script],
      env: { NO_COLOR, FORCE_COLOR: "" },
    }).output();
    // deno-lint-ignore no-control-regex -- Deno colours what it prints
    assertEquals(new TextDecoder().decode(stdout).replace(/\x1b\[\d+m/g, "").trim(), found);
  }
});

Deno.test("columns are as wide as their longest cell", () => {
  const rows = [["a", "1e-5", "ok"], ["attentionGradQuery", "2e-6", "a longer sentence"]];
  assertEquals(columnLines(rows), [
    "a                   1e-5  ok",
    "attentionGradQuery  2e-6  a longer sentence",
  ]);
});
