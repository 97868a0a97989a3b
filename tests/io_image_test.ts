import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { generator } from "../kernels/check.ts";
import { CELL, drawText, stampFrames, wrapText } from "../lib/io/font.ts";
import {
  concatFrames,
  fillColour,
  fitFrames,
  type Frames,
  makeFrames,
  planFit,
  sliceFrames,
} from "../lib/io/frames.ts";
import { encodePng, readPng, writeGif, writePng } from "../lib/io/image.ts";
import { fromPlanes, toPlanes, writePlanes } from "../lib/io/planes.ts";
import { contactSheet, sideBySide } from "../lib/io/sheet.ts";
import { assertRefused, inFolder, pick, png } from "./io_helpers.ts";

function noise(seed: number, frames: number, height: number, width: number): Frames {
  const random = generator(seed);
  return makeFrames(
    frames,
    height,
    width,
    new Uint8Array(frames * height * width * 3).map(() => pick(random, 256)),
  );
}

Deno.test("a PNG gives back every pixel, and is the same bytes each time", async () => {
  await inFolder(async (folder) => {
    for (const [height, width] of [[1, 1], [7, 13], [64, 64]]) {
      const image = noise(height, 1, height, width);
      await writePng(`${folder}/x.png`, image);
      assertEquals(readPng(`${folder}/x.png`), image);
      assertEquals(Deno.readFileSync(`${folder}/x.png`), encodePng(image));
    }
  });
  assertThrows(() => encodePng(noise(1, 2, 3, 3)), RangeError, "png: expected one frame, found 2");
});

Deno.test("PNGs of every 8-bit kind and row filter are read", () => {
  const read = (bytes: Uint8Array) => [...readPng(bytes).data];
  assertEquals(read(png({ width: 2, height: 1, type: 0 }, [0, 5, 9])), [5, 5, 5, 9, 9, 9]);
  assertEquals(read(png({ width: 1, height: 1, type: 2 }, [0, 1, 2, 3])), [1, 2, 3]);
  assertEquals(read(png({ width: 2, height: 1, type: 3 }, [0, 1, 0], [1, 2, 3, 4, 5, 6])), [
    4,
    5,
    6,
    1,
    2,
    3,
  ]);
  assertEquals(read(png({ width: 1, height: 1, type: 4 }, [0, 100, 51])), [20, 20, 20]);
  assertEquals(read(png({ width: 1, height: 1, type: 6 }, [0, 10, 20, 30, 255])), [10, 20, 30]);
  // Rows of two gray pixels, one of each filter: sub, up, average, Paeth.
  const filters = png({ width: 2, height: 5, type: 0 }, [0, 10, 20, 1, 1, 1, 2, 1, 1, 3, 1, 1, 4, 1, 1]);
  const gray = read(filters).filter((_, i) => i % 3 === 0);
  assertEquals(gray, [10, 20, 1, 2, 2, 3, 2, 3, 3, 4]);
});

Deno.test("PNGs that cannot be read are refused by name", () => {
  const refused = (bytes: Uint8Array, ...parts: string[]) =>
    assertRefused(() => readPng(bytes, "x.png"), ...parts);
  refused(png({ width: 1, height: 1, type: 2, interlace: 1 }, [0, 1, 2, 3]), "x.png: is interlaced (Adam7)");
  refused(png({ width: 1, height: 1, type: 2, depth: 16 }, [0, 1, 2, 3]), "8 bits a sample, found 16 (RGB)");
  refused(png({ width: 1, height: 1, type: 5 }, [0, 1]), "colour type 0, 2, 3, 4 or 6, found 5");
  refused(png({ width: 1, height: 1, type: 3 }, [0, 1]), "expected a palette");
  refused(png({ width: 1, height: 1, type: 3 }, [0, 1], [1, 2, 3]), "colours below 1, found 1");
  refused(png({ width: 1, height: 1, type: 0 }, [7, 1]), "row filters 0 to 4, found 7");
  refused(png({ width: 2, height: 1, type: 0 }, [0, 1]), "expected 3 bytes of pixels, found 2");
  refused(png({ width: 1, height: 1, type: 0 }, new Array(100_000).fill(0)), "expected 2 bytes of pixels");
  refused(png({ width: 2 ** 31, height: 2 ** 31, type: 2 }, [0]), "expected a picture of 1 to");
  refused(png({ width: 0, height: 1, type: 2 }, [0]), "expected a picture of 1 to");
  refused(new Uint8Array(5), "expected a PNG image");
  const good = encodePng(noise(1, 1, 4, 4));
  for (let length = 0; length < good.length; length++) refused(good.slice(0, length));
  for (let at = 0; at < good.length; at++) {
    const bytes = good.slice();
    bytes[at] ^= 16;
    refused(bytes);
  }
});

