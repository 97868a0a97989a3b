/**
 * Walks with grid steps: poses, tables of places, fresh walks through them, and what remembering is worth.
 */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { statsOf } from "../lib/data/check.ts";
import { dataSetOf } from "../lib/data/options.ts";
import { writeLatents } from "../lib/data/latents.ts";
import { placesSet, walkSet } from "../lib/data/walk_set.ts";
import { hasWall, neighbour } from "../lib/data/world/maze.ts";
import {
  CELL_UNITS,
  cellPose,
  FORWARD,
  gridNumber,
  gridPose,
  gridPoses,
  move,
  poseCell,
  TURN_LEFT,
  TURN_RIGHT,
} from "../lib/data/world/pose.ts";
import { ReturnCount } from "../lib/data/world/returns.ts";
import { poseAt } from "../lib/data/world/seen.ts";
import { worldClip, worldMaze, worldPlaces } from "../lib/data/world/world.ts";
import { worldSet } from "../lib/data/world_set.ts";
import { ChoiceError } from "../lib/pipeline/choice.ts";
import { isWorld, readClip } from "../lib/pipeline/clip.ts";
import { inFolder } from "./io_helpers.ts";

const GRID = { seed: 0, split: "test", index: 3, steps: "grid" } as const;

Deno.test("a grid step turns by 90 degrees, crosses a cell, or stays before a wall", () => {
  const maze = worldMaze(GRID);
  let blocked = 0;
  for (let n = 0; n < gridPoses(maze); n++) {
    const pose = gridPose(maze, n),
      go = (at: typeof pose, ...actions: number[]) =>
        actions.reduce((p, action) => move(maze, p, action, "grid"), at);
    assertEquals(gridNumber(maze, pose), n);
    assertEquals(go(pose, TURN_LEFT, TURN_RIGHT), pose);
    assertEquals(go(pose, TURN_RIGHT, TURN_RIGHT, TURN_RIGHT, TURN_RIGHT), pose);
    assertEquals(go(pose, TURN_RIGHT).heading, (pose.heading + 4) % 16);
    // East, south, west and north are sides 1, 2, 3 and 0 of a cell.
    const cell = poseCell(maze, pose), side = (n % 4 + 1) % 4, ahead = go(pose, FORWARD);
    if (hasWall(maze, cell, side)) {
      blocked++;
      assertEquals(ahead, pose);
    } else {
      assertEquals(ahead, cellPose(maze, neighbour(maze, cell, side), pose.heading));
      const back = go(ahead, TURN_LEFT, TURN_LEFT, FORWARD, TURN_LEFT, TURN_LEFT);
      assertEquals(back, pose);
    }
  }
  assert(blocked > 0 && blocked < gridPoses(maze), `${blocked}`);
});

Deno.test("a grid walk repeats frames exactly, one per pose, in the maze of the smooth walk of its number", () => {
  const { frames, poses, actions, maze } = worldClip({ ...GRID, frames: 200, size: 16 });
  assertEquals(maze.walls, worldClip({ ...GRID, steps: "smooth", frames: 1, size: 16 }).maze.walls);
  const places = worldPlaces({ ...GRID, size: 16 }), bytes = 16 * 16 * 3, seen = new Set<number>();
  for (let f = 0; f < 200; f++) {
    const pose = poseAt(poses, f), number = gridNumber(maze, pose);
    assertEquals([pose.x % CELL_UNITS, pose.y % CELL_UNITS], [CELL_UNITS / 2, CELL_UNITS / 2]);
    assertEquals(poseAt(places.poses, number), pose);
    assertEquals(
      frames.subarray(f * bytes, (f + 1) * bytes),
      places.frames.subarray(number * bytes, (number + 1) * bytes),
    );
    if (f > 0) assertEquals(pose, move(maze, poseAt(poses, f - 1), actions[f - 1], "grid"));
    seen.add(number);
  }
  assert(seen.size > 40 && seen.size <= 64, `${seen.size} poses`);
});

