import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { batches, type BatchOptions } from "../lib/data/batches.ts";
import { chooseFrames, type Clip, type DataSet, type FrameRule } from "../lib/data/clip.ts";
import { RandomStream } from "../lib/data/random_stream.ts";
import { chooseCrop, scaledSize, transformFrames } from "../lib/data/transform.ts";
import { worldSet } from "../lib/data/world_set.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { streamOf } from "../lib/random.ts";

/** Clips of 4 by 6 pixels whose colour tells clip, frame and column. */
function fakeSet(totals: readonly number[], more: Partial<DataSet> = {}): DataSet {
  const read = (index: number, range = { start: 0, interval: 1, count: totals[index] }): Promise<Clip> => {
    const frames = makeFrames(range.count, 4, 6), actions = new Int32Array(range.count);
    for (let f = 0; f < range.count; f++) {
      const at = range.start + f * range.interval;
      actions[f] = at;
      for (let i = 0; i < 24; i++) frames.data.set([index, at, i % 6], (f * 24 + i) * 3);
    }
    return Promise.resolve({ frames, actions, label: index % 2, source: `clip ${index}` });
  };
  return {
    name: "fake",
    length: totals.length,
    holds: "frames",
    actions: true,
    classes: 2,
    rule: { short: "refuse" },
    fit: { crop: false },
    files: () => [],
    source: (index) => `clip ${index}`,
    frames: (index) => Promise.resolve(totals[index]),
    read,
    ...more,
  };
}

async function take(set: DataSet, options: BatchOptions, count: number) {
  const out = [];
  for await (const batch of batches(set, options)) {
    out.push(batch);
    if (out.length === count) break;
  }
  return out;
}

const training = { batch: 3, frames: 5, split: "training", seed: 9 } as const;

