import { assert, assertEquals, assertMatch } from "@std/assert";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { fromFloat32, type HostTensor } from "../lib/io/host.ts";
import { writeNpz } from "../lib/io/npz.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { MARKER_FILE } from "../lib/io/owned_folder.ts";
import { exists, far, inFolder, TINY_DCAE, TINY_FAR, tinyWorld } from "./cli_helpers.ts";
import { toolTest } from "./tools.ts";

/** Expects one line on stderr after the usual lines, the code, and no result folder. */
async function refused(out: string, args: readonly string[], code: number, message: RegExp): Promise<void> {
  const ran = await far(["predict", ...args, "--quiet", "--out", out]);
  assertMatch(ran.stderr, message);
  assertEquals(ran.stderr.trim().split("\n").length, 1, ran.stderr);
  assert(ran.stderr.startsWith("far: "), ran.stderr);
  assertEquals(ran.code, code, ran.stderr);
  assert(!exists(out), "something was written");
}

function zeros(shapes: Record<string, readonly number[]>): Record<string, HostTensor> {
  return Object.fromEntries(
    Object.entries(shapes).map((
      [name, shape],
    ) => [name, fromFloat32(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape)]),
  );
}

Deno.test("a clip that is too short, absent or no clip is refused", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder), out = `${folder}/out`, [clip, ...models] = flags;
    await refused(
      out,
      [...flags, "--ctx", "9", "--pred", "1"],
      1,
      /has 8 frames to give, expected at least 9 of context/,
    );
    await refused(out, [`${folder}/none.npz`, ...models], 1, /none\.npz: .*no such file/);
    await refused(out, [`${folder}/none.mp4`, ...models], 1, /none\.mp4: .*no such file/);
    await refused(out, models, 2, /expected CLIP/);
    await refused(
      out,
      [...flags, "--model", `${folder}/none.json`],
      1,
      /none\.json: cannot open: no such file/,
    );
    await refused(out, ["--from", `${folder}/none.json`], 1, /none\.json: cannot open: no such file/);
    await refused(
      out,
      ["--from", `${folder}/far.json`],
      1,
      /far\.json: expected the result\.json of a predict/,
    );
    await refused(out, [...flags, "--model", "FAR_B_long"], 2, /found FAR_B_long, did you mean "FAR_B_Long"/);
    Deno.writeFileSync(`${folder}/cut.npz`, Deno.readFileSync(clip).subarray(0, 2000));
    await refused(out, [`${folder}/cut.npz`, ...models], 1, /cut\.npz: /);
    Deno.writeTextFileSync(`${folder}/text.mp4`, "not a video");
    await refused(out, [`${folder}/text.mp4`, ...models], 1, /text\.mp4: /);
    await writeNpz(`${folder}/floats.npz`, {
      video: fromFloat32(new Float32Array(4 * 16 * 16 * 3).fill(200), [4, 16, 16, 3]),
    });
    await refused(
      out,
      [`${folder}/floats.npz`, ...models],
      1,
      /"video": expected floats from 0 to 1, found 200 to 200: save 8-bit colours, video.*astype/,
    );
  });
});

Deno.test("a frame size that the autoencoder cannot take is refused, and --size mends it", async () => {
  await inFolder(async (folder) => {
    const [, ...models] = await tinyWorld(folder), data = new Uint8Array(4 * 18 * 18 * 3);
    await writeNpz(`${folder}/odd.npz`, {
      video: { shape: [4, 18, 18, 3], dtype: "U8", data },
      actions: { shape: [4], dtype: "I32", data: new Uint8Array(16) },
    });
    const args = [`${folder}/odd.npz`, ...models, "--ctx", "2", "--pred", "1"];
    await refused(`${folder}/out`, args, 1, /frames are 18x18, expected multiples of 4 .*--size/);
    const { code, stderr } = await far(["predict", ...args, "--size", "16", "--out", `${folder}/out`]);
    assertEquals(code, 0, stderr);
  });
});

