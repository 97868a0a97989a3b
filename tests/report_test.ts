/**
 * Reports as text: what they hold, that they hold it exactly, and that nothing in them can become markup or a request.
 */
import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { createHash } from "node:crypto";
import { writePictures } from "../lib/pipeline/pictures.ts";
import { shownClips } from "../lib/pipeline/report_evaluation.ts";
import { trainingData } from "../lib/pipeline/report_training.ts";
import { concatFrames, type Frames, sliceFrames } from "../lib/io/frames.ts";
import { readPng } from "../lib/io/image.ts";
import { contactSheet, spaced } from "../lib/io/sheet.ts";
import { evaluationReport } from "../lib/report/evaluation.ts";
import { escapeHtml, html, scriptJson } from "../lib/display/html.ts";
import { chartSvg, curvesSvg, type Point, thinned } from "../lib/display/plot.ts";
import { predictionReport } from "../lib/report/prediction.ts";
import { fitting, MOST_PIXELS } from "../lib/report/sprites.ts";
import { trainingCharts, trainingReport } from "../lib/report/training.ts";
import { chartFigure, clipViewer, type Player } from "../lib/report/viewer.ts";
import { inFolder } from "./io_helpers.ts";
import { readOptions } from "../lib/train/options.ts";
import {
  evaluation,
  evaluationResult,
  NASTY,
  noise,
  prediction,
  predictionClips,
  training,
} from "./report_fixture.ts";

const dataOf = (
  page: string,
): { player: Player; charts: { curves: { x: number[]; y: (number | null)[] }[] }[] } =>
  JSON.parse(/<script type="application\/json" id="data">(.*?)<\/script>/s.exec(page)![1]);

/** Sheets inside markup, decoded. */
const sheetsOf = (markup: string): Frames[] =>
  [...markup.matchAll(/<img class="sprites" alt="" src="data:image\/png;base64,([^"]+)">/g)].map((
    [, base64],
  ) => readPng(Uint8Array.fromBase64(base64)));

/** The pixels of one sprite. */
function spriteOf({ sprites }: Player, sheets: readonly Frames[], cell: number): Uint8Array {
  const { height, width, columns, perSheet } = sprites!, place = cell % perSheet;
  const sheet = sheets[Math.floor(cell / perSheet)], out = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const from = ((Math.floor(place / columns) * height + y) * sheet.width + (place % columns) * width) * 3;
    out.set(sheet.data.subarray(from, from + width * 3), y * width * 3);
  }
  return out;
}

const frame = (frames: Frames, f: number) => sliceFrames(frames, f, f + 1).data;

/** Where a path is drawn: the points of its M and L commands. */
const pathsOf = (svg: string): number[][][] =>
  [...svg.matchAll(/<path stroke="[^"]+" d="([^"]+)"|<path d="([^"]+)" stroke="[^"]+"/g)].map(([, a, b]) =>
    [...(a ?? b).matchAll(/[ML](-?[\d.]+),(-?[\d.]+)/g)].map(([, x, y]) => [Number(x), Number(y)])
  );

