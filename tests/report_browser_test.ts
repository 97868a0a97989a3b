/**
 * Reports in a browser: they open from a file without an error or a request, and what is pressed happens.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Frames, sliceFrames } from "../lib/io/frames.ts";
import { evaluationReport } from "../lib/report/evaluation.ts";
import { toolTest } from "./tools.ts";
import { predictionReport } from "../lib/report/prediction.ts";
import { trainingReport } from "../lib/report/training.ts";
import { type BrowserPage, withPage } from "./browser.ts";
import { inFolder } from "./io_helpers.ts";
import { evaluation, NASTY, prediction, predictionClips, training } from "./report_fixture.ts";

/** A test of one page, which must report no error and ask for nothing. */
function browserTest(
  name: string,
  page: () => string,
  body: (page: BrowserPage) => Promise<void>,
  options: Parameters<typeof withPage>[2] = {},
): void {
  toolTest(["chromium"], name, () =>
    inFolder(async (folder) => {
      Deno.writeTextFileSync(`${folder}/report.html`, page());
      await withPage(`${folder}/report.html`, async (open) => {
        await body(open);
        assertEquals([open.errors, open.requests], [[], []]);
      }, options);
    }));
}

/** Colours of a panel, `[H, W, 3]`. */
async function pixels(page: BrowserPage, panel: number): Promise<Uint8Array> {
  const rgba = await page.evaluate<number[]>(
    `(() => { const c = document.getElementById("panel-${panel}");
      return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; })()`,
  );
  return Uint8Array.from(rgba.filter((_, i) => i % 4 !== 3));
}

const frame = (frames: Frames, f: number) => sliceFrames(frames, f, f + 1).data;
const text = (page: BrowserPage, selector: string) =>
  page.evaluate<string>(`document.querySelector(${JSON.stringify(selector)}).textContent`);
