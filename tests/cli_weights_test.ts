import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { ZOO } from "../lib/pipeline/zoo.ts";
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { openPth } from "../lib/io/pth.ts";
import { writePth } from "../lib/io/pth_write.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { checkShapes } from "../lib/params.ts";
import { far, inFolder, TINY_FAR } from "./cli_helpers.ts";
import { rest, serve } from "./download_server.ts";

Deno.test("weights list shows every published model; its names carry their digits", async () => {
  const { code, stdout } = await far(["weights", "list"], { FAR_CACHE: "none" });
  assertEquals(code, 0);
  for (const model of ZOO) assert(stdout.includes(model.name) && stdout.includes(model.sha8));
  assertEquals(new Set(ZOO.map((m) => m.sha8)).size, ZOO.length);
});

Deno.test("weights pull downloads, refuses another file, and offline says so", async () => {
  await inFolder(async (folder) => {
    const server = serve((_, from) => rest(from));
    const args = ["weights", "pull", "FAR_B_BAIR_Uncond64", "--into", folder, "--url", server.url];
    const wrong = await far([...args], {}, `-P=net`);
    // Another host than the zoo's is not in the permission set: the message says what to add.
    assertEquals(wrong.code, 2);
    assertMatch(wrong.stderr, /add --allow-net=127\.0\.0\.1:\d+$/);
    const offline = await far([...args, "--offline"]);
    assertEquals(offline.code, 1);
    assertMatch(offline.stderr, /downloads are off/);
    const pulled = await far(args, {}, "-A");
    assertEquals(pulled.code, 1);
    assertMatch(
      pulled.stderr,
      /expected 259121728 to 1103595776 bytes, the server announces 300000$/,
    );
    assertEquals([...Deno.readDirSync(folder)].length, 0);
    await server.stop();
    const unknown = await far(["weights", "pull", "FAR_B_BIAR_Uncond64"]);
    assertEquals(unknown.code, 2);
    assertMatch(unknown.stderr, /did you mean "FAR_B_BAIR_Uncond64"/);
  });
});

