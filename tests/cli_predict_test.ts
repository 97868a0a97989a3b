import { assert, assertEquals, assertMatch } from "@std/assert";
import { probeVideo } from "../lib/io/video.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { readPng, writePng } from "../lib/io/image.ts";
import { openNpz } from "../lib/io/npz.ts";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { LOCK_FILE } from "../lib/io/folder_lock.ts";
import { MARKER_FILE } from "../lib/io/owned_folder.ts";
import { far, farArgs, inFolder, TINY_DCAE, tinyWorld } from "./cli_helpers.ts";

// deno-lint-ignore no-explicit-any -- the file as it was written
const resultOf = (folder: string): any => JSON.parse(Deno.readTextFileSync(`${folder}/result.json`));
const namesOf = (folder: string) => [...Deno.readDirSync(folder)].map((e) => e.name).sort();

Deno.test(
  "predict writes video, side-by-side, sheet and numbers, and says what it expects and what it took",
  async () => {
    await inFolder(async (folder) => {
      const flags = await tinyWorld(folder), out = `${folder}/out`;
      const { code, stderr } = await far(["predict", ...flags, "--ctx", "4", "--pred", "3", "--out", out]);
      assertEquals(code, 0, stderr);
      assertMatch(stderr, /estimate: .* of device memory, /);
      assertMatch(stderr, /took: .* the estimate was /);
      assertEquals(namesOf(out), [
        MARKER_FILE,
        "prediction.mp4",
        "prediction.npz",
        "report.html",
        "result.json",
        "sheet.png",
        "side_by_side.mp4",
      ]);
      const result = resultOf(out);
      assertEquals(result.random_weights, true);
      assertEquals(result.scores[0].frames.map((s: { frame: number }) => s.frame), [4, 5, 6]);
      const report = Deno.readTextFileSync(`${out}/report.html`);
      for (const { mse, psnr, ssim } of result.scores[0].frames) {
        assert(mse > 0 && mse < 1 && Math.abs(ssim) < 1);
        assert(report.includes(String(Number(ssim.toPrecision(6)))), "the report has another SSIM");
        assert(Math.abs(psnr - 10 * Math.log10(1 / mse)) < 1e-9);
      }
      for (const stage of ["encode", "predict", "decode"]) assert(result.seconds[stage] > 0, stage);
      assertEquals(result.settings.flags.ctx, 4);
      const trained = Object.entries(dcaeShapes(dcaeConfig(TINY_DCAE))).filter(([n]) =>
        !/running_|num_/.test(n)
      );
      const elements = trained.map(([, shape]) => shape.reduce((a, b) => a * b, 1));
      assertEquals(
        result.models.vae.parameters,
        elements.reduce((a, b) => a + b),
        "no batch-norm statistics",
      );
      assertEquals((await probeVideo(`${out}/side_by_side.mp4`)).frames, 7);
      // For viewing, large; for computing, exact.
      const { height, width } = await probeVideo(`${out}/prediction.mp4`);
      assert(Math.min(height, width) >= 256, `${height}x${width}`);
      using exact = openNpz(`${out}/prediction.npz`);
      assertEquals(exact.tensors.get("video")?.shape, [3, 16, 16, 3]);
      assert(readPng(`${out}/sheet.png`).width > 16);
    });
  },
);

Deno.test("the same seed gives the same result with one thread and with two, and --from repeats a run", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder),
      run = ["--ctx", "2", "--pred", "4", "--seed", "7", "--guidance", "1.5"];
    const one = await far(["predict", ...flags, ...run, "--threads", "1", "--out", `${folder}/one`]);
    assertEquals(one.code, 0, one.stderr);
    const two = await far(["predict", ...flags, ...run, "--threads", "2", "--out", `${folder}/two`]);
    assertEquals(two.code, 0, two.stderr);
    const again = await far([
      "predict",
      "--from",
      `${folder}/one/result.json`,
      "--out",
      `${folder}/again`,
    ]);
    assertEquals(again.code, 0, again.stderr);
    const other = await far([
      ...["predict", "--from", `${folder}/one/result.json`, "--seed", "8", "--out", `${folder}/other`],
    ]);
    assertEquals(other.code, 0, other.stderr);
    const expected = resultOf(`${folder}/one`).scores, sheet = Deno.readFileSync(`${folder}/one/sheet.png`);
    for (const name of ["two", "again"]) {
      assertEquals(resultOf(`${folder}/${name}`).scores, expected, name);
      assertEquals(Deno.readFileSync(`${folder}/${name}/sheet.png`), sheet, name);
    }
    assert(JSON.stringify(resultOf(`${folder}/other`).scores) !== JSON.stringify(expected));
  });
});

