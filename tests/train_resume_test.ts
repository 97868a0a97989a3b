/**
 * A resumed training run is the same run or none: every option and every flag changed one at a time, damaged checkpoints,
 * two processes on one folder.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { parseCall } from "../cli/args.ts";
import { openData } from "../lib/pipeline/training_data.ts";
import { runFingerprint } from "../lib/pipeline/training_fingerprint.ts";
import { trainVerb } from "../cli/train.ts";
import { trainVaeVerb } from "../cli/train_vae.ts";
import type { Device } from "../kernels/device.ts";
import { firstDifference } from "../lib/io/difference.ts";
import { FileAccessError, FileFormatError } from "../lib/io/errors.ts";
import { readOptions, TRAIN_OPTIONS, type TrainOptions } from "../lib/train/options.ts";
import { type Field, OptionError } from "../lib/train/schema.ts";
import { far, farArgs, inFolder } from "./cli_helpers.ts";
import { copyFolder, killedAt, killPoints, treeOf } from "./kill_helpers.ts";
import {
  assertSameRun,
  CLIPS,
  logOf,
  trainArgs,
  TRAINING_VERBS,
  type TrainingVerb,
} from "./train_cli_setup.ts";

const VERBS = { "train": trainVerb, "train-vae": trainVaeVerb };

const info = {
  name: "cpu",
  description: "cpu, 2 threads, relaxed SIMD",
  software: false,
  limits: {},
  features: ["simd128", "relaxed-simd"],
  threads: 2,
};

/** The fingerprint of a command line, on a device with some other properties. */
function printOf(verb: TrainingVerb, args: readonly string[], device: object = {}): Record<string, unknown> {
  const call = parseCall(VERBS[verb], args.slice(1));
  if (call === "help") throw new Error("help");
  const flags = call.flags as { config: string; set: string[] };
  const options = readOptions(flags.config, flags.set);
  return runFingerprint({
    verb,
    declared: VERBS[verb].flags,
    flags,
    options,
    sets: { "datasets.train.data_list": openData(options.datasets.train, "datasets.train", 0).set },
    device: { info: { ...info, ...device } } as unknown as Device,
    decoder: null,
  });
}

const at = (options: TrainOptions, path: string): unknown =>
  path.split(".").reduce(
    (value, key) => (value as Record<string, unknown> | null)?.[key],
    options as unknown,
  );

/** Another value that the option takes; nothing where it takes only one. */
function otherValue(path: string, option: Field<unknown>, value: unknown): unknown {
  const number = typeof value === "number" ? [value + 1, value / 2, value + 0.25] : [];
  const mapping = Array.isArray(value) ? [] : [{ ...value as object, another_key: 1 }];
  const any = [...number, ...mapping, ...option.expects.split(", "), !value, 1, 0.5, "another", [0.3, 0.4], [
    "another",
  ]];
  const taken = any.find((candidate) => {
    try {
      return JSON.stringify(option.read(candidate, path)) !== JSON.stringify(value);
    } catch {
      return false;
    }
  });
  if (taken === undefined && option.expects === value) return undefined;
  assertNotEquals(
    taken,
    undefined,
    `${path}: no other value of ${JSON.stringify(value)} is known to this test`,
  );
  return taken;
}

