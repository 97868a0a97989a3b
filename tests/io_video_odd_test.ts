import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { generator } from "../kernels/check.ts";
import { checkSet } from "../lib/data/check.ts";
import { folderSet } from "../lib/data/folder.ts";
import { probeVideo, readFrames } from "../lib/io/video.ts";
import { assertOneLine, inFolder, pick, withoutFfmpeg } from "./io_helpers.ts";
import { toolTest } from "./tools.ts";

/** Runs the system's ffmpeg, to make what other programs make. */
async function ffmpeg(...args: string[]): Promise<void> {
  const run = new Deno.Command("ffmpeg", { args: ["-v", "error", "-y", ...args] });
  const { success, stderr } = await run.output();
  assert(success, new TextDecoder().decode(stderr));
}

/** 40 moving frames of 64x48, 25 a second, with a sound. */
async function makeBase(folder: string): Promise<string> {
  const path = `${folder}/base.mp4`;
  await ffmpeg(
    ...[
      "-f",
      "lavfi",
      "-i",
      "testsrc=size=64x48:rate=25:duration=1.6",
      "-f",
      "lavfi",
      "-i",
      "sine=duration=1.6",
    ],
    ...["-c:v", "libx264", "-g", "15", "-bf", "2", "-c:a", "aac", "-movflags", "+faststart", path],
  );
  return path;
}

const EVERY_FOURTH = ["-vf", "select=not(mod(n\\,4))", "-vsync", "vfr", "-an"];

