import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import {
  asOneModule,
  cellsOf,
  checkTypes,
  codeOf,
  type Shown,
  splitCell,
  underJupyter,
} from "./notebook_runner.ts";
import { hasTool, toolTest } from "./tools.ts";

const FOLDER = fromFileUrl(new URL("../notebooks/", import.meta.url));
const NAMES = [...Deno.readDirSync(FOLDER)].map((e) => e.name).filter((n) => n.endsWith(".ipynb")).sort();
const pathOf = (name: string) => join(FOLDER, name);

/** Media types that a code cell declares by tags such as `shows image/gif`. */
const declared = (name: string): string[][] =>
  cellsOf(pathOf(name)).filter((c) => c.cell_type === "code").map((c) =>
    (c.metadata.tags ?? []).map((tag) => /^shows (\S+)$/.exec(tag)?.[1] ?? `unknown tag ${tag}`)
  );

/** Numbers at the ends of a curve, from the text of a chart. */
function ends(shown: Shown, curve: string): [number, number] {
  const found = new RegExp(`^${curve}: \\d+ points from (\\S+) to (\\S+)$`, "m").exec(shown["text/plain"]);
  assert(found, shown["text/plain"]);
  return [Number(found![1]), Number(found![2])];
}

/** Rows of a table, from its text; columns are at least two spaces apart. */
const rowsOf = (shown: Shown) =>
  shown["text/plain"].trimEnd().split("\n").slice(1).map((line) => line.trim().split(/\s{2,}/));

/** What must be true of what a notebook shows, beside that it shows what its tags say. */
const MEANING: Readonly<Record<string, (shown: readonly Shown[]) => void>> = {
  "1_predict.ipynb": (shown) => {
    const [first, last] = ends(shown[1], "PSNR");
    assertGreater(first, 20, "the first predicted frame of a known corridor is near the truth");
    assertGreater(last, 20, "so is the last one: the walk returns to places that the context has shown");
    assertEquals(
      rowsOf(shown[2]).map((row) => Number(row[0])),
      Array.from({ length: 16 }, (_, i) => 144 + i),
    );
    assert(/L1, short-term: 64 frames of 1 token, 64 keys\n/.test(shown[7]["text/plain"]));
    assert(/L2, long-term: 28 frames of 1 token, 28 keys\n/.test(shown[7]["text/plain"]));
  },
  "2_train_your_own.ipynb": (shown) => {
    const [before, after] = ends(shown[2], "training"), [untrained, trained] = ends(shown[2], "held out");
    assertLess(after, 0.75 * before, "the training loss falls");
    assertLess(trained, 0.85 * untrained, "so does that of walks that were not trained on");
    assertLess(trained, 0.9 * Number(rowsOf(shown[3])[0][1]), "and it is below that of no prediction at all");
    const [start, end] = ends(shown[4], "training");
    assertLess(end, 0.9 * start, "a trainer trains the same model");
  },
  "3_change_something.ipynb": (shown) => {
    const windows = rowsOf(shown[0]);
    assertEquals(windows.map(([window]) => window), ["64", "32", "8", "2"]);
    for (const [window, psnr] of windows) {
      assertGreater(Number(psnr), 20, `a window of ${window} frames remembers as well`);
    }
    const [none, strong] = ends(shown[2], "PSNR");
    assertGreater(none, strong + 0.5, "a strong decay, which the model was not trained with, costs quality");
    assertEquals(rowsOf(shown[3]).map((row) => row.slice(0, 2).join(" ")), ["4 1", "2 4", "1 16"]);
    for (const patch of [4, 2, 1]) {
      const [before, after] = ends(shown[4], `patch ${patch}`);
      assertLess(after, 0.8 * before, `patch ${patch}: the loss falls`);
    }
  },
  "4_your_own_video.ipynb": (shown) => {
    assert(/clip\.mp4: 32 frames of 64 x 64, 12 frames per second$/.test(shown[1]["text/plain"]));
    const [[, world], [, own]] = rowsOf(shown[3]);
    assertGreater(Number(world), Number(own));
    assertGreater(Number(own), 15);
    assert(/^8 frames of 64 x 64 predicted after 24 of context, mean PSNR/.test(shown[4]["text/plain"]));
  },
};

