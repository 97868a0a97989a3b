import { assert, assertEquals, assertThrows } from "@std/assert";
import { choice, integer, parseCall, path, real, text, toggle, UsageError, verb } from "../cli/args.ts";
import { completionScript, EXIT_CODES, verbHelp } from "../cli/help.ts";
import { allVerbs } from "../cli/main.ts";
import { barLine, Progress } from "../cli/progress.ts";
import { readOptions } from "../lib/train/options.ts";
import { bytes, duration } from "../lib/units.ts";
import { oneLine } from "../cli/report.ts";
import { isFile } from "../lib/io/paths.ts";
import { denoArguments, STEPS, trainWorld } from "../experiments/train_world.ts";
import { toolTest } from "./tools.ts";

const VERBS = await allVerbs();

const sample = verb({
  name: "sample",
  summary: "Sample",
  operands: [{ name: "CLIP", help: "a clip" }],
  flags: {
    ctx: integer("context frames", { default: 8, min: 1, max: 300 }),
    guidance: real("guidance", { default: 1, min: -1 }),
    dtype: choice(["f32", "f16"], "storage", { default: "f32" }),
    out: path("folder"),
    note: text("any words"),
    json: toggle("events"),
  },
  examples: [{ does: "sample", line: "sample clip.npz" }],
  run: () => Promise.resolve(),
});

const call = (...args: string[]) => {
  const parsed = parseCall(sample, args);
  if (parsed === "help") throw new Error("help was asked for");
  return parsed;
};

const refuses = (message: string, ...args: string[]) => {
  const error = assertThrows(() => parseCall(sample, args), UsageError);
  assertEquals((error as Error).message, message);
};

Deno.test("flags take their declared type, and defaults where they are not given", () => {
  assertEquals(call("clip.npz").flags, {
    ctx: 8,
    guidance: 1,
    dtype: "f32",
    out: undefined,
    note: undefined,
    json: false,
  });
  const { flags, operands, given } = call("--ctx=3", "7", "--guidance", "-1", "--json", "--note=a=b");
  assertEquals([flags.ctx, flags.guidance, flags.json, flags.note, operands], [3, -1, true, "a=b", ["7"]]);
  assertEquals([...given], ["ctx", "guidance", "note", "json"]);
});

Deno.test("an operand that looks like a number stays text", () => {
  assertEquals(call("007").operands, ["007"]);
});

Deno.test("an unknown flag names the nearest one", () => {
  refuses(
    "far.ts sample: there is no flag --guidence, did you mean --guidance? (far.ts sample --help lists them)",
    "clip.npz",
    "--guidence=2",
  );
  refuses(
    "far.ts sample: there is no flag -guidance, did you mean --guidance? (far.ts sample --help lists them)",
    "clip.npz",
    "-guidance",
    "2",
  );
  refuses("far.ts sample: there is no flag -x (far.ts sample --help lists them)", "clip.npz", "-x");
});

Deno.test("a wrong type, range or word says who, expected and found", () => {
  refuses("far.ts sample --ctx: expected a whole number from 1 to 300, found 2.5", "c", "--ctx", "2.5");
  refuses("far.ts sample --ctx: expected a whole number from 1 to 300, found 0", "c", "--ctx", "0");
  refuses("far.ts sample --ctx: expected a whole number from 1 to 300, found -3", "c", "--ctx", "-3");
  refuses("far.ts sample --ctx: expected a whole number from 1 to 300, found 0x10", "c", "--ctx", "0x10");
  refuses("far.ts sample --ctx: expected a value (N), found nothing", "c", "--ctx");
  refuses("far.ts sample --guidance: expected a number, at least -1, found big", "c", "--guidance=big");
  refuses("far.ts sample --dtype: expected f32 or f16, found f61", "c", "--dtype=f61");
  refuses("far.ts sample --out: expected a path, found nothing", "c", "--out=");
});