for (const verb of TRAINING_VERBS) {
  Deno.test(`${verb}: another value of any option is another run, unless the schema declares it as presentation`, () => {
    const args = trainArgs(verb, "out"), before = printOf(verb, args);
    const config = args[args.indexOf("--config") + 1];
    const options = readOptions(config, args.filter((_, i) => args[i - 1] === "--set"));
    const shown: string[] = [], tried: string[] = [], refusedAnyway: string[] = [];
    for (const [path, option] of TRAIN_OPTIONS) {
      const other = otherValue(path, option, at(options, path));
      if (other === undefined) continue;
      const set = `${path}=${JSON.stringify(other)}`;
      let now: Record<string, unknown>;
      try {
        now = printOf(verb, [...args, "--set", set]);
      } catch (error) {
        // Refused for its own sake.
        const own = error instanceof OptionError || error instanceof RangeError ||
          error instanceof FileAccessError ||
          error instanceof FileFormatError;
        assert(own, `${set}: ${error}`);
        refusedAnyway.push(path);
        continue;
      }
      const difference = firstDifference(before, now);
      if (option.presentation) shown.push(path);
      else if (path !== "train.total_iter") tried.push(path);
      const free = option.presentation || path === "train.total_iter";
      assertEquals(difference === null, free, `${set}: ${JSON.stringify(difference)}`);
      // A group that was not there comes with all its options.
      const named = path in before ? path : path.split(".").slice(0, 2).join(".");
      if (!free) assert(difference!.path.startsWith(named), `${set}: ${difference!.path}`);
    }
    const total = (n: number, rate: string) =>
      printOf(verb, [...args, "--set", `train.total_iter=${n}`, "--set", `train.lr_scheduler=${rate}`]);
    for (
      const [rate, path] of [["constant", undefined], ["linear", "train.total_iter"], [
        "cosine",
        "train.total_iter",
      ]]
    ) {
      assertEquals(firstDifference(total(4, rate!), total(5, rate!))?.path, path, rate);
    }
    assert(tried.length >= 35, `${tried}, not ${refusedAnyway}`);
    const groups = new Set(shown.map((path) => path.split(".").slice(0, 2).join(".")));
    assertEquals([...groups].sort(), [
      "logger.keep_checkpoints",
      "logger.print_freq",
      "logger.save_checkpoint_freq",
      "logger.use_wandb",
      "name",
      "val.eval_cfg",
      "val.sample_cfg",
      "val.val_freq",
      "val.val_pipeline",
    ]);
  });

  Deno.test(`${verb}: another value of any flag, or another device, is another run, unless it is declared as presentation`, () => {
    const args = trainArgs(verb, "out", "--init", `${CLIPS}/dmlab_24.npz`), before = printOf(verb, args);
    /** Another value of each flag of the parser's table; a flag that is added has to be added here. */
    const others: Record<string, readonly string[]> = {
      config: ["--config", args[args.indexOf("--config") + 1]],
      set: ["--set", "logger.print_freq=7"],
      out: ["--out", "elsewhere"],
      init: ["--init", new URL("../models/world/dcae.safetensors", import.meta.url).pathname],
      resume: ["--resume", "never"],
      device: ["--device", "auto"],
      threads: ["--threads", "3"],
      blas: ["--blas", "off"],
      format: ["--format", "webm"],
      profile: ["--profile", "trace.json"],
      json: ["--json"],
      quiet: ["--quiet"],
      perceptual: ["--perceptual", `${CLIPS}/dmlab_24.npz`],
      "without-perceptual": ["--without-perceptual=false"],
    };
    for (const name of Object.keys(VERBS[verb].flags)) {
      assert(others[name], `--${name}: this test has no other value of it`);
      const difference = firstDifference(before, printOf(verb, [...args, ...others[name]]));
      assertEquals(
        difference?.path.replace(/\..*/, "") ?? null,
        VERBS[verb].flags[name].presentation ? null : `--${name}`,
        name,
      );
    }
    const device = (more: object) => firstDifference(before, printOf(verb, args, more))?.path ?? null;
    assertEquals(device({ description: "cpu, 1 thread, relaxed SIMD", threads: 1 }), null);
    assertEquals(device({ description: "cpu, 2 threads, plain SIMD" }), "device");
  });
}

Deno.test("files of a run are recognised by their content, clips by path, size and time of change", () =>
  inFolder(async (folder) => {
    const clips = `${folder}/clips`, clip = `${clips}/a.npz`, weights = `${folder}/weights`;
    await Deno.mkdir(clips);
    await Deno.copyFile(`${CLIPS}/dmlab_24.npz`, clip);
    await Deno.writeTextFile(weights, "one");
    const print = (init = weights) =>
      printOf("train", [
        ...trainArgs("train", "out", "--init", init),
        "--set",
        `datasets.train.data_list=${clips}`,
      ]);
    const before = print(),
      difference = (init?: string) => firstDifference(before, print(init))?.path ?? null;
    await Deno.copyFile(weights, `${folder}/elsewhere`);
    assertEquals(difference(`${folder}/elsewhere`), null);
    await Deno.writeTextFile(weights, "two");
    assertEquals(difference(), "--init");
    await Deno.writeTextFile(weights, "one");
    assertEquals(difference(), null);

    const { mtime } = Deno.statSync(clip), bytes = Deno.readFileSync(clip);
    await Deno.utime(clip, mtime!, new Date(mtime!.getTime() + 1000));
    assertEquals(difference(), "datasets.train.data_list");
    await Deno.writeFile(clip, Uint8Array.from([...bytes, 0]));
    await Deno.utime(clip, mtime!, mtime!);
    assertEquals(difference(), "datasets.train.data_list");
    await Deno.writeFile(clip, bytes);
    await Deno.utime(clip, mtime!, mtime!);
    assertEquals(difference(), null);
    await Deno.copyFile(clip, `${clips}/b.npz`);
    assertEquals(difference(), "datasets.train.data_list");
  }));

