/**
 * Walking in a model's mind: the action of the frame before decides, the world follows, memory stays, one page for one machine.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openDevice } from "../kernels/open.ts";
import { WorldVisitor } from "../lib/data/world/visitor.ts";
import { worldClip } from "../lib/data/world/world.ts";
import { halfBlocks } from "../lib/display/half_blocks.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { clipNoise, type SampleOptions, Sampler } from "../lib/far/sample.ts";
import { makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { readClip } from "../lib/pipeline/clip.ts";
import { decodeClip, encodeClip, loadModel, type Model, rollout } from "../lib/pipeline/model.ts";
import {
  actionKeys,
  type PlayedFrame,
  type PlayOptions,
  PlaySession,
  type Walk,
} from "../lib/pipeline/play.ts";
import { PlayRecordings } from "../lib/pipeline/play_recording.ts";
import { servePlay } from "../lib/pipeline/play_server.ts";
import { keysIn } from "../lib/pipeline/play_terminal.ts";
import { randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { inFolder, tinyWorld } from "./cli_helpers.ts";

const SIZES = {
  num_layers: 2,
  num_attention_heads: 2,
  attention_head_dim: 32,
  axes_dims_rope: [8, 12, 12],
  in_channels: 4,
  out_channels: 4,
  condition_cfg: { type: "action", num_action_classes: 3 },
};
const CONFIGS = {
  FAR: farConfig("FAR", SIZES),
  "FAR-Long": farConfig("FAR_Long", { ...SIZES, short_term_ctx_winsize: 3 }),
  "FAR-Long with a window of one frame": farConfig("FAR_Long", { ...SIZES, short_term_ctx_winsize: 1 }),
};
const PER = 4 * 4 * 4, CONTEXT = 3, REMEMBER = 8, ACTS = [2, 0, 1, 1, 2, 0, 2, 1, 0, 2];

for (const [name, config] of Object.entries(CONFIGS)) {
  Deno.test(`${name}: an action given to the frame before is that frame's action, with a cache and without`, async () => {
    const { device } = await openDevice({ device: "cpu", threads: 1 });
    const params = randomParams(device, farShapes(config), 3),
      context = normal(streamOf(1, "context"), CONTEXT * PER);
    const options: SampleOptions = {
      ...{ device, config, params, frameShape: [1, 4, 4, 4], context, steps: 2, seed: 5 },
      ...{ predict: Infinity, remember: REMEMBER, actions: [0, 1, 0] },
    };
    const walk = async (more: Partial<SampleOptions> = {}, acts = ACTS) => {
      using sampler = new Sampler({ ...options, ...more });
      const made: Float32Array[] = [];
      for (const act of acts) made.push((await sampler.next([act], [act])).latents);
      return made;
    };
    const made = await walk(), plain = await walk({ cache: false });
    made.forEach((frame, i) =>
      frame.forEach((v, j) => assert(Math.abs(v - plain[i][j]) < 1e-4, `frame ${i}`))
    );
    // Each frame alone: every frame before it has the action that led away from it, and the new one the same as the last.
    const actions = [0, 1, ...ACTS];
    for (const [i, frame] of made.entries()) {
      const all = Float32Array.from([...context, ...made.slice(0, i).flatMap((m) => [...m])]),
        end = CONTEXT + i;
      using alone = new Sampler({
        ...options,
        ...{ context: all, predict: 1, noise: clipNoise(5, 0, PER, i * PER) },
        actions: [...actions.slice(0, end), actions[end - 1]],
      });
      assertEquals((await alone.next()).latents, frame, `frame ${end}`);
    }
    // The action of the new frame is the same in both; that of the frame before alone decides.
    using one = new Sampler(options), other = new Sampler(options);
    const [after0, after2] = [await one.next([1], [0]), await other.next([1], [2])];
    assert(after0.latents.some((v, i) => v !== after2.latents[i]));
    device.close();
  });
}

Deno.test("frame 0 has no frame before it", async () => {
  const { device } = await openDevice({ device: "cpu", threads: 1 }), config = CONFIGS.FAR;
  const params = randomParams(device, farShapes(config), 3);
  using sampler = new Sampler({ device, config, params, frameShape: [1, 4, 4, 4], predict: 2, actions: [] });
  await assertRejects(() => sampler.next([1], [1]), RangeError, "no frame before it");
  await sampler.next([1]);
  await assertRejects(() => sampler.next([1], [4]), RangeError);
  device.close();
});

for (const steps of ["smooth", "grid"] as const) {
  Deno.test(`a visitor with ${steps} steps who does what the walker does sees the walk`, () => {
    const options = { seed: 0, split: "test", index: 3, steps, size: 16 } as const,
      frames = 30,
      size = 16 * 16 * 3;
    const clip = worldClip({ ...options, frames }), visitor = new WorldVisitor(options, 9);
    for (let f = 9; f < frames; f++) {
      assertEquals(visitor.draw(), clip.frames.slice(f * size, (f + 1) * size), `frame ${f}`);
      assertEquals([visitor.pose.x, visitor.pose.y, visitor.pose.heading], [
        ...clip.poses.slice(3 * f, 3 * f + 3),
      ]);
      visitor.act(clip.actions[f]);
    }
  });
}

/** A tiny model with random weights that takes frames of 16 pixels. */
async function withTiny(body: (model: Model, folder: string) => Promise<void>): Promise<void> {
  await inFolder(async (folder) => {
    await tinyWorld(folder);
    const [model, vae] = [`${folder}/far.json`, `${folder}/dcae.json`];
    using loaded = await loadModel({ model, vae, randomWeights: true, device: "cpu" });
    await body(loaded, folder);
  });
}
const OPTIONS: PlayOptions = { context: 4, size: 16, steps: 2, remember: 12 };