Deno.test("too few and too many operands are refused", () => {
  refuses("far.ts sample: expected CLIP (a clip), found nothing");
  refuses("far.ts sample: expected CLIP, found also two", "one", "two");
});

Deno.test("help lists every flag with range and default, every example and every exit code", () => {
  assertEquals(parseCall(sample, ["--help", "--ctx", "wrong"]), "help");
  const help = verbHelp(sample);
  for (
    const part of ["--ctx N", "context frames (1 to 300, default 8)", "--dtype f32|f16", "sample clip.npz"]
  ) {
    assert(help.includes(part), part);
  }
  for (const code of Object.keys(EXIT_CODES)) assert(help.includes(`  ${code} `), code);
});

const manifest = JSON.parse(Deno.readTextFileSync(new URL("../deno.json", import.meta.url))) as {
  tasks: Record<string, { command: string }>;
  permissions: Record<string, unknown>;
};

/** Parses `deno run -P=SET far.ts VERB ...` or `-P` alone by the verb's declaration; its option file must take what --set says. */
function checkCommand(who: string, set = "default", [name, ...args]: readonly string[]): void {
  assert(set in manifest.permissions, `${who}: no permission set ${set}`);
  const parsed = parseCall(VERBS.find((v) => v.name === name)!, args);
  if (parsed === "help") throw new Error(`${who}: asks for help`);
  const { config, set: sets } = parsed.flags as { config?: string; set?: string[] };
  if (config !== undefined) readOptions(new URL(`../${config}`, import.meta.url).pathname, sets);
}

Deno.test("every task's commands parse, and their permission sets, tasks and programs exist", () => {
  let verbs = 0;
  for (const [task, { command }] of Object.entries(manifest.tasks)) {
    for (const line of command.split(" && ")) {
      const [, set, words] = /^deno run -P(?:=(\S+))? far\.ts (.*)$/.exec(line) ?? [];
      if (words !== undefined) {
        checkCommand(task, set, words.split(" "));
        verbs++;
        continue;
      }
      const other = /^deno task (\S+)/.exec(line)?.[1], program = /^deno run .*?(\S+\.ts)\b/.exec(line)?.[1];
      assert(other === undefined || other in manifest.tasks, `${task}: there is no task ${other}`);
      assert(
        program === undefined || isFile(new URL(`../${program}`, import.meta.url)),
        `${task}: ${program}`,
      );
    }
  }
  assert(verbs >= 4, `${verbs} commands of far.ts`);
});

Deno.test("train:world: each command parses, and reads what the repository has or an earlier command writes", () => {
  const written = new Set<string>(), own = /^out\/world\/[\w./-]+$/;
  for (const step of STEPS) {
    const [run, set, program, ...words] = denoArguments(step);
    assertEquals([run, program], ["run", "far.ts"]);
    assertEquals(set, "-P");
    checkCommand("train:world", undefined, words);
    const to = words.findIndex((w) => w === "--to" || w === "--out");
    const target = to < 0 ? words[3] : words[to + 1]; // weights convert FROM TO
    for (const [i, word] of words.entries()) {
      const path = word.replace(/^[\w.]+=/, "");
      if (i === to + 1 && to >= 0 || word === target && to < 0) continue;
      if (own.test(path)) {
        assert([...written].some((w) => w === path || w.startsWith(`${path}/`)), `${step.does}: ${path}`);
      } else if (path.startsWith("models/")) {
        assert(isFile(new URL(`../${path}`, import.meta.url)), `${step.does}: ${path}`);
      }
    }
    assert(step.writes === target || step.writes.startsWith(`${target}/`), `${step.does}: ${step.writes}`);
    written.add(step.writes);
    const total = words.find((w) => w.startsWith("train.total_iter="))?.split("=")[1];
    if (total) assert(step.writes.includes(`step-${total.padStart(8, "0")}/`), `${step.does}: ${total}`);
  }
  for (const [file, steps] of [["far", "4649"], ["dcae", "5000"]]) {
    const yml = Deno.readTextFileSync(new URL(`../models/world/${file}.yml`, import.meta.url));
    assertEquals(/total_iter: (\d+)/.exec(yml)?.[1], steps);
    assert(STEPS.some(({ writes }) => writes.includes(`${steps}/ema`)));
  }
});

