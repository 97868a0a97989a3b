import { readClip } from "../lib/pipeline/clip.ts";
import { sliceFrames } from "../lib/io/frames.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { RandomStream } from "../lib/data/random_stream.ts";
import { distancesTo, hasWall, makeMaze, neighbour } from "../lib/data/world/maze.ts";
import { CELL_UNITS, cellPose, cosine, FORWARD, HEADINGS, move, poseCell } from "../lib/data/world/pose.ts";
import { Renderer } from "../lib/data/world/render.ts";
import { memoryOf, placeSeen, poseAt, Views } from "../lib/data/world/seen.ts";
import { SPLITS, worldClip, worldFrames, worldNumber, worldScene } from "../lib/data/world/world.ts";
import { streamOf } from "../lib/random.ts";

async function sha256(...parts: Uint8Array[]): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(parts as BlobPart[]).arrayBuffer());
  return new Uint8Array(digest).toHex();
}

Deno.test("a walk of the world has the same bits on every machine", async () => {
  const recorded: Record<number, string> = {
    64: "1047b61210688e2c302b3994dde0f774d55a3ee04b4be227fafc60960ab53726",
    128: "c58b2d514a1771256ea27aac24e52f9c10a01584b976def2d7bda3566b760fb1",
  };
  for (const size of [64, 128]) {
    const clips = SPLITS.map((split) => worldClip({ seed: 7, split, index: 11, frames: 60, size }));
    const parts = clips.flatMap((
      c,
    ) => [c.frames, new Uint8Array(c.actions.buffer), new Uint8Array(c.poses.buffer)]);
    assertEquals(await sha256(...parts), recorded[size], `${size} by ${size}`);
  }
});

Deno.test("walks of different splits, seeds and indices differ, and splits never share a number", () => {
  const numbers = SPLITS.map((split) => [0, 1, 5, 2 ** 51 - 1].map((index) => worldNumber(split, index)));
  numbers.forEach((own, part) => own.forEach((n) => assert(Number.isSafeInteger(n) && n % 3 === part)));
  const looks = new Set<string>();
  for (const seed of [0, 1]) {
    for (const split of SPLITS) {
      for (const index of [0, 1, 2, 2 ** 40]) {
        looks.add(worldClip({ seed, split, index, frames: 1, size: 16 }).frames.toHex());
      }
    }
  }
  assertEquals(looks.size, 24);
});

Deno.test("directions are the rounded cosines of sixteenths of a circle", () => {
  for (let h = -HEADINGS; h < 2 * HEADINGS; h++) {
    const exact = Math.cos(h * Math.PI / 8) * 65536;
    assert(Math.abs(cosine(h) - exact) <= 0.5 + 1e-9, `heading ${h}: ${cosine(h)}, expected ${exact}`);
  }
});

Deno.test("every cell of a maze can be reached, and walls stand on both sides or on none", () => {
  for (let i = 0; i < 40; i++) {
    const maze = makeMaze(new RandomStream(streamOf(i, "maze")), 2 + i % 7, 2 + i % 5);
    assert(distancesTo(maze, 0).every((d) => d >= 0));
    for (let cell = 0; cell < maze.walls.length; cell++) {
      for (let side = 0; side < 4; side++) {
        const next = neighbour(maze, cell, side);
        if (next < 0) assert(hasWall(maze, cell, side));
        else assertEquals(hasWall(maze, cell, side), hasWall(maze, next, (side + 2) % 4));
      }
    }
  }
});

Deno.test("whatever one does, the camera stays clear of the walls", () => {
  const maze = makeMaze(new RandomStream(streamOf(3, "maze")), 5, 5),
    draws = new RandomStream(streamOf(3, "actions"));
  let pose = cellPose(maze, 12, 0);
  for (let i = 0; i < 20_000; i++) {
    const before = poseCell(maze, pose);
    pose = move(maze, pose, draws.chance(0.7) ? FORWARD : draws.below(2));
    const cell = poseCell(maze, pose);
    const between = [0, 1, 2, 3].filter((side) => neighbour(maze, before, side) === cell);
    assert(cell === before || !between.every((side) => hasWall(maze, before, side)) || between.length === 0);
    const [x, y] = [pose.x % CELL_UNITS, pose.y % CELL_UNITS];
    [y, CELL_UNITS - x, CELL_UNITS - y, x].forEach((room, side) => {
      if (hasWall(maze, cell, side)) assert(room >= 640, `${room} units from wall ${side}`);
    });
  }
  assertThrows(
    () => move(maze, pose, 3),
    RangeError,
    "expected action 0 (left), 1 (right) or 2 (forward), found 3",
  );
});

