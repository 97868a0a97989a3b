/**
 * Roll-outs that forget: how many frames the model sees, that what it sees is encoded anew, resuming, bounded memory.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { openDevice } from "../kernels/open.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { rememberedFrom, type SampleOptions, Sampler } from "../lib/far/sample.ts";
import { Rollout } from "../lib/pipeline/rollout.ts";
import { normal, streamOf } from "../lib/random.ts";
import { randomParams } from "../lib/params.ts";

const SIZES = {
  num_layers: 2,
  num_attention_heads: 2,
  attention_head_dim: 32,
  axes_dims_rope: [8, 12, 12],
  in_channels: 4,
  out_channels: 4,
  condition_cfg: { type: "action", num_action_classes: 3 },
};
const SHORT = farConfig("FAR", SIZES), LONG = farConfig("FAR_Long", { ...SIZES, short_term_ctx_winsize: 3 });
const PER = 4 * 4 * 4, CONTEXT = 3;
const { device } = await openDevice({ device: "cpu", threads: 1 });
const actionsOf = (frames: number, from = 0) => Int32Array.from({ length: frames }, (_, f) => (from + f) % 3);
const noiseOf = (frames: number) => normal(streamOf(2, "noise"), frames * PER);

/** Weights, and options of a roll-out of one clip after three frames of context. */
function given(config: typeof SHORT, predict: number, more: Partial<SampleOptions> = {}): SampleOptions {
  const params = randomParams(device, farShapes(config), 3), known = predict === Infinity ? 0 : predict;
  const context = normal(streamOf(1, "context"), CONTEXT * PER);
  return {
    device,
    config,
    params,
    frameShape: [1, 4, 4, 4],
    context,
    predict,
    steps: 2,
    actions: actionsOf(CONTEXT + known),
    noise: predict === Infinity ? undefined : noiseOf(predict),
    ...more,
  };
}

async function frames(options: SampleOptions, count = Infinity): Promise<Float32Array[]> {
  using sampler = new Sampler(options);
  const made: Float32Array[] = [];
  while (sampler.frame < sampler.frames && made.length < count) made.push((await sampler.next()).latents);
  return made;
}

const joined = (parts: readonly Float32Array[]) => Float32Array.from(parts.flatMap((p) => [...p]));

Deno.test("the model sees at most as many frames as it is to remember, and at least three quarters of them", () => {
  for (const remember of [2, 3, 8, 9, 300]) {
    for (let frame = 0; frame < 4 * remember; frame++) {
      const seen = frame + 1 - rememberedFrom(frame, remember);
      assert(seen <= remember, `${seen} of ${remember} at frame ${frame}`);
      if (frame >= remember) assert(seen > remember - Math.max(1, Math.floor(remember / 4)), `only ${seen}`);
      else assertEquals(seen, frame + 1, "nothing is forgotten before there is too much");
    }
  }
});

for (const [name, config] of [["FAR", SHORT], ["FAR-Long", LONG]] as const) {
  Deno.test(`${name}: after forgetting, frames are those of a new roll-out from the frames that are left`, async () => {
    const remember = 8, predict = 14, all = await frames(given(config, predict, { remember }));
    const unbounded = await frames(given(config, predict));
    const forgotten = remember - CONTEXT; // index of the first predicted frame that the model makes after forgetting two
    assertEquals(all.slice(0, forgotten), unbounded.slice(0, forgotten));
    assert(all[forgotten].some((v, i) => v !== unbounded[forgotten][i]), "what was forgotten mattered");
    const clip = [given(config, 1).context!, ...all];
    for (let frame = remember, last = 0; frame < CONTEXT + predict; frame++) {
      const from = rememberedFrom(frame, remember);
      if (from === last) continue;
      last = from;
      const left = joined(clip).slice(from * PER, frame * PER), index = frame - CONTEXT;
      const count = Math.min(2, predict - index); // with two frames the next part is forgotten
      const again = await frames(given(config, count, {
        context: left,
        actions: actionsOf(frame - from + count, from),
        noise: noiseOf(predict).slice(index * PER, (index + count) * PER),
      }));
      assertEquals(again, all.slice(index, index + count), `frame ${frame}, from ${from} on`);
    }
  });

  Deno.test(`${name}: a roll-out that forgets resumes with the same bits from every frame`, async () => {
    const options = given(config, 14, { remember: 8 }), all = await frames(options);
    for (let done = 0; done <= all.length; done++) {
      const made = joined(all.slice(0, done));
      assertEquals(await frames({ ...options, made }), all.slice(done), `after ${done} frames`);
    }
  });
}

Deno.test("more context than is remembered: the last frames count", async () => {
  const remember = 8, long = normal(streamOf(4, "long"), 21 * PER), from = rememberedFrom(21, remember);
  const actions = actionsOf(21 + 3), all = await frames(given(LONG, 3, { context: long, actions, remember }));
  const left = { context: long.slice(from * PER), actions: actions.slice(from) };
  assertEquals(all, await frames(given(LONG, 3, { ...left, remember })));
});

Deno.test("guidance and several clips forget alike", async () => {
  const one = given(LONG, 10, { remember: 6, guidance: 2 });
  const alone = await frames(one);
  const other = normal(streamOf(9, "other"), CONTEXT * PER),
    otherNoise = normal(streamOf(8, "noise"), 10 * PER);
  const two = await frames({
    ...one,
    frameShape: [2, 4, 4, 4],
    context: joined([other, one.context!]),
    noise: joined([otherNoise, one.noise!]),
    actions: [...actionsOf(13, 1), ...actionsOf(13)],
  });
  two.forEach((latents, f) => assertEquals(latents.slice(PER), alone[f]));
});

Deno.test("an endless roll-out takes an action per step and keeps its memory", async () => {
  const rest = given(LONG, Infinity, { remember: 12 });
  using walk = new Rollout({ device, config: LONG, params: rest.params }, rest);
  const made: Float32Array[] = [], live: number[] = [];
  for (let i = 0; i < 40; i++) {
    made.push((await walk.step((CONTEXT + i) % 3)).latents);
    live.push(device.stats.liveBytes);
  }
  assertEquals(Math.max(...live.slice(12)), Math.max(...live.slice(0, 12)), "bytes on the device");
  assertEquals(walk.made, joined(made.slice(-12)));
  const finite = await frames({ ...rest, predict: 40, actions: actionsOf(CONTEXT + 40) });
  assertEquals(made, finite);
  assertEquals(walk.isDone, false);
});

Deno.test("what cannot be remembered is refused", () => {
  const refused = (more: Partial<SampleOptions>, part: string) =>
    assertThrows(() => new Sampler({ ...given(SHORT, 4), ...more }), RangeError, part);
  refused({ remember: 1 }, "remember is 1, expected at least 2 frames");
  refused({ predict: Infinity, noise: undefined }, "a number for predict = Infinity");
  refused(
    { predict: Infinity, noise: undefined, remember: 8 },
    "expected the actions of the frames that are there",
  );
});

Deno.test("a step without its action is refused", async () => {
  using sampler = new Sampler(given(SHORT, 4, { actions: actionsOf(CONTEXT) }));
  await sampler.next([1]);
  const error = await sampler.next().then(() => null, (e) => e);
  assert(error instanceof RangeError && error.message.includes("frame 4 has no action"), `${error}`);
});