Deno.test("actions that are missing, too few or out of range are refused", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder), out = `${folder}/out`, run = ["--ctx", "2", "--pred", "2"];
    await refused(out, [...flags, "--ctx", "4", "--pred", "9"], 1, /expected 13 actions, .* found 8/);
    await refused(
      out,
      [...flags, ...run, "--actions", "0,1,7"],
      1,
      /action of frame 2 is 7, expected 0 to 2/,
    );
    await refused(
      out,
      [...flags, ...run, "--actions", "forward"],
      2,
      /--actions: expected a file .* or a pattern/,
    );
    Deno.writeTextFileSync(`${folder}/a.txt`, "0 1");
    await refused(out, [...flags, ...run, "--actions", `${folder}/a.txt`], 1, /expected 4 actions.*found 2/);
    Deno.writeTextFileSync(`${folder}/b.json`, "[0, 1.5, 2, 0]");
    await refused(
      out,
      [...flags, ...run, "--actions", `${folder}/b.json`],
      1,
      /b\.json: expected whole numbers, found 1\.5/,
    );
    await writeNpz(`${folder}/silent.npz`, {
      video: { shape: [4, 16, 16, 3], dtype: "U8", data: new Uint8Array(4 * 768) },
    });
    await refused(
      out,
      [`${folder}/silent.npz`, ...flags.slice(1), ...run],
      2,
      /has no actions and the model needs one per frame/,
    );
    await refused(out, [...flags, ...run, "--label", "3"], 2, /has no labels/);
  });
});

Deno.test("weights that are absent, of other shapes, incomplete, or not finite are refused before the work", async () => {
  await inFolder(async (folder) => {
    const flags = (await tinyWorld(folder)).filter((f) => f !== "--random-weights"), out = `${folder}/out`;
    const run = [...flags, "--ctx", "2", "--pred", "1"];
    await refused(
      out,
      run,
      2,
      /have no weights: give --weights FILE and --vae-weights FILE, or --random-weights/,
    );
    const vae = zeros(dcaeShapes(dcaeConfig(TINY_DCAE))),
      model = zeros(farShapes(farConfig(TINY_FAR.type, TINY_FAR.config)));
    await writeSafetensors(`${folder}/vae.safetensors`, vae);
    const write = (name: string, tensors: Record<string, HostTensor>) =>
      writeSafetensors(`${folder}/${name}.safetensors`, tensors);
    const weights = (name: string) => [
      ...run,
      ...["--vae-weights", `${folder}/vae.safetensors`, "--weights", `${folder}/${name}.safetensors`],
    ];
    const { "proj_out.bias": bias, ...others } = model;
    await write("missing", { ...others, "proj_out.biass": bias, extra: bias });
    await refused(
      out,
      weights("missing"),
      1,
      /does not fit the model: proj_out\.bias is missing, did you mean "proj_out\.biass"\?; extra is not part of the model; proj_out\.biass is not part of the model/,
    );
    await write("shape", { ...model, "proj_out.bias": fromFloat32(new Float32Array(5), [5]) });
    await refused(out, weights("shape"), 1, /proj_out\.bias has shape \[5\], expected \[4\]/);
    await write("nan", { ...model, "proj_out.bias": fromFloat32(Float32Array.of(0, NaN, 0, 0), [4]) });
    await refused(out, weights("nan"), 1, /proj_out\.bias holds NaN at element 1, expected finite numbers/);
    await refused(out, weights("none"), 1, /none\.safetensors: .*no such file/);
    // The autoencoder is needed at the very end; its mistakes are found at the start too.
    await write("good", model);
    const decoder = Object.keys(vae).filter((n) => n.startsWith("decoder.") && n.endsWith("weight")).at(-1)!;
    const poisoned = fromFloat32(
      new Float32Array(vae[decoder].data.length / 4).fill(Infinity),
      vae[decoder].shape,
    );
    await writeSafetensors(`${folder}/vae.safetensors`, { ...vae, [decoder]: poisoned });
    await refused(out, weights("good"), 1, new RegExp(`${decoder.replaceAll(".", "\\.")} holds Infinity`));
  });
});

Deno.test("files that lie, and pickles that would run code, are refused with a name", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder),
      out = `${folder}/out`,
      run = [...flags, "--ctx", "2", "--pred", "1", "--weights"];
    const header = (length: bigint, text: string) => {
      const bytes = new Uint8Array(8 + text.length);
      new DataView(bytes.buffer).setBigUint64(0, length, true);
      bytes.set(new TextEncoder().encode(text), 8);
      return bytes;
    };
    const huge = '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}';
    Deno.writeFileSync(`${folder}/huge.safetensors`, header(2n ** 60n, huge));
    await refused(out, [...run, `${folder}/huge.safetensors`], 1, /huge\.safetensors: .*header/);
    const lie = '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,999999]}}';
    Deno.writeFileSync(`${folder}/lie.safetensors`, header(BigInt(lie.length), lie));
    await refused(out, [...run, `${folder}/lie.safetensors`], 1, /lie\.safetensors: /);
    // cos\nsystem\n(S'true'\ntR.  as an old-style checkpoint
    Deno.writeTextFileSync(`${folder}/evil.pth`, "\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.");
    await refused(out, [...run, `${folder}/evil.pth`], 1, /evil\.pth: /);
  });
});

