import { assert, assertAlmostEquals, assertEquals, assertMatch, assertThrows } from "@std/assert";
import * as far from "../mod.ts";
import { gifFrames } from "../lib/io/gif.ts";
import { readPng } from "../lib/io/image.ts";
import { histogram } from "../lib/display/values.ts";
import { makeLatents } from "../lib/pipeline/codec.ts";
import { DEVICES, sharedDevice } from "./helpers.ts";
import { inFolder } from "./cli_helpers.ts";

/** What a notebook would show. */
// deno-lint-ignore no-explicit-any -- as the kernel, which knows no types
const shownBy = async (value: any): Promise<Record<string, string>> =>
  await value[Symbol.for("Jupyter.display")]();

const pngOf = (bundle: Record<string, string>) =>
  readPng(Uint8Array.fromBase64(bundle["image/png"]), "shown.png");

/** Pictures of a GIF and the seconds that each is shown. */
async function gifOf(bundle: Record<string, string>) {
  const pictures: far.Frames[] = [], seconds: number[] = [];
  await inFolder((folder) => {
    Deno.writeFileSync(`${folder}/shown.gif`, Uint8Array.fromBase64(bundle["image/gif"]));
    for (const { image, duration } of gifFrames(`${folder}/shown.gif`)) {
      pictures.push(image);
      seconds.push(duration);
    }
    return Promise.resolve();
  });
  return { pictures, seconds };
}

const pixel = ({ width, data }: far.Frames, y: number, x: number) => [
  ...data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3),
];

/** Frames whose pixels all differ in a way that 256 colours can hold. */
function numbered(count: number, height: number, width: number): far.Frames {
  const frames = far.io.makeFrames(count, height, width);
  for (let i = 0; i < count * height * width; i++) {
    const f = Math.floor(i / (height * width));
    frames.data.set([(f % 16) * 16, (i % (height * width)) * 8 % 256, 64], 3 * i);
  }
  return frames;
}

Deno.test("frames show as an animation: each pixel a square, a tenth of a second per frame", async () => {
  const frames = numbered(3, 4, 6), before = structuredClone(frames);
  const { pictures, seconds } = await gifOf(await shownBy(frames));
  assertEquals(seconds, [0.1, 0.1, 0.1]);
  const scale = pictures[0].width / 6;
  assertEquals([pictures.length, scale, pictures[0].height], [3, 42, 4 * 42]);
  for (const [f, y, x] of [[0, 0, 0], [1, 3, 5], [2, 1, 4]]) {
    const wanted = pixel(far.io.sliceFrames(frames, f, f + 1), y, x);
    for (const [dy, dx] of [[0, 0], [scale - 1, scale - 1]]) {
      const got = pixel(pictures[f], y * scale + dy, x * scale + dx);
      // gifenc keeps five bits of red and blue and six of green.
      got.forEach((c, i) => assert(Math.abs(c - wanted[i]) <= 8, `frame ${f}: ${got}, expected ${wanted}`));
    }
  }
  assertEquals({ ...frames }, { ...before }, "the value stays as it is");
  assertEquals(Object.keys(frames), ["frames", "height", "width", "data"]);
  assertEquals(frames, { frames: 3, height: 4, width: 6, data: before.data }, "and is still a plain record");
});

Deno.test("a long clip shows evenly spaced frames at its own speed, a large one is thinned", async () => {
  const long = await gifOf(await shownBy(numbered(400, 2, 2)));
  assertEquals(long.pictures.length, 134);
  assertAlmostEquals(long.seconds.reduce((a, b) => a + b), 40, 0.3);
  assertEquals(pixel(long.pictures[5], 0, 0)[0] >> 4, 15, "the sixth picture is frame 15");
  const [large] = (await gifOf(await shownBy(numbered(2, 1, 2050)))).pictures;
  assertEquals([large.height, large.width], [1, 684]);
});

Deno.test("one frame shows as a picture, none as text, slices as what they are", async () => {
  const frames = numbered(3, 8, 8), one = await shownBy(far.io.sliceFrames(frames, 1, 2));
  const png = pngOf(one), scale = png.width / 8;
  assertEquals([png.height, pixel(png, 5 * scale, 3 * scale)], [
    png.width,
    pixel(far.io.sliceFrames(frames, 1), 5, 3),
  ]);
  assertEquals(one["text/plain"], "1 frame of 8 x 8");
  assertEquals(await shownBy(far.io.makeFrames(0, 8, 8)), { "text/plain": "0 frames of 8 x 8" });
});

