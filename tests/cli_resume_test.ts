/**
 * Every verb that writes a result folder: it writes to no folder but its own, and resumes a run with the same settings or not at all. The
 * training verbs have the same tests in files of their own.
 *
 * FAR_EXHAUSTIVE=1 kills at every file operation instead of some.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { predictFlags } from "../cli/predict.ts";
import { allVerbs } from "../cli/main.ts";
import { folderSet } from "../lib/data/folder.ts";
import { decoderOf } from "../lib/data/stamp.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { writeVideo } from "../lib/io/video_write.ts";
import { LOCK_FILE } from "../lib/io/folder_lock.ts";
import { MARKER_FILE } from "../lib/io/owned_folder.ts";
import { environment } from "../lib/io/environment.ts";
import { farArgs, farHere, inFolder, killedEarly, TINY_DCAE, TINY_FAR, tinyWorld } from "./cli_helpers.ts";
import { cases, OPTIONS, resultOf } from "./resume_cases.ts";
import { copyFolder, hiddenIn, killedAt, killPoints, tellingPoints, treeOf } from "./kill_helpers.ts";

const VERBS = await allVerbs();

Deno.test("no verb touches a foreign folder, what it reads, or a folder behind a link", async () => {
  await inFolder(async (folder) => {
    const all = await cases(folder), words = /folder|which is read|leads nowhere/;
    Deno.mkdirSync(`${folder}/thesis/figures`, { recursive: true });
    Deno.writeTextFileSync(`${folder}/thesis/result.json`, '{"settings": 1}');
    Deno.writeTextFileSync(`${folder}/thesis/index.json`, "{}");
    Deno.symlinkSync(`${folder}/thesis`, `${folder}/link`);
    Deno.symlinkSync(`${folder}/nowhere`, `${folder}/dangling`);
    const before = treeOf(folder);
    for (const { verb, to, source, args } of all) {
      const targets = ["thesis", "link", "dangling", "far.json", "far.json/below", "x".repeat(300)].map((
        name,
      ) => `${folder}/${name}`);
      for (const target of [...targets, source]) {
        const { code, stderr } = await farHere([...args, to, target, "--quiet"]);
        assert(code === 1 || code === 2, `${verb} ${to} ${target}: ended with ${code}`);
        assertEquals(stderr.trim().split("\n").length, 1, stderr);
        if (!target.endsWith("x")) assertMatch(stderr, words);
        assertEquals(treeOf(folder), before, `${verb} ${to} ${target}`);
      }
    }
  });
});

Deno.test("a folder that gets a result keeps nothing else, and a foreign file in it is refused", async () => {
  await inFolder(async (folder) => {
    for (const { verb, to, args } of await cases(folder)) {
      const out = `${folder}/out_${verb}`;
      const { code, stderr } = await farHere([...args, to, out, "--quiet"]);
      assertEquals([code, stderr], [0, ""], verb);
      assertEquals(hiddenIn(out), []);
      const names = [...treeOf(out).keys()];
      assert(
        names.includes(MARKER_FILE) && !names.includes(LOCK_FILE) && !names.includes("part"),
        names.join(),
      );
      Deno.writeTextFileSync(`${out}/notes.txt`, "mine");
      const before = treeOf(out), again = await farHere([...args, to, out, "--quiet"]);
      assertEquals(again.code, 2, verb);
      assertMatch(again.stderr, /holds notes\.txt beside an earlier result of \w+, which did not write it/);
      assertEquals(treeOf(out), before);
    }
  });
});

Deno.test("while a process writes into a folder, a second one is refused at once", async () => {
  await inFolder(async (folder) => {
    const [{ args }] = await cases(folder), out = `${folder}/out`;
    const child = new Deno.Command(Deno.execPath(), {
      args: farArgs([...args, "--steps", "1000", "--out", out, "--json"], "-A"),
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    for (let seen = ""; !seen.includes('"progress"'); seen += (await reader.read()).value!);
    const second = await farHere([...args, "--steps", "1000", "--out", out, "--quiet"]);
    assertEquals(second.code, 2);
    assertMatch(second.stderr, new RegExp(`out: process ${child.pid} on .* is writing into it`));
    child.kill("SIGHUP");
    while (!(await reader.read()).done);
    assertEquals((await child.status).code, 129, "the end of a terminal stops a run as Ctrl-C does");
    const rest = await farHere([...args, "--steps", "1000", "--out", out]);
    assertEquals(rest.code, 0, rest.stderr);
    assertMatch(rest.stderr, /resuming an interrupted run/);
  });
});

/** Other values of flags that need a file or a word. */
function otherValues(folder: string): Record<string, string> {
  return {
    model: `${folder}/far2.json`,
    vae: `${folder}/dcae2.json`,
    weights: `${folder}/none.safetensors`,
    "vae-weights": `${folder}/none.safetensors`,
    entry: "params_ema",
    profile: `${folder}/trace.json`,
    blas: "auto",
    label: "3",
    actions: "1*2,0",
    part: "sample",
    set: "datasets.train.data_cfg.num_frames=3",
  };
}