Deno.test("pull says how much of the SHA-256 it compared, and eight forged digits are not enough for a short file", async () => {
  await inFolder(async (folder) => {
    // Found by trying 330 million texts: its SHA-256 begins as that of FAR_B_BAIR_Uncond64 should.
    const forged = new TextEncoder().encode("far-329537034");
    const whole = createHash("sha256").update(forged).digest("hex");
    assertEquals(whole.slice(0, 8), "1983191b");
    const server = serve((_, from) => rest(from, forged));
    const args = ["weights", "pull", "FAR_B_BAIR_Uncond64", "--into", folder, "--url", server.url];
    const env = { HF_TOKEN: "secret-2", FAR_TOKEN: "secret-3" };
    const short = await far(args, env, "-A");
    assertEquals(short.code, 1);
    assertMatch(
      short.stderr,
      /HF_TOKEN is not sent to http:\/\/127.*: it belongs to https:\/\/huggingface\.co/,
    );
    assertMatch(short.stderr, /expected 259121728 to 1103595776 bytes, the server announces 13$/);
    assert(!short.stderr.includes("secret"));
    assertEquals([...Deno.readDirSync(folder)].length, 0);
    for (
      const [sha256, message] of [
        ["1983191b", /--sha256: expected 64 hexadecimal digits, found 1983191b/],
        ["0".repeat(64), /--sha256: begins with 00000000, but the file's name says 1983191b/],
      ] as const
    ) {
      const ran = await far([...args, "--sha256", sha256], {}, "-A");
      assertEquals(ran.code, 2);
      assertMatch(ran.stderr, message);
    }
    const wrong = await far([...args, "--sha256", `1983191b${"0".repeat(56)}`], {}, "-A");
    assertEquals(wrong.code, 1);
    assertMatch(
      wrong.stderr,
      /the server sent another file: SHA-256 begins with 1983191b[0-9a-f]{56}, expected 1983191b0{56}/,
    );
    const pulled = await far([...args, "--sha256", whole.toUpperCase()], {}, "-A");
    assertEquals(pulled.code, 0, pulled.stderr);
    assertMatch(pulled.stderr, /its SHA-256 is the one that was asked for/);
    assertEquals(Deno.readFileSync(`${folder}/FAR_B_BAIR_Uncond64-1983191b.pth`), forged);
    const there = await far([...args.slice(0, 5), "--json"], {}, "-A");
    assertEquals(JSON.parse(there.stdout).checked_bits, 32);
    assertMatch(
      (await far(args.slice(0, 5), {}, "-A")).stderr,
      /32 of the 256 bits of its SHA-256 were checked, .* it is 1983191b/,
    );
    await server.stop();
    const fresh = [
      "weights",
      "pull",
      "DCAE_BAIR_Res64",
      "--into",
      folder,
      "--url",
      "https://me:pass1@example.org",
    ];
    const refused = await far(fresh, {}, "-A");
    assertEquals(refused.code, 2);
    assert(!refused.stderr.includes("pass1"), refused.stderr);
  });
});

Deno.test("convert keeps every value where the type allows it, inspect and verify tell what is there", async () => {
  await inFolder(async (folder) => {
    const values = Float32Array.from({ length: 12 }, (_, i) => (i - 6) / 8);
    await writePth(`${folder}/a.pth`, {
      "x.weight": fromFloat32(values, [3, 4]),
      count: { shape: [], dtype: "I64", data: new Uint8Array(8) },
    });
    const convert = async (from: string, to: string, ...more: string[]) => {
      const { code, stderr } = await far(
        ["weights", "convert", `${folder}/${from}`, `${folder}/${to}`, ...more],
        {},
        "-P=net",
      );
      assertEquals(code, 0, stderr);
    };
    await convert("a.pth", "b.safetensors", "--dtype", "bf16");
    await convert("b.safetensors", "c.pth", "--dtype", "f16");
    await convert("c.pth", "d.safetensors", "--dtype", "f32");
    using end = openTensorFile(`${folder}/d.safetensors`);
    assertEquals(toFloat32(end.read("x.weight")), values); // eighths fit every type
    using middle = openPth(`${folder}/c.pth`);
    assertEquals([middle.tensors.get("x.weight")!.dtype, middle.tensors.get("count")!.dtype], ["F16", "I64"]);

    const inspected = await far(["weights", "inspect", `${folder}/a.pth`, "--stats", "--json"]);
    const report = JSON.parse(inspected.stdout);
    assertEquals([report.format, report.parameters, report.fits], ["pth", 13, []]);
    assertEquals([report.tensors[0].min, report.tensors[0].max, report.tensors[0].bad], [-0.75, 0.625, 0]);

    const bytes = Deno.readFileSync(`${folder}/a.pth`);
    const sha8 = createHash("sha256").update(bytes).digest("hex").slice(0, 8);
    Deno.writeFileSync(`${folder}/a-${sha8}.pth`, bytes);
    Deno.writeFileSync(`${folder}/a-00000000.pth`, bytes);
    assertEquals((await far(["weights", "verify", `${folder}/a-${sha8}.pth`])).code, 0);
    const bad = await far(["weights", "verify", `${folder}/a-00000000.pth`]);
    assertEquals(bad.code, 1);
    assertMatch(bad.stderr, new RegExp(`SHA-256 begins with ${sha8}, expected 00000000`));
  });
});

Deno.test("a tensor called as something that every object has is no part of a model", async () => {
  await inFolder(async (folder) => {
    const shapes = farShapes(farConfig(TINY_FAR.type, TINY_FAR.config)), path = `${folder}/far.safetensors`;
    const zeros = (shape: readonly number[]) =>
      fromFloat32(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const tensors = Object.entries(shapes).map(([name, shape]) => [name, zeros(shape)] as const);
    for (const name of ["constructor", "toString", "__proto__"]) {
      await writeSafetensors(path, [...tensors, [name, zeros([2])]]);
      using file = openTensorFile(path);
      assertThrows(() => checkShapes(file, shapes), Error, `${name} is not part of the model`);
    }
    await writeSafetensors(path, tensors);
    using file = openTensorFile(path);
    checkShapes(file, shapes);
  });
});

Deno.test("inspect finds the model that a checkpoint fits", async () => {
  await inFolder(async (folder) => {
    const shapes = farShapes(farConfig("FAR_B", { condition_cfg: { type: "label", num_classes: 5 } }));
    const { writeSafetensors } = await import("../lib/io/safetensors.ts");
    // Halves of zeros: the shapes are what counts.
    const tensors = Object.entries(shapes).map(([name, shape]) =>
      [name, {
        shape,
        dtype: "F16" as const,
        data: new Uint8Array(2 * shape.reduce((a, b) => a * b, 1)),
      }] as const
    );
    await writeSafetensors(`${folder}/b.safetensors`, tensors);
    const { stdout } = await far(["weights", "inspect", `${folder}/b.safetensors`]);
    assertMatch(stdout, /fits FAR_B with 5 labels/);
  });
});

Deno.test("inspect counts parameters, not the statistics of batch norm", async () => {
  await inFolder(async (folder) => {
    await writePth(`${folder}/norm.pth`, {
      "norm.weight": fromFloat32(new Float32Array(4), [4]),
      "norm.running_mean": fromFloat32(new Float32Array(4), [4]),
      "norm.num_batches_tracked": { shape: [], dtype: "I64", data: new Uint8Array(8) },
    });
    const { stdout } = await far(["weights", "inspect", `${folder}/norm.pth`, "--json"]);
    const { parameters, tensors } = JSON.parse(stdout);
    assertEquals([parameters, tensors.length], [4, 3]);
  });
});
