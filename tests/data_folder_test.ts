import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "node:path";
import { readActionFile } from "../lib/data/actions.ts";
import { batches } from "../lib/data/batches.ts";
import { checkSet } from "../lib/data/check.ts";
import { folderSet, splitOf } from "../lib/data/folder.ts";
import { writePng } from "../lib/io/image.ts";
import { writeNpy, writeNpz } from "../lib/io/npz.ts";
import { inFolder } from "./io_helpers.ts";
import { grey, int64, ramp, video } from "./data_clips.ts";

Deno.test(
  "one's own folder holds videos, npz archives and folders of images with actions beside them",
  async () => {
    await inFolder(async (folder) => {
      await video(join(folder, "b/walk.mp4"), 5, 32, 48);
      Deno.writeTextFileSync(join(folder, "b/walk.csv"), "frame,action\n0,1\n1,0\n2,2\n3,2\n4,1\n");
      await video(join(folder, "run.mp4"), 4, 32, 48);
      await writeNpy(join(folder, "run.npy"), int64([3, 2, 1, 0]));
      for (let f = 0; f < 3; f++) {
        await writePng(join(folder, `images/f${f}.png`), ramp(1, 32, 48, 40 + 20 * f));
      }
      Deno.writeTextFileSync(join(folder, "images/actions.txt"), "2\n1\n0\n");
      const set = folderSet({ folder, resolution: 32 });
      const clips = await Promise.all([0, 1, 2].map((i) => set.read(i)));
      assertEquals(clips.map((c) => c.source.slice(folder.length + 1)), ["run.mp4", "b/walk.mp4", "images"]);
      assertEquals(clips.map((c) => [...c.actions!]), [[3, 2, 1, 0], [1, 0, 2, 2, 1], [2, 1, 0]]);
      assertEquals(grey(clips[2], 2, 32 * 48 * 3), 80);
      assertEquals(await checkSet(set), []);
      const { value } = await batches(set, { batch: 3, frames: 3, split: "validation" }).next();
      assertEquals(value!.shape, [3, 3, 3, 32, 32]);
      const one = folderSet({ folder: join(folder, "b/walk.mp4"), split: "test" });
      assertEquals([one.length, [...(await one.read(0)).actions!]], [1, [1, 0, 2, 2, 1]]);
      Deno.removeSync(join(folder, "run.npy"));
      assertThrows(() => folderSet({ folder }), Error, "run.mp4: has no actions in it or beside it");
    });
  },
);

Deno.test("actions that are not one integer per frame are refused with their line", async () => {
  await inFolder(async (folder) => {
    await video(join(folder, "a.mp4"), 3);
    for (
      const [text, message] of [
        ["0\nx\n1\n", `line 2: expected a whole number, found "x"`],
        ["frame,action\n0,1\n2,1\n3,1\n", "line 3: expected frame 1"],
        ["0\n1\n", "expected 3 actions, one a frame, found 2"],
        ["frame,speed\n0,1\n", `expected a column "action"`],
        ["0,1,2\n", "line 1: expected a whole number"],
      ]
    ) {
      Deno.writeTextFileSync(join(folder, "a.csv"), text);
      await assertRejects(() => folderSet({ folder }).read(0), Error, message);
    }
  });
});

Deno.test("a file of actions is an array, a list, a table or plain numbers", async () => {
  await inFolder(async (folder) => {
    const written = (name: string, text: string) => {
      Deno.writeTextFileSync(join(folder, name), text);
      return readActionFile(join(folder, name));
    };
    assertEquals([...written("a.json", "[0, 1,\n 2]")], [0, 1, 2]);
    assertEquals([...written("a.txt", "0 1, 2\n3\n\n")], [0, 1, 2, 3]);
    assertEquals([...written("head.txt", "frame\taction\n0\t2\n1\t1\n")], [2, 1]);
    assertEquals([...written("a.csv", "2\r\n1\r\n")], [2, 1]);
    assertEquals([...written("none.csv", "")], []);
    for (
      const [name, text, message] of [
        ["b.json", "[0, -1]", "expected whole numbers, found -1"],
        ["b.json", '{"actions": [0]}', "expected a list of whole numbers in JSON, found"],
        ["b.json", "[0, 1", "expected a list of whole numbers in JSON: "],
        ["b.txt", "0 1\n2 3.5\n", 'line 2: expected a whole number, found "2 3.5"'],
      ]
    ) assertThrows(() => written(name, text), Error, message);
    const path = join(folder, "a.npz");
    await writeNpz(path, { a: { ...int64([1, 2]), shape: [1, 2] } });
    assertEquals([...readActionFile(path)], [1, 2]);
    await writeNpz(path, { a: int64([1, 2]), action: int64([3]) });
    assertEquals([...readActionFile(path)], [3]);
    await writeNpz(path, { a: int64([1, 2]), b: int64([3]) });
    assertThrows(() => readActionFile(path), Error, 'expected an array "actions", found a, b');
    await writeNpz(path, { actions: { ...int64([1, 2, 3, 4]), shape: [2, 2] } });
    assertThrows(() => readActionFile(path), Error, "expected one integer per frame, found I64 [2,2]");
  });
});

Deno.test("the split by hash depends on the name alone, and its shares hold", () => {
  const counts = { train: 0, validation: 0, test: 0 };
  for (let i = 0; i < 4000; i++) counts[splitOf(`clips/${i}.mp4`, [0.1, 0.2])]++;
  assert(Math.abs(counts.validation - 400) < 80 && Math.abs(counts.test - 800) < 100, JSON.stringify(counts));
  assertEquals(splitOf("a/b.mp4"), splitOf("a/b.mp4"));
});