/** A run of each verb that was killed after its checkpoint at step 2, in `folder`/half, and the points of the whole one. */
async function half(verb: TrainingVerb, folder: string): Promise<string> {
  const command = (name: string) => ({ args: trainArgs(verb, `${folder}/${name}`), under: folder });
  const points = await killPoints(command("whole"));
  const saved = points.findIndex((p) => p.startsWith("rename") && p.endsWith("checkpoints/step-00000002"));
  assert(saved > 0, points.join("\n"));
  await killedAt(command("half"), saved + 1);
  return `${folder}/half`;
}

function copied(from: string, to: string): string {
  copyFolder(from, to);
  return to;
}

/** Runs a command that must be refused in one line, and must leave the folder as it is. */
async function refused(
  folder: string,
  args: readonly string[],
  ...expected: readonly string[]
): Promise<void> {
  const before = treeOf(folder);
  const { code, stderr } = await far(args, {}, "-A");
  const lines = stderr.split("\n").filter((line) => !line.startsWith("device: "));
  assert(code !== 0 && lines.length === 1, `${code}: ${stderr}`);
  for (const text of expected) assert(lines[0].includes(text), `expected ${text}: ${lines[0]}`);
  const after = treeOf(folder);
  [before, after].forEach((tree) => tree.delete("far-job.lock")); // that of the process that was killed
  assertEquals(after, before);
}

Deno.test("train: an interrupted run is resumed as it was started, or refused with both ways out", () =>
  inFolder(async (folder) => {
    const run = await half("train", folder), args = (...more: string[]) => trainArgs("train", run, ...more);
    const ways = ["resume it with what it was started with", "start a new run in another folder"];
    await refused(run, args("--set", "train.optim_g.lr=0.01"), "train.optim_g.lr 0.001, found 0.01", ...ways);
    await refused(run, args("--set", "train.lr_scheduler=cosine"), "train.lr_scheduler", ...ways);
    await refused(run, args("--set", "train.total_iter=1"), "has done 2 steps, found 1", "start a new run");
    await refused(run, args("--resume", "never"), "holds a run already");
    await refused(run, trainArgs("train-vae", run), "holds what train wrote");

    // Everything that is only shown, changed at once.
    const other = ["--format", "webm", "--threads", "2", "--json"];
    const sets = [
      "name=other",
      "logger={print_freq: 1, save_checkpoint_freq: 3, keep_checkpoints: 5}",
      "val.val_freq=1",
    ];
    const all = copied(run, `${folder}/all`);
    const { code, stderr } = await far(
      trainArgs(
        "train",
        all,
        ...other,
        ...sets.flatMap((set) => ["--set", set]),
        "--set",
        "val.sample_cfg.unroll_length=1",
      ),
      {},
      "-A",
    );
    assertEquals(code, 0, stderr);
    const bytes = (of: string, step = 4) =>
      ["model", "ema", "optimizer"].map((name) =>
        Deno.readFileSync(`${of}/checkpoints/step-${String(step).padStart(8, "0")}/${name}.safetensors`)
      );
    assertEquals(bytes(all), bytes(`${folder}/whole`));
    assertEquals(logOf(all).map((l) => l.step), [0, 1, 2, 2, 3, 3]);

    // A constant learning rate does not know how long the run is.
    for (const out of [run, `${folder}/longer`]) {
      const { code, stderr } = await far(trainArgs("train", out, "--set", "train.total_iter=6"), {}, "-A");
      assertEquals(code, 0, stderr);
    }
    assertEquals(bytes(run, 6), bytes(`${folder}/longer`, 6));
  }));