Deno.test("what is no HTML is escaped, in text, attributes and script", () => {
  assertEquals(
    html`<a title="${`"<'&`}">${["a", 1, null, html`<b>`, false]}</a>`.text,
    '<a title="&quot;&lt;&#39;&amp;">a1<b></a>',
  );
  assertEquals(escapeHtml("<&>"), "&lt;&amp;&gt;");
  assertEquals(scriptJson(["</script>", NaN]).text, '["\\u003c/script>",null]');
});

Deno.test("names out of files and flags stay text in every report", () => {
  const pages = [predictionReport(prediction()), evaluationReport(evaluation()), trainingReport(training())];
  for (const page of pages) {
    assertEquals(page.split(escapeHtml(NASTY)).length > 1, true);
    assert(!page.includes("<img src=x"), "a name became an element");
    assertEquals(page.match(/<script/g)?.length, 2);
    assertEquals(page.match(/<\/script/g)?.length, 2);
  }
  assertMatch(pages[0], /<a href="x%22&#39;%3E%3Cimg[^"]*\.mp4">/);
});

Deno.test("a page names no address but data:, and permits no other script than its own", () => {
  for (
    const page of [predictionReport(prediction()), evaluationReport(evaluation()), trainingReport(training())]
  ) {
    const outside = [...page.matchAll(/(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import[^;]*/g)]
      .filter(([all, address]) => !/="data:/.test(all) && !/\.(json|jsonl|md|mp4|png)$/.test(address ?? ""));
    assertEquals(outside.map(([all]) => all), []);
    const policy = /http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(page)![1];
    const script = /<script type="module">(.*?)<\/script>/s.exec(page)![1];
    const hash = createHash("sha256").update(script).digest("base64");
    assertEquals(
      policy,
      escapeHtml(`default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`),
    );
  }
});

Deno.test("every frame of every clip is in the page, pixel for pixel, and truth ends where it ends", () => {
  const size = { context: 5, predicted: 4, truth: 3, trajectories: 2 };
  const page = predictionReport(prediction(size)), { player } = dataOf(page), sheets = sheetsOf(page);
  const { context, truth, predicted } = predictionClips(size);
  assertEquals(player.positions, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  assertEquals([player.start, player.predictedFrom, player.fps], [5, 5, 10]);
  assertEquals(player.panels.map((p) => p.predicted), [false, true, true]);
  for (const [i, after] of [truth, ...predicted].entries()) {
    for (const [at, position] of player.positions.entries()) {
      const cell = player.panels[i].cells[at];
      if (position - 5 >= after.frames) assertEquals(cell, -1);
      else {
        const expected = position < 5 ? frame(context, position) : frame(after, position - 5);
        assertEquals(spriteOf(player, sheets, cell), expected, `panel ${i}, frame ${position}`);
      }
    }
  }
  assertMatch(page, /The clip ends after 3 of the 4 predicted frames/);
  assertMatch(page, /RANDOM|weights are random/);
});

Deno.test("frames that need several sheets keep their places", () => {
  const clips = { context: noise(1, 0, 300, 300), fps: 10 };
  const frames = noise(2, 18, 300, 300);
  const { body, player } = clipViewer({ ...clips, tracks: [{ name: "a", frames, predicted: true }] });
  const sheets = sheetsOf(body.text);
  assert(sheets.length > 1, "one sheet");
  for (const f of [0, 3, 4, 15, 16, 17]) {
    assertEquals(spriteOf(player, sheets, player.panels[0].cells[f]), frame(frames, f), `frame ${f}`);
  }
});

Deno.test("a long clip is thinned to the bound, says so, and keeps the first predicted frame", () => {
  const { context, truth, predicted, fps } = predictionClips({ context: 10, predicted: 20 });
  const tracks = [{ name: "truth", frames: truth, predicted: false }, {
    name: "prediction",
    frames: predicted[0],
    predicted: true,
  }];
  const most = 18 * 16 * 16; // of 50 frames
  const { body, player } = clipViewer({ context, tracks, fps }, most);
  assertEquals(player.positions, [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]);
  assertAlmostEquals(player.fps, 10 / 3);
  assertEquals(player.start, 10);
  assertMatch(body.text, /Every third frame is in this page\. All frames are in the videos beside it\./);
  const sheets = sheetsOf(body.text);
  for (const [at, position] of player.positions.entries()) {
    const expected = position < 10 ? frame(context, position) : frame(predicted[0], position - 10);
    assertEquals(spriteOf(player, sheets, player.panels[1].cells[at]), expected, `frame ${position}`);
  }
  assertEquals(sheets.reduce((n, s) => n + s.height * s.width, 0) <= 1.2 * most, true);
});

Deno.test("frames are made smaller above 256 pixels only, and left out only beyond the bound", () => {
  assertEquals(fitting(456, 64, 64), { every: 1, shrink: 1 });
  assertEquals(fitting(10, 1024, 1024), { every: 1, shrink: 1 });
  assertEquals(fitting(100, 1024, 512), { every: 1, shrink: 4 });
  assertEquals(fitting(456, 256, 256), { every: 3, shrink: 1 });
  for (const [frames, height, width] of [[456, 256, 256], [5000, 480, 640], [100_000, 64, 64]]) {
    const { every, shrink } = fitting(frames, height, width);
    const pixels = Math.ceil(frames / every) * Math.ceil(height / shrink) * Math.ceil(width / shrink);
    assert(pixels <= 1.01 * MOST_PIXELS, `${pixels} pixels`);
  }
});

Deno.test("only eight clips are shown, a generation has no truth and no scores", () => {
  const many = predictionReport(prediction({ trajectories: 12, truth: 0, context: 0 }));
  assertEquals(dataOf(many).player.panels.length, 8);
  assertMatch(many, /8 of 12 clips are in this page/);
  assertEquals(dataOf(many).charts, []);
  assert(!many.includes('id="difference"') && !many.includes("PSNR by frame"));
});

Deno.test("a curve has its points, a gap where a score is infinite, and its numbers beside it", () => {
  const page = predictionReport(prediction({ predicted: 6 })), { charts } = dataOf(page);
  assertEquals(charts[0].curves[0].x, [5, 6, 7, 8, 9, 10]);
  assertEquals(charts[0].curves[0].y, [20, null, 18, 17, 16, 15]);
  assertEquals(charts[1].curves[0].y, [0.5, 0.51, 0.52, 0.53, 0.54, 0.55]);
  const [psnr, ssim] = page.match(/<svg .*?<\/svg>/gs)!.map(pathsOf);
  assertEquals(ssim.map((p) => p.length), [6]);
  // 5 finite values in two parts; a part of one point is a point that the line goes back to.
  assertEquals(new Set(psnr.flat().map(([x]) => x)).size, 5);
  assertMatch(page, /data-domain="5 10" data-range="56 704"/);
});

Deno.test("a curve of more points than pixels is averaged, without what is not finite", () => {
  const points = Array.from({ length: 1440 }, (_, i): Point => [i, i === 0 ? NaN : i, 2]);
  const few = thinned(points);
  assertEquals(few.length, 720);
  assertEquals([...few[0], ...few[1]], [0.5, 1, 2, 2.5, 2.5, 2]);
  const { data } = chartFigure({ title: "t", x: "x", y: "y", curves: [{ name: "a", points }] }, 2);
  assertEquals([data.curves[0].x.length, data.curves[0].error?.[0]], [720, 2]);
});

Deno.test("a band spans the mean plus and minus its error", () => {
  const svg = chartSvg({
    title: "t",
    x: "x",
    y: "y",
    curves: [{ name: "a", points: [[0, 1, 0.5], [1, 2, 0.5]] }],
  });
  const [, line] = /<path (?:stroke="[^"]+" )?d="M([^"A-Z]+)L[^"]+"(?: stroke="[^"]+")?/.exec(
    svg.slice(svg.indexOf('aria-label="line"')),
  )!;
  const area = svg.slice(svg.indexOf('aria-label="area"')), [, outline] = /d="([^"Z]+)Z?"/.exec(area)!;
  const ys = [...outline.matchAll(/,(-?[\d.]+)/g)].map(([, y]) => Number(y)), y0 = Number(line.split(",")[1]);
  assertEquals(ys.length, 4);
  // The outline goes along the upper edge and comes back along the lower one.
  assertAlmostEquals((ys[0] + ys[3]) / 2, y0, 0.01);
  assert(ys[0] < y0 && ys[3] > y0);
});

Deno.test("a constant stands in the middle of its chart, small numbers have short names", () => {
  const points: Point[] = [[0, 1e-4], [10, 1e-4]];
  const svg = chartSvg({ title: "t", x: "step", y: "rate", curves: [{ name: "a", points }] });
  assertEquals(pathsOf(svg)[0], [[56, 124], [704, 124]]); // between 24 and 224
  assertMatch(svg, />1e-4<.*>2e-4</s);
});

Deno.test("loss.svg is drawn inside its frame, logarithmic over a wide range, as XML", () => {
  const points = Array.from({ length: 2000 }, (_, i) => [i, 100 / (i + 1)] as const);
  const svg = curvesSvg('a "title" <b>', [
    { name: "loss <1>", points: [...points, [2000, NaN]] },
    { name: "one", points: [[1000, 1]] },
  ]);
  assert(
    svg.startsWith("<svg ") && svg.endsWith("</svg>\n") && svg.includes('xmlns="http://www.w3.org/2000/svg"'),
  );
  assert(!svg.includes("NaN") && !/="[^"]*<[^"]*"/.test(svg), "not XML");
  assert(svg.includes("a &quot;title&quot; &lt;b&gt;: loss by step"));
  const [drawn] = pathsOf(svg);
  assertEquals(drawn.length, 720);
  assert(drawn.every(([x, y]) => x >= 56 && x <= 704 && y >= 24 && y <= 364), String(drawn[0]));
  assert(drawn.every(([x, y], i) => i === 0 || (x > drawn[i - 1][0] && y >= drawn[i - 1][1])));
  // Logarithmic: the middle step has fallen by far more than half of the picture.
  assert(drawn[360][1] > 220, String(drawn[360]));
  assertEquals(svg.match(/<circle/g)?.length, 1);
  assert(curvesSvg("empty", []).endsWith("</svg>\n"));
});

Deno.test("an evaluation shows the worst and the best clips first, and means with errors by frame", () => {
  const { clip_scores } = evaluationResult();
  assertEquals([0, 1, 2, 3, 9].map((n) => shownClips(clip_scores, n)), [[], [2], [2, 1], [2, 1, 0], [
    2,
    1,
    0,
  ]]);
  const report = evaluation(), [psnr, ssim, ahead] = report.charts.map(({ chart }) => chart);
  assertEquals(psnr.curves.map((c) => c.points.length), [4, 4, 4, 4, 4]);
  const [x, mean, error] = psnr.curves[0].points[1];
  assertEquals([x, mean], [145, 19]); // of 19, 29 and 9
  assertAlmostEquals(error!, Math.sqrt(200 / 2 / 3));
  assertAlmostEquals(ssim.curves[0].points[0][1], 0.2);
  assertEquals(ahead.curves[0].points.map(([, y, e]) => [y, e]), [[1, 0], [1, 0], [1, 0], [1, 0]]);
  assertEquals(report.sheets.map((s) => /\((.*?)\)$/.exec(s.caption)![1]), ["worst", "best"]);
  assertMatch(report.sheets[0].caption, /^Clip 2, third: PSNR 8\.50 dB/);
  const page = evaluationReport(report);
  assertMatch(page, /<td>third<\/td><td data-value="8.5">8.50<\/td><td data-value="1">1.00<\/td>/);
  assertEquals(dataOf(page).player.positions, [144, 145, 146, 147]);
});

Deno.test("a training run shows losses, rate and terms by steps done, and evenly spaced samples", () => {
  const { lines } = training(), charts = trainingCharts(lines);
  assertEquals(charts.map((c) => c.title), [
    "Loss",
    "Terms of the loss",
    "Learning rate",
    "Gradient norm",
    "Speed",
  ]);
  assertEquals(charts[0].curves.map((c) => [c.name, c.points.length]), [["training", 20], ["validation", 2]]);
  assertEquals(charts[0].curves[1].points, [[20, 9], [40, 4.5]]);
  const page = trainingReport(training());
  assertEquals(dataOf(page).player.positions, [20, 40]);
  assertEquals(page.match(/<figure class="picture"/g)?.length, 2);
  assertEquals(dataOf(trainingReport({ ...training(), samples: [] })).player.positions.length, 20);
  assertMatch(trainingReport({ ...training(), lines: [], samples: [] }), /Nothing was logged/);
  const samples = Array.from({ length: 100 }, (_, i) => ({ ...training().samples[0], position: i }));
  const many = trainingReport({ ...training(), samples });
  assertEquals(dataOf(many).player.positions, spaced(100, 24));
  assertMatch(many, /24 of 100 samples are in this page/);
});

Deno.test("the sheet of a prediction counts its columns as result.json counts frames", () =>
  inFolder(async (folder) => {
    const { context, predicted, truth, fps } = predictionClips({ context: 6, predicted: 3 });
    await writePictures(folder, { context, predicted, truth, fps, ending: "gif" });
    const after = (frames: Frames) => concatFrames([sliceFrames(context, 2), frames]);
    const rows = [{ label: "truth", frames: after(truth) }, {
      ...{ label: "prediction", frames: after(predicted[0]), predictedFrom: 4 },
    }];
    assertEquals(readPng(`${folder}/sheet.png`), contactSheet(rows, { firstFrame: 2 }));
  }));

Deno.test("a run that was stopped or skipped steps says so first", () => {
  const options = readOptions(new URL("data/train_clip.yml", import.meta.url).pathname);
  const facts = {
    ...{
      options,
      device: { description: "cpu", reason: "" },
      parameters: 1,
      shape: [1],
      checkpoint: "",
      warnings: ["said before"],
    },
  };
  const lines = [{ step: 0, loss: 2, seconds: 3 }, { step: 4, loss: 1, seconds: 2, skipped: "loss" }];
  const { warnings, tiles, title } = trainingData({ ...facts, step: 5 }, lines, []);
  assertEquals(title, "train train_clip");
  assertEquals(warnings[0], "said before");
  assertMatch(warnings[1], /stopped after 5 of 14 steps/);
  assertMatch(warnings[2], /1 step was skipped/);
  assertEquals(Object.fromEntries(tiles), { "training loss": "1.0000", "time in steps": "about 11 s" });
  assertEquals(trainingData({ ...facts, step: 14 }, lines.slice(0, 1), []).warnings, ["said before"]);
});