Deno.test("train:world: skips what is done, stops where a command fails, and continues there", async () => {
  const files = new Set<string>(), ran: string[] = [];
  let fails = -1;
  const effects = {
    exists: (path: string) => files.has(path),
    run: (args: readonly string[]) => {
      if (ran.length === fails) return Promise.resolve(130);
      ran.push(args.join(" "));
      files.add(STEPS.find((step) => denoArguments(step).join(" ") === args.join(" "))!.writes);
      return Promise.resolve(0);
    },
    say: () => {},
  };
  const all = STEPS.map((step) => denoArguments(step).join(" "));
  assertEquals(await trainWorld(effects, true), 0);
  assertEquals(ran, []); // --dry-run
  fails = 4;
  assertEquals(await trainWorld(effects, false), 130);
  assertEquals(ran, all.slice(0, 4));
  fails = -1;
  assertEquals(await trainWorld(effects, false), 0);
  assertEquals(ran, all);
  assertEquals(await trainWorld(effects, false), 0);
  assertEquals(ran, all); // nothing is left to do
  // A file that is gone takes everything after it with it.
  files.delete(STEPS[3].writes);
  assertEquals(await trainWorld(effects, false), 0);
  assertEquals(ran.slice(all.length), all.slice(3));
  // A command that ends well and writes nothing is an error.
  files.clear();
  assertEquals(await trainWorld({ ...effects, run: () => Promise.resolve(0) }, false), 1);
});

Deno.test("every verb's examples parse by its own declaration", () => {
  for (const v of VERBS) {
    assert(v.examples.length > 0, `${v.name} has no example`);
    for (const { line } of v.examples) {
      const [name, ...rest] = line.split(" ");
      assertEquals(name, v.name);
      assert(parseCall(v, rest) !== "help");
    }
  }
});

toolTest(
  ["bash"],
  "completion covers every verb and flag in each shell, and bash takes the script",
  async () => {
    for (const shell of ["bash", "zsh", "fish"]) {
      const script = completionScript([sample], shell);
      assert(script.includes("sample") && script.includes("guidance") && script.includes("f16"), shell);
    }
    assertThrows(() => completionScript([], "tcsh"), UsageError, "expected bash or zsh or fish, found tcsh");
    const program = `${completionScript(VERBS, "bash")}
    COMP_WORDS=(far doctor --dev); COMP_CWORD=2; _far; echo "\${COMPREPLY[*]}"
    COMP_WORDS=(far doctor --device w); COMP_CWORD=3; _far; echo "\${COMPREPLY[*]}"`;
    const { stdout, success } = await new Deno.Command("bash", { args: ["-c", program] }).output();
    assert(success);
    assertEquals(new TextDecoder().decode(stdout), "--device\nwebgpu\n");
  },
);

Deno.test("errors are one line, sizes and durations are readable", () => {
  assertEquals(oneLine(new Error("a\n  b\n")), "a b");
  assertEquals(oneLine(new TypeError("x is not a function")), "TypeError: x is not a function");
  assertEquals([bytes(12), bytes(2048), bytes(3 * 2 ** 30)], ["12 bytes", "2.00 KiB", "3.00 GiB"]);
  assertEquals([duration(0.44), duration(12.4), duration(185), duration(7790)], [
    "0.4 s",
    "12 s",
    "3 min 05 s",
    "2 h 10 min",
  ]);
});