/** Sizes, delays in hundredths and count of the pictures of a GIF, read from its blocks. */
function gifBlocks(bytes: Uint8Array): { width: number; height: number; delays: number[]; loops: boolean } {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  assertEquals(String.fromCharCode(...bytes.subarray(0, 6)), "GIF89a");
  const table = (flags: number) => flags & 128 ? 3 * 2 ** ((flags & 7) + 1) : 0;
  let at = 13 + table(bytes[10]);
  const delays: number[] = [];
  let loops = false;
  const skipBlocks = () => {
    while (bytes[at] !== 0) at += bytes[at] + 1;
    at++;
  };
  while (bytes[at] !== 0x3b) {
    if (bytes[at] === 0x21) {
      if (bytes[at + 1] === 0xf9) delays.push(view.getUint16(at + 4, true));
      if (bytes[at + 1] === 0xff) loops = view.getUint16(at + 16, true) === 0;
      at += 2;
      skipBlocks();
    } else {
      assertEquals(bytes[at], 0x2c);
      at += 10 + table(bytes[at + 9]) + 1;
      skipBlocks();
    }
  }
  assertEquals(at, bytes.length - 1);
  return { width: view.getUint16(6, true), height: view.getUint16(8, true), delays, loops };
}

Deno.test("a GIF has all frames, loops, and keeps its rate over time", async () => {
  await inFolder(async (folder) => {
    const clip = noise(3, 12, 9, 11);
    const path = `${folder}/x.gif`;
    await writeGif(path, clip, 30);
    const whole = Deno.readFileSync(path);
    const { width, height, delays, loops } = gifBlocks(whole);
    assertEquals([width, height, delays.length, loops], [11, 9, 12, true]);
    assertEquals(delays.reduce((a, b) => a + b), 40);
    async function* parts() {
      for (let f = 0; f < 12; f += 5) yield await Promise.resolve(sliceFrames(clip, f, Math.min(12, f + 5)));
    }
    await writeGif(path, parts(), 30);
    assertEquals(Deno.readFileSync(path), whole);
    await writeGif(path, makeFrames(2, 4, 4), 8);
    assertEquals(gifBlocks(Deno.readFileSync(path)).delays.length, 2);
    await assertRejects(() => writeGif(path, clip, 0), RangeError, "above 0, found 0");
    await assertRejects(() => writeGif(path, makeFrames(0, 4, 4), 8), RangeError, "at least one frame");
    assertEquals([...Deno.readDirSync(folder)].length, 1);
  });
});

Deno.test("drawText() draws the letters it is given, inside the frame only", () => {
  const canvas = makeFrames(1, 9, 14);
  drawText(canvas, "L1", { left: 1, top: 1 }, [200, 0, 0]);
  const rows = Array.from(
    { length: 9 },
    (_, y) => Array.from({ length: 14 }, (_, x) => canvas.data[(y * 14 + x) * 3] ? "#" : ".").join(""),
  );
  assertEquals(rows, [
    "..............",
    ".#.......#....",
    ".#......##....",
    ".#.......#....",
    ".#.......#....",
    ".#.......#....",
    ".#.......#....",
    ".#####..###...",
    "..............",
  ]);
  const small = makeFrames(2, 3, 3);
  drawText(small, "W\u00e9", { left: -2, top: -2 }, [9, 9, 9], 3);
  assertEquals(small.data.length, 54);
});