Deno.test("an epoch of training takes every clip at most once, in another order each time", async () => {
  const set = fakeSet(Array<number>(11).fill(20));
  const all = await take(set, training, 9);
  assertEquals(all.map((b) => b.epoch), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
  const epochs = [0, 1, 2].map((e) => all.filter((b) => b.epoch === e).flatMap((b) => b.indices));
  epochs.forEach((order) => assertEquals(new Set(order).size, 9));
  assert(epochs[0].join() !== epochs[1].join() && epochs[1].join() !== epochs[2].join());
});

Deno.test("a run taken up at a saved position sees the batches that it would have seen", async () => {
  const set = fakeSet(Array<number>(11).fill(20)), whole = await take(set, { ...training, flip: true }, 8);
  for (const stop of [1, 3, 5]) {
    const rest = await take(
      set,
      { ...training, flip: true, position: whole[stop - 1].position, prefetch: 0 },
      8 - stop,
    );
    assertEquals(rest, whole.slice(stop));
  }
  const other = await take(set, { ...training, flip: true, seed: 10 }, 8);
  assert(other.some((b, i) => b.indices.join() !== whole[i].indices.join()));
});

Deno.test("training starts anywhere that all frames fit, and mirrors half of the clips", async () => {
  const set = fakeSet(Array<number>(4).fill(12)), starts = new Set<number>();
  let mirrored = 0;
  for (
    const { data, actions, indices } of await take(
      set,
      { ...training, batch: 4, interval: 2, flip: true },
      60,
    )
  ) {
    for (let b = 0; b < 4; b++) {
      starts.add(actions![b * 5]);
      assertEquals([...actions!.subarray(b * 5, b * 5 + 5)], [0, 2, 4, 6, 8].map((d) => actions![b * 5] + d));
      const first = b * 5 * 3 * 24;
      assertAlmostEquals(data[first] * 255, indices[b], 1e-4); // red tells the clip
      assertAlmostEquals(data[first + 24] * 255, actions![b * 5], 1e-4); // green the frame
      const blue = [...data.subarray(first + 48, first + 54)].map((v) => Math.round(v * 255)).join("");
      assert(blue === "012345" || blue === "543210", blue);
      if (blue === "543210") mirrored++;
    }
  }
  assertEquals([...starts].sort(), [0, 1, 2, 3]);
  assert(mirrored > 90 && mirrored < 150, `${mirrored} of 240`);
});

Deno.test("validation goes through all clips once, from their first frame, and keeps the last small batch", async () => {
  const set = fakeSet([20, 20, 20, 20, 20]),
    out = await take(set, { ...training, split: "validation", batch: 2 }, 99);
  assertEquals(out.map((b) => b.indices), [[0, 1], [2, 3], [4]]);
  assertEquals(out.map((b) => b.shape[0]), [2, 2, 1]);
  assertEquals([...out[2].actions!], [0, 1, 2, 3, 4]);
  assertEquals(out.map((b) => [...b.label!]), [[0, 1], [0, 1], [0]]);
});

Deno.test("clips that are too short are padded where the authors pad and refused where they refuse", () => {
  const choose = (rule: FrameRule, total: number, interval: number, train: boolean) =>
    chooseFrames(
      fakeSet([total], { rule }),
      0,
      total,
      4,
      interval,
      train ? new RandomStream(streamOf(0, "t")) : undefined,
    );
  const consecutive = { start: 0, interval: 1, count: 4 };
  assertEquals(choose({ short: "pad" }, 3, 1, true), consecutive);
  assertEquals(choose({ short: "pad" }, 9, 3, true), consecutive);
  assertEquals(choose({ short: "pad" }, 10, 3, true), { start: 0, interval: 3, count: 4 });
  assertEquals(choose({ short: "refuse" }, 9, 3, false), consecutive);
  assertEquals(choose({ short: "pad", consecutiveValidation: true }, 30, 3, false), consecutive);
  assertEquals(choose({ short: "refuse" }, 30, 3, false), { start: 0, interval: 3, count: 4 });
  assertThrows(
    () => choose({ short: "refuse" }, 9, 3, true),
    RangeError,
    "clip 0: has 9 frames, expected at least 10",
  );
  assertThrows(
    () => choose({ short: "refuse" }, 3, 1, false),
    RangeError,
    "clip 0: has 3 frames, expected at least 4",
  );
});

Deno.test("a broken clip stops the run with its name, when its turn comes", async () => {
  const set = fakeSet(Array<number>(6).fill(9));
  const broken: DataSet = {
    ...set,
    read: (index, range) =>
      index === 4 ? Promise.reject(new Error("clip 4: broken")) : set.read(index, range),
  };
  const error = await assertRejects(
    () => take(broken, { ...training, split: "validation", batch: 2 }, 9),
    Error,
  );
  assertEquals(error.message, "clip 4: broken");
});

Deno.test("batches refuse what cannot be", async () => {
  const set = fakeSet([9, 9]);
  await assertRejects(
    () => take(set, training, 1),
    RangeError,
    "fake has 2 clips, expected at least one batch of 3",
  );
  await assertRejects(
    () => take(set, { ...training, batch: 0 }, 1),
    RangeError,
    "batch must be a whole number",
  );
  await assertRejects(
    () => take(fakeSet([9, 9, 9], { holds: "latents" }), { ...training, flip: true }, 1),
    RangeError,
    "leave use_flip out",
  );
});

Deno.test("sizes and crops are torchvision's: the longer side is cut, the middle rounds halves to even", () => {
  assertEquals(scaledSize({ height: 240, width: 320 }, 64), { height: 64, width: 85 });
  assertEquals(scaledSize({ height: 240, width: 320 }, 128), { height: 128, width: 170 });
  assertEquals(scaledSize({ height: 320, width: 240 }, 256), { height: 341, width: 256 });
  assertEquals(chooseCrop({ height: 64, width: 85 }, 64), { top: 0, left: 10 });
  assertEquals(chooseCrop({ height: 64, width: 87 }, 64), { top: 0, left: 12 });
  const draws = new RandomStream(streamOf(1, "crops"));
  const lefts = Array.from({ length: 400 }, () => chooseCrop({ height: 8, width: 12 }, 8, draws).left);
  assertEquals([...new Set(lefts)].sort(), [0, 1, 2, 3, 4]);
});

Deno.test("scaling weighs pixels by a triangle as wide as an output pixel, and does not round in between", () => {
  const frames = makeFrames(1, 10, 15), draws = new RandomStream(streamOf(2, "pixels"));
  for (let i = 0; i < frames.data.length; i++) frames.data[i] = draws.below(256);
  const out = new Float32Array(3 * 16), crop = { top: 0, left: 1 };
  transformFrames(frames, out, { resolution: 4, crop });
  const weight = (from: number, at: number, scale: number) =>
    Math.max(0, 1 - Math.abs((from + 0.5) - (at + 0.5) * scale) / scale);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < 4; y++) {
      for (let x = 0; x < 4; x++) {
        let [sum, weights] = [0, 0];
        for (let i = 0; i < 10; i++) {
          for (let j = 0; j < 15; j++) {
            const w = weight(i, y, 2.5) * weight(j, x + 1, 2.5);
            sum += w * frames.data[(i * 15 + j) * 3 + c];
            weights += w;
          }
        }
        assertAlmostEquals(out[(c * 4 + y) * 4 + x], sum / weights / 255, 1e-6);
      }
    }
  }
});

Deno.test("the world as a data set gives frames, actions and poses of the asked range", async () => {
  const set = worldSet({ split: "validation", frames: 40, size: 32, clips: 3 });
  const whole = await set.read(2), part = await set.read(2, { start: 5, interval: 3, count: 6 });
  assertEquals([...part.actions!], [5, 8, 11, 14, 17, 20].map((f) => whole.actions![f]));
  assertEquals(part.frames!.data.slice(-3072), whole.frames!.data.slice(20 * 3072, 21 * 3072));
  assertEquals([...part.poses!.slice(3, 6)], [...whole.poses!.slice(24, 27)]);
  await assertRejects(() => set.read(3), RangeError, "expected a clip from 0 to 2, found 3");
});