Deno.test("an interrupted run is resumed with the same options only: each one changed is refused, or makes no difference", async () => {
  await inFolder(async (folder) => {
    const all = await cases(folder), values = otherValues(folder);
    Deno.writeTextFileSync(
      `${folder}/far2.json`,
      JSON.stringify({ ...TINY_FAR, config: { ...TINY_FAR.config, short_term_ctx_winsize: 2 } }),
    );
    Deno.writeTextFileSync(`${folder}/dcae2.json`, JSON.stringify({ ...TINY_DCAE, scaling_factor: 0.25 }));
    for (const { verb, to, args } of all.filter(({ verb }) => verb !== "data")) {
      const whole = `${folder}/${verb}_whole`,
        stopped = `${folder}/${verb}_stopped`,
        out = `${folder}/${verb}_out`;
      assertEquals((await farHere([...args, to, whole, "--quiet"])).code, 0);
      await killedEarly([...args, to, stopped], "-A");
      const before = treeOf(stopped), { flags } = VERBS.find((v) => v.name === verb)!;
      let refused = 0;
      for (const [name, flag] of Object.entries(flags)) {
        if (["out", "to", "restart", "from"].includes(name)) continue;
        const given = args.includes(`--${name}`) ? args[args.indexOf(`--${name}`) + 1] : flag.default;
        const other = flag.kind === "toggle"
          ? undefined
          : values[name] ?? flag.choices?.find((word) => word !== given && word !== "webgpu") ??
            (flag.kind === "text" ? undefined : `${Number(given ?? flag.min ?? 1) + 1}`);
        assert(
          flag.kind === "toggle" || other !== undefined,
          `give the test another value of ${verb} --${name}`,
        );
        copyFolder(stopped, out);
        const call = withFlag(args, name, flag.kind === "toggle" ? null : other!);
        const { code, stderr } = await farHere([...call, to, out, ...(name === "quiet" ? [] : ["--quiet"])]);
        if (code === 0) {
          assert(flag.presentation, `${verb} --${name} ${other}: resumed a run with another value`);
          assertEquals(resultOf(out), resultOf(whole), `${verb} --${name}`);
        } else {
          assertEquals(code === 1 || code === 2, true, `${verb} --${name}: ended with ${code}`);
          assertEquals(stderr.trim().split("\n").length, 1, stderr);
          const kept = treeOf(out);
          kept.delete(LOCK_FILE);
          assertEquals(
            [...kept].filter(([n]) => !n.includes(".tmp")),
            [...before].filter(([n]) => n !== LOCK_FILE && !n.includes(".tmp")),
            `${verb} --${name}`,
          );
          if (/interrupted run with another/.test(stderr)) refused++;
        }
        Deno.removeSync(out, { recursive: true });
      }
      assert(refused >= 4, `${verb}: ${refused} options were refused for the difference that they make`);
    }
  });
});

Deno.test("what lies behind an option counts: a changed clip, list or option file is not mixed into an interrupted run", async () => {
  await inFolder(async (folder) => {
    const all = await cases(folder);
    const of = (verb: string) => all.find((c) => c.verb === verb)!;
    const stopped = async (verb: string, out: string) => {
      const { args, to } = of(verb);
      await killedEarly([...args, to, out], "-A");
      return async (words: RegExp) => {
        const { code, stderr } = await farHere([...args, to, out, "--quiet"]);
        assertEquals(code, 2, stderr);
        assertMatch(stderr, words);
      };
    };
    const predict = await stopped("predict", `${folder}/a`);
    const bytes = Deno.readFileSync(`${folder}/clip.npz`);
    const [clip] = await tinyWorld(folder, 7); // other length, so other truth, with the same context
    await predict(/another files\.operand 1/);
    Deno.writeFileSync(clip, bytes);

    const encode = await stopped("encode", `${folder}/b`);
    Deno.renameSync(`${folder}/clips/1.npz`, `${folder}/clips/1b.npz`);
    await encode(/another clips/);
    Deno.renameSync(`${folder}/clips/1b.npz`, `${folder}/clips/1.npz`);
    Deno.writeTextFileSync(`${folder}/set.yml`, OPTIONS(folder, ", use_flip: true"));
    await encode(/another files\.operand 1/);

    const rollout = await stopped("rollout", `${folder}/c`);
    Deno.utimeSync(`${folder}/latents/latents-00000.safetensors`, 1, 1);
    await rollout(/another clips/);
    const { code } = await farHere([...of("rollout").args, "--to", `${folder}/c`, "--quiet", "--restart"]);
    assertEquals(code, 0, "--restart discards the interrupted run");
  });
});