Deno.test("a walk: actions belong to the frame that they lead away from, and the world follows them", () =>
  withTiny(async (model) => {
    const walked = await readClip("grid:3", { frames: 10, size: 16 }),
      given = sliceFrames(walked.frames, 0, 4);
    using walk = await PlaySession.open(model, "grid:3", OPTIONS);
    assertEquals([walk.actions, walk.index], [["action 0", "action 1", "action 2"], 4]);
    assertEquals(walk.truth?.data, sliceFrames(walked.frames, 3, 4).data);
    const frames: PlayedFrame[] = [];
    for (let f = 4; f < 10; f++) frames.push(await walk.act(walked.actions![f - 1]));
    const latents = await encodeClip(model, given);
    using expected = rollout(model, latents, {
      ...{ predict: Infinity, steps: 2, remember: 12, actions: [...walked.actions!.slice(0, 3), 0] },
    });
    for (const [i, { frame, truth, index, levels, seconds }] of frames.entries()) {
      const action = walked.actions![3 + i], next = await expected.step(action, action);
      const decoded = await decodeClip(model, { ...latents, values: next.latents });
      assertEquals([index, frame.data], [4 + i, decoded.frames.data]);
      assertEquals(truth!.data, sliceFrames(walked.frames, index, index + 1).data, `truth of frame ${index}`);
      assertEquals([levels.longTerm.frames, levels.shortTerm.frames], [index + 1 - 3, 3]);
      assert(seconds > 0);
    }
    const clip = walk.clip();
    assertEquals([clip.first, clip.frames.frames], [0, 10]);
    assertEquals([...clip.actions!], [...walked.actions!.slice(0, 9), walked.actions![8]]);
    assertEquals(clip.frames.data.slice(0, given.data.length), Uint8Array.from(given.data));
    assertEquals(walk.last(2).map(({ data }) => data), frames.slice(-2).map(({ frame }) => frame.data));
  }));

Deno.test("a hundred steps take no more memory than twelve, and a recording keeps its last frames", () =>
  withTiny(async ({ device, ...model }) => {
    using walk = await PlaySession.open({ device, ...model }, "world:3", { ...OPTIONS, steps: 1, keep: 5 });
    const live: number[] = [];
    for (let i = 0; i < 100; i++) {
      await walk.act(i % 3);
      live.push(device.stats.liveBytes);
    }
    assertEquals(Math.max(...live.slice(12)), Math.max(...live.slice(0, 12)));
    const { first, frames, actions } = walk.clip();
    assertEquals([first, frames.frames, [...actions!]], [99, 5, [96, 97, 98, 99, 99].map((i) => i % 3)]);
  }));