const click = (page: BrowserPage, selector: string) =>
  page.evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`);

const clips = predictionClips({ predicted: 6, truth: 5 });

browserTest(
  "the scrubber, the keys and the buttons move the frame, exact to the pixel, and mark the curves",
  () => predictionReport(prediction({ predicted: 6, truth: 5 })),
  async (page) => {
    const { context, truth, predicted: [made] } = clips;
    assertEquals(await page.evaluate("document.title"), `predict ${NASTY}`);
    assertEquals(await text(page, "#position"), "frame 5 of 10, predicted");
    assertEquals(await pixels(page, 0), frame(truth, 0));
    assertEquals(await pixels(page, 1), frame(made, 0));
    const edges = () => page.evaluate(`[...document.querySelectorAll("canvas")].map((c) => c.dataset.edge)`);
    assertEquals(await edges(), ["given", "predicted"]);

    await page.press("ArrowRight");
    assertEquals(await text(page, "#position"), "frame 6 of 10, predicted");
    assertEquals(await pixels(page, 1), frame(made, 1));
    // The second score is infinite, the third one is not.
    assertEquals([await text(page, ".legend b"), await text(page, "figure:nth-of-type(2) .legend b")], [
      "∞",
      "0.5100",
    ]);
    await click(page, "#on");
    assertEquals(await text(page, ".legend b"), "18.00");
    const cursor = `document.querySelector(".cursor")`;
    const x = await page.evaluate<string>(`${cursor}.getAttribute("x1")`);
    assertEquals(Number(x), 56 + (7 - 5) / (9 - 5) * (704 - 56));

    await page.press("End"); // beyond the end of the truth
    assertEquals(await pixels(page, 1), frame(made, 5));
    assertEquals(await pixels(page, 0), new Uint8Array(16 * 16 * 3));
    assertEquals(await edges(), ["none", "predicted"]);
    assertEquals(await page.evaluate(`${cursor}.style.display`), "none");
    await page.press("Home");
    assertEquals(await text(page, "#position"), "frame 0 of 10, context");
    assertEquals([await pixels(page, 0), await pixels(page, 1)], [frame(context, 0), frame(context, 0)]);
    assertEquals(await edges(), ["given", "given"]);
    await page.press("ArrowRight", { shift: true });
    assertEquals(await text(page, "#position"), "frame 10 of 10, predicted");

    await page.evaluate(
      `{ const s = document.getElementById("scrubber"); s.value = 3; s.dispatchEvent(new Event("input")); }`,
    );
    assertEquals(await pixels(page, 1), frame(context, 3));
    assertEquals(
      await page.evaluate(`document.getElementById("scrubber").getAttribute("aria-valuetext")`),
      "frame 3, context",
    );
  },
);

browserTest(
  "a click in a curve goes to its frame, the difference from the truth is four times as large",
  () => predictionReport(prediction({ predicted: 6, truth: 5 })),
  async (page) => {
    const { x, y } = await page.evaluate<{ x: number; y: number }>(
      `(() => { const svg = document.querySelector(".chart svg"); svg.scrollIntoView({ block: "center" });
        const r = svg.getBoundingClientRect(); return { x: r.left + r.width * (56 + 648 * 3.2 / 4) / 720, y: r.top + r.height / 2 }; })()`,
    );
    for (const type of ["mousePressed", "mouseReleased"]) {
      await page.send("Input.dispatchMouseEvent", { type, x, y, button: "left", buttons: 1, clickCount: 1 });
    }
    assertEquals(await text(page, "#position"), "frame 8 of 10, predicted");
    await page.press("d");
    const expected = frame(clips.truth, 3).map((v, i) =>
      Math.min(255, 4 * Math.abs(v - frame(clips.predicted[0], 3)[i]))
    );
    assertEquals(await pixels(page, 1), expected);
    assertEquals(await pixels(page, 0), frame(clips.truth, 3));
    await click(page, "#difference");
    assertEquals(await pixels(page, 1), frame(clips.predicted[0], 3));
  },
);

browserTest(
  "a clip plays at its speed, begins again at its end, and stops where it is",
  () => predictionReport(prediction({ predicted: 6, truth: 5 })),
  async (page) => {
    // The clock is ours: each call gives the time of one picture on the screen.
    await page.evaluate(`{ let now = 0; performance.now = () => now; const waiting = [];
      window.requestAnimationFrame = (f) => waiting.push(f); window.cancelAnimationFrame = () => waiting.length = 0;
      window.after = (seconds) => { now += 1000 * seconds; waiting.splice(0).forEach((f) => f(now)); }; }`);
    const position = () => text(page, "#position").then((t) => Number(/\d+/.exec(t)![0]));
    await page.press(" ");
    await page.evaluate("after(0.05)");
    assertEquals(await position(), 5);
    await page.evaluate("after(0.06)"); // 10 frames per second
    assertEquals(await position(), 6);
    await page.evaluate("after(0.2)");
    assertEquals(await position(), 8);
    await page.evaluate(
      `{ const s = document.getElementById("speed"); s.value = "4"; s.dispatchEvent(new Event("change")); after(0.101); }`,
    );
    assertEquals(await position(), 1); // 8 + 4 of 11
    await click(page, "#play");
    await page.evaluate("after(5)");
    assertEquals([await position(), await text(page, "#play")], [1, "▶"]);
    await page.press("End");
    await page.press(" ");
    assertEquals(await position(), 0); // from the end it plays from the beginning
  },
);

browserTest(
  "small frames are shown large without smoothing, on light and on dark ground",
  () => predictionReport(prediction()),
  async (page) => {
    const style = (selector: string, property: string) =>
      page.evaluate<string>(`getComputedStyle(document.querySelector("${selector}")).${property}`);
    assertEquals(await style("canvas", "imageRendering"), "pixelated");
    assert(parseFloat(await style("canvas", "width")) >= 256, await style("canvas", "width"));
    assertEquals(await style("body", "backgroundColor"), "rgb(20, 23, 26)");
    assertEquals(await style(".chart path[stroke]", "stroke"), "rgb(79, 168, 224)");
    const ratios = await page.evaluate<number>(`document.documentElement.scrollWidth`);
    assert(ratios <= 400, `${ratios} pixels wide on a screen of 400`);
  },
  { dark: true, width: 400 },
);

browserTest(
  "tables of an evaluation sort by number and by text",
  () => evaluationReport(evaluation()),
  async (page) => {
    const table = `[...document.querySelectorAll("table.sortable")].at(-1)`;
    const column = (i: number) =>
      page.evaluate<string[]>(`[...${table}.tBodies[0].rows].map((r) => r.cells[${i}].textContent)`);
    const press = (i: number) =>
      page.evaluate(`${table}.tHead.rows[0].cells[${i}].querySelector("button").click()`);
    const sorted = () =>
      page.evaluate(`[...${table}.tHead.rows[0].cells].map((c) => c.getAttribute("aria-sort"))`);
    assertEquals(await column(0), ["0", "1", "2"]);
    await press(2);
    assertEquals(await column(2), ["28.50", "18.50", "8.50"]);
    assertEquals((await sorted() as unknown[])[2], "descending");
    await press(2);
    assertEquals(await column(0), ["2", "0", "1"]);
    await press(1);
    assertEquals(await column(1), ["first", "third", NASTY]);
    assertEquals((await sorted() as unknown[]).slice(0, 3), [null, "ascending", null]);
    // The model is not ahead of itself: its empty cell comes last, whatever the direction.
    const ahead = `document.querySelector("table.sortable")`;
    for (const expected of [["+4.00 ± 0.00", ""], ["+1.00 ± 0.00", ""]]) {
      await page.evaluate(`${ahead}.tHead.rows[0].cells[2].querySelector("button").click()`);
      const cells = await page.evaluate<string[]>(
        `[...${ahead}.tBodies[0].rows].map((r) => r.cells[2].textContent)`,
      );
      assertEquals([cells[0], cells[4]], expected);
    }
    const points = await page.evaluate<number[]>(
      `[...document.querySelectorAll('.chart [aria-label="line"] path')].map((p) => p.getAttribute("d").match(/[ML]/g).length)`,
    );
    assertEquals(points, Array(12).fill(4)); // five methods twice, two differences
    await page.press("ArrowRight");
    assertEquals(await text(page, ".legend b"), "19.00 ± 5.77");
  },
);

browserTest(
  "samples of a training run are seen one at a time, beside their place in the curves",
  () => trainingReport(training()),
  async (page) => {
    const seen = () =>
      page.evaluate(
        `[...document.querySelectorAll("figure.picture")].filter((f) => !f.hidden).map((f) => f.dataset.position)`,
      );
    assertEquals([await seen(), await text(page, ".legend b")], [["40"], "5"]);
    await page.press("ArrowLeft");
    assertEquals([await seen(), await text(page, ".legend b")], [["20"], "10"]);
  },
);

browserTest("without script the pictures are there", () => trainingReport(training()), async (page) => {
  await Promise.resolve(page);
  const { root } = await page.send("DOM.getDocument");
  const { nodeIds } = await page.send("DOM.querySelectorAll", {
    nodeId: root.nodeId,
    selector: "figure.picture:not([hidden]) img",
  });
  assertEquals(nodeIds.length, 2);
}, { script: false });

browserTest("an error and a request would be seen by these tests", () => {
  const script =
    `<script>fetch("http://localhost:1/x").catch(() => {}); console.error("said"); missing();</script>`;
  return `<!doctype html><html data-ready="true">${script}</html>`;
}, async (page) => {
  await assertRejects(() => page.evaluate("missing()"), Error, "missing is not defined");
  await page.evaluate("new Promise((done) => setTimeout(done, 50))");
  assert(
    page.errors.some((e) => e.includes("said")) && page.errors.some((e) => e.includes("missing")),
    String(page.errors),
  );
  assertEquals(page.requests, ["http://localhost:1/x"]);
  page.errors.length = page.requests.length = 0;
});