Deno.test("three steps cross a cell, and sixteen turns come back to the same picture", () => {
  const options = { seed: 1, split: "test", index: 2, cells: [3, 3] } as const;
  const scene = worldScene(options), renderer = new Renderer(scene, 64);
  const side = [0, 1, 2, 3].find((s) => !hasWall(scene.maze, 4, s))!;
  const start = cellPose(scene.maze, 4, (side * 4 + 12) % HEADINGS);
  let pose = start;
  for (let i = 0; i < 3; i++) pose = move(scene.maze, pose, FORWARD);
  assertEquals(pose, { ...cellPose(scene.maze, neighbour(scene.maze, 4, side), 0), heading: start.heading });
  const [before, after] = [new Uint8Array(64 * 64 * 3), new Uint8Array(64 * 64 * 3)];
  renderer.draw(pose, before);
  for (let i = 0; i < HEADINGS; i++) {
    pose = move(scene.maze, pose, 0);
    renderer.draw(pose, after);
    assert(i === HEADINGS - 1 || after.some((v, at) => v !== before[at]));
  }
  assertEquals(after, before);
});

Deno.test("a frame covers every pixel: nothing of the frame before shows through", () => {
  const scene = worldScene({ seed: 0, split: "train", index: 5 }),
    draws = new RandomStream(streamOf(0, "poses"));
  const used = new Renderer(scene, 32);
  const [a, b] = [new Uint8Array(32 * 32 * 3), new Uint8Array(32 * 32 * 3)];
  for (let i = 0; i < 200; i++) {
    const centre = cellPose(scene.maze, draws.below(scene.maze.walls.length), draws.below(HEADINGS));
    const pose = { ...centre, x: centre.x + draws.below(1600) - 800, y: centre.y + draws.below(1600) - 800 };
    used.draw(pose, a);
    new Renderer(scene, 32).draw(pose, b);
    assertEquals(a, b);
  }
});

/** The shift in columns that brings the brightness of one frame nearest to the next one's; positive is to the right. */
function shiftBetween(from: Uint8Array, to: Uint8Array, size: number): number {
  let best = Infinity, shift = 0;
  for (let s = -24; s <= 24; s++) {
    let sum = 0, count = 0;
    for (let y = 0; y < size; y++) {
      for (let x = Math.max(0, -s); x < size - Math.max(0, s); x++) {
        for (let c = 0; c < 3; c++) {
          sum += Math.abs(from[(y * size + x) * 3 + c] - to[(y * size + x + s) * 3 + c]);
        }
        count++;
      }
    }
    if (sum / count < best) [best, shift] = [sum / count, s];
  }
  return shift;
}

Deno.test("action f leads from frame f to frame f + 1, and a left turn moves the picture to the right", () => {
  const size = 64, bytes = size * size * 3;
  const { frames, actions } = worldClip({ seed: 0, split: "train", index: 1, frames: 120 });
  const shifts: number[][] = [[], [], []];
  for (let f = 0; f + 1 < 120; f++) {
    const [a, b] = [f, f + 1].map((i) => frames.subarray(i * bytes, (i + 1) * bytes));
    shifts[actions[f]].push(shiftBetween(a, b, size));
  }
  const median = (list: number[]) => list.toSorted((a, b) => a - b)[list.length >> 1];
  assert(median(shifts[0]) > 6 && median(shifts[1]) < -6, `${shifts.map(median)}`);
  assert(Math.abs(median(shifts[2])) <= 1, `${shifts.map(median)}`);
});

