import { assert, assertEquals, assertRejects } from "@std/assert";
import { makeFrames, sliceFrames } from "../lib/io/frames.ts";
import { writePng } from "../lib/io/image.ts";
import { collectFrames, readFrames } from "../lib/io/video.ts";
import { assertOneLine, inFolder, withoutFfmpeg } from "./io_helpers.ts";
import { toolTest } from "./tools.ts";
import { colours, grays, meanError, which } from "./video_clips.ts";

Deno.test("a folder of PNG images is read in natural order without ffmpeg", async () => {
  await inFolder(async (folder) => {
    const clip = grays(12, 4, 4);
    for (let f = 0; f < 12; f++) await writePng(`${folder}/frame${f}.png`, sliceFrames(clip, f, f + 1));
    await Deno.writeTextFile(`${folder}/.frame99.png`, "hidden");
    await Deno.writeTextFile(`${folder}/notes.txt`, "no image");
    assertEquals(await which(folder, {}), Array.from({ length: 12 }, (_, i) => i));
    assertEquals(await which(folder, { start: 1, every: 3, last: 2 }), [7, 10]);
    await writePng(`${folder}/frame12.png`, makeFrames(1, 5, 4));
    assertOneLine(
      await assertRejects(() => which(folder, {})),
      "frames of 4x4 throughout, found 5x4: give a size",
    );
    await Deno.mkdir(`${folder}/empty`);
    assertOneLine(await assertRejects(() => which(`${folder}/empty`, {})), "expected images", "found none");
    assertOneLine(
      await assertRejects(() => which(folder, { start: 13 })),
      "expected an image number 13, found 13",
    );
  });
});

toolTest(
  ["ffmpeg"],
  "folders of JPEG, WebP, BMP and TIFF are read in-process as by ffmpeg",
  () =>
    inFolder(async (folder) => {
      const clip = colours(3, 32, 48);
      for (const ending of ["jpg", "webp", "bmp", "tiff"]) {
        const inside = `${folder}/${ending}`;
        await Deno.mkdir(inside);
        for (let f = 0; f < 3; f++) {
          await writePng(`${folder}/x.png`, sliceFrames(clip, f, f + 1));
          const quality = ending === "jpg" ? ["-q:v", "1"] : [];
          const args = [
            "-v",
            "error",
            "-y",
            "-i",
            `${folder}/x.png`,
            ...quality,
            `${inside}/frame${f}.${ending}`,
          ];
          assert((await new Deno.Command("ffmpeg", { args }).output()).success);
        }
        const outside = await collectFrames(readFrames(inside));
        await withoutFfmpeg(async () => assertEquals(await collectFrames(readFrames(inside)), outside));
        assert(meanError(outside, clip) < 4, ending);
      }
    }),
);
