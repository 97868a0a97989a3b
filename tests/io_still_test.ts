import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { crc32 } from "node:zlib";
// @ts-types="../lib/io/gifenc.d.ts"
// deno-lint-ignore no-import-prefix -- the package that lib/io/image.ts writes GIFs with
import gifenc from "npm:gifenc@1.0.3";
import { makeFrames } from "../lib/io/frames.ts";
import { overBlack, writeGif, writePng } from "../lib/io/image.ts";
import { readStill } from "../lib/io/still.ts";
import { collectFrames, probeVideo, readFrames } from "../lib/io/video.ts";
import { assertOneLine, inFolder, png, withFfmpeg } from "./io_helpers.ts";
import { toolTest } from "./tools.ts";

/** A 4x2 picture with every kind of opacity; `binary` has all or nothing only. */
const pixels = (binary: boolean): number[][] =>
  Array.from({ length: 8 }, (_, i) => {
    const alpha = binary ? 255 * (i % 2) : [0, 1, 64, 127, 128, 200, 254, 255][i];
    return [20 * i + 60, 255 - 30 * i, 200, alpha];
  });
const over = (picture: number[][]) =>
  picture.flatMap(([r, g, b, a]) => [r, g, b].map((v) => overBlack(v, a)));

/** Rows of a PNG with four samples per pixel, each behind its filter's number. */
const rows = (picture: number[][]) => [0, ...picture.slice(0, 4).flat(), 0, ...picture.slice(4).flat()];

/** An uncompressed TIFF of 4x2 RGBA; `extra` says what its fourth sample is: 1 multiplied already, 2 not. */
function tiff(picture: number[][], extra: number): Uint8Array<ArrayBuffer> {
  const tags: [tag: number, type: number, count: number, value: number][] = [
    ...([[256, 3, 1, 4], [257, 3, 1, 2], [258, 3, 4, 134], [259, 3, 1, 1], [262, 3, 1, 2]] as const),
    ...([[273, 4, 1, 142], [277, 3, 1, 4], [278, 3, 1, 2], [279, 4, 1, 32], [338, 3, 1, extra]] as const),
  ].map(([...tag]) => tag);
  const out = new Uint8Array(142 + 32), data = new DataView(out.buffer);
  out.set([0x49, 0x49, 42, 0, 8, 0, 0, 0, tags.length, 0]);
  tags.forEach(([tag, type, count, value], i) => {
    data.setUint16(10 + 12 * i, tag, true);
    data.setUint16(12 + 12 * i, type, true);
    data.setUint32(14 + 12 * i, count, true);
    data.setUint32(18 + 12 * i, value, true);
  });
  for (let i = 0; i < 4; i++) data.setUint16(134 + 2 * i, 8, true);
  out.set(picture.flat(), 142);
  return out;
}

/** A GIF of one frame in which the first palette entry is nothing. */
function gif(picture: number[][]): Uint8Array<ArrayBuffer> {
  const encoder = gifenc.GIFEncoder();
  const palette = [[1, 2, 3], ...picture.map(([r, g, b]) => [r, g, b])];
  const index = Uint8Array.from(picture, ([, , , a], i) => a === 0 ? 0 : i + 1);
  encoder.writeFrame(index, 4, 2, { palette, transparent: true, delay: 0 });
  encoder.finish();
  return new Uint8Array(encoder.bytesView());
}

async function ffmpeg(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("ffmpeg", { args: ["-v", "error", "-y", ...args] })
    .output();
  assert(success, new TextDecoder().decode(stderr));
}

/** The colours of the only frame. */
async function colours(path: string): Promise<number[]> {
  const { frames, data } = await collectFrames(readFrames(path));
  assertEquals(frames, 1, path);
  return [...data];
}