Deno.test("a stream of frames is the same walk as a clip of it, with one frame in memory at a time", () => {
  const options = { seed: 4, split: "validation", index: 9, size: 32 } as const;
  const clip = worldClip({ ...options, frames: 50 });
  for (const { index, frame, action, pose } of worldFrames(options).take(50)) {
    assertEquals(frame, clip.frames.slice(index * frame.length, (index + 1) * frame.length));
    assertEquals(action, clip.actions[index]);
    assertEquals(pose, poseAt(clip.poses, index));
  }
});

Deno.test("walks of minutes keep walking and keep returning", () => {
  const { maze, poses } = worldClip({
    seed: 0,
    split: "train",
    index: 0,
    frames: 3000,
    size: 16,
    cells: [8, 8],
  });
  const cells = new Set(Array.from({ length: 3000 }, (_, f) => poseCell(maze, poseAt(poses, f))));
  assert(cells.size > 50, `${cells.size} of 64 cells`);
});

Deno.test("most of what frames 144 to 299 show was seen in the context, and much of it only long ago", () => {
  const counts = { near: 0, distant: 0, new: 0 };
  let place = 0;
  for (let index = 0; index < 24; index++) {
    const { maze, poses } = worldClip({ seed: 0, split: "test", index, frames: 300, size: 16 });
    for (const word of memoryOf(new Views(maze, poses), 144, 300)) counts[word]++;
    for (let f = 144; f < 300; f++) if (placeSeen(poses, f, { to: 128 }) !== undefined) place++;
  }
  const all = 24 * 156;
  assert(counts.distant > 0.4 * all && counts.new < 0.1 * all, JSON.stringify(counts));
  assert(place > 0.45 * all, `${place / all} of the frames stand where a frame of the distant context stood`);
});

Deno.test("placeSeen() counts frames back to the same place and direction within its limits", () => {
  const poses = Int32Array.from([[0, 0, 0], [1024, 0, 0], [1024, 0, 1], [2048, 0, 15], [0, 0, 15]].flat());
  assertEquals(placeSeen(poses, 4), 3);
  assertEquals(placeSeen(poses, 4, { cells: 0 }), 4);
  assertEquals(placeSeen(poses, 4, { turns: 0 }), undefined);
  assertEquals(placeSeen(poses, 3, { cells: 0 }), undefined);
  assertEquals(placeSeen(poses, 3), 2);
  assertEquals(placeSeen(poses, 2, { to: 1 }), 2);
  assertEquals(placeSeen(poses, 0), undefined);
});

Deno.test("options of the world that are out of range are refused", () => {
  const options = { seed: 0, split: "train", index: 0, frames: 2 } as const;
  assertThrows(
    () => worldClip({ ...options, frames: 0 }),
    RangeError,
    "frames must be a whole number of at least 1",
  );
  assertThrows(() => worldClip({ ...options, index: -1 }), RangeError, "index must be a whole number from 0");
  assertThrows(() => worldClip({ ...options, seed: 1.5 }), RangeError, "seed must be a whole number");
  assertThrows(() => worldClip({ ...options, size: 65 }), RangeError, "even size from 16 to 512, found 65");
  assertThrows(() => worldClip({ ...options, cells: [1, 5] }), RangeError, "2 to 64 cells a side, found 1x5");
});

Deno.test("a part of a walk that is drawn when somebody looks has the pixels of the whole walk", async () => {
  const { frames } = worldClip({ seed: 0, split: "test", index: 2, frames: 12, size: 32 }),
    size = 32 * 32 * 3;
  const clip = await readClip("world:2", { frames: 12, size: 32 });
  const part = sliceFrames(clip.frames, 4, 10), inner = sliceFrames(part, -3, 5);
  assertEquals([part.frames, inner.frames], [6, 2]);
  assertEquals(inner.data, frames.subarray(7 * size, 9 * size));
  assertEquals(part.data, frames.subarray(4 * size, 10 * size));
  assertEquals(sliceFrames(part, 1, 2).data, frames.subarray(5 * size, 6 * size), "after it was drawn");
  assertEquals(clip.frames.data, frames);
});