Deno.test("killed between any two file operations, the same command ends with what an undisturbed run has", async () => {
  await inFolder(async (folder) => {
    const exhaustive = environment("FAR_EXHAUSTIVE") === "1";
    for (const { verb, to, args } of await cases(folder)) {
      const under = `${folder}/${verb}`;
      Deno.mkdirSync(under);
      const command = (name: string) => ({ args: [...args, to, `${under}/${name}`, "--quiet"], under });
      const points = await killPoints(command("whole")), telling = tellingPoints(points);
      // In every run some of all points, and for one verb all from the moment on when the result is put in place.
      const placing = points.findIndex((p) => /^rename \S+\/part\/\S+ to (?!\S+\/part\/)/.test(p)) - 1;
      assert(placing > 0, points.join("\n"));
      const chosen = telling.filter((at, i) =>
        exhaustive || i % 16 === 3 || verb === "evaluate" && at >= placing && i % 3 === 0
      );
      for (const at of chosen) {
        const killed = command(`killed_${at}`);
        await killedAt(killed, at);
        const { code, stderr } = await farHere(killed.args);
        assertEquals([code, stderr], [0, ""], `${verb}, ${points[at]}`);
        assertEquals(resultOf(`${under}/killed_${at}`), resultOf(`${under}/whole`), `${verb}, ${points[at]}`);
        Deno.removeSync(`${under}/killed_${at}`, { recursive: true });
      }
    }
  });
});

/** A call with another value of a flag; null for a toggle. */
function withFlag(args: readonly string[], name: string, value: string | null): string[] {
  const at = args.indexOf(`--${name}`);
  if (value === null) return at < 0 ? [...args, `--${name}`] : args.filter((_, i) => i !== at);
  return at < 0 ? [...args, `--${name}`, value] : args.map((word, i) => i === at + 1 ? value : word);
}

Deno.test("flags that only concern presentation are few and named", () => {
  const names = Object.entries(predictFlags).filter(([, flag]) => flag.presentation).map(([name]) => name);
  assertEquals(names.sort(), [
    "blas",
    "device",
    "from",
    "json",
    "out",
    "profile",
    "quiet",
    "restart",
    "threads",
  ]);
});

Deno.test("encode, decode and weights convert never replace what they read, and no file that --to does not name", async () => {
  await inFolder(async (folder) => {
    const [clip] = await tinyWorld(folder), before = Deno.readFileSync(clip);
    const vae = ["--vae", `${folder}/dcae.json`, "--random-weights", "--device", "cpu", "--quiet"];
    const refused = async (words: RegExp, ...args: string[]) => {
      const { code, stderr } = await farHere([...args, ...vae]);
      assertEquals(code, 2, stderr);
      assertMatch(stderr, words);
    };
    Deno.symlinkSync(clip, `${folder}/same.npz`);
    await refused(/same\.npz: is the file that is read/, "encode", clip, "--to", `${folder}/same.npz`);
    assertEquals(Deno.readFileSync(clip), before);
    for (const name of ["latents.safetensors", "clip.mp4"]) {
      Deno.writeTextFileSync(`${folder}/${name}`, "mine");
    }
    for (
      const [words, ...args] of [
        [/latents\.safetensors: exists already/, "encode", clip],
        [/clip\.mp4: exists already/, "decode", "somewhere.safetensors"],
      ] as const
    ) {
      // The default name is one in the working folder, which all tests share: a process of its own.
      const { code, stderr } = await new Deno.Command(Deno.execPath(), {
        args: farArgs([...args, ...vae], "-A"),
        cwd: folder,
        env: { NO_COLOR: "1" },
        stdin: "null",
      }).output();
      assertEquals(code, 2);
      assertMatch(new TextDecoder().decode(stderr), words);
    }
    assertEquals(Deno.readTextFileSync(`${folder}/clip.mp4`), "mine");
    const { code, stderr } = await farHere(["encode", clip, ...vae, "--to", `${folder}/latents.safetensors`]);
    assertEquals([code, stderr], [0, ""], "a file that is named is replaced");
  });
});

Deno.test("a data set of videos belongs to the program that decodes it, one of arrays to none", async () => {
  await inFolder(async (folder) => {
    await cases(folder);
    assertEquals(await decoderOf(folderSet({ folder: `${folder}/clips` })), null);
    Deno.mkdirSync(`${folder}/videos`);
    await writeVideo(`${folder}/videos/a.mp4`, makeFrames(2, 16, 16), { fps: 5 });
    assertMatch(
      (await decoderOf(folderSet({ folder: `${folder}/videos` })))!,
      /^(ffmpeg \S+|npm:@ffmpeg\/core@\S+)$/,
    );
  });
});
