import { assert, assertAlmostEquals, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { shownBefore } from "../bench/drift.ts";
import { returnsOf } from "../experiments/attention.ts";
import { attentionPicture } from "../lib/display/attention.ts";
import { attentionMap } from "../lib/far/attention_map.ts";
import { conditionCalls, frameConditions } from "../lib/far/conditioning.ts";
import { type FarConfig, farConfig, farShapes } from "../lib/far/config.ts";
import { prepareCall, wholeClipPlan } from "../lib/far/layout.ts";
import { velocity } from "../lib/far/transformer.ts";
import { randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { copy } from "../lib/ops.ts";
import { scope, Tensor, unscoped } from "../lib/tensor.ts";
import { testOnDevices } from "./helpers.ts";

const SIZES = {
  num_layers: 2,
  num_attention_heads: 2,
  attention_head_dim: 16,
  axes_dims_rope: [8, 4, 4],
  in_channels: 4,
  out_channels: 4,
};
const F = 19; // more frames than a head has channels
const MODELS = {
  FAR: farConfig("FAR", SIZES),
  "FAR-Long with a temporal decay": farConfig("FAR_Long", {
    ...SIZES,
    short_term_ctx_winsize: 5,
    slope_scale: 0.3,
  }),
};

/** Softmax over the visible keys in double precision, from the queries and keys that the model hands out. */
async function byHand(model: Parameters<typeof attentionMap>[0], latents: Tensor, timesteps: number[]) {
  const { device, params, config } = model, [, , , H, W] = latents.shape;
  const seen: (readonly [Tensor, Tensor])[] = [];
  const layout = scope(() => {
    const call = prepareCall(device, config, wholeClipPlan(config, 1, F, H, W), "all");
    const inputs = { frames: F, timesteps, conditions: frameConditions(config, 1, F, {}) };
    const [conditioning] = conditionCalls(device, params, config, [{ call, inputs }]);
    const kept = (t: Tensor) => unscoped(() => scope(() => copy(t)));
    const onAttention = (q: Tensor, k: Tensor) => void seen.push([kept(q), kept(k)]);
    velocity(params, config, call, { latents, conditioning, onAttention });
    return call.layout;
  });
  const { headDim } = config, heads = SIZES.num_attention_heads, D = heads * headDim, shares: number[] = [];
  const last = [...layout.frame.keys()].filter((t) => layout.frame[t] === F - 1);
  const frameOfRow = new Int32Array(layout.mask.keys);
  layout.dest.forEach((row, t) => frameOfRow[row] = layout.frame[t]);
  for (const [qs, ks] of seen) {
    const [q, k] = [await qs.read(), await ks.read()];
    for (let a = 0; a < heads; a++) {
      const sums = new Array(F).fill(0);
      for (const t of last) {
        const scores = Array.from(frameOfRow, (frame, row) => {
          let dot = 0;
          for (let c = 0; c < headDim; c++) dot += q[t * D + a * headDim + c] * k[row * D + a * headDim + c];
          return dot / Math.sqrt(headDim) + config.slopeScale * (frame - (F - 1));
        });
        const most = Math.max(...scores), weights = scores.map((s) => Math.exp(s - most));
        const total = weights.reduce((x, y) => x + y, 0);
        weights.forEach((w, row) => sums[frameOfRow[row]] += w / total / last.length);
      }
      shares.push(...sums);
    }
  }
  return shares;
}

const modelOf = (device: Tensor["device"], config: FarConfig) => ({
  device,
  config,
  params: randomParams(device, farShapes(config), 3),
});

for (const [name, config] of Object.entries(MODELS)) {
  testOnDevices(`${name}: the map is the model's attention, added up by frame`, async (device) => {
    const model = modelOf(device, config),
      timesteps = Array.from({ length: F }, (_, f) => f === F - 1 ? 1000 : -1);
    using latents = Tensor.from(device, normal(streamOf(1, "latents"), F * 4 * 4 * 4), [1, F, 4, 4, 4]);
    const map = await attentionMap(model, { latents, timesteps }),
      expected = await byHand(model, latents, timesteps);
    assertEquals([map.layers, map.heads, map.frames, map.shares.length], [2, 2, F, 2 * 2 * F]);
    map.shares.forEach((share, i) => assertAlmostEquals(share, expected[i], 2e-5, `entry ${i}`));
    const spread = Math.max(...expected) / Math.min(...expected);
    assert(
      spread > 1.5,
      `attention of a random model is nearly uniform here, ${spread}: nothing would be tested`,
    );
  });
}

testOnDevices("a map is of one clip", async (device) => {
  using latents = Tensor.from(device, new Float32Array(2 * 2 * 64), [2, 2, 4, 4, 4]);
  const input = { latents, timesteps: [-1, 1000, -1, 1000] };
  await assertRejects(
    () => attentionMap(modelOf(device, MODELS.FAR), input),
    RangeError,
    "2 clips, expected 1",
  );
});

Deno.test("the picture has a rectangle for every share that shows, in its row and column, and marks", () => {
  const shares = new Float32Array(2 * 1 * 4);
  shares[1] = 0.25; // block 0, frame 1
  shares[7] = 1; // block 1, frame 3
  const svg = attentionPicture({ layers: 2, heads: 1, frames: 4, shares }, [2]);
  const rects = [...svg.matchAll(/<rect x="([\d.]+)" y="(\d+)"[^>]*?opacity="([\d.]+)"/g)].map((m) =>
    m.slice(1)
  );
  assertEquals(rects, [["228.00", "30", "0.50"], ["556.00", "44", "1.00"]]);
  assertStringIncludes(svg, '<rect x="392.00" y="22"');
  assertStringIncludes(svg, "orange: the same place");
});

Deno.test("a return is a frame whose pose was shown, and only long ago", () => {
  const poses = Array.from({ length: 40 }, (_, i) => i); // all different
  poses[30] = poses[5]; // 25 frames ago
  poses[31] = poses[4] = poses[2]; // twice, long ago
  poses[35] = poses[20]; // 15 frames ago
  poses[39] = poses[1]; // long ago, and again near
  poses[33] = poses[1];
  assertEquals(returnsOf(poses), [
    { frame: 30, same: [5] },
    { frame: 31, same: [2, 4] },
    { frame: 33, same: [1] },
  ]);
});

Deno.test("the model's card quotes docs/attention.json", async () => {
  const read = async (path: string) => await Deno.readTextFile(new URL(`../${path}`, import.meta.url));
  const found = JSON.parse(await read("docs/attention.json")),
    card = (await read("models/world/README.md")).replace(/\s+/g, " ");
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  assertStringIncludes(card, `as it does ${found.returning_frames} times`);
  assertStringIncludes(card, `they are ${percent(found.share_if_all_frames_were_equal)} of the frames`);
  assertStringIncludes(card, `get ${percent(found.share_mean_over_heads)} of the attention`);
  assertStringIncludes(card, `${percent(found.share_of_the_head_that_looks_most)} in the head`);
  assertStringIncludes(card, `Attention of frame ${found.frame_drawn}`);
});

Deno.test("the model's card quotes bench/results/drift.json", async () => {
  const read = async (path: string) => await Deno.readTextFile(new URL(`../${path}`, import.meta.url));
  const { rows, pose } = JSON.parse(await read("bench/results/drift.json"));
  const card = (await read("models/world/README.md")).replace(/\s+/g, " ");
  assertStringIncludes(
    card,
    `falls from ${rows[0].truth} dB (first hundred frames) to ${rows.at(-1).truth} dB`,
  );
  assertStringIncludes(card, `showed there then at ${pose["what the roll-out showed there then"].dB} dB`);
  assertStringIncludes(card, `the truth scores ${pose["the truth"].dB} dB on these frames`);
  assertStringIncludes(
    card,
    `another place that it showed then ${pose["what it showed elsewhere then"].dB} dB`,
  );
});

Deno.test("the pose of a frame is looked up among those long before it", () => {
  assertEquals(shownBefore([7, 8, 7, 7, 9, 7], 2), [-1, -1, 0, 0, -1, 3]);
});