toolTest(
  ["ffmpeg"],
  "transparency is laid over black, and PNG, WebP, TIFF and GIF give the same picture",
  async () => {
    await inFolder(async (folder) => {
      for (const binary of [true, false]) {
        const picture = pixels(binary), at = (ending: string) => join(folder, `${binary}.${ending}`);
        Deno.writeFileSync(at("png"), png({ width: 4, height: 2, type: 6 }, rows(picture)));
        Deno.writeFileSync(at("tiff"), tiff(picture, 2));
        Deno.writeFileSync(at("raw"), Uint8Array.from(picture.flat()));
        const raw = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", "4x2", "-i", at("raw")];
        await ffmpeg(...raw, "-c:v", "libwebp", "-lossless", "1", "-pix_fmt", "bgra", at("webp"));
        if (binary) Deno.writeFileSync(at("gif"), gif(picture));
        for (const ending of binary ? ["png", "tiff", "webp", "gif"] : ["png", "tiff", "webp"]) {
          assertEquals(await colours(at(ending)), over(picture), at(ending));
        }
      }
      // In a folder they are read by the same rule.
      for await (const frame of readFrames(folder)) {
        assert([true, false].some((binary) => `${over(pixels(binary))}` === `${[...frame.data]}`));
      }
      // Colours that are multiplied already are not multiplied again.
      const path = join(folder, "x.tiff");
      Deno.writeFileSync(path, tiff(pixels(false), 1));
      assertEquals(await colours(path), pixels(false).flatMap(([r, g, b]) => [r, g, b]));
    });
  },
);

Deno.test("a PNG may have transparent palette entries, or one colour that stands for nothing", async () => {
  await inFolder(async (folder) => {
    const path = join(folder, "x.png"), size = { width: 2, height: 1 };
    const read = async (bytes: Uint8Array) => {
      Deno.writeFileSync(path, bytes);
      return await colours(path);
    };
    const palette = [255, 100, 0, 1, 2, 3];
    assertEquals(await read(png({ ...size, type: 3 }, [0, 0, 1], palette, [51])), [51, 20, 0, 1, 2, 3]);
    assertEquals(await read(png({ ...size, type: 3 }, [0, 0, 1], palette, [255, 0])), [255, 100, 0, 0, 0, 0]);
    const rgb = [0, 7, 8, 9, 7, 8, 10];
    assertEquals(await read(png({ ...size, type: 2 }, rgb, undefined, [0, 7, 0, 8, 0, 9])), [
      0,
      0,
      0,
      7,
      8,
      10,
    ]);
    assertEquals(await read(png({ ...size, type: 0 }, [0, 7, 8], undefined, [0, 7])), [0, 0, 0, 8, 8, 8]);
    // Two bytes a sample of which only the low one is the pixel's: not the same colour.
    assertEquals(await read(png({ ...size, type: 0 }, [0, 7, 8], undefined, [1, 7])), [7, 7, 7, 8, 8, 8]);
    Deno.writeFileSync(path, png({ ...size, type: 6 }, [0, 1, 1, 1, 1, 1, 1, 1, 1], undefined, [0, 7]));
    assertOneLine(
      await assertRejects(() => colours(path)),
      "no transparent colour of 2 bytes in a PNG of RGBA",
    );
    // Other depths come through ffmpeg, by the same rule.
    assertEquals(await read(png({ ...size, type: 0, depth: 16 }, [0, 7, 7, 8, 8])), [7, 7, 7, 8, 8, 8]);
    assertEquals(
      await read(
        png({ ...size, type: 6, depth: 16 }, [0, ...Array(6).fill(80), 51, 51, ...Array(8).fill(255)]),
      ),
      [
        ...[16, 16, 16, 255, 255, 255],
      ],
    );
  });
});