Deno.test("a stamp is written below the picture, on every frame, in as many lines as it takes", () => {
  const clip = noise(5, 3, 16, 64);
  const stamped = stampFrames(clip, "random weights");
  assertEquals([stamped.frames, stamped.width], [3, 64]);
  assertEquals(stamped.height, 16 + 2 * CELL.height + 2);
  for (let f = 0; f < 3; f++) {
    const frame = sliceFrames(stamped, f, f + 1).data;
    assertEquals(frame.subarray(0, 16 * 64 * 3), sliceFrames(clip, f, f + 1).data);
    const letters = frame.subarray(16 * 64 * 3).filter((value) => value === 255).length;
    assert(letters > 300, `${letters} bright values in the strip`);
  }
  assertEquals(wrapText("random weights", 10), ["random", "weights"]);
  assertEquals(wrapText("random weights", 4), ["rand", "om", "weig", "hts"]);
});

Deno.test("sideBySide() plays clips together, at their scale, with predicted frames marked", () => {
  const [truth, predicted] = [noise(1, 4, 8, 8), noise(2, 6, 8, 8)];
  const out = sideBySide([{ label: "truth", frames: truth }, {
    label: "FAR",
    frames: predicted,
    predictedFrom: 2,
  }], {
    scale: 2,
    stamp: "random weights",
  });
  assertEquals(out.frames, 6);
  const pixel = (
    f: number,
    y: number,
    x: number,
  ) => [...out.data.subarray(((f * out.height + y) * out.width + x) * 3).subarray(0, 3)];
  const [top, left] = [CELL.height + 8, 4];
  assertEquals(pixel(1, top + 3, left + 5), [
    ...sliceFrames(truth, 1, 2).data.subarray((1 * 8 + 2) * 3, (1 * 8 + 2) * 3 + 3),
  ]);
  const second = left + 30 + 8; // "truth" is wider than its clip
  assertEquals(pixel(5, top, second), [...sliceFrames(predicted, 5).data.subarray(0, 3)]);
  assertEquals([pixel(1, top - 1, second), pixel(2, top - 1, second)], [[90, 90, 90], [230, 140, 20]]);
  assertThrows(() => sideBySide([]), RangeError, "at least one clip");
});

Deno.test("contactSheet() shows the first, the last and evenly spaced frames", () => {
  const clip = noise(1, 100, 8, 8);
  const sheet = contactSheet([{ label: "truth", frames: clip }, {
    label: "ours",
    frames: sliceFrames(clip, 0, 50),
  }], {
    columns: 5,
    scale: 1,
  });
  assertEquals(sheet.frames, 1);
  const cell = 12 + 8; // two digits of the number, twice the gap
  const top = CELL.height + 4 + CELL.height + 8;
  [0, 25, 50, 74, 99].forEach((frame, column) => {
    const at = (top * sheet.width + 8 + column * cell) * 3;
    assertEquals(
      sheet.data.subarray(at, at + 24),
      clip.data.subarray(frame * 192, frame * 192 + 24),
      `column ${column}`,
    );
  });
  const second = ((top + 8 + CELL.height + 12) * sheet.width + 8) * 3;
  assertEquals(sheet.data.subarray(second, second + 24), clip.data.subarray(0, 24));
  const missing = second + 3 * cell * 3;
  assertEquals(
    sheet.data.subarray(missing, missing + 24),
    new Uint8Array(24).fill(24),
    "frame 74 of 50 is left empty",
  );
});

Deno.test("contactSheet() counts its columns from the number of the first frame", () => {
  const clip = noise(1, 3, 24, 24),
    numbered = (firstFrame: number) => contactSheet([{ label: "a", frames: clip }], { scale: 1, firstFrame });
  const shown = numbered(144), head = { top: 4, left: 8 };
  const expected = makeFrames(1, shown.height, shown.width, shown.data.slice());
  fillColour(expected.data.subarray(0, (CELL.height + 4) * shown.width * 3), [24, 24, 24]);
  ["144", "145", "146"].forEach((text, i) =>
    drawText(expected, text, { ...head, left: head.left + i * 32 }, [160, 160, 160])
  );
  assertEquals(shown.data, expected.data);
  assert(numbered(0).data.some((v, i) => v !== shown.data[i]));
});

Deno.test("fillColour() fills any number of pixels, and nothing else", () => {
  for (const pixels of [0, 1, 2, 3, 7, 64]) {
    const data = new Uint8Array(pixels * 3 + 3);
    fillColour(data.subarray(0, pixels * 3), [1, 2, 3]);
    const expected = Array.from({ length: pixels * 3 }, (_, i) => 1 + i % 3);
    assertEquals([...data], [...expected, 0, 0, 0], `${pixels} pixels`);
  }
});

