import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "node:path";
import { batches } from "../lib/data/batches.ts";
import { checkSet, statsOf } from "../lib/data/check.ts";
import { folderSet } from "../lib/data/folder.ts";
import { findSet, KNOWN_SETS } from "../lib/data/known.ts";
import { latentSet, writeLatents } from "../lib/data/latents.ts";
import { dataSetOf } from "../lib/data/options.ts";
import { ucf101 } from "../lib/data/sets.ts";
import { worldClip } from "../lib/data/world/world.ts";
import { writeWorld } from "../lib/data/world/write.ts";
import { fromFloat32 } from "../lib/io/host.ts";
import { writeNpz } from "../lib/io/npz.ts";
import { writePth } from "../lib/io/pth_write.ts";
import { inFolder } from "./io_helpers.ts";
import { count, grey, int64, list, ucf, video } from "./data_clips.ts";

Deno.test(
  "UCF-101 is read from the authors' lists and from its own, scaled, cut and padded",
  async () => {
    await inFolder(async (folder) => {
      const root = join(folder, "ucf101"), names = ["Archery/v_Archery_g01_c01", "Biking/v_Biking_g01_c01"];
      await video(join(root, "UCF-101", `${names[0]}.mp4`), 20);
      await video(join(root, "UCF-101", `${names[1]}.mp4`), 3, 48, 64, 100);
      list(
        join(root, "train03.json"),
        names.map((n, label) => ({ video_path: `ucf101/UCF-101/${n}.mp4`, label })),
      );
      Deno.writeTextFileSync(join(root, "classInd.txt"), "1 Archery\n2 Biking\n");
      Deno.writeTextFileSync(
        join(root, "trainlist03.txt"),
        names.map((n, i) => `${n}.avi ${i + 1}\n`).join(""),
      );
      for (const name of ["train03.json", "trainlist03.txt"]) {
        const cfg = { n_frames: 4, resolution: 32, frame_interval: 3, use_flip: true };
        const { set, options } = ucf(join(root, name), cfg);
        assertEquals([set.length, set.classes, options.flip, options.interval], [2, 101, true, 3]);
        const [batch] = await Array.fromAsync(batches(set, { ...options, split: "validation" }));
        assertEquals(batch.shape, [2, 4, 3, 32, 32]);
        assertEquals([...batch.label!], [0, 1]);
        const frame = 3 * 32 * 32;
        [16, 40, 64, 88].forEach((v, f) => assertAlmostEquals(batch.data[f * frame + 500] * 255, v, 3));
        // Three frames only: consecutive, then black.
        [100, 108, 116, 0].forEach((v, f) =>
          assertAlmostEquals(batch.data[(4 + f) * frame + 500] * 255, v, 3)
        );
      }
    });
  },
);

Deno.test(
  "MCVD takes every tenth clip, Latte as many of each class, and both say when clips are missing",
  async () => {
    await inFolder(async (folder) => {
      await video(join(folder, "v0.mp4"), 2);
      const path = join(folder, "test03.json");
      list(path, Array.from({ length: 45 }, (_, i) => ({ video_path: `v${i}.mp4`, label: i % 3 })));
      const options = { list: path, split: "validation" } as const;
      const number = (source: string) => Number(/v(\d+)\.mp4$/.exec(source)![1]);
      const all = (set: ReturnType<typeof ucf101>) =>
        Array.from({ length: set.length }, (_, i) => number(set.source(i)));
      assertEquals(all(ucf101({ ...options, evaluation: "MCVD" })), [0, 10, 20, 30, 40]);
      assertEquals(all(ucf101({ ...options, evaluation: "MCVD", samples: 3 })), [0, 10, 20]);
      assertThrows(
        () => ucf101({ ...options, evaluation: "MCVD", samples: 6 }),
        RangeError,
        "expected at least 6 clips",
      );
      const latte = all(ucf101({ ...options, evaluation: "Latte", samples: 8, seed: 1 }));
      assertEquals(new Set(latte).size, 8);
      for (const label of [0, 1, 2]) {
        assert([2, 3].includes(latte.filter((n) => n % 3 === label).length), latte.join());
      }
      assertEquals(all(ucf101({ ...options, evaluation: "Latte", samples: 8, seed: 1 })), latte);
      assertThrows(
        () => ucf101({ ...options, evaluation: "Latte", samples: 60 }),
        RangeError,
        "at least 20 clips of class 0",
      );
      assertThrows(() => ucf101(options), RangeError, "evaluation_type MCVD or Latte");
    });
  },
);

