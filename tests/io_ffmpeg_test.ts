import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { collectFrames, readFrames } from "../lib/io/video.ts";
import { writeVideo } from "../lib/io/video_write.ts";
import { isThere } from "../lib/io/paths.ts";
import { assertOneLine, inFolder, withFfmpeg, withoutFfmpeg } from "./io_helpers.ts";
import { needs } from "./tools.ts";
import { grays } from "./video_clips.ts";

/** Runs the body with a shell script as ffmpeg. */
async function withScript(folder: string, script: string, body: () => Promise<void>): Promise<void> {
  const path = `${folder}/fake-ffmpeg`;
  const text = `#!/bin/sh\nif [ "$1" = "-version" ]; then echo "ffmpeg version 6.0"; exit 0; fi\n${script}\n`;
  await Deno.writeTextFile(path, text, { mode: 0o755 });
  await withFfmpeg(path, body);
}

Deno.test({
  ...needs(["sleep"], "an ffmpeg that fails half-way or falls silent is quoted, ended, and leaves no file"),
  fn: () =>
    inFolder(async (folder) => {
      const video = `${folder}/in.mp4`;
      await writeVideo(video, grays(2, 16, 16), { fps: 8 });
      const frame = "printf 'P6\\n2 1\\n255\\nabcdef'";
      await withScript(folder, `${frame}; echo first >&2; echo "disk on fire" >&2; exit 1`, async () => {
        let count = 0;
        const error = await assertRejects(async () => {
          for await (const _ of readFrames(video)) count++;
        });
        assertEquals(count, 1);
        assertOneLine(
          error,
          'in.mp4: truncated or damaged: expected every packet to decode, decoded 1 frames: ffmpeg says "first; disk on fire"',
        );
      });
      await withScript(folder, `${frame}; printf 'P6\\n2 1\\n255\\nabc'; exit 0`, async () => {
        const error = await assertRejects(() => collectFrames(readFrames(video)));
        assertOneLine(error, "decoded 1 frames");
      });
      await withScript(folder, `printf 'garbage%.0s' 1 2 3 4 5 6 7 8 9 10 11 12; exit 0`, async () => {
        assertOneLine(
          await assertRejects(() => collectFrames(readFrames(video))),
          "expected frames from ffmpeg",
        );
      });
      await withScript(folder, `echo $$ > "${folder}/pid"; ${frame}; exec sleep 600`, async () => {
        const error = await assertRejects(() => collectFrames(readFrames(video, { stallSeconds: 0.3 })));
        assertOneLine(error, "ffmpeg brought nothing for 0.3 seconds");
        const pid = Number(Deno.readTextFileSync(`${folder}/pid`));
        // A process that was killed is there until the system has taken it away.
        for (let i = 0; Deno.build.os === "linux" && isThere(`/proc/${pid}`); i++) {
          assert(i < 100, `process ${pid} still runs`);
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      });
      await withScript(
        folder,
        `head -c 100 > /dev/null; echo "[libx264 @ 0x5] no space" >&2; exit 1`,
        async () => {
          const error = await assertRejects(() =>
            writeVideo(`${folder}/out.mov`, grays(200, 64, 64), { fps: 8 })
          );
          assertOneLine(error, 'out.mov: ffmpeg failed: "libx264: no space"');
        },
      );
      assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name).sort(), [
        "fake-ffmpeg",
        "in.mp4",
        "pid",
      ]);
    }),
});

Deno.test("an ffmpeg is used where it may be run, and nothing asks for a permission", async () => {
  await inFolder(async (folder) => {
    const module = (name: string) => JSON.stringify(new URL(`../lib/io/${name}.ts`, import.meta.url).href);
    const script = `${folder}/look.ts`, video = `${folder}/x.webm`;
    await withoutFfmpeg(() => writeVideo(video, grays(3), { fps: 8 }));
    await Deno.writeTextFile(
      script,
      `import { findFfmpeg } from ${module("ffmpeg")};
       import { probeVideo } from ${module("video")};
       try {
         console.log((await findFfmpeg())?.path ?? "none", (await probeVideo(${
        JSON.stringify(video)
      })).frames);
       } catch (error) {
         console.log(error.name, error.message);
       }`,
    );
    const look = async (flags: string[], env: Record<string, string>) => {
      const config = new URL("../deno.json", import.meta.url).pathname;
      const args = ["run", "--no-prompt", "--config", config, ...flags, script];
      const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, env }).output();
      return new TextDecoder().decode(stdout).trim() || new TextDecoder().decode(stderr);
    };
    const nowhere = { FAR_FFMPEG: `${folder}/none`, FFMPEG_BIN: "" };
    const named = `FileAccessError ${folder}/none: named by FAR_FFMPEG or FFMPEG_BIN, but`;
    assertEquals(await look(["-A"], nowhere), `${named} no ffmpeg runs there`);
    assertEquals(
      await look(["--allow-read", "--allow-env"], nowhere),
      `${named} not permitted by Deno to run it, add --allow-run=${folder}/none`,
    );
    const bare = { FAR_FFMPEG: "", FFMPEG_BIN: "", PATH: folder };
    assertEquals(await look(["-A"], bare), "none 3");
    assertEquals(await look(["--allow-read"], {}), "none 3");
    assertEquals(await look(["--allow-read", "--allow-env"], { ...bare, FAR_FFMPEG: "none" }), "none 3");
    if (Deno.build.os === "windows") return;
    await Deno.writeTextFile(`${folder}/ffmpeg`, "#!/bin/sh\necho ffmpeg version 6.0\n", { mode: 0o755 });
    assertEquals(await look(["--allow-read", "--allow-env"], bare), "none 3");
    assertMatch(await look(["-A"], bare), /^ffmpeg /);
  });
});