Deno.test("a clip shows at its own rate and says what it is; without a number of frames all are read", async () => {
  await inFolder(async (folder) => {
    await far.io.writeVideo(`${folder}/five.gif`, numbered(5, 16, 16), { fps: 25 });
    const clip = await far.readClip(`${folder}/five.gif`, { size: 16 });
    assertEquals(clip.frames.frames, 5);
    const bundle = await shownBy(clip);
    assertEquals(bundle["text/plain"], `${folder}/five.gif: 5 frames of 16 x 16, 25 frames per second`);
    assertEquals((await gifOf(bundle)).seconds, [0.04, 0.04, 0.04, 0.04, 0.04]);
  });
  const world = await shownBy(await far.readClip("world:3", { frames: 2 }));
  assertEquals(world["text/plain"], "world:3: 2 frames of 64 x 64, 2 actions");
});

Deno.test("a mask shows which key each query sees", async () => {
  const longTerm = { frames: 2, tokens: 1 }, mask = far.frameCausalMask({ frames: 3, tokens: 2, longTerm });
  const png = pngOf(await shownBy(mask)), scale = png.width / 8;
  const frameOf = (token: number) => token < 2 ? token : 2 + Math.floor((token - 2) / 2);
  for (let q = 0; q < 8; q++) {
    for (let k = 0; k < 8; k++) {
      const seen = frameOf(k) <= frameOf(q);
      assertEquals(
        pixel(png, q * scale, k * scale),
        seen ? [0, 114, 178] : [235, 235, 235],
        `query ${q}, key ${k}`,
      );
    }
  }
});

Deno.test("under temporal decay a mask is lighter the farther a key is", async () => {
  const png = pngOf(await shownBy(far.frameCausalMask({ frames: 4, tokens: 1, slope: 0.5 })));
  const scale = png.width / 4, red = [3, 2, 1, 0].map((k) => pixel(png, 3 * scale, k * scale)[0]);
  assertEquals(red, [0, 1, 2, 3].map((distance) => Math.round(200 * (1 - Math.exp(-0.5 * distance)))));
});

Deno.test("latents show by frame and channel: blue below zero, red above, white at zero", async () => {
  const values = new Float32Array(3 * 3 * 4); // [F=3, C=3, H=2, W=2]
  values[0] = -1; // frame 0, channel 0, top left
  values[(1 * 3 + 2) * 4 + 3] = 1; // frame 1, channel 2, bottom right
  values[(1 * 3 + 0) * 4 + 1] = 1; // frame 1, channel 0, top right
  const png = pngOf(await shownBy(makeLatents({ values, channels: 3, height: 2, width: 2 })));
  const scale = png.width / (3 * 3), at = (y: number, x: number) => pixel(png, y * scale, x * scale);
  assertEquals([png.width, png.height], [3 * 3 * 16, 3 * 3 * 16]);
  assertEquals([at(0, 0), at(7, 4), at(0, 4)], [[0, 0, 255], [255, 0, 0], [255, 0, 0]]);
  assertEquals([at(0, 1), at(1, 3)], [[255, 255, 255], [255, 255, 255]]);
});

Deno.test("a histogram counts each finite value once", () => {
  assertEquals([...histogram([0, 1, 2, 3, 4, NaN, Infinity], 4)], [1, 1, 1, 2]);
  assertEquals([...histogram([7, 7], 3)], [2, 0, 0]);
});

for (const name of DEVICES) {
  Deno.test(`a tensor shows shape, range and histogram and stays what it is, on ${name}`, async () => {
    const device = await sharedDevice(name), values = Float32Array.of(-1, 0, 0.5, 3);
    const tensor = far.Tensor.from(device, values, [2, 2]);
    const shown = await shownBy(tensor);
    assertEquals(shown["text/plain"], `Tensor [2, 2] f32 on ${name}, -1 to 3, mean 0.625`);
    assertEquals(shown["text/html"].match(/<rect /g)?.length, 48);
    assertEquals(shown["text/html"].match(/height="96.00"/g)?.length, 4, "four bins hold one value each");
    assertEquals(await tensor.read(), values);
    tensor.dispose();
    assertEquals(await shownBy(tensor), { "text/plain": `Tensor [2, 2] f32 on ${name}, disposed` });
  });
}

Deno.test("cache levels: frames move from L1 to L2 when the window is full", async () => {
  const device = await sharedDevice("cpu");
  const config = far.farConfig("FAR_Long", {
    ...{ num_layers: 2, num_attention_heads: 1, attention_head_dim: 8, axes_dims_rope: [4, 2, 2] },
    ...{ in_channels: 2, out_channels: 2, short_term_ctx_winsize: 3 },
  });
  const params = far.randomParams(device, far.farShapes(config), 0);
  using walk = new far.Rollout({ device, config, params }, {
    frameShape: [1, 2, 4, 4],
    predict: 5,
    steps: 2,
  });
  const counts: number[][] = [];
  for await (const _ of walk) counts.push([walk.levels!.longTerm.frames, walk.levels!.shortTerm.frames]);
  assertEquals(counts, [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]]);
  const { longTerm, shortTerm, bytes } = walk.levels!;
  assertEquals([longTerm.tokens, shortTerm.tokens], [1, 16]);
  assertEquals(
    bytes,
    2 * 2 * (96 + 96) * 8 * 4,
    "two blocks, keys and values, levels rounded up to 96 rows, 8 channels",
  );
  const shown = await shownBy(walk.levels);
  assertMatch(
    shown["text/plain"],
    /^L1, short-term: 3 frames of 16 tokens, 48 keys\nL2, long-term: 2 frames of 1 token, 2 keys\n50 keys per block instead of 80 /,
  );
  assertEquals(shown["text/html"].match(/<rect /g)?.length, 5);
  using whole = new far.Rollout({ device, config, params }, {
    frameShape: [1, 2, 4, 4],
    predict: 1,
    cache: false,
  });
  assertEquals(whole.levels, null);
  far.disposeAll(params);
});