Deno.test("train: samples of steps that are computed again are made again; what somebody put beside them stays", () =>
  inFolder(async (folder) => {
    const command = { args: trainArgs("train", `${folder}/run`), under: folder },
      samples = `${folder}/run/samples`;
    const points = await killPoints({ ...command, args: trainArgs("train", `${folder}/whole`) });
    const last = points.findLastIndex((p) => p.startsWith("rename") && p.includes("samples/step-00000004/"));
    await killedAt(command, last + 1);
    const names = () => [...treeOf(samples).keys()].filter((path) => path.includes("/"));
    const kept = names().filter((name) => name.startsWith("step-00000002/"));
    assert(kept.length >= 3 && names().length === 2 * kept.length, `${names()}`);
    await Deno.writeTextFile(`${samples}/step-00000004/notes.txt`, "x");
    const { code, stderr } = await far([...command.args, "--set", "val.val_freq=~"], {}, "-A");
    assertEquals(code, 0, stderr);
    assertEquals(names(), [...kept, "step-00000004/notes.txt"]);
  }));

for (const verb of TRAINING_VERBS) {
  Deno.test(`${verb}: a damaged newest checkpoint is named with the whole one before it, which is resumed without it`, () =>
    inFolder(async (folder) => {
      const run = await half(verb, folder),
        args = trainArgs(verb, run),
        newest = `${run}/checkpoints/step-00000003`;
      const expected = [
        "step-00000003: damaged checkpoint",
        `${run}/checkpoints/step-00000002`,
        `rm -r ${newest}`,
      ];
      await Deno.mkdir(`${run}/checkpoints/step-00000099`); // as somebody's empty folder
      await refused(
        run,
        args,
        "step-00000099: damaged checkpoint (state.json",
        "resume from step 2",
        "rm -r ",
      );
      await Deno.remove(`${run}/checkpoints/step-00000099`);

      copied(`${run}/checkpoints/step-00000002`, newest);
      const state = JSON.parse(Deno.readTextFileSync(`${newest}/state.json`));
      Deno.writeTextFileSync(`${newest}/state.json`, JSON.stringify({ ...state, step: 3 }));
      const original = treeOf(newest), names = [...original.keys()];
      assertEquals(names.length, verb === "train" ? 4 : 6);
      for (const name of names) {
        const path = `${newest}/${name}`, bytes = original.get(name)!;
        if (verb === "train" || name === "discriminator.safetensors") {
          Deno.writeFileSync(path, bytes.subarray(0, bytes.length - 1)); // cut off
          await refused(run, args, ...expected, `(${name}: `);
        }
        const flipped = bytes.slice();
        flipped[flipped.length >> 1] ^= 4;
        if (name !== "state.json") {
          Deno.writeFileSync(path, flipped);
          await refused(run, args, ...expected, `(${name}: expected ${bytes.length} bytes with CRC-32`);
        }
        Deno.removeSync(path);
        await refused(run, args, ...expected, `(${name}: cannot open`);
        Deno.writeFileSync(path, bytes);
      }
      await Deno.remove(newest, { recursive: true });
      const { code, stderr } = await far(args, {}, "-A");
      assertEquals(code, 0, stderr);
      assertSameRun(run, `${folder}/whole`, "after the damaged one was removed");

      const last = `${run}/checkpoints/step-00000004`;
      await Deno.remove(`${last}/state.json`);
      await refused(run, args, "no whole one before it: to start from step 0", `rm -r ${run}/checkpoints`);
    }));
}

Deno.test("train: a second process on the same folder is refused in one line, and the first one ends undisturbed", () =>
  inFolder(async (folder) => {
    const whole = await far(trainArgs("train", `${folder}/whole`), {}, "-A");
    assertEquals(whole.code, 0, whole.stderr);
    const args = trainArgs("train", `${folder}/run`, "--json");
    const first = new Deno.Command(Deno.execPath(), {
      args: farArgs(args, "-A"),
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    let seconds = 0;
    for await (const text of first.stdout.pipeThrough(new TextDecoderStream())) {
      if (seconds > 0 || !text.includes('"step"')) continue;
      seconds++;
      const second = await far(args, {}, "-A");
      assert(second.code !== 0, "the second one was let in");
      assert(second.stderr.includes(`process ${first.pid}`), second.stderr);
      assertEquals(second.stderr.split("\n").length, 1, second.stderr);
    }
    assertEquals([(await first.status).code, seconds], [0, 1]);
    assertSameRun(`${folder}/run`, `${folder}/whole`, "beside a second process");
  }));

Deno.test("train: a folder with other things in it is refused and stays as it is", () =>
  inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/thesis`);
    await Deno.writeTextFile(`${folder}/thesis/chapter.tex`, "x");
    await refused(`${folder}/thesis`, trainArgs("train", `${folder}/thesis`), "chapter.tex", "--out");
  }));
