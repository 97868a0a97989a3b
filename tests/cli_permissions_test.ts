import { assert, assertEquals, assertMatch } from "@std/assert";
import { commandOf, ENVIRONMENT } from "../cli/help.ts";
import { allVerbs } from "../cli/main.ts";
import { ZOO_URL } from "../lib/pipeline/zoo.ts";
import { writeLatents } from "../lib/data/latents.ts";
import { far, farArgs, inFolder, tinyWorld } from "./cli_helpers.ts";
import { toolTest } from "./tools.ts";

const VERBS = await allVerbs();

type Value = boolean | string[] | { allow?: string[]; ignore?: boolean | string[] };
type Sets = Record<string, Record<string, Value>>;

const sets: Sets = JSON.parse(Deno.readTextFileSync(new URL("../deno.json", import.meta.url))).permissions;

const listOf = (value: Value | undefined): string[] =>
  value === undefined || value === false
    ? []
    : value === true
    ? ["*"]
    : Array.isArray(value)
    ? value
    : value.allow ?? [];

Deno.test("the default permission set starts nothing, and each other one adds what its name says", () => {
  const { default: base, ...others } = sets;
  assertEquals(Object.keys(base).sort(), ["env", "read", "sys", "write"]);
  const { net } = others.net, own = listOf(net);
  assert(own.length > 0 && own.every((host) => /^(\*\.)?(huggingface\.co|hf\.co)$/.test(host)), `${own}`);
  const run = ["ffmpeg"];
  assertEquals(others, {
    ffmpeg: { ...base, run },
    blas: { ...base, run, ffi: true },
    play: { ...base, net: ["127.0.0.1"] },
    net: { ...base, net },
  });
  assertEquals(new URL(ZOO_URL).host, own[0]);
});

Deno.test("permission sets allow the variables that help lists, and ignore the rest", () => {
  const shown = Object.keys(ENVIRONMENT).filter((name) => name !== "NO_COLOR"); // Deno reads that one itself
  for (const [name, set] of Object.entries(sets)) {
    assertEquals((set.env as { ignore: boolean }).ignore, true, name);
    const allowed = listOf(set.env).map((v) => new RegExp(`^${v.replace("*", "\\w*")}$`));
    for (const variable of shown) assert(allowed.some((v) => v.test(variable)), `${name}: ${variable}`);
  }
});

