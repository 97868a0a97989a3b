import { assert, assertEquals, assertMatch } from "@std/assert";
import { maskDrawing, tokensOf } from "../lib/report/model_drawings.ts";
import { toPixels, toSvg } from "../lib/report/drawing.ts";
import { farConfig } from "../lib/far/config.ts";
import { readPng } from "../lib/io/image.ts";
import { far, inFolder } from "./cli_helpers.ts";

Deno.test("info counts parameters as the paper does, and the published FLOP of a cached step", async () => {
  const { code, stdout, stderr } = await far(
    ["info", "FAR_B_Long", "--ctx", "143", "--action-classes", "4", "--json"],
    {},
    "-P",
  );
  assertEquals(code, 0, stderr);
  const info = JSON.parse(stdout);
  assertEquals(info.parameters.total, 158_111_776);
  const { total, ...parts } = info.parameters;
  assertEquals(Object.values(parts as Record<string, number>).reduce((a, b) => a + b, 0), total);
  assertEquals([info.tokens.total, info.tokens.one_patch_size], [16 * 64 + 128 * 4, 144 * 64]);
  assert(Math.abs(info.flops.further_step / 1e9 - 14.5) < 0.2, `${info.flops.further_step}`);
  assert(info.flops.frame < info.flops.frame_without_cache / 5);
  const vae = JSON.parse((await far(["info", "8x", "--json"])).stdout);
  assertEquals(vae.parameters.total, 127_920_940);
  const unknown = await far(["info", "FAR_C"]);
  assertEquals(unknown.code, 2);
});

Deno.test("info draws mask, tokens and cache as SVG and PNG", async () => {
  await inFolder(async (folder) => {
    const { code, stderr } = await far(
      ["info", "FAR_B_Long", "--ctx", "20", "--draw", `${folder}/d`],
    );
    assertEquals(code, 0, stderr);
    for (const name of ["mask", "tokens", "cache"]) {
      assertMatch(Deno.readTextFileSync(`${folder}/d/${name}.svg`), /^<svg [\s\S]*<\/svg>\n$/);
      assert(readPng(`${folder}/d/${name}.png`).width > 400);
    }
    Deno.mkdirSync(`${folder}/mine`);
    Deno.writeTextFileSync(`${folder}/mine/mask.svg`, "mine");
    const refused = await far(["info", "FAR_B", "--draw", `${folder}/mine`]);
    assertEquals(refused.code, 2);
    assertMatch(refused.stderr, /--draw .*mine: exists and holds mask\.svg/);
    assertEquals(Deno.readTextFileSync(`${folder}/mine/mask.svg`), "mine");
  });
});

Deno.test("the drawn mask covers as much as the frame-causal mask lets through", () => {
  for (const name of ["FAR_B", "FAR_B_Long"]) {
    const config = farConfig(name, { short_term_ctx_winsize: 3, context_patch_size: 4 });
    const drawing = maskDrawing({ name, config, frames: 6, height: 8, width: 8 });
    const [hidden, ...seen] = drawing.rects.filter((r) => r.y < 40 + 420 && r.x < 24 + 420);
    const area = seen.reduce((sum, r) => sum + r.width * r.height, 0) / (hidden.width * hidden.height);
    // Frames of 64 tokens, distant ones of 4: count visible pairs by hand.
    const sizes = config.long ? [4, 4, 4, 64, 64, 64] : Array(6).fill(64),
      all = sizes.reduce((a, b) => a + b, 0);
    let pairs = 0;
    sizes.forEach((q, i) => sizes.forEach((k, j) => pairs += j <= i ? q * k : 0));
    assert(Math.abs(area - pairs / all ** 2) < 1e-9, `${name}: ${area} ${pairs / all ** 2}`);
    assertEquals(tokensOf(config, 6, 8, 8), all);
    assert(seen.every((r) => r.x >= 24 - 1e-9 && r.x + r.width <= 444 + 1e-9), "outside the square");
  }
});

Deno.test("a drawing has the same rectangles as SVG and as pixels, and its text is escaped", () => {
  const drawing = {
    title: "a < b",
    width: 10,
    height: 10,
    rects: [{ x: 2, y: 3, width: 4, height: 5, colour: [255, 0, 0] as const }],
    lines: [],
    labels: [{ x: 0, y: 0, text: "&" }],
  };
  const { data, width } = toPixels({ ...drawing, labels: [] }, 1);
  let red = 0;
  for (let i = 0; i < data.length; i += 3) red += data[i] === 255 && data[i + 1] === 0 ? 1 : 0;
  assertEquals([red, width], [20, 10]);
  const svg = toSvg(drawing);
  assert(svg.includes('<rect x="2" y="3" width="4" height="5" fill="rgb(255,0,0)"/>'));
  assert(svg.includes("a &lt; b") && svg.includes(">&amp;<"));
});
