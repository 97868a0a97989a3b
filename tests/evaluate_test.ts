import { assert, assertAlmostEquals, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { memoryRows, methodRows, spanTable } from "../lib/pipeline/evaluation_table.ts";
import {
  type ClipScores,
  type Method,
  METHODS,
  type Predicted,
  scoreClip,
} from "../lib/pipeline/evaluation.ts";
import { worldClip } from "../lib/data/world/world.ts";
import { drawText } from "../lib/io/font.ts";
import { fillColour, makeFrames } from "../lib/io/frames.ts";
import { readPng } from "../lib/io/image.ts";
import { meanError, pairedDifference } from "../lib/metrics/paired.ts";
import { psnr } from "../lib/metrics/pixel.ts";
import { exists, far, farArgs, inFolder, tinyWorld } from "./cli_helpers.ts";

const near = (found: number, expected: number, tolerance = 1e-12) =>
  assertAlmostEquals(found, expected, tolerance);

Deno.test("the standard error is that of the mean, and pairs take the spread between clips out", () => {
  // By hand: squares around 4 are 9, 1, 0, 16 in sum 26; 26 / 3 / 4 under the root.
  const { mean, error, clips } = meanError([1, 3, 4, 8]);
  assertEquals([mean, clips], [4, 4]);
  near(error, Math.sqrt(26 / 12));
  assert(Number.isNaN(meanError([5]).error));
  const paired = pairedDifference([10.5, 20.1, 30.3], [10, 20, 30]);
  near(paired.mean, 0.3);
  near(paired.error, Math.sqrt(0.08 / 2 / 3)); // deviations 0.2, -0.2, 0
  assertThrows(() => meanError([]), RangeError, "at least one clip");
  assertThrows(() => pairedDifference([1], [1, 2]), RangeError, "found 1 and 2");
});

/** Scores of two frames: `model` as given, all others 1 dB below, `short` 2 dB. */
function scores(first: number, second: number): ClipScores {
  const of = (by: (method: Method) => number, scale: number) =>
    Object.fromEntries(
      METHODS.map((m) => [m, [(first - by(m)) * scale, (second - by(m)) * scale]]),
    ) as Record<Method, number[]>;
  const below = (m: Method) => m === "model" ? 0 : m === "short" ? 2 : 1;
  return { source: "made", psnr: of(below, 1), ssim: of(below, 0.01), seconds: 0 };
}

Deno.test("rows average frames within a clip first, then clips, and sort frames by memory", () => {
  const clips = [scores(10, 20), scores(30, 50)];
  const [model, short, last] = methodRows(clips);
  assertEquals(model.mean.psnr.mean, (15 + 40) / 2);
  assertEquals(model.ahead, undefined);
  near(short.ahead!.psnr.mean, 2);
  near(short.ahead!.psnr.error, 0);
  near(last.ahead!.ssim.mean, 0.01);
  assertEquals(methodRows(clips, 1)[0].mean.psnr.mean, 35);
  const spans = [{ from: 5, to: 6, methods: methodRows(clips, 0, 1) }, {
    from: 6,
    to: 7,
    methods: methodRows(clips, 1),
  }];
  const [head, , first] = spanTable(spans, { ctx: 5, short: 2 }).split("\n");
  assertEquals(head, "| PSNR, dB / SSIM | frames 5 to 5 | frames 6 to 6 |");
  assertEquals(first, "| the model, 5 frames of context | 20.00 / 0.200 | 35.00 / 0.350 |");
  const rows = memoryRows(clips, [["near", "distant"], ["distant", "distant"]]);
  assertEquals(rows.map((r) => [r.seen, r.frames, r.long.psnr.clips]), [["near", 1, 1], ["distant", 3, 2]]);
  assertEquals(rows[0].long.psnr.mean, 10);
  assertEquals(rows[1].long.psnr.mean, (20 + 40) / 2);
});

Deno.test("identical frames count as 60 dB, so a mean over frames is neither infinite nor pulled to nothing", () => {
  const truth = Float32Array.from({ length: 2 * 3 * 64 }, (_, i) => i % 7 / 7);
  const off = truth.map((v, i) => i < 3 * 64 ? v : v + 0.1); // the first frame is the same, the second at 20 dB
  const predicted = Object.fromEntries(METHODS.map((m) => [m, m === "last" ? truth : off])) as Predicted;
  const scores = scoreClip("made", predicted, truth, [3, 8, 8], 0);
  assertEquals(scores.psnr.last, [60, 60]);
  assertEquals(scores.psnr.model[0], 60);
  near(scores.psnr.model[1], 20, 1e-4);
  const [model, , last] = methodRows([JSON.parse(JSON.stringify(scores))]);
  near(model.mean.psnr.mean, 40, 1e-4);
  near(last.ahead!.psnr.mean, -20, 1e-4);
});

interface Result {
  readonly clip_scores: (ClipScores & { seen: string[] })[];
  readonly methods: { method: string; mean: { psnr: { mean: number } } }[];
  readonly random_weights: boolean;
}

const resultOf = (folder: string): Result => JSON.parse(Deno.readTextFileSync(`${folder}/result.json`));

Deno.test("evaluate scores the same prediction as predict, and baselines that can be computed by hand", async () => {
  await inFolder(async (folder) => {
    const [, ...flags] = await tinyWorld(folder), out = `${folder}/out`;
    const few = [...flags, "--ctx", "5", "--pred", "2"];
    const run = [
      "evaluate",
      "world",
      ...few,
      "--short",
      "2",
      "--clips",
      "3",
      "--batch",
      "2",
      "--sheets",
      "1",
    ];
    const { code, stdout, stderr } = await far([...run, "--out", out]);
    assertEquals(code, 0, stderr);
    assertMatch(stderr, /^estimate: .+ for 3 clips, .+ of device memory$/m);
    assertMatch(stdout, /RANDOM WEIGHTS\. world test seed 0 32x32, 3 clips, frames 5 to 6;/);
    assertMatch(stdout, /\| repeat the last frame \| \d+\.\d\d ± /);
    const result = resultOf(out);
    assert(result.random_weights);
    // The one sheet is that of the worst clip.
    const means = result.clip_scores.map(({ psnr }) => (psnr.model[0] + psnr.model[1]) / 2);
    const worst = means.indexOf(Math.min(...means));
    assertEquals([0, 1, 2].filter((i) => exists(`${out}/sheet_${i}.png`)), [worst]);
    const sheet = readPng(`${out}/sheet_${worst}.png`), number = makeFrames(1, 8, 6);
    fillColour(number.data, [24, 24, 24]);
    drawText(number, "1", { left: 0, top: 0 }, [160, 160, 160]); // four frames of context are shown, of five
    const corner = Array.from({ length: 8 }, (_, y) => {
      const from = ((4 + y) * sheet.width + 8) * 3;
      return [...sheet.data.subarray(from, from + 18)];
    });
    assertEquals(corner.flat(), [...number.data], "the first column is not frame 1");
    const report = Deno.readTextFileSync(`${out}/report.html`);
    assertMatch(report, new RegExp(`Clip ${worst}, [^:]+: PSNR ${means[worst].toFixed(2)} dB`));
    assertMatch(report, /The weights are random/);
    assertEquals(Deno.readTextFileSync(`${out}/table.md`), stdout.slice(0, -1));

    for (const [index, clip] of result.clip_scores.entries()) {
      const { frames } = worldClip({ seed: 0, split: "test", index, frames: 7, size: 32 }),
        size = 32 * 32 * 3;
      const at = (f: number) => Float64Array.from(frames.subarray(f * size, (f + 1) * size), (v) => v / 255);
      const mean = at(0).map((_, i) => [0, 1, 2, 3, 4].reduce((sum, f) => sum + at(f)[i], 0) / 5);
      for (const f of [0, 1]) {
        near(clip.psnr.last[f], psnr(at(4), at(5 + f)), 1e-4);
        near(clip.psnr.mean[f], psnr(mean, at(5 + f)), 1e-4);
      }
      assertEquals(clip.seen.length, 2);
    }
    const predicted = await far(["predict", "world:0", ...few, "--out", `${folder}/predicted`]);
    assertEquals(predicted.code, 0, predicted.stderr);
    const own = JSON.parse(Deno.readTextFileSync(`${folder}/predicted/result.json`)).scores[0].frames;
    for (const f of [0, 1]) {
      near(result.clip_scores[0].psnr.model[f], own[f].psnr, 1e-3);
      near(result.clip_scores[0].ssim.model[f], own[f].ssim, 1e-5);
    }
  });
});

Deno.test("an interrupted evaluation resumes with the clips that are missing", async () => {
  await inFolder(async (folder) => {
    const [, ...flags] = await tinyWorld(folder), out = `${folder}/out`;
    const few = [
      "--ctx",
      "3",
      "--pred",
      "2",
      "--short",
      "2",
      "--clips",
      "4",
      "--batch",
      "1",
      "--sheets",
      "2",
    ];
    const run = ["evaluate", ...flags, ...few];
    const whole = await far([...run, "--out", `${folder}/whole`, "--quiet"]);
    assertEquals([whole.code, whole.stderr], [0, ""]);
    const child = new Deno.Command(Deno.execPath(), {
      args: farArgs([...run, "--out", out, "--json"]),
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    let sent = false, seen = "";
    for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
      seen += piece;
      if (sent || !/"stage":"evaluate","done":[5-9]/.test(seen)) continue; // the first clip took 4 steps
      sent = true;
      child.kill("SIGINT");
    }
    assertEquals((await child.status).code, 130, seen);
    assert(!exists(`${out}/result.json`) && exists(`${out}/part/clip-00000.json`));
    assert(!exists(`${out}/part/clip-00003.json`));
    const other = await far([...run, "--seed", "1", "--out", out, "--quiet"]);
    assertEquals(other.code, 2);
    assertMatch(
      other.stderr,
      /out: holds an interrupted run with another flags\.seed \(0, now 1\): .*--restart.*another folder/,
    );
    const first = `${out}/part/clip-00000.json`;
    Deno.writeTextFileSync(
      first,
      JSON.stringify({ ...JSON.parse(Deno.readTextFileSync(first)), source: "kept" }),
    );
    const rest = await far([...run, "--out", out]);
    assertEquals(rest.code, 0, rest.stderr);
    const [kept, ...others] = resultOf(out).clip_scores,
      [made, ...expected] = resultOf(`${folder}/whole`).clip_scores;
    assertEquals(kept, { ...made, source: "kept" }, "the first clip was predicted again");
    assertEquals(others, expected);
    assertEquals(Deno.readTextFileSync(`${out}/table.md`), Deno.readTextFileSync(`${folder}/whole/table.md`));
    const sheets = [0, 1, 2, 3].filter((i) => exists(`${out}/sheet_${i}.png`));
    assertEquals(sheets.length, 2);
    for (const i of sheets) {
      assertEquals(
        Deno.readFileSync(`${out}/sheet_${i}.png`),
        Deno.readFileSync(`${folder}/whole/sheet_${i}.png`),
      );
    }
    assert(!exists(`${out}/part`));
  });
});

Deno.test("evaluate takes the held-out clips of an option file, and says what it cannot take", async () => {
  await inFolder(async (folder) => {
    const [, ...flags] = await tinyWorld(folder);
    const options = (type: string, more = "") =>
      `name: x\ndatasets:\n  train: { type: WorldDataset }\n  sample:\n    type: ${type}\n    split: validation\n` +
      `    data_cfg: { num_frames: 5, resolution: 16 }\n    num_sample: 2\n${more}train: { total_iter: 1 }\n` +
      "models: { model_cfg: { transformer: { init_cfg: { type: FAR_B } }, vae: ~ } }\n";
    Deno.writeTextFileSync(`${folder}/set.yml`, options("WorldDataset"));
    const few = [...flags, "--ctx", "3", "--pred", "2", "--short", "1", "--quiet", "--out", `${folder}/out`];
    const { code, stderr } = await far(["evaluate", `${folder}/set.yml`, ...few]);
    assertEquals([code, stderr], [0, ""]);
    assertEquals(resultOf(`${folder}/out`).clip_scores.length, 2);
    const refused = async (args: string[], message: RegExp, expected: number) => {
      const ran = await far(["evaluate", ...args, "--quiet"]);
      assertEquals(ran.code, expected, ran.stderr);
      assertMatch(ran.stderr, message);
    };
    await refused(
      ["elsewhere", ...few],
      /expected world, grid or an option file \(yml\), found elsewhere/,
      2,
    );
    await refused(["world", ...few, "--short", "4"], /--short: expected at most --ctx 3, found 4/, 2);
    Deno.writeTextFileSync(
      `${folder}/none.yml`,
      options("WorldDataset").replace(/ {2}sample:[^]*?train: \{ tot/, "train: { tot"),
    );
    await refused([`${folder}/none.yml`, ...few], /has no datasets\.sample/, 2);
  });
});