/** Runs far.ts in a pseudo-terminal; what Deno would ask appears in the output. */
async function onTerminal(
  args: readonly string[],
  set: string,
  seconds = 120,
): Promise<{ code: number; output: string }> {
  const quoted = [Deno.execPath(), ...farArgs(args, set)].map((word) => `'${word.replaceAll("'", `'\\''`)}'`)
    .join(" ");
  const limit = AbortSignal.timeout(seconds * 1000);
  const { code, stdout } = await new Deno.Command("script", {
    args: ["-qec", quoted, "/dev/null"],
    stdin: "null",
    signal: limit,
  }).output();
  assert(!limit.aborted, `${args[0]} took more than ${seconds} s`); // script ends with code 0 all the same
  return { code, output: new TextDecoder().decode(stdout) };
}

const ASKS = /Deno requests|Allow\? \[y\/n/;

toolTest(
  ["script"],
  "no command asks for permission on a terminal with the set that its help names",
  async () => {
    await inFolder(async (folder) => {
      const flags = await tinyWorld(folder);
      const encoder = [flags[0], "--vae", `${folder}/dcae.json`, "--random-weights", "--device", "cpu"];
      const path = (name: string) => new URL(name, import.meta.url).pathname;
      const clips = `${folder}/clips`, data = `datasets.train.data_list=${clips}`;
      await Deno.mkdir(clips);
      await Deno.copyFile(path("../assets/dmlab_24.npz"), `${clips}/dmlab_24.npz`);
      const latents = `${folder}/latents`, zeros = new Float32Array(8 * 64);
      await writeLatents(latents, [{
        source: "a",
        latents: { shape: [8, 4, 4, 4], data: zeros },
        actions: new Int32Array(8),
      }]);
      const oneStep = ["--device", "cpu", "--set", "train.total_iter=1", "--set", data];
      const commands: Record<string, string[]> = {
        predict: ["predict", ...flags, "--ctx", "2", "--pred", "1", "--out", `${folder}/out`],
        generate: [
          "generate",
          ...flags.slice(1),
          "--actions",
          "0",
          "--frames",
          "1",
          "--out",
          `${folder}/generated`,
        ],
        play: ["play", ...flags, "--ctx", "2", "--out", `${folder}/play`], // its input ends at once
        train: ["train", "--config", path("data/train_clip.yml"), ...oneStep, "--out", `${folder}/run`],
        "train-vae": [
          "train-vae",
          "--config",
          path("data/train_vae_clip.yml"),
          ...oneStep,
          "--set",
          `datasets.sample.data_list=${clips}`,
          "--set",
          `models.model_cfg.vae.from_config=${path("../experiments/configs/dcae_8x_tiny.json")}`,
          "--without-perceptual",
          "--out",
          `${folder}/vae`,
        ],
        evaluate: [
          "evaluate",
          "world",
          ...flags.slice(1),
          ...["--clips", "1", "--ctx", "3", "--pred", "1", "--short", "2", "--out", `${folder}/scores`],
        ],
        rollout: [
          "rollout",
          latents,
          ...flags.slice(1),
          ...["--least", "1", "--most", "1", "--to", `${folder}/rollouts`],
        ],
        encode: ["encode", ...encoder, "--to", `${folder}/z.safetensors`],
        decode: ["decode", `${folder}/z.safetensors`, ...encoder.slice(1), "--to", `${folder}/y.mp4`],
        weights: ["weights", "list"],
        data: ["data", "make", "world", "--clips", "1", "--frames", "2", "--out", `${folder}/world`],
        info: ["info", "FAR_B"],
        doctor: ["doctor", "--device", "cpu"],
        completion: ["completion", "zsh"],
      };
      assertEquals(Object.keys(commands), VERBS.map((v) => v.name));
      for (const [name, args] of Object.entries(commands)) {
        for (const set of new Set(["-P", /-P\S*/.exec(commandOf(name))![0]])) {
          const { code, output } = await onTerminal(args, set);
          assert(!ASKS.test(output), `${name} ${set}: ${output}`);
          assertEquals(code, 0, `${name} ${set}: ${output}`);
        }
      }
    });
  },
);

toolTest(
  ["script"],
  "on a terminal, a run without permissions offers the command and asks nothing",
  async () => {
    const { code, output } = await onTerminal(
      ["predict", "--ctx", "144", "--out", "my clips"],
      "--no-check",
      30,
    );
    assert(!ASKS.test(output), output);
    assertEquals(code, 2);
    assertMatch(output, /type: deno run -P far\.ts predict --ctx 144 --out 'my clips'\s*$/);
  },
);

Deno.test("off a terminal, a run without permissions says in one line what to type", async () => {
  const { code, stderr } = await far(["predict", "clip.npz"], {}, "--no-check");
  assertEquals(code, 2);
  assertMatch(
    stderr,
    /^far: far\.ts predict needs permission to .*type: deno run -P far\.ts predict [^\n]*$/,
  );
});

Deno.test("permission to read files alone is not enough, and the line says what is missing", async () => {
  const { code, stderr } = await far(["predict", "clip.npz"], {}, "--allow-read");
  assertEquals(code, 2);
  assertMatch(
    stderr,
    /^far: far\.ts predict needs permission to read FAR_DEVICE; .*type: deno run -P far\.ts predict clip\.npz$/,
  );
});

Deno.test("unknown verbs and flags end with code 2, one line and the nearest match", async () => {
  const verb = await far(["predcit"]);
  assertEquals([verb.code, verb.stderr], [
    2,
    "far: there is no verb predcit, did you mean predict? (far.ts --help lists them)",
  ]);
  const early = await far(["--verson"]);
  assertEquals([early.code, early.stderr], [
    2,
    "far: there is no flag --verson, did you mean --version? (far.ts --help lists them)",
  ]);
  const flag = await far(["predict", "clip.npz", "--guidence", "2"]);
  assertEquals([flag.code, flag.stderr], [
    2,
    "far: far.ts predict: there is no flag --guidence, did you mean --guidance? (far.ts predict --help lists them)",
  ]);
});

Deno.test("help of every verb prints with code 0 and nothing on stderr", async () => {
  for (const { name } of VERBS) {
    const { code, stdout, stderr } = await far([name, "--help"]);
    assertEquals([code, stderr], [0, ""], name);
    assert(stdout.includes(`far.ts ${name}`));
  }
  const { code, stdout } = await far(["--help"]);
  assertEquals(code, 0);
  for (const { name } of VERBS) assert(stdout.includes(name));
});