Deno.test("one action at a time, and only those that there are", () =>
  withTiny(async (model, folder) => {
    using walk = await PlaySession.open(model, `${folder}/clip.npz`, OPTIONS);
    assertEquals(walk.truth, undefined);
    const first = walk.act(1);
    await assertRejects(() => walk.act(1), Error, "one action at a time");
    assertEquals((await first).index, 4);
    for (const action of [-1, 3, 0.5, NaN]) {
      await assertRejects(() => walk.act(action), RangeError, "expected 0 to 2");
    }
    assertEquals((await walk.act(2)).index, 5);
    await assertRejects(
      () => PlaySession.open(model, "world:3", { ...OPTIONS, keep: 0 }),
      RangeError,
      "keep is 0",
    );
  }));

Deno.test("recordings are clips, numbered, in a folder of their own", () =>
  withTiny(async (model, folder) => {
    const out = `${folder}/out`;
    using walk = await PlaySession.open(model, "world:3", OPTIONS);
    const by = { models: model, clip: "world:3" };
    {
      using unused = await PlayRecordings.open(out, by);
      await unused.finish();
    }
    await assertRejects(() => Deno.stat(out), Deno.errors.NotFound);
    {
      using recordings = await PlayRecordings.open(out, by);
      await walk.act(2);
      const saving = recordings.save(walk); // what comes later is not in it
      await walk.act(0);
      const names = (n: number) => ["npz", "mp4", "json"].map((ending) => `${out}/walk_${n}.${ending}`);
      assertEquals([await saving, await recordings.save(walk)], [names(1), names(2)]);
    }
    const { frames, actions } = await readClip(`${out}/walk_2.npz`), kept = walk.clip();
    assertEquals([frames.data, actions], [kept.frames.data, kept.actions]);
    assertEquals((await readClip(`${out}/walk_1.npz`)).frames.frames, 5);
    assertEquals((await readClip(`${out}/walk_1.mp4`)).frames.frames, 5);
    const facts = JSON.parse(await Deno.readTextFile(`${out}/walk_2.json`));
    assertEquals([facts.clip, facts.context, facts.predicted, facts.random_weights], ["world:3", 4, 2, true]);
    {
      using recordings = await PlayRecordings.open(out, by);
      assertMatch((await recordings.save(walk))[0], /walk_3\.npz$/);
    }
    await Deno.writeTextFile(`${out}/mine.txt`, "mine");
    await assertRejects(() => PlayRecordings.open(out, by), Error, "mine.txt");
  }));

Deno.test("keys: digits are actions, arrows those whose names say so", () => {
  assertEquals(actionKeys(["turn left", "turn right", "go forward"]), {
    ...{ "0": 0, "1": 1, "2": 2, ArrowLeft: 0, ArrowRight: 1, ArrowUp: 2 },
  });
  assertEquals(actionKeys(["action 0", "action 1"]), { "0": 0, "1": 1 });
  assertEquals(Object.keys(actionKeys(Array.from({ length: 18 }, (_, i) => `action ${i}`))).length, 10);
  assertEquals(keysIn("\x1b[A\x1bOD2\x1b[C\x1b[Bq\r\x03"), [
    ...["ArrowUp", "ArrowLeft", "2", "ArrowRight", "", "q", "Enter", "\x03"],
  ]);
});

Deno.test("half blocks: two rows of pixels per line, smaller where they do not fit", () => {
  const frame = makeFrames(1, 4, 2, Uint8Array.from({ length: 24 }, (_, i) => i));
  assertEquals(halfBlocks(frame, 80, 24), [
    "\x1b[38;2;0;1;2;48;2;6;7;8m▀\x1b[38;2;3;4;5;48;2;9;10;11m▀\x1b[0m",
    "\x1b[38;2;12;13;14;48;2;18;19;20m▀\x1b[38;2;15;16;17;48;2;21;22;23m▀\x1b[0m",
  ]);
  const small = halfBlocks(makeFrames(1, 64, 64), 80, 10);
  assertEquals([small.length, small[0].split("▀").length - 1], [10, 20]);
});

const still = makeFrames(1, 2, 2, new Uint8Array(12).fill(7));
const LEVELS = { longTerm: { frames: 1, tokens: 1 }, shortTerm: { frames: 2, tokens: 4 }, bytes: 0 };

