import { assert, assertEquals, assertThrows } from "@std/assert";
import { generator } from "../kernels/check.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { gifFrames } from "../lib/io/gif.ts";
import { checkLzw } from "../lib/io/gif_lzw.ts";
import { writeVideo } from "../lib/io/video_write.ts";
import { inFolder, pick } from "./io_helpers.ts";

/** Codes of so many bits each as a picture's data. */
function dataOf(literal: number, codes: readonly (readonly [value: number, bits: number])[]): Uint8Array {
  let bits = "";
  for (const [value, count] of codes) bits = value.toString(2).padStart(count, "0") + bits;
  bits = bits.padStart(Math.ceil(bits.length / 8) * 8, "0");
  const bytes = bits.match(/.{8}/g)!.map((b) => parseInt(b, 2)).reverse();
  return Uint8Array.of(literal, bytes.length, ...bytes, 0);
}

Deno.test("the codes of a GIF's picture are checked: each must be known, and they make up all pixels", () => {
  // Literals 0 to 3, clear 4, end 5: pixels 1, then 1 1 by the code that it makes itself, then the end.
  const good = [[4, 3], [1, 3], [6, 3], [5, 3]] as const;
  checkLzw(dataOf(2, good), 0, 3);
  assertThrows(() => checkLzw(dataOf(2, good), 0, 4), Error, "3 pixels, not 4");
  assertThrows(() => checkLzw(dataOf(2, good), 0, 2), Error, "3 pixels, not 2");
  assertThrows(() => checkLzw(dataOf(2, [[4, 3], [6, 3]]), 0, 3), Error, "code 6 of 6"); // nothing before it
  assertThrows(() => checkLzw(dataOf(2, [[4, 3], [1, 3], [7, 3]]), 0, 3), Error, "code 7 of 6");
  assertThrows(() => checkLzw(dataOf(2, good.slice(0, 2)), 0, 3), Error, "end too early");
  assertThrows(() => checkLzw(dataOf(12, good), 0, 3), Error, "literals of 12 bits");
});

Deno.test("damage anywhere in a GIF is refused, or changes colours only: no file keeps the reader busy", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/a.gif`, random = generator(5), frames = makeFrames(4, 40, 30);
    frames.data.forEach((_, i) => frames.data[i] = (i * 7 + (i >> 5)) & 0xf0);
    await writeVideo(path, frames, { fps: 5 });
    const good = Deno.readFileSync(path);
    assertEquals([...gifFrames(path)].length, 4);
    let refused = 0;
    for (let i = 0; i < 2000; i++) {
      const bytes = good.slice();
      for (let n = 0; n <= i % 3; n++) bytes[pick(random, bytes.length)] ^= 1 << pick(random, 8);
      Deno.writeFileSync(path, bytes);
      try {
        for (const { image } of gifFrames(path)) assert(image.data.length > 0);
      } catch (error) {
        assert(error instanceof FileFormatError, String(error));
        refused++;
      }
    }
    assert(refused > 1000, `${refused} of 2000 were refused`);
  });
});