Deno.test("BAIR validates on consecutive frames from the first on", async () => {
  await inFolder(async (folder) => {
    await video(join(folder, "bair/val/0.mp4"), 12, 64, 64);
    const path = join(folder, "bair/bair_val.json");
    list(path, [{ video_path: "bair/val/0.mp4", action_path: "bair/val/0.npz" }]);
    const { set, options } = dataSetOf({
      type: "BairDataset",
      data_list: path,
      split: "validation",
      data_cfg: { n_frames: 4, resolution: 64, frame_interval: 2 },
      num_sample: 1,
    }, "datasets.sample");
    const [batch] = await Array.fromAsync(batches(set, options));
    assertEquals([batch.shape, batch.actions], [[1, 4, 3, 64, 64], undefined]);
    [16, 24, 32, 40].forEach((v, f) => assertAlmostEquals(batch.data[f * 3 * 4096] * 255, v, 3));
  });
});

Deno.test("Minecraft reads mp4 with its actions, and latents with the same actions", async () => {
  await inFolder(async (folder) => {
    await video(join(folder, "mc/a.mp4"), 10, 32, 32);
    await writeNpz(join(folder, "mc/a.npz"), { actions: int64(count(10)) });
    const latents = new Float32Array(10 * 2 * 4).map((_, i) => i);
    await writePth(join(folder, "mc/a.pth"), { tensor: fromFloat32(latents, [10, 2, 2, 2]) });
    list(join(folder, "minecraft_train.json"), [{ video_path: "mc/a.mp4", action_path: "mc/a.npz" }]);
    list(join(folder, "latent.json"), [{ latent_path: "mc/a.pth", action_path: "mc/a.npz" }]);
    const block = {
      type: "MinecraftDataset",
      split: "training",
      data_cfg: { num_frames: 4, frame_interval: 2 },
    };
    const { set } = dataSetOf({ ...block, data_list: join(folder, "minecraft_train.json") }, "train");
    const clip = await set.read(0, { start: 1, interval: 2, count: 4 });
    assertEquals([...clip.actions!], [1, 3, 1, 3]);
    [24, 40, 56, 72].forEach((v, f) => assertAlmostEquals(grey(clip, f, 3072), v, 3));
    const from = dataSetOf({ ...block, data_list: join(folder, "latent.json"), use_latent: true }, "train");
    const { value: batch } = await batches(from.set, from.options).next();
    assertEquals([batch!.shape, batch!.holds], [[1, 4, 2, 2, 2], "latents"]);
    const first = batch!.data[0] / 8;
    assertEquals([...batch!.actions!], [0, 2, 4, 6].map((d) => (first + d) % 4));
    assertEquals(batch!.data[31], (first + 6) * 8 + 7);
  });
});

Deno.test("clips of the world in DMLab's layout are what the generator gives", async () => {
  await inFolder(async (folder) => {
    const options = { seed: 3, split: "test", frames: 12, size: 32 } as const;
    const path = join(folder, (await writeWorld(folder, { ...options, clips: 2, first: 5 })).at(-1)!);
    const { set } = dataSetOf(
      {
        type: "DMLabDataset",
        data_list: path,
        split: "validation",
        data_cfg: { num_frames: 12 },
        num_sample: 2,
      },
      "sample",
    );
    for (const i of [0, 1]) {
      const walk = worldClip({ ...options, index: 5 + i }), clip = await set.read(i);
      assertEquals(clip.frames!.data, walk.frames);
      assertEquals(clip.actions, walk.actions);
    }
    assertEquals(await checkSet(set), []);
    const stats = await statsOf(set);
    assertEquals([stats.clips, stats.frames, stats.sizes], [2, { least: 12, all: 24, most: 12 }, {
      "32x32": 2,
    }]);
    assertEquals(Object.values(stats.actions!).reduce((a, b) => a + b), 24);
  });
});

Deno.test("broken clips are named by check and never left out", async () => {
  await inFolder(async (folder) => {
    const names = await writeWorld(folder, { seed: 0, split: "train", frames: 8, size: 16, clips: 4 });
    const path = join(folder, names.at(-1)!);
    const { set } = dataSetOf(
      {
        type: "DMLabDataset",
        data_list: path,
        split: "training",
        data_cfg: { num_frames: 4 },
        batch_size_per_gpu: 4,
      },
      "train",
    );
    Deno.truncateSync(join(folder, "train/1.npz"), 300);
    await writeNpz(join(folder, "train/2.npz"), {
      video: { shape: [8, 16, 16, 3], dtype: "U8", data: new Uint8Array(8 * 768) },
      actions: int64([0, 1]),
    });
    Deno.removeSync(join(folder, "train/3.npz"));
    const problems = await checkSet(set);
    assertEquals(problems.map((p) => p.index), [1, 2, 3]);
    for (
      const [i, word] of [[0, "truncated"], [1, "expected 8 actions, one a frame, found 2"], [
        2,
        "no such file",
      ]] as const
    ) {
      assert(
        problems[i].message.includes(word) && problems[i].message.includes(`${i + 1}.npz`),
        problems[i].message,
      );
    }
    await assertRejects(
      () => batches(set, { batch: 4, frames: 4, split: "training" }).next(),
      Error,
      ".npz: ",
    );
  });
});