Deno.test("several trajectories differ, and each is scored", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder), out = `${folder}/out`;
    const { code, stderr } = await far(
      ["predict", ...flags, "--ctx", "3", "--pred", "2", "--samples", "2", "--out", out, "--format", "gif"],
    );
    assertEquals(code, 0, stderr);
    assertEquals(namesOf(out), [
      MARKER_FILE,
      "prediction_0.gif",
      "prediction_0.npz",
      "prediction_1.gif",
      "prediction_1.npz",
      "report.html",
      "result.json",
      "sheet.png",
      "side_by_side.gif",
    ]);
    const [a, b] = resultOf(out).scores;
    assert(a.mean.mse !== b.mean.mse && a.mean.ssim !== b.mean.ssim);
  });
});

Deno.test("Ctrl-C finishes the frame, and the same command resumes to the same bits", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder);
    const run = ["predict", ...flags, "--ctx", "2", "--pred", "5", "--steps", "60"];
    const whole = await far([...run, "--out", `${folder}/whole`]);
    assertEquals(whole.code, 0, whole.stderr);
    for (const signal of ["SIGINT", "SIGKILL"] as const) {
      const out = `${folder}/${signal}`;
      const child = new Deno.Command(Deno.execPath(), {
        args: farArgs([...run, "--out", out, "--json"]),
        stdin: "null",
        stdout: "piped",
        stderr: "null",
      }).spawn();
      let sent = false, seen = "";
      for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
        seen += piece;
        if (!sent && /"stage":"predict","done":(1\.\d|[2-4])/.test(seen)) {
          sent = true;
          child.kill(signal);
        }
      }
      const { code } = await child.status;
      assert(sent, `no progress was seen: ${seen}`);
      assertEquals(code, signal === "SIGINT" ? 130 : 137);
      const unfinished = [MARKER_FILE, "part", ...(signal === "SIGKILL" ? [LOCK_FILE] : [])].sort();
      assertEquals(namesOf(out), unfinished, "half a result was written");
      const rest = await far([...run, "--out", out]);
      assertEquals(rest.code, 0, rest.stderr);
      assertMatch(rest.stderr, /resuming an interrupted run/);
      assertEquals(resultOf(out).scores, resultOf(`${folder}/whole`).scores);
      assertEquals(Deno.readFileSync(`${out}/sheet.png`), Deno.readFileSync(`${folder}/whole/sheet.png`));
      assertEquals(namesOf(out), namesOf(`${folder}/whole`));
    }
  });
});

Deno.test("under --json every line of stdout is an event", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder);
    const { code, stdout, stderr } = await far(
      ["predict", ...flags, "--ctx", "2", "--pred", "1", "--json", "--out", `${folder}/out`],
    );
    assertEquals([code, stderr], [0, ""]);
    const kinds = stdout.trim().split("\n").map((line) => JSON.parse(line).event);
    assertEquals(new Set(kinds), new Set(["estimate", "start", "progress", "end", "done"]));
    assertEquals(kinds.at(-1), "done");
  });
});

Deno.test("without the cache, and with f16 weights, the prediction is nearly the same", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder), run = ["--ctx", "3", "--pred", "2", "--guidance", "1.5"];
    const mse = async (name: string, ...more: string[]) => {
      const { code, stderr } = await far([
        "predict",
        ...flags,
        ...run,
        ...more,
        "--out",
        `${folder}/${name}`,
      ]);
      assertEquals(code, 0, stderr);
      return resultOf(`${folder}/${name}`).scores[0].frames.map((s: { mse: number }) => s.mse) as number[];
    };
    const cached = await mse("cached"),
      uncached = await mse("uncached", "--kv-cache", "off"),
      half = await mse("half", "--dtype", "f16");
    cached.forEach((m, i) => {
      assert(Math.abs(m - uncached[i]) < 1e-5, `${m} ${uncached[i]}`);
      assert(Math.abs(m - half[i]) < 1e-2 * m, `${m} ${half[i]}`);
    });
    assert(cached[0] !== half[0], "f16 changed nothing");
  });
});

Deno.test(
  "a folder of images is a clip, and the context can be shown as the autoencoder gives it back",
  async () => {
    await inFolder(async (folder) => {
      const [, ...models] = await tinyWorld(folder);
      Deno.mkdirSync(`${folder}/images`);
      for (let i = 0; i < 5; i++) {
        const data = new Uint8Array(20 * 30 * 3).fill(i * 40);
        await writePng(`${folder}/images/${i}.png`, makeFrames(1, 20, 30, data));
      }
      const out = `${folder}/out`,
        run = ["--size", "16", "--fit", "pad", "--actions", "0", "--ctx", "3", "--pred", "2"];
      const { code, stderr } = await far(
        [
          "predict",
          `${folder}/images`,
          ...models,
          ...run,
          "--decode-context",
          "yes",
          "--fps",
          "5",
          "--out",
          out,
        ],
      );
      assertEquals(code, 0, stderr);
      const info = await probeVideo(`${out}/side_by_side.mp4`);
      assertEquals([info.frames, info.fps], [5, 5]);
    });
  },
);