Deno.test("curves show as a chart with their names, and say where they end", async () => {
  const chart = far.curves({ loss: [3, 2, 1.5], "held <out>": [[0, 3], [2, 1.23456]] }, {
    title: "Loss",
    y: "loss",
  });
  assertEquals(chart.curves[0].points, [[0, 3], [1, 2], [2, 1.5]]);
  const shown = await shownBy(chart);
  assertEquals(shown["text/plain"], "loss: 3 points from 3 to 1.5\nheld <out>: 2 points from 3 to 1.235");
  assertMatch(shown["image/svg+xml"], /^<svg [^>]*role="img"/);
  assertMatch(shown["image/svg+xml"], /— held &lt;out&gt;/);
  assertEquals((await shownBy(far.curves({ none: [] })))["text/plain"], "none: no points");
});

Deno.test("a table shows all columns, escapes its cells and leaves out the middle of many rows", async () => {
  const shown = await shownBy(
    far.table([{ name: "<a>", psnr: 20.12345 }, { name: "b", psnr: null, steps: 4 }]),
  );
  assertEquals(shown["text/plain"], "name  psnr   steps\n<a>   20.12  –\nb     –      4");
  assertMatch(shown["text/html"], /<td>&lt;a&gt;<\/td><td>20.12<\/td><td>–<\/td>/);
  const many = await shownBy(far.table(Array.from({ length: 100 }, (_, row) => ({ row }))));
  const lines = many["text/plain"].split("\n");
  assertEquals([lines.length, lines[20], lines[21], lines[22]], [42, "19", "… 60 more", "80"]);
});

Deno.test("a changed model keeps its weights, and what needs other weights is refused", async () => {
  using model = await far.loadModel({ device: "cpu" });
  const clip = await far.readClip("world:3", { frames: 8 });
  const options = { context: 6, predict: 2, steps: 1 };
  const same = await model.predict(clip, options),
    other = await model.with({ window: 2 }).predict(clip, options);
  assertEquals((await model.with({}).predict(clip, options)).values, same.values);
  assert(other.values.some((v, i) => v !== same.values[i]), "another window changes the prediction");
  assertThrows(
    () => model.with({ longTermPatchSize: 2 }),
    RangeError,
    "with: the changed model needs context_embedder.weight of [160, 128], found [160, 512] in the weights of",
  );
  const shown = await shownBy(same);
  assertMatch(
    shown["text/plain"],
    /^2 frames of 64 x 64 predicted after 6 of context, mean PSNR \d+\.\d\d, mean SSIM/,
  );
  assertEquals((await gifOf(shown)).pictures.length, 2);
  assertMatch((await shownBy(same.scores))["text/plain"], /^frame +mse +psnr +ssim\n6 +0\.0/);
});

Deno.test("no display needs a permission", async () => {
  const mod = new URL("../mod.ts", import.meta.url).href;
  const code = `
    import * as far from ${JSON.stringify(mod)};
    const frames = far.io.makeFrames(2, 8, 8), clips = [{ label: "clip", frames }];
    const values = [
      frames, far.io.contactSheet(clips), far.io.sideBySide(clips), far.frameCausalMask({ frames: 2, tokens: 2 }),
      far.curves({ loss: [2, 1] }), far.table([{ a: 1 }]),
    ];
    for (const value of values) {
      const types = Object.keys(await (value as any)[Symbol.for("Jupyter.display")]());
      console.log(types.join(" "));
    }`;
  const run = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--quiet", "--ext=ts", "-"],
    ...{ stdin: "piped", stdout: "piped", stderr: "piped", cwd: new URL("..", import.meta.url) },
  }).spawn();
  const writer = run.stdin.getWriter();
  await writer.write(new TextEncoder().encode(code));
  await writer.close();
  const { stdout, stderr } = await run.output();
  assertEquals(
    new TextDecoder().decode(stdout).trim().split("\n"),
    ["image/gif", "image/png", "image/gif", "image/png", "image/svg+xml", "text/html"].map((t) =>
      `${t} text/plain`
    ),
    new TextDecoder().decode(stderr),
  );
});