Deno.test("a video that breaks off is found by check", async () => {
  await inFolder(async (folder) => {
    const path = await video(join(folder, "whole.mp4"), 40), bytes = Deno.readFileSync(path);
    Deno.writeFileSync(join(folder, "cut.mp4"), bytes.subarray(0, bytes.length * 3 / 4));
    const problems = await checkSet(folderSet({ folder }));
    assertEquals(problems.length, 1);
    assert(problems[0].message.includes("cut.mp4"), problems[0].message);
  });
});

Deno.test("latents go through shards and come back, with actions and labels", async () => {
  await inFolder(async (folder) => {
    const clips = Array.from({ length: 5 }, (_, i) => ({
      latents: { shape: [6, 2, 1, 2] as const, data: new Float32Array(24).map((_, j) => i * 100 + j) },
      actions: Int32Array.from([i, 1, 2, 3, 4, 5]),
      label: i,
      source: `clip ${i}`,
    }));
    const path = join(folder, "latents");
    assertEquals(await writeLatents(path, clips, { shardBytes: 96, classes: 7 }), 5);
    const set = latentSet(path);
    assertEquals([set.length, set.classes, set.actions, await set.frames(3)], [5, 7, true, 6]);
    assert([...Deno.readDirSync(path)].filter((e) => e.name.endsWith(".safetensors")).length >= 3);
    const clip = await set.read(3, { start: 1, interval: 2, count: 2 });
    assertEquals([...clip.latents!.data], [304, 305, 306, 307, 312, 313, 314, 315]);
    assertEquals([[...clip.actions!], clip.label], [[1, 3], 3]);
    assertEquals(await checkSet(set), []);
    Deno.removeSync(join(path, "latents-00001.safetensors"));
    assertThrows(() => latentSet(path), Error, "latents-00001.safetensors: cannot open: no such file");
    await assertRejects(
      () => writeLatents(`${path}_other`, [clips[0], { ...clips[1], actions: undefined }], { classes: 7 }),
      RangeError,
      "clip 1: actions or label",
    );
  });
});

Deno.test("lists that are damaged, incomplete or elsewhere are refused in one line", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "list.json"), open = () => ucf(path, { n_frames: 2, resolution: 8 });
    await video(join(folder, "a.mp4"), 2);
    for (
      const [entries, message] of [
        [[], "expected a list of clips in JSON"],
        [[{ video_path: "a.mp4" }], `clip 0: expected a "label", found none`],
        [[{ video_path: "a.mp4", lable: 1 }], `unknown key "lable", did you mean "label"?`],
        [[{ video_path: "a.mp4", label: "Archery" }], `expected "label" to be a class number`],
        [[{ video_path: "gone.mp4", label: 1 }], `its first clip "gone.mp4" is not there`],
        [
          [{ video_path: "a.mp4", label: 1 }, { video_path: "a.mp4", label: 2 }],
          `clips 0 and 1 are both "a.mp4"`,
        ],
        [[{ video_path: "a.mp4", label: 101 }], "expected classes 0 to 100, found 101"],
      ] as const
    ) {
      list(path, entries);
      const error = assertThrows(open, Error, message);
      assert(!error.message.includes("\n"));
    }
    Deno.writeTextFileSync(path, "[{");
    assertThrows(open, Error, "expected a list of clips in JSON");
    for (const known of KNOWN_SETS) {
      for (const state of findSet(known, folder)) {
        assert(state.problem?.includes("no such file"), state.problem);
      }
    }
  });
});

Deno.test("options of a data set are checked, with the nearest name", async () => {
  const block = { type: "WorldDataset", split: "training", data_cfg: { num_frames: 16, resolution: 32 } };
  assertEquals(dataSetOf(block, "t").set.length, 40_000);
  const short = dataSetOf({
    ...block,
    data_cfg: { ...block.data_cfg, clips: 7, clip_frames: 20, cells: [3, 5] },
  }, "t");
  assertEquals([short.set.length, await short.set.frames(0)], [7, 20]);
  const refused: [object, string][] = [
    [{ ...block, batchsize: 4 }, "t: unknown key batchsize"],
    [{ ...block, data_cfg: { ...block.data_cfg, frame_intervall: 2 } }, `did you mean "frame_interval"?`],
    [
      { ...block, data_cfg: { ...block.data_cfg, n_frames: 2 } },
      "t.data_cfg: n_frames and num_frames say the same",
    ],
    [{ ...block, data_cfg: { ...block.data_cfg, use_flip: true } }, "WorldDataset does not know it"],
    [{ ...block, data_cfg: {} }, "expected a number of frames, found nothing"],
    [{ ...block, split: "train" }, "t.split: expected training or validation"],
    [{ ...block, type: "UCFDataset" }, "t.data_list: expected a path, found nothing"],
  ];
  for (const [wrong, message] of refused) {
    assertThrows(() => dataSetOf({ ...wrong }, "t"), RangeError, message);
  }
});