Deno.test("off a terminal, progress is a line now and then with rate and time left", () => {
  let now = 0;
  const lines: string[] = [];
  const original = console.error;
  console.error = (line: string) => void lines.push(line);
  try {
    using stage = new Progress("lines", () => now).stage("predict", 100, "frame");
    for (let i = 1; i <= 100; i++) {
      now += 0.5;
      stage.update(i);
    }
  } finally {
    console.error = original;
  }
  assertEquals(lines, [
    "predict: 20 of 100 frames, 2.0 frames/s, left 40 s",
    "predict: 40 of 100 frames, 2.0 frames/s, left 30 s",
    "predict: 60 of 100 frames, 2.0 frames/s, left 20 s",
    "predict: 80 of 100 frames, 2.0 frames/s, left 10 s",
    "predict: 100 frames in 50 s",
  ]);
});

Deno.test("a bar is as wide as the terminal, and a narrow terminal loses the rate, then the bar", () => {
  const state = { what: "predict", value: 39, total: 156, unit: "frame", rate: "2.0 frames/s", left: "58 s" };
  for (const columns of [80, 132, 200]) {
    const line = barLine(state, columns), bar = line.slice(9, line.indexOf("  39/156"));
    assertEquals([line.length, line.slice(0, 9)], [columns - 1, "predict  "]);
    assert(line.endsWith("  39/156 frames  2.0 frames/s  left 58 s"), line);
    assertEquals(bar, "#".repeat(Math.round(bar.length / 4)).padEnd(bar.length, "-"));
  }
  assertEquals(barLine(state, 44), "predict  ##------  39/156 frames  left 58 s");
  assertEquals(barLine(state, 20), "predict   39/156 fr");
});

Deno.test("on a terminal, a bar is drawn ten times a second, lines go above it, and its last state stays", () => {
  let now = 0, text = "";
  const { error } = console, write = Deno.stderr.writeSync;
  console.error = (line: string) => void (text += `${line}\n`);
  Deno.stderr.writeSync = (bytes) => (text += new TextDecoder().decode(bytes), bytes.length);
  try {
    const progress = new Progress("bar", () => now);
    using stage = progress.stage("predict", 10, "frame");
    for (let i = 1; i <= 10; i++) {
      now += 0.04;
      stage.update(i);
      if (i === 5) progress.say("a line");
    }
  } finally {
    console.error = error;
    Deno.stderr.writeSync = write;
  }
  const drawn = text.split("\n").map((line) =>
    line.split("\r").map((part) =>
      part.replace("\x1b[K", "|").replace(/^predict .* (\d+)\/10 frames.*\|$/, "bar at $1")
    )
  );
  assertEquals(drawn, [
    ["", "bar at 0", "bar at 3", "|a line"],
    ["", "bar at 3", "bar at 6", "bar at 9", "bar at 10"],
    [""],
  ]);
});

Deno.test("work of unknown length shows what is done and its rate", () => {
  let now = 0;
  const lines: string[] = [];
  const original = console.error;
  console.error = (line: string) => void lines.push(line);
  try {
    using stage = new Progress("lines", () => now).stage("pull", 0, "MiB");
    for (let i = 1; i <= 3; i++) {
      now += 6;
      stage.update(12.5 * i);
    }
  } finally {
    console.error = original;
  }
  assertEquals(lines, ["pull: 25 MiB, 2.1 MiB/s", "pull: 37 MiB in 18 s"]);
});

Deno.test("under --json, progress is one JSON object per line", () => {
  const lines: string[] = [];
  const original = console.log;
  console.log = (line: string) => void lines.push(line);
  try {
    using stage = new Progress("json", () => 2).stage("encode", 2, "frame");
    stage.update(1);
  } finally {
    console.log = original;
  }
  const events = lines.map((line) => JSON.parse(line));
  assertEquals(events.map((e) => e.event), ["start", "progress", "end"]);
  assertEquals(events[1], { event: "progress", stage: "encode", done: 1, total: 2, seconds: 0, left: null });
});
