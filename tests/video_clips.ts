/**
 * Clips that video tests write and know again.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Frames, makeFrames } from "../lib/io/frames.ts";
import { readFrames, type ReadOptions } from "../lib/io/video.ts";
import { inFolder, withoutFfmpeg } from "./io_helpers.ts";
import { toolTest } from "./tools.ts";

/** A test of what does not depend on who reads and writes: runs in-process, and with the system's ffmpeg where it is. */
export function videoTest(name: string, body: (folder: string) => Promise<void>): void {
  Deno.test(`${name}, in-process`, () => withoutFfmpeg(() => inFolder(body)));
  toolTest(["ffmpeg"], `${name}, with ffmpeg`, () => inFolder(body));
}

/** Every frame is of one gray, 5 levels from the one before it. */
export function grays(count: number, height = 32, width = 48): Frames {
  const size = height * width * 3;
  return makeFrames(
    count,
    height,
    width,
    new Uint8Array(count * size).map((_, i) => 10 + 5 * Math.floor(i / size)),
  );
}

/** Smooth moving colours, which codecs hold well. */
export function colours(count: number, height: number, width: number): Frames {
  const out = makeFrames(count, height, width);
  for (let i = 0; i < out.data.length; i++) {
    const [c, x, y, f] = [
      i % 3,
      Math.floor(i / 3) % width,
      Math.floor(i / 3 / width) % height,
      Math.floor(i / 3 / width / height),
    ];
    out.data[i] = 128 + 100 * Math.sin((x * (c + 1) + y * 2 + f * 3) / 24 + c);
  }
  return out;
}

export function meanError(a: Frames, b: Frames): number {
  assertEquals([a.frames, a.height, a.width], [b.frames, b.height, b.width]);
  return a.data.reduce((sum, value, i) => sum + Math.abs(value - b.data[i]), 0) / a.data.length;
}

/** Which frames of {@linkcode grays} came back. */
export async function which(path: string, options: ReadOptions): Promise<number[]> {
  const numbers: number[] = [];
  for await (const { data } of readFrames(path, options)) {
    numbers.push(Math.round((data.reduce((a, b) => a + b, 0) / data.length - 10) / 5));
  }
  return numbers;
}