Deno.test("an out folder that holds other things, or lies below a file, is refused and left alone", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder),
      run = ["predict", ...flags, "--ctx", "2", "--pred", "1", "--quiet"];
    Deno.mkdirSync(`${folder}/mine`);
    Deno.writeTextFileSync(`${folder}/mine/thesis.txt`, "all of it");
    const mine = await far([...run, "--out", `${folder}/mine`]);
    assertEquals(mine.code, 2);
    assertMatch(mine.stderr, /exists and holds thesis\.txt, expected a new folder/);
    assertEquals(Deno.readTextFileSync(`${folder}/mine/thesis.txt`), "all of it");
    const below = await far([...run, "--out", `${folder}/clip.npz/out`]);
    assertEquals(below.code, 1);
    assertMatch(below.stderr, /^far: .*clip\.npz\/out: .*not a folder/);
    // An earlier result may be replaced.
    assertEquals((await far([...run, "--out", `${folder}/out`])).code, 0);
    assertEquals((await far([...run, "--out", `${folder}/out`])).code, 0);
  });
});

Deno.test("what does not fit is refused before the start, with the bytes needed and available", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder);
    const args = [...flags, "--ctx", "2", "--pred", "1", "--size", "4096"];
    await refused(
      `${folder}/out`,
      args,
      1,
      /needs [\d.]+ GiB of (device )?memory, .*[\d.]+ GiB.*: take a smaller model/,
    );
  });
});

Deno.test("an mp4 needs no ffmpeg; one that fails half-way leaves nothing, and another binary needs a flag", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder), run = ["predict", ...flags, "--ctx", "2", "--pred", "1"];
    const broken = `${folder}/ffmpeg`;
    Deno.writeTextFileSync(
      broken,
      '#!/bin/sh\ncase "$*" in *-version*) echo "ffmpeg version 9 Copyright"; exit 0;; esac\nhead -c 1000 >/dev/null\necho "disk on fire" >&2\nexit 1\n',
    );
    Deno.chmodSync(broken, 0o755);
    const failing = await far(
      [...run, "--quiet", "--format", "webm", "--out", `${folder}/failing`],
      { FAR_FFMPEG: broken },
      "-A",
    );
    assertEquals(failing.code, 1, failing.stderr);
    assertMatch(failing.stderr, /disk on fire/);
    const left = [...Deno.readDirSync(`${folder}/failing`)].map(({ name }) => name).sort();
    assertEquals(left, [MARKER_FILE, "part"], "half a result was written");
    const forbidden = await far([...run, "--quiet", "--format", "webm", "--out", `${folder}/forbidden`], {
      FAR_FFMPEG: broken,
    });
    assertEquals(forbidden.code, 1);
    assertMatch(forbidden.stderr, /--allow-run=.*ffmpeg/);
    const none = await far([...run, "--out", `${folder}/none`], { FAR_FFMPEG: `${folder}/nothing` });
    assertEquals(none.code, 0, none.stderr);
    assert(exists(`${folder}/none/prediction.mp4`));
  });
});

toolTest(["mount"], "a full disk ends a prediction with one line, code 1 and no result", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder), small = `${folder}/small`;
    Deno.mkdirSync(small);
    const mount = await new Deno.Command("mount", {
      args: ["-t", "tmpfs", "-o", "size=16k", "tmpfs", small],
      stderr: "null",
    })
      .output().catch(() => ({ success: false }));
    if (!mount.success) return; // the writers' own tests inject the error where mounting is not allowed
    try {
      const run = ["predict", ...flags, "--ctx", "6", "--pred", "2", "--quiet", "--out", `${small}/out`];
      const { code, stderr } = await far(run);
      assertEquals(code, 1, stderr);
      assertMatch(stderr, /^far: [^\n]*no space left on (the )?device[^\n]*$/i);
      assert(!exists(`${small}/out/result.json`) && !exists(`${small}/out/sheet.png`));
    } finally {
      await new Deno.Command("umount", { args: [small] }).output();
    }
  });
});