/** Intact videos that are not what their headers make one think: name, arguments, frames, rows and columns. */
const ODD: readonly (readonly [name: string, args: string[], frames: number, size?: [number, number]])[] = [
  ["mpeg.mpg", ["-c:v", "mpeg1video", "-f", "mpeg"], 40],
  ["dvd.vob", ["-c:v", "mpeg2video", "-bf", "2", "-f", "vob"], 40],
  ["theora.ogv", ["-c:v", "libtheora", "-c:a", "libvorbis"], 40],
  ["copy.mkv", ["-c", "copy"], 40],
  ["vp9.webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-an"], 40],
  ["vp8.webm", ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "10", "-an"], 40],
  ["xvid.avi", ["-c:v", "mpeg4", "-bf", "2", "-c:a", "mp3"], 40],
  ["mjpeg.avi", ["-c:v", "mjpeg", "-an"], 40],
  ["stream.mts", ["-c", "copy", "-f", "mpegts"], 40],
  ["moving.gif", ["-an"], 40],
  ["old.flv", ["-c:v", "flv", "-ar", "44100"], 40],
  ["windows.wmv", ["-c:v", "wmv2", "-c:a", "wmav2"], 40],
  ["pieces.mp4", ["-c", "copy", "-movflags", "frag_keyframe+empty_moov"], 40],
  ["hevc.mp4", ["-c:v", "libx265", "-x265-params", "log-level=error", "-an"], 40],
  // Variable rate: a quarter of the frames, at their own times.
  ["vfr.mp4", [...EVERY_FOURTH, "-c:v", "libx264"], 10],
  ["vfr.mkv", [...EVERY_FOURTH, "-c:v", "libx264"], 10],
  ["vfr.webm", [...EVERY_FOURTH, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"], 10],
  ["vfr.avi", [...EVERY_FOURTH, "-c:v", "mpeg4"], 10], // its header says 37
  ["vfr.ogv", [...EVERY_FOURTH, "-c:v", "libtheora"], 10],
  // Edit lists: the copy begins at a frame that must not be shown.
  ["cut.mp4", ["-ss", "0.8", "-c", "copy"], 20],
  ["cut.mov", ["-ss", "0.8", "-an", "-c", "copy"], 20],
  ["late.mp4", ["-itsoffset", "0.5", "-c", "copy"], 40],
  // Turned in the player.
  ["turned.mp4", ["-c", "copy", "-metadata:s:v", "rotate=90"], 40, [64, 48]],
  ["upside.mov", ["-c", "copy", "-metadata:s:v", "rotate=180"], 40],
];

/** Arguments that belong before the input. */
const BEFORE = ["-ss", "-itsoffset"];

async function makeOdd(folder: string): Promise<void> {
  const base = await makeBase(folder), made = `${folder}/odd`;
  await Deno.mkdir(made);
  for (const [name, args] of ODD) {
    const early = BEFORE.includes(args[0]) ? 2 : 0;
    await ffmpeg(...args.slice(0, early), "-i", base, ...args.slice(early), `${made}/${name}`);
  }
}

/** Number and checksum of the frames that come. */
async function decoded(path: string): Promise<{ frames: number; sum: number; size: [number, number] }> {
  let frames = 0, sum = 0, size: [number, number] = [0, 0];
  for await (const { data, height, width } of readFrames(path)) {
    for (let i = 0; i < data.length; i += 7) sum = (sum * 31 + data[i]) | 0;
    frames++;
    size = [height, width];
  }
  return { frames, sum, size };
}

toolTest(
  ["ffmpeg"],
  "intact videos are read in full, whatever their headers say, by ffmpeg and in-process alike",
  () =>
    inFolder(async (folder) => {
      await makeOdd(folder);
      for (const [name, , frames, size = [48, 64]] of ODD) {
        const path = `${folder}/odd/${name}`, outside = await decoded(path);
        assertEquals([outside.frames, ...outside.size], [frames, ...size], name);
        await withoutFfmpeg(async () => {
          const inside = await decoded(path);
          // Fast code of WMV's transform rounds otherwise than the plain code.
          assertEquals(inside, name.endsWith("wmv") ? { ...outside, sum: inside.sum } : outside, name);
          const info = await probeVideo(path);
          assertEquals([info.frames, info.height, info.width], [frames, ...size], name);
          // ffmpeg guesses where an Ogg file's first frames are.
          if (name.startsWith("vfr") && !name.endsWith("ogv")) {
            info.times.forEach((time, i) => assertAlmostEquals(time, i * 0.16, 0.041, name));
            assertAlmostEquals(info.fps, 6.25, 0.3, name);
          }
        });
      }
      // As training and `data check` see them: none is called broken.
      const set = folderSet({ folder: `${folder}/odd` });
      assertEquals(set.length, ODD.length);
      await withoutFfmpeg(async () => assertEquals(await checkSet(set), []));
      const vfr = set.length - ODD.length + ODD.map(([name]) => name).sort().indexOf("vfr.avi");
      assertEquals(set.source(vfr), `${folder}/odd/vfr.avi`);
      assertEquals((await set.read(vfr, { start: 7, interval: 1, count: 3 })).frames?.frames, 3);
    }),
);

toolTest(
  ["ffmpeg"],
  "a variable rate is resampled by time where that is asked for",
  () =>
    inFolder(async (folder) => {
      const base = await makeBase(folder), path = `${folder}/vfr.mp4`;
      await ffmpeg("-i", base, ...EVERY_FOURTH, "-c:v", "libx264", path);
      const count = async (options: Parameters<typeof readFrames>[1]) => {
        let frames = 0;
        for await (const part of readFrames(path, options)) frames += part.frames;
        return frames;
      };
      for (const body of [withoutFfmpeg, (run: () => Promise<void>) => run()]) {
        await body(async () => {
          assertEquals(await count({}), 10);
          assertEquals(await count({ every: 2 }), 5);
          assertAlmostEquals(await count({ fps: 10 }), 16, 2); // 1.6 seconds, the last frame's length is a guess
        });
      }
    }),
);

/** Ways to damage a file; the number of frames that are then silently missing must be none. */
function* damages(good: Uint8Array, random: () => number): Generator<[name: string, bytes: Uint8Array]> {
  for (const part of [0.2, 0.5, 0.8, 0.97]) {
    yield [`cut at ${part}`, good.slice(0, Math.floor(good.length * part) | 1)]; // odd: within a packet of 188
  }
  const page = new TextDecoder("latin1").decode(good).indexOf("OggS", good.length / 2);
  if (page > 0) yield ["cut at a page", good.slice(0, page)];
  for (let i = 0; i < 4; i++) {
    const bytes = good.slice(), at = Math.floor((i + random()) / 4 * good.length);
    bytes[at] ^= 1 << pick(random, 8);
    yield [`bit at ${at}`, bytes];
  }
  for (let i = 0; i < 4; i++) {
    const bytes = good.slice(), at = Math.floor((i + random()) / 4 * good.length);
    for (let j = at; j < at + 64 && j < good.length; j++) bytes[j] = pick(random, 256);
    yield [`64 bytes at ${at}`, bytes];
  }
  for (let i = 0; i < 2; i++) {
    const bytes = good.slice(), at = Math.floor((i + random()) / 2 * good.length);
    bytes.fill(0, at, at + 600);
    yield [`zeros at ${at}`, bytes];
  }
}

toolTest(
  ["ffmpeg"],
  "a damaged video is refused in one line or has all its frames",
  () =>
    inFolder(async (folder) => {
      await makeOdd(folder);
      const random = generator(3), short: string[] = [];
      let refused = 0, whole = 0;
      await withoutFfmpeg(async () => {
        for (const [name, , frames] of ODD) {
          // The same containers once more, and one whose packets may be lost without a trace.
          if (/^(vfr.webm|late|upside|turned|cut.mov)|wmv$/.test(name)) continue;
          const good = Deno.readFileSync(`${folder}/odd/${name}`), path = `${folder}/damaged-${name}`;
          for (const [how, bytes] of damages(good, random)) {
            Deno.writeFileSync(path, bytes);
            try {
              const found = (await decoded(path)).frames;
              // A transport stream has neither an end nor a length, so that only cuts within a packet show.
              if ((found < frames && !name.endsWith("mts")) || how.startsWith("cut at")) {
                short.push(`${name}, ${how}: ${found} of ${frames}`);
              } else whole++;
            } catch (error) {
              assertOneLine(error, "expected");
              refused++;
            }
          }
        }
      });
      assertEquals(short, []);
      assert(refused > 60 && whole > 10, `${refused} refused, ${whole} with all frames`);
    }),
);

toolTest(
  ["ffmpeg"],
  "the line about a damaged video says what was expected and what was decoded",
  () =>
    inFolder(async (folder) => {
      const base = await makeBase(folder), path = `${folder}/x.mp4`, bytes = Deno.readFileSync(base);
      bytes.fill(0xff, bytes.length * 0.6, bytes.length * 0.8);
      Deno.writeFileSync(path, bytes);
      const message = (await assertRejects(() => decoded(path)) as Error).message;
      assert(
        /x\.mp4: truncated or damaged: expected (40 frames|every packet to decode), decoded \d+ frames: ffmpeg says ".+"$/
          .test(message),
        message,
      );
      Deno.writeFileSync(path, Deno.readFileSync(base).slice(0, -100));
      assertOneLine(
        await assertRejects(() => probeVideo(path)),
        "truncated or damaged: expected",
        "bytes",
        "found",
      );
    }),
);
