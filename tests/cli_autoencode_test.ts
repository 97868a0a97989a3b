import { assert, assertEquals, assertMatch } from "@std/assert";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { encode } from "../lib/dcae/autoencoder.ts";
import { openDevice } from "../kernels/open.ts";
import { toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { makeFrames } from "../lib/io/frames.ts";
import { probeVideo } from "../lib/io/video.ts";
import { writeVideo } from "../lib/io/video_write.ts";
import { randomParams } from "../lib/params.ts";
import { Tensor } from "../lib/tensor.ts";
import { drawVideo, exists, far, farArgs, inFolder, TINY_DCAE, tinyWorld } from "./cli_helpers.ts";
import { needs } from "./tools.ts";

Deno.test(
  "encode writes scaled latents of every frame, decode brings as many frames back",
  async () => {
    await inFolder(async (folder) => {
      const [clip] = await tinyWorld(folder, 11),
        vae = ["--vae", `${folder}/dcae.json`, "--random-weights", "--device", "cpu"];
      const encoded = await far(["encode", clip, ...vae, "--to", `${folder}/z.safetensors`], {}, "-P");
      assertEquals(encoded.code, 0, encoded.stderr);
      using file = openTensorFile(`${folder}/z.safetensors`);
      assertEquals([file.tensors.get("latents")!.shape, file.metadata.weights], [
        [11, 4, 4, 4],
        "RANDOM WEIGHTS",
      ]);

      const config = dcaeConfig(TINY_DCAE), { device } = await openDevice({ device: "cpu", threads: 1 });
      const params = randomParams(device, dcaeShapes(config), 0);
      using open = openTensorFile(clip);
      const frame = open.read("video").data.subarray(10 * 768, 11 * 768);
      const planes = Float32Array.from(
        { length: 768 },
        (_, i) => frame[(i % 256) * 3 + Math.floor(i / 256)] / 255 * 2 - 1,
      );
      const z = await encode(params, config, Tensor.from(device, planes, [1, 3, 16, 16])).read();
      device.close();
      const got = toFloat32(file.read("latents")).subarray(10 * 64);
      z.forEach((value, i) => assert(Math.abs(value * 0.5 - got[i]) < 1e-6, `${value * 0.5} ${got[i]}`));

      for (const to of ["mp4", "gif"]) {
        const decoded = await far(
          ["decode", `${folder}/z.safetensors`, ...vae, "--to", `${folder}/y.${to}`],
          {},
          "-P",
        );
        assertEquals(decoded.code, 0, decoded.stderr);
        assertEquals((await probeVideo(`${folder}/y.${to}`)).frames, 11);
      }
      const wrong = await far(["decode", clip, ...vae, "--to", `${folder}/x.mp4`]);
      assertEquals(wrong.code, 1);
      assertMatch(wrong.stderr, /expected latents \[frames, 4, height, width\], found video/);
      const ending = await far(["decode", `${folder}/z.safetensors`, ...vae, "--to", `${folder}/x.mkv`]);
      assertEquals([ending.code, exists(`${folder}/x.mkv`)], [2, false]);
    });
  },
);

Deno.test(
  "a video goes in and as many frames come out, encoded in one go or in batches",
  async () => {
    await inFolder(async (folder) => {
      await tinyWorld(folder);
      const vae = ["--vae", `${folder}/dcae.json`, "--random-weights", "--device", "cpu"],
        video = `${folder}/in.mp4`;
      const data = Uint8Array.from(
        { length: 23 * 48 * 64 * 3 },
        (_, i) => 128 + 90 * Math.sin(i / 500 + i % 3),
      );
      await writeVideo(video, makeFrames(23, 48, 64, data), { fps: 10 });
      const run = async (to: string, ...more: string[]) => {
        const { code, stderr } = await far([
          "encode",
          video,
          ...vae,
          "--size",
          "16",
          "--to",
          `${folder}/${to}`,
          ...more,
        ]);
        assertEquals(code, 0, stderr);
        using file = openTensorFile(`${folder}/${to}`);
        return file.tensors.get("latents")!.shape[0];
      };
      assertEquals(await run("all.safetensors"), 23);
      assertEquals(await run("some.npz", "--start", "3", "--every", "2"), 10);
      assertEquals(await run("few.npz", "--from-fps", "5"), 12);
      const { code } = await far([
        "decode",
        `${folder}/all.safetensors`,
        ...vae,
        "--to",
        `${folder}/out.mp4`,
      ]);
      assertEquals(code, 0);
      const info = await probeVideo(`${folder}/out.mp4`);
      assertEquals([info.frames, info.fps], [23, 10]);
    });
  },
);

Deno.test({
  ...needs(["ffmpeg"], "a ten-minute video is predicted from its last 16 frames in bounded memory"),
  ...(Deno.build.os === "linux" ? {} : { ignore: true }), // memory is read from /proc
  fn: async () => {
    await inFolder(async (folder) => {
      const [, ...models] = await tinyWorld(folder), video = `${folder}/long.mp4`;
      await drawVideo(video, "testsrc2=size=320x240:rate=25:duration=600", "-preset", "ultrafast");
      const args = [
        "predict",
        video,
        ...models,
        "--size",
        "16",
        "--actions",
        "0",
        "--take",
        "end",
        "--ctx",
        "16",
        "--pred",
        "1",
      ];
      const child = new Deno.Command(Deno.execPath(), {
        args: farArgs([...args, "--quiet", "--out", `${folder}/out`]),
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn();
      let peak = 0;
      const watch = setInterval(() => {
        try {
          const status = Deno.readTextFileSync(`/proc/${child.pid}/status`);
          peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
        } catch {
          // it has ended
        }
      }, 100);
      const { code } = await child.status;
      clearInterval(watch);
      assertEquals(code, 0);
      // 15,000 frames of 16x16 would be 11 MB, at their own size 3.5 GB.
      assert(peak > 50 && peak < 500, `peak resident memory ${peak} MiB`);
      const { clip } = JSON.parse(Deno.readTextFileSync(`${folder}/out/result.json`));
      assertEquals([clip.frames, clip.height], [17, 16]);
    });
  },
});
