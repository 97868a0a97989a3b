import { assert, assertEquals, assertMatch } from "@std/assert";
import { fromFloat32 } from "../lib/io/host.ts";
import { openNpz, writeNpz } from "../lib/io/npz.ts";
import { far, inFolder } from "./cli_helpers.ts";
import { toolTest } from "./tools.ts";

/** The commands of a section of docs/data.md, as words after `far.ts`. */
function commands(section: string): string[][] {
  const text = Deno.readTextFileSync(new URL("../docs/data.md", import.meta.url));
  const part = text.slice(text.indexOf(`## ${section}\n`)).split("\n## ")[0];
  const block = /```sh\n(.*?)```/s.exec(part)![1];
  return block.trim().split("\n").map((line) => {
    assertMatch(line, /^deno run -P far\.ts /);
    return line.split(" ").slice(4);
  });
}

async function ffmpeg(...args: string[]): Promise<void> {
  assert((await new Deno.Command("ffmpeg", { args: ["-v", "error", "-y", ...args] }).output()).success);
}

/** A recording of a game, and videos as phones make them: a variable rate, turned, cut by an edit list. */
async function makeClips(folder: string): Promise<void> {
  const [F, H, W] = [24, 40, 56], obs = new Float32Array(F * 3 * H * W).map((_, i) => (i % 101) / 100);
  await Deno.mkdir(`${folder}/more`);
  const actions = {
    shape: [F],
    dtype: "I32" as const,
    data: new Uint8Array(Int32Array.from({ length: F }, (_, i) => i % 3).buffer),
  };
  await writeNpz(`${folder}/game.npz`, { obs: fromFloat32(obs, [F, 3, H, W]), actions });
  const [base, varied] = [`${folder}/base.mp4`, `${folder}/varied.mp4`];
  await ffmpeg(
    "-f",
    "lavfi",
    "-i",
    "testsrc=size=96x64:rate=30:duration=4",
    "-c:v",
    "libx264",
    "-g",
    "30",
    base,
  );
  const drops = "select=if(lt(n\\,60)\\,not(mod(n\\,6))\\,not(mod(n\\,2)))";
  await ffmpeg("-i", base, "-vf", drops, "-vsync", "vfr", "-c:v", "libx264", "-g", "10", varied);
  await ffmpeg("-i", varied, "-c", "copy", "-metadata:s:v", "rotate=90", `${folder}/phone.mp4`);
  await ffmpeg("-ss", "1.3", "-i", base, "-c", "copy", `${folder}/more/cut.mov`);
  await Deno.remove(base);
  await Deno.remove(varied);
  for (const [name, frames] of [["phone", 40], ["more/cut", 81]] as const) {
    await Deno.writeTextFile(`${folder}/${name}.txt`, "2\n".repeat(frames));
  }
}

for (const own of [true, false]) {
  toolTest(
    ["ffmpeg"],
    `one's own clips go from data check to predict by docs/data.md, ${own ? "in-process" : "with ffmpeg"}`,
    () =>
      inFolder(async (folder) => {
        const clips = `${folder}/clips`;
        await Deno.mkdir(clips);
        await makeClips(clips);
        for (const words of commands("Your own clips")) {
          const args = words.map((word) => word.replace("CLIPS", clips).replace(/^out\//, `${folder}/out/`));
          const cpu = args[0] === "predict" ? ["--device", "cpu"] : [];
          const { code, stdout, stderr } = await far([...args, ...cpu], own ? { FAR_FFMPEG: "none" } : {});
          assertEquals(code, 0, `${args.join(" ")}\n${stderr}`);
          if (args[1] === "check") assertMatch(stdout + stderr, /3 clips, all can be read/);
          if (args[1] === "stats") {
            assertMatch(stdout + stderr, /145 frames, 24 to 81 per clip/); // 24 + 40 + 81
            assertMatch(stdout + stderr, /96x64 \(1\)/); // the turned one
          }
        }
        for (const name of ["game", "phone"]) {
          using file = openNpz(`${folder}/out/${name}/prediction.npz`);
          assertEquals(file.tensors.get("video")?.shape, [4, 64, 64, 3]);
        }
      }),
  );
}