/** A page over a walk that waits in each action until it is let go. */
async function withServer(
  body: (url: string, acts: number[], letGo: () => void) => Promise<void>,
): Promise<void> {
  const acts: number[] = [];
  let gate = Promise.withResolvers<void>();
  const walk: Walk = {
    ...{
      actions: ["turn left", "turn right"],
      keys: { "0": 0, "1": 1 },
      truth: undefined,
      last: () => [still],
    },
    async act(action) {
      acts.push(action);
      if (action > 1) throw new RangeError("play: there is no such action");
      await gate.promise;
      gate = Promise.withResolvers();
      return { frame: still, index: acts.length, seconds: 0.1, levels: LEVELS };
    },
  };
  await using served = servePlay(walk, { title: "t", record: () => Promise.resolve(["out/walk_1.npz"]) });
  try {
    await body(served.url, acts, () => gate.resolve());
  } finally {
    gate.resolve();
  }
}

const post = (url: string, body: unknown) =>
  fetch(url, { method: "POST", body: JSON.stringify(body), signal: AbortSignal.timeout(10_000) });
const statusOf = async (answer: Response) => (await answer.body?.cancel(), answer.status);

/** Status line of a raw request. */
async function rawStatus(url: string, host: string): Promise<string> {
  const { port, pathname } = new URL(url);
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
  await connection.write(
    new TextEncoder().encode(`GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
  );
  const buffer = new Uint8Array(64), count = await connection.read(buffer);
  return new TextDecoder().decode(buffer.subarray(0, count!)).split("\r\n")[0];
}

Deno.test("the page is for who knows its address, under its own name, on this machine", () =>
  withServer(async (url) => {
    const { hostname, port, origin, pathname } = new URL(url);
    assertEquals(hostname, "127.0.0.1");
    assertMatch(pathname, /^\/[0-9a-f]{32}\/$/);
    const page = await fetch(url);
    assertEquals(page.status, 200);
    assertMatch(page.headers.get("content-security-policy")!, /^default-src 'none'; script-src 'self';/);
    assertEquals(page.headers.get("referrer-policy"), "no-referrer");
    for (const [, file] of (await page.text()).matchAll(/(?:src|href)="([^"#:]+)"/g)) {
      assertEquals(await statusOf(await fetch(url + file)), 200, file);
    }
    const wrong = pathname.replace(/[0-9a-f]/, (c) => c === "0" ? "1" : "0");
    const others = [
      "/",
      "/state",
      `${wrong}`,
      `${wrong}state`,
      `${pathname}toString`,
      `${pathname}../`,
      `/${pathname}`,
    ];
    for (const path of others) assertEquals(await statusOf(await fetch(origin + path)), 404, path);
    for (
      const [host, status] of [[`127.0.0.1:${port}`, 200], [`localhost:${port}`, 200], [
        "localhost",
        403,
      ]] as const
    ) {
      assertMatch(await rawStatus(url, host), new RegExp(` ${status} `), host);
    }
    for (
      const host of [
        `evil.example:${port}`,
        `127.0.0.1:${Number(port) ^ 1}`,
        `127.0.0.1.evil.example:${port}`,
      ]
    ) {
      assertMatch(await rawStatus(url, host), / 403 /, host);
    }
  }));

Deno.test("the page makes one frame at a time, and refuses what is no action", () =>
  withServer(async (url, acts, letGo) => {
    const first = post(`${url}act`, { action: 1 });
    while (acts.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    assertEquals(await statusOf(await post(`${url}act`, { action: 0 })), 409);
    letGo();
    const { index, levels, frame } = await (await first).json();
    assertEquals([index, levels, frame.startsWith("data:image/png;base64,")], [1, LEVELS, true]);
    for (const body of [{}, { action: "1" }, null, { action: 5 }]) {
      assertEquals(await statusOf(await post(`${url}act`, body)), 400, JSON.stringify(body));
    }
    assertEquals(await statusOf(await post(`${url}act`, { action: 1, more: "x".repeat(1000) })), 413);
    assertEquals(await statusOf(await fetch(`${url}act`)), 404, "a link must not act");
    assertEquals(acts, [1, 5]);
    assertEquals(await (await post(`${url}record`, {})).json(), { files: ["out/walk_1.npz"] });
    letGo();
    assertEquals(await statusOf(await post(`${url}act`, { action: 0 })), 200);
  }));