Deno.test("planFit() and fitFrames() crop, pad and stretch", () => {
  const [wide, square] = [{ height: 240, width: 320 }, { height: 64, width: 64 }];
  assertEquals(planFit(wide, square, "crop"), {
    scaled: { height: 64, width: 85 },
    offset: { top: 0, left: 10 },
  });
  assertEquals(planFit(wide, square, "pad"), {
    scaled: { height: 48, width: 64 },
    offset: { top: 8, left: 0 },
  });
  assertEquals(planFit(wide, square, "stretch"), { scaled: square, offset: { top: 0, left: 0 } });
  // A picture of one colour stays so; padding adds black.
  const gray = makeFrames(2, 6, 12, new Uint8Array(2 * 6 * 12 * 3).fill(77));
  for (const fit of ["crop", "stretch"] as const) {
    assertEquals(fitFrames(gray, { height: 4, width: 4 }, fit).data, new Uint8Array(2 * 48).fill(77));
  }
  const padded = fitFrames(gray, { height: 4, width: 4 }, "pad");
  assertEquals([...padded.data.subarray(0, 48)].map((value) => value / 77), [
    ...new Array(12).fill(0),
    ...new Array(24).fill(1),
    ...new Array(12).fill(0),
  ]);
  // Halving averages: the weights of an antialiased triangle filter sum to one.
  const ramp = makeFrames(1, 1, 8, new Uint8Array(24).map((_, i) => Math.floor(i / 3) * 20));
  const half = fitFrames(ramp, { height: 1, width: 4 }, "stretch");
  assertAlmostEquals(half.data[3], 50, 1);
  assertAlmostEquals(half.data[6], 90, 1);
  assertEquals(fitFrames(gray, { height: 6, width: 12 }, "crop"), gray);
});

Deno.test("frames are cut and joined by number", () => {
  const clip = noise(1, 5, 2, 3);
  assertEquals(sliceFrames(clip, -2).data, clip.data.subarray(3 * 18));
  assertEquals(concatFrames([sliceFrames(clip, 0, 2), sliceFrames(clip, 2)]), clip);
  assertEquals(sliceFrames(clip, 4, 2).frames, 0);
  assertThrows(
    () => concatFrames([clip, noise(1, 1, 2, 2)]),
    RangeError,
    "expected 2x3 throughout, found 2x2",
  );
  assertThrows(
    () => makeFrames(1, 2, 3, new Uint8Array(17)),
    RangeError,
    "[1,2,3, 3] needs 18 bytes, found 17",
  );
});

Deno.test("frames become planes from -1 to 1 and come back the same; what lies outside is clamped", () => {
  const frames = noise(11, 2, 3, 5), planes = toPlanes(frames);
  const at = (f: number, c: number, y: number, x: number) => planes[((f * 3 + c) * 3 + y) * 5 + x];
  const colour = (f: number, y: number, x: number, c: number) => frames.data[((f * 3 + y) * 5 + x) * 3 + c];
  assertAlmostEquals(at(1, 2, 0, 4), colour(1, 0, 4, 2) / 127.5 - 1, 1e-6);
  assertEquals(fromPlanes(planes, 3, 5), frames);
  const unrounded = new Float32Array(3);
  assertEquals([...fromPlanes(Float32Array.of(-3, 0.25, 1.5), 1, 1, unrounded).data], [0, 159, 255]);
  assertEquals([...unrounded], [0, 0.625, 1]);
});

Deno.test("a part of an image becomes planes, mirrored where asked for", () => {
  const image = Array.from({ length: 3 * 4 * 3 }, (_, i) => i), out = new Float32Array(3 * 2 * 2);
  const part = { top: 1, left: 1, height: 2, width: 2, stride: 4 };
  writePlanes(image, part, [0, 255], out);
  assertEquals([...out], [15, 18, 27, 30, 16, 19, 28, 31, 17, 20, 29, 32]);
  writePlanes(image, { ...part, flip: true }, [0, 255], out);
  assertEquals([...out], [18, 15, 30, 27, 19, 16, 31, 28, 20, 17, 32, 29]);
});