Deno.test("grid:N is the N-th test walk with grid steps, and grid alone is no clip", async () => {
  const { frames, actions } = await readClip("grid:3", { frames: 12, side: 16 });
  const walk = worldClip({ ...GRID, frames: 12, size: 16 });
  assertEquals([frames.data, actions], [walk.frames, walk.actions]);
  assertThrows(() => isWorld("grid"), ChoiceError, "did you mean grid:0");
});

Deno.test("option files take steps and places", async () => {
  const data = { num_frames: 8, resolution: 16, clips: 4, part: "test" };
  const { set } = dataSetOf(
    { type: "WorldDataset", split: "training", data_cfg: { ...data, steps: "grid" } },
    "t",
  );
  const clip = await set.read(3, { start: 0, interval: 1, count: 8 });
  assertEquals(clip.frames!.data, worldClip({ ...GRID, frames: 8, size: 16 }).frames);
  assertEquals(set.name, "grid test seed 0 16x16");
  const places = dataSetOf({ type: "PlacesDataset", split: "training", data_cfg: data }, "t").set;
  assertEquals((await places.read(3)).frames!.data, worldPlaces({ ...GRID, size: 16 }).frames);
  assertThrows(
    () => dataSetOf({ type: "WorldDataset", split: "training", data_cfg: { ...data, steps: "large" } }, "t"),
    RangeError,
    "steps: expected smooth or grid",
  );
});

/** Latents that name their pose: world and number. */
async function writePlaces(folder: string, worlds: number): Promise<void> {
  const places = placesSet({ split: "train", worlds, size: 16 });
  const clips = await Promise.all(Array.from({ length: worlds }, async (_, i) => {
    const { frames, source } = await places.read(i), count = frames!.frames;
    const data = Float32Array.from({ length: 2 * count }, (_, j) => j % 2 === 0 ? i : (j - 1) / 2);
    return { latents: { shape: [count, 2, 1, 1] as const, data }, source };
  }));
  await writeLatents(folder, clips, { dtype: "F32", about: { data: places.name } });
}

Deno.test("fresh walks go through the table of their world, each on a way of its own", async () => {
  await inFolder(async (folder) => {
    const at = `${folder}/places`;
    await writePlaces(at, 3);
    const set = walkSet({ folder: at, split: "train", size: 16, frames: 90, walks: 9 });
    const ways = new Set<string>();
    for (let i = 0; i < 9; i++) {
      const { latents, actions, poses } = await set.read(i);
      const maze = worldMaze({ seed: 0, split: "train", index: i % 3 });
      for (let f = 0; f < 90; f++) {
        const pose = poseAt(poses!, f);
        assertEquals([...latents!.data.subarray(2 * f, 2 * f + 2)], [i % 3, gridNumber(maze, pose)]);
        if (f > 0) assertEquals(pose, move(maze, poseAt(poses!, f - 1), actions![f - 1], "grid"));
      }
      ways.add(actions!.join(""));
      const part = await set.read(i, { start: 31, interval: 2, count: 20 });
      assertEquals(part.actions, actions!.filter((_, f) => f >= 31 && f % 2 === 1 && f < 71));
      assertEquals(part.latents!.data[3], latents!.data[2 * 33 + 1]);
    }
    assertEquals(ways.size, 9);
    const later = walkSet({ folder: at, split: "train", size: 16, frames: 90, first: 4, walks: 2 });
    assertEquals((await later.read(1)).latents, (await set.read(5)).latents);
    assertEquals([later.source(1), later.length], [set.source(5), 2]);
    await assertRejects(
      () => Promise.resolve(set.read(9)),
      RangeError,
      "expected a clip from 0 to 8, found 9",
    );
    await assertRejects(
      () => Promise.resolve(set.read(0, { start: 80, interval: 1, count: 11 })),
      RangeError,
      "has 90 frames, expected at least 91",
    );
    assertThrows(
      () => walkSet({ folder: at, split: "validation", size: 16 }),
      RangeError,
      "expected latents of places of validation worlds of 4x4 cells, seed 0, 16x16, found places of train worlds",
    );
  });
});

