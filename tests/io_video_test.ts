import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
// @ts-types="../lib/io/gifenc.d.ts"
// deno-lint-ignore no-import-prefix -- as lib/ imports it
import gifenc from "npm:gifenc@1.0.3";
import { generator } from "../kernels/check.ts";
import { type Frames, makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { collectFrames, probeVideo, readFrames, type ReadOptions } from "../lib/io/video.ts";
import { writeFrames, writeVideo } from "../lib/io/video_write.ts";
import { openNpz } from "../lib/io/npz.ts";
import { assertOneLine, inFolder, mutate, ownMemory, pick, withoutFfmpeg } from "./io_helpers.ts";
import { colours, grays, meanError, videoTest, which } from "./video_clips.ts";

videoTest("mp4, mov, webm and gif come back with every frame and the codec's error", async (folder) => {
  const clip = colours(20, 48, 64);
  for (const [ending, bound] of [["mp4", 2.5], ["mov", 2.5], ["webm", 4], ["gif", 6]] as const) {
    const path = `${folder}/x.${ending}`;
    await writeVideo(path, clip, { fps: 10 });
    const back = await collectFrames(readFrames(path));
    const error = meanError(back, clip);
    assert(error < bound, `${ending}: mean error ${error}`);
    const info = await probeVideo(path);
    assertEquals([info.height, info.width, info.frames], [48, 64, 20], ending);
    assertAlmostEquals(info.fps, 10, 0.01);
    assertEquals(info.times.length, 20);
    assertAlmostEquals(info.times[19], 1.9, 0.01);
  }
  assertEquals([...Deno.readDirSync(folder)].length, 4);
});

videoTest(
  "a video is written from a stream, sides of odd length get one pixel more, crf decides the size",
  async (folder) => {
    const clip = colours(9, 33, 47);
    async function* parts() {
      for (let f = 0; f < 9; f += 4) yield await Promise.resolve(sliceFrames(clip, f, Math.min(9, f + 4)));
    }
    await writeVideo(`${folder}/a.mp4`, parts(), { fps: 8, crf: 10 });
    await writeVideo(`${folder}/b.mp4`, clip, { fps: 8, crf: 40 });
    const back = await collectFrames(readFrames(`${folder}/a.mp4`));
    assertEquals([back.frames, back.height, back.width], [9, 34, 48]);
    const corner = makeFrames(9, 33, 47);
    for (let f = 0; f < 9; f++) {
      for (let y = 0; y < 33; y++) {
        const from = (f * 34 + y) * 48 * 3;
        corner.data.set(back.data.subarray(from, from + 47 * 3), (f * 33 + y) * 47 * 3);
      }
    }
    assert(meanError(corner, clip) < 3);
    assert(Deno.statSync(`${folder}/b.mp4`).size < 0.7 * Deno.statSync(`${folder}/a.mp4`).size);
  },
);

videoTest("start, every, count, last and fps choose frames exactly", async (folder) => {
  const path = `${folder}/x.mp4`;
  await writeVideo(path, grays(40), { fps: 20 });
  assertEquals(await which(path, {}), Array.from({ length: 40 }, (_, i) => i));
  assertEquals(await which(path, { start: 3, every: 7 }), [3, 10, 17, 24, 31, 38]);
  assertEquals(await which(path, { start: 3, every: 7, count: 2 }), [3, 10]);
  assertEquals(await which(path, { last: 3 }), [37, 38, 39]);
  assertEquals(await which(path, { every: 4, last: 2 }), [32, 36]);
  assertEquals(await which(path, { count: 10, last: 2 }), [8, 9]);
  assertEquals(await which(path, { last: 100 }), Array.from({ length: 40 }, (_, i) => i));
  assertEquals((await which(path, { fps: 10 })).length, 20);
  assertEquals((await which(path, { fps: 40 })).length, 80);
  assertOneLine(await assertRejects(() => which(path, { start: 40 })), "found no frame from 40 on");
  await assertRejects(
    () => which(path, { every: 0 }),
    RangeError,
    "every must be a whole number of at least 1, found 0",
  );
  await assertRejects(() => which(path, { every: 2, fps: 5 }), RangeError, "exclude each other");
  await assertRejects(() => which(path, { size: { height: 0, width: 4 } }), RangeError, "found 0x4");
});

videoTest("frames are cropped, padded or stretched to a size", async (folder) => {
  const path = `${folder}/x.mp4`;
  await writeVideo(path, grays(2, 32, 64), { fps: 20 });
  const read = (fit: ReadOptions["fit"]) =>
    collectFrames(readFrames(path, { size: { height: 16, width: 16 }, fit }));
  for (const fit of ["crop", "stretch"] as const) {
    const { data, ...size } = await read(fit);
    assertEquals(size, { frames: 2, height: 16, width: 16 });
    assertAlmostEquals(data[0], 10, 2.5);
  }
  const padded = await read("pad");
  assertEquals(padded.data[0], 0);
  assertAlmostEquals(padded.data[8 * 16 * 3], 10, 2.5);
});

videoTest("the last frames of a ten-minute video are read in bounded memory", async (folder) => {
  const path = `${folder}/long.mp4`;
  async function* still() {
    const part = grays(50, 16, 16);
    for (let f = 0; f < 15_000; f += part.frames) yield await Promise.resolve(part);
  }
  await writeVideo(path, still(), { fps: 25 });
  const large = { height: 64, width: 64 };
  await collectFrames(readFrames(path, { count: 1, size: large })); // the decoder's own memory is no part of the question
  const before = ownMemory();
  let most = 0, count = 0;
  for await (const frame of readFrames(path, { last: 16, size: large })) {
    count += frame.frames;
    most = Math.max(most, ownMemory() - before);
  }
  assertEquals(count, 16);
  // All 15,000 frames would be 184 MB.
  assert(most < 100e6, `${most} bytes more`);
});

videoTest("ending the loop early ends ffmpeg", async (folder) => {
  const path = `${folder}/x.mp4`;
  await writeVideo(path, grays(30), { fps: 20 });
  for await (const frame of readFrames(path)) {
    assertEquals(frame.frames, 1);
    break;
  }
  // The test runner fails on a process or pipe that is left open.
});

videoTest("files that are no videos, or break off, are refused in one line", async (folder) => {
  const good = `${folder}/good.mp4`;
  await writeVideo(good, colours(40, 64, 64), { fps: 20, crf: 10 });
  const bytes = Deno.readFileSync(good);
  const refused = async (name: string, content: Uint8Array | string, ...parts: string[]) => {
    const path = `${folder}/${name}`;
    Deno.writeFileSync(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
    assertOneLine(await assertRejects(() => collectFrames(readFrames(path))), path, ...parts);
  };
  await refused("half.mp4", bytes.slice(0, bytes.length / 2), "truncated or damaged: expected", "found");
  await refused("head.mp4", bytes.slice(0, 200), "truncated or damaged");
  const found =
    "expected a video (mp4, mov, mkv, webm, avi, ogv, mpg, vob, ts, flv, wmv, y4m, gif), found a file";
  await refused(
    "text.mp4",
    "not a video at all\n".repeat(100),
    `${found} that begins with "not a video at a"`,
  );
  await refused("empty.mp4", "", "found an empty file");
  assertOneLine(await assertRejects(() => collectFrames(readFrames(`${folder}/none.mp4`))), "no such file");
  assertOneLine(await assertRejects(() => probeVideo(`${folder}/text.mp4`)), "expected a video");
  assertOneLine(await assertRejects(() => probeVideo(folder)), "expected a regular file");
});

videoTest("a playlist is no video, whatever its name, and opens no other file", async (folder) => {
  await writeVideo(`${folder}/secret.mp4`, grays(4), { fps: 8 });
  await writeVideo(`${folder}/secret.mov`, grays(4), { fps: 8 });
  const secret = `${folder}/secret.mp4`;
  const lists = {
    "m3u8": `#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n${secret}\n#EXT-X-ENDLIST\n`,
    "concat": `ffconcat version 1.0\nfile '${secret}'\n`,
    "mpd": `<?xml version="1.0"?><MPD><Period><BaseURL>${secret}</BaseURL></Period></MPD>`,
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "meta": ";FFMETADATA1\ntitle=x\n",
  };
  for (const [kind, text] of Object.entries(lists)) {
    for (const ending of ["mp4", "mkv", "avi", "gif", "m3u8"]) {
      const path = `${folder}/${kind}.${ending}`;
      await Deno.writeTextFile(path, text);
      const read = () => collectFrames(readFrames(path));
      assertOneLine(
        await assertRejects(read),
        "expected a video",
        `begins with ${JSON.stringify(text.slice(0, 8)).slice(0, -1)}`,
      );
    }
  }
  // Names are names: no pattern for several files, no protocol, no option.
  for (const name of ["shot%d.mp4", "file:x.mp4", "-i.mp4", "a|b.mp4"]) {
    const path = `${folder}/${name}`;
    await Deno.copyFile(secret, path);
    assertEquals(await which(path, {}), [0, 1, 2, 3], name);
  }
});

Deno.test("an mp4 is enlarged for viewing by a whole factor, exact frames go into an npz", () =>
  inFolder(async (folder) => {
    const clip = colours(5, 48, 64);
    await withoutFfmpeg(async () => {
      await writeVideo(`${folder}/x.mp4`, clip, { fps: 8, least: 256 });
      await writeVideo(`${folder}/x.gif`, clip, { fps: 8, least: 90 });
      const back = await collectFrames(readFrames(`${folder}/x.mp4`));
      assertEquals([back.frames, back.height, back.width], [5, 288, 384]); // 6 * 48 is the first above 256
      for (const [y, x] of [[0, 0], [47, 63], [11, 40]]) {
        for (let c = 0; c < 3; c++) {
          const at = ((y * 6 + 3) * 384 + x * 6 + 3) * 3 + c;
          assertAlmostEquals(back.data[at], clip.data[(y * 64 + x) * 3 + c], 12);
        }
      }
      const { height, width } = await probeVideo(`${folder}/x.gif`);
      assertEquals([height, width], [96, 128]);
    });
    await writeFrames(`${folder}/x.npz`, clip);
    using file = openNpz(`${folder}/x.npz`);
    assertEquals(file.tensors.get("video")?.shape, [5, 48, 64, 3]);
    assertEquals(file.read("video").data, clip.data);
  }));

Deno.test("a GIF's frames are drawn over those before them, and cleared or taken back as it says", () =>
  inFolder(async (folder) => {
    const path = `${folder}/x.gif`, encoder = gifenc.GIFEncoder();
    const palette = [[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]];
    // Two pixels; colour 0 is transparent. Red stays, green gives way to what was there, the third frame is cleared.
    for (const [indices, dispose] of [[[1, 1], 1], [[2, 0], 3], [[0, 3], 2], [[3, 0], 1]] as const) {
      const options = { palette, delay: 100, repeat: 0, transparent: true, transparentIndex: 0, dispose };
      encoder.writeFrame(Uint8Array.from(indices), 2, 1, options);
    }
    encoder.finish();
    Deno.writeFileSync(path, encoder.bytesView());
    const [black, red, green, blue] = palette;
    const shown = [[red, red], [green, red], [red, blue], [blue, black]];
    assertEquals([...(await collectFrames(readFrames(path))).data], shown.flat(2));
    assertEquals((await collectFrames(readFrames(path, { fps: 20 }))).frames, 8); // a tenth of a second each
    assertEquals([...(await probeVideo(path)).times].map((time) => Math.round(time * 100)), [0, 10, 20, 30]);
  }));

Deno.test("an mp4 keeps colours without a bias, and is the same bytes each time", () =>
  inFolder(async (folder) => {
    const clip = colours(12, 64, 96), bias = [0, 0, 0];
    await writeVideo(`${folder}/a.mp4`, clip, { fps: 8, crf: 10 });
    await writeVideo(`${folder}/b.mp4`, clip, { fps: 8, crf: 10 });
    const [a, b] = ["a", "b"].map((name) => Deno.readFileSync(`${folder}/${name}.mp4`).toBase64());
    assert(a === b, "two runs differ");
    const back = await collectFrames(readFrames(`${folder}/a.mp4`));
    back.data.forEach((value, i) => bias[i % 3] += (value - clip.data[i]) / (clip.data.length / 3));
    // Truncated conversion would give -1.3 in red and blue; swapped planes or a wrong range, tens.
    for (const one of bias) assert(Math.abs(one) < 0.5, `${bias}`);
    assert(meanError(back, clip) < 1.5, `${meanError(back, clip)}`);
  }));

videoTest(
  "unknown endings, sizes that change and rates out of range are refused, and nothing is left",
  async (folder) => {
    const write = (name: string, clip: Frames | AsyncIterable<Frames>, options = { fps: 8 }) => () =>
      writeVideo(`${folder}/${name}`, clip, options);
    const clip = grays(2);
    await assertRejects(write("x.mp5", clip), RangeError, 'did you mean ".mp4"?');
    await assertRejects(write("x", clip), RangeError, "expected one of .mp4 .mov .webm .gif");
    await assertRejects(write("x.mp4", clip, { fps: 0 }), RangeError, "fps must be above 0");
    await assertRejects(
      write("x.mp4", clip, { fps: 8, crf: 60 } as { fps: number }),
      RangeError,
      "0 to 51 for .mp4",
    );
    await assertRejects(
      write("x.mp4", makeFrames(0, 4, 4)),
      RangeError,
      "expected at least one frame, found none",
    );
    async function* changing() {
      yield await Promise.resolve(clip);
      yield grays(1, 8, 8);
    }
    await assertRejects(write("x.mp4", changing()), RangeError, "expected 32x48 throughout, found 8x8");
    async function* failing() {
      yield await Promise.resolve(clip);
      throw new TypeError("the sampler failed");
    }
    await assertRejects(write("x.mp4", failing()), TypeError, "the sampler failed");
    assertEquals([...Deno.readDirSync(folder)], []);
  },
);

videoTest("50 mutated videos neither hang nor crash the reader", async (folder) => {
  const random = generator(50);
  const path = `${folder}/x.mp4`;
  await writeVideo(path, colours(12, 32, 32), { fps: 8 });
  const good = Deno.readFileSync(path);
  let refused = 0;
  for (let i = 0; i < 50; i++) {
    let bytes = mutate(good, random);
    for (let more = pick(random, 20); more > 0; more--) {
      bytes = mutate(bytes.length > 0 ? bytes : good, random);
    }
    Deno.writeFileSync(path, bytes);
    try {
      const frames = await collectFrames(
        readFrames(path, { stallSeconds: 20, size: { height: 16, width: 16 } }),
        1000,
      );
      assertEquals(frames.data.length, frames.frames * 16 * 16 * 3);
    } catch (error) {
      if (error instanceof RangeError && /at most 1000 frames/.test(error.message)) continue;
      assertOneLine(error, path);
      refused++;
    }
  }
  assert(refused > 10, `${refused} of 50 refused`);
});