toolTest(["ffmpeg"], "any file name is nothing but a name: no pattern, protocol or option", async () => {
  await inFolder(async (folder) => {
    const solid = (red: number) =>
      makeFrames(1, 2, 2, new Uint8Array(12).map((_, i) => i % 3 === 0 ? red : 0));
    const names = [
      ...["shot%d", "shot%03d", "shot%%", "shot*", "shot?", "shot[12]", "shot{1,2}"],
      ...["-i", "-y", "concat:shot1.bmp|shot2", "file:shot1", "pipe:0", "data:,x", "shot 1'\"", "ünï"],
    ];
    for (const ending of ["bmp", "tiff", "jpg", "webp", "gif"]) {
      const write = async (name: string, red: number) => {
        await writePng(join(folder, "one.png"), solid(red));
        const quality = ending === "webp" ? ["-lossless", "1"] : ["-q:v", "1"];
        await ffmpeg("-i", join(folder, "one.png"), ...quality, join(folder, `one.${ending}`));
        Deno.renameSync(join(folder, `one.${ending}`), join(folder, `${name}.${ending}`));
      };
      await write("template", 200);
      await write("shot1", 0);
      for (const other of ["shot0", "shot2", "shot001"]) {
        Deno.copyFileSync(join(folder, `shot1.${ending}`), join(folder, `${other}.${ending}`));
      }
      for (const name of ending === "bmp" ? names : names.slice(0, 1)) {
        const path = join(folder, `${name}.${ending}`);
        Deno.copyFileSync(join(folder, `template.${ending}`), path);
        const [red] = await colours(path);
        assert(Math.abs(red - 200) < 20, `${path}: expected its own red, found ${red}`);
        const { height, width, frames } = await probeVideo(path);
        assertEquals([height, width, frames], [2, 2, 1], path);
        Deno.mkdirSync(join(folder, "in"));
        Deno.renameSync(path, join(folder, "in", `${name}.${ending}`));
        if (ending !== "gif") assert(Math.abs((await colours(join(folder, "in")))[0] - 200) < 20, path);
        Deno.removeSync(join(folder, "in"), { recursive: true });
      }
    }
    // An animation by its own name, beside those that the name would match as a pattern.
    const two = makeFrames(2, 2, 2, new Uint8Array(24).fill(90));
    await writeGif(join(folder, "walk%d.gif"), two, 10);
    for (let i = 0; i < 3; i++) await writeGif(join(folder, `walk${i}.gif`), solid(0), 10);
    assertEquals([...(await collectFrames(readFrames(join(folder, "walk%d.gif")))).data], [...two.data]);
    const moving = join(folder, "walk%d.png"), gray = ["-f", "lavfi", "-i", "color=gray:s=2x2:r=10:d=0.3"];
    await ffmpeg(...gray, "-f", "apng", join(folder, "apng"));
    for (let i = 0; i < 3; i++) await writePng(join(folder, `walk${i}.png`), solid(0));
    const apng = Deno.readFileSync(join(folder, "apng"));
    const comment = [0, 0, 0, 4, ...new TextEncoder().encode("tEXta\0bc")], sum = new Uint8Array(4);
    new DataView(sum.buffer).setUint32(0, crc32(Uint8Array.from(comment.slice(4))));
    // The mark of an animation need not be the first chunk behind the header.
    Deno.writeFileSync(
      moving,
      new Uint8Array([...apng.subarray(0, 33), ...comment, ...sum, ...apng.subarray(33)]),
    );
    const { frames, data } = await collectFrames(readFrames(moving));
    assertEquals([frames, data[0] > 99], [3, true]);
    // What the content does not tell is not left to the name.
    Deno.writeFileSync(join(folder, "x%d.tga"), new Uint8Array(99));
    const error = await assertRejects(() => colours(join(folder, "x%d.tga")));
    assertOneLine(error, "expected a video");
    await ffmpeg("-f", "lavfi", "-i", "testsrc=s=16x16:d=0.2", join(folder, "a.mp4"));
    Deno.renameSync(join(folder, "a.mp4"), join(folder, "100%d [a].mp4"));
    assertEquals((await collectFrames(readFrames(join(folder, "100%d [a].mp4")))).frames, 5);
  });
});

toolTest(["ffmpeg"], "an image that breaks off is refused wherever it was cut", async () => {
  await inFolder(async (folder) => {
    await ffmpeg("-f", "lavfi", "-i", "testsrc=s=48x48", "-frames:v", "1", join(folder, "x.png"));
    for (const ending of ["jpg", "bmp", "tiff", "webp"]) {
      const path = join(folder, `x.${ending}`);
      await ffmpeg("-i", join(folder, "x.png"), path);
      const good = Deno.readFileSync(path), cut = join(folder, "cut");
      assertEquals((await readStill(path)).height, 48);
      for (const part of [0.1, 0.5, 0.9, 0.99]) {
        Deno.writeFileSync(cut, good.subarray(0, Math.floor(good.length * part)));
        assertOneLine(await assertRejects(() => readStill(cut)));
      }
    }
    const silent = join(folder, "silent");
    Deno.writeTextFileSync(
      silent,
      "#!/bin/sh\n[ $# = 1 ] && echo ffmpeg version 5.1 && exit\nexec sleep 60\n",
      { mode: 0o755 },
    );
    await withFfmpeg(silent, async () => {
      assertOneLine(
        await assertRejects(() => readStill(join(folder, "x.bmp"), 0.2)),
        "brought nothing for 0.2 seconds",
      );
    });
    Deno.writeTextFileSync(join(folder, "x.jpg"), "no image");
    assertOneLine(
      await assertRejects(() => readStill(join(folder, "x.jpg"))),
      "expected a png, jpg, webp, bmp or tiff",
    );
  });
});