Deno.test("every second clip is a roll-out where there are some, over and over", async () => {
  await inFolder(async (folder) => {
    const at = `${folder}/places`,
      made = `${folder}/made`,
      options = { split: "train", size: 16, frames: 40 } as const;
    await writePlaces(at, 3);
    const fresh = walkSet({ folder: at, ...options });
    const clips = await Promise.all([0, 1, 2].map(async (i) => {
      const { latents, actions, source } = await fresh.read(i);
      return { latents: { ...latents!, history: latents!.data.map((v) => v + 0.5) }, actions, source };
    }));
    await writeLatents(made, clips, { dtype: "F32" });
    const data = { num_frames: 20, clip_frames: 40, resolution: 16, clips: 8, rollouts: made };
    const { set } = dataSetOf({ type: "WalkDataset", data_list: at, split: "training", data_cfg: data }, "t");
    assertEquals([set.length, set.rollouts], [8, 3]);
    for (let i = 0; i < 8; i++) {
      const { latents, actions } = await set.read(i, { start: 5, interval: 1, count: 20 });
      const own = i % 2 === 0 ? await fresh.read(i, { start: 5, interval: 1, count: 20 }) : null;
      assertEquals(latents!.data, own?.latents?.data ?? clips[(i - 1) / 2 % 3].latents.data.slice(10, 50));
      assertEquals(actions, own?.actions ?? clips[(i - 1) / 2 % 3].actions!.slice(5, 25));
      assertEquals(latents!.history?.[0], i % 2 === 0 ? undefined : latents!.data[0] + 0.5);
    }
  });
});

Deno.test("returns are counted behind the context, and the oracle shows the nearest pose", () => {
  // Frames of one pixel; cells of 3072 units. Context 3, window 1.
  const poses = [[0, 0, 0], [0, 0, 4], [3072, 0, 0], [0, 0, 0], [3072, 0, 0], [0, 512, 4], [9216, 0, 0]];
  const grey = [0, 51, 102, 0, 102, 102, 204];
  const count = new ReturnCount({ context: 3, window: 1 });
  assertEquals(count.result, null);
  count.add({
    frames: Uint8Array.from(grey.flatMap((v) => [v, v, v])),
    poses: Int32Array.from(poses.flat()),
  });
  const { frames, samePose, samePoseDistant, samePlace, oracle, oracleWindow } = count.result!;
  assertEquals([frames, samePose, samePoseDistant, samePlace], [4, 0.5, 0.25, 0.75]);
  // Nearest in the context: frames 0, 2, 1, 2. In its last frame alone: always frame 2.
  const psnr = (...errors: number[]) =>
    -10 * Math.log10(errors.reduce((sum, e) => sum + (e / 255) ** 2, 0) / errors.length);
  assertAlmostEquals(oracle, psnr(0, 0, 51, 102), 1e-9);
  assertAlmostEquals(oracleWindow, psnr(102, 0, 0, 102), 1e-9);
  assertThrows(
    () => new ReturnCount({ context: 3, window: 4 }),
    RangeError,
    "at least the window 4, found 3",
  );
});

Deno.test("nearly all frames of a grid walk return to a pose of the context, most of them to one seen long ago", async () => {
  const set = worldSet({ split: "test", steps: "grid", size: 16, clips: 8 });
  const { returns } = await statsOf(set, 8, () => {}, { context: 144, window: 16 });
  assert(returns!.samePose > 0.85 && returns!.samePoseDistant > 0.5, JSON.stringify(returns));
  assert(returns!.oracle > returns!.oracleWindow + 6, JSON.stringify(returns));
});