function checkShown(name: string, shown: readonly Shown[]): void {
  const wanted = declared(name);
  assertEquals(shown.length, wanted.length);
  wanted.forEach((types, i) => {
    const found = Object.keys(shown[i]).filter((type) => type !== "text/plain");
    assertEquals(
      found.sort(),
      types.filter((type) => type !== "text/plain").sort(),
      `${name}, code cell ${i + 1}`,
    );
    for (const type of types) {
      assertGreater(shown[i][type].length, 100, `${name}, code cell ${i + 1}: ${type}`);
    }
  });
  MEANING[name](shown);
}

Deno.test("notebooks are stored without outputs, and the tests know each of them", () => {
  assertEquals(NAMES, Object.keys(MEANING).sort());
  for (const name of NAMES) {
    for (const { cell_type, outputs } of cellsOf(pathOf(name))) {
      if (cell_type === "code") assertEquals(outputs, [], `${name}: clear all outputs before you commit`);
    }
    assert(declared(name).flat().length >= 4, `${name} shows too little`);
  }
});

Deno.test("notebooks are correctly typed", async () => {
  await checkTypes(NAMES.map(pathOf));
});

Deno.test("the value at the end of a cell is found", () => {
  assertEquals(splitCell("const x = 1;\nx;"), { body: "const x = 1;", last: "x" });
  assertEquals(splitCell("const x = 1;"), { body: "const x = 1;", last: undefined });
  assertEquals(splitCell("a();\nf({\n  b: 1,\n}, {\n  c,\n});").last, "f({\n  b: 1,\n}, {\n  c,\n})");
  assertEquals(splitCell("for (const x of y) {\n  f(x);\n}").last, undefined);
  assertEquals(splitCell("await x\n  .then(f);").last, "await x\n  .then(f)");
});

/** Runs a notebook where it can be run here; without Jupyter its cells become one module. */
const runNotebook = (path: string) => hasTool("jupyter") ? underJupyter(path) : asOneModule(path);

for (const name of NAMES) {
  toolTest(["jupyter"], `${name} runs under nbconvert and shows what its cells declare`, async () => {
    checkShown(name, await underJupyter(pathOf(name)));
  });
  if (hasTool("jupyter")) continue;
  Deno.test(`${name} runs as one module and shows what its cells declare`, async () => {
    checkShown(name, await asOneModule(pathOf(name)));
  });
}

Deno.test("in an empty folder, a notebook of five lines shows a prediction of grid:3", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "first.ipynb"), mod = new URL("../mod.ts", import.meta.url).href;
    const source = [
      `import * as far from ${JSON.stringify(mod)};\n`,
      "\n",
      "const model = await far.loadModel();\n",
      'const prediction = await model.predict("grid:3", { context: 24, predict: 4 });\n',
      "prediction;",
    ];
    const cell = {
      cell_type: "code",
      id: "cell-0",
      metadata: {},
      execution_count: null,
      outputs: [],
      source,
    };
    const kernelspec = { display_name: "Deno", language: "typescript", name: "deno" };
    const notebook = { cells: [cell], metadata: { kernelspec }, nbformat: 4, nbformat_minor: 5 };
    Deno.writeTextFileSync(path, JSON.stringify(notebook));
    assertLess(codeOf([cell]).join("\n").split("\n").length, 9);
    const [shown] = await runNotebook(path);
    assertEquals(
      new TextDecoder().decode(Uint8Array.fromBase64(shown["image/gif"]).subarray(0, 6)),
      "GIF89a",
    );
    const psnr = /^4 frames of 64 x 64 predicted after 24 of context, mean PSNR ([\d.]+)/.exec(
      shown["text/plain"],
    );
    assertGreater(Number(psnr?.[1]), 18, shown["text/plain"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
