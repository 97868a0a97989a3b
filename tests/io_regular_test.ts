import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "node:path";
import { fileHash } from "../lib/io/hash.ts";
import { readActionFile } from "../lib/data/actions.ts";
import { latentSet, writeLatents } from "../lib/data/latents.ts";
import { readList } from "../lib/data/lists.ts";
import { readPng } from "../lib/io/image.ts";
import { openNpy, openNpz } from "../lib/io/npz.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { openPth } from "../lib/io/pth.ts";
import { openSafetensors } from "../lib/io/safetensors.ts";
import { readJson, readJsonObject, readText } from "../lib/io/text.ts";
import { probeVideo, readFrames } from "../lib/io/video.ts";
import { readYaml } from "../lib/io/yaml.ts";
import { exists, far } from "./cli_helpers.ts";
import { assertOneLine, assertRefused, inFolder } from "./io_helpers.ts";
import { needs } from "./tools.ts";

/** Makes a pipe without a writer, which keeps whoever opens it waiting for ever. */
async function pipe(path: string): Promise<void> {
  assert((await new Deno.Command("mkfifo", { args: [path] }).output()).success);
}

const readers: Readonly<Record<string, (path: string) => unknown>> = {
  openTensorFile,
  openSafetensors,
  openPth,
  openNpz,
  openNpy,
  readYaml,
  readPng,
  readText,
  readJsonObject,
  readActionFile,
  fileHash,
  readJson: (path) => readJson(path, "a list"),
  readList: (path) => readList(path, []),
  latentSet: (path) => latentSet(path.slice(0, path.lastIndexOf("/"))),
};

Deno.test({
  ...needs(["mkfifo"], "what is no regular file is refused by every reader in one line, and none waits"),
  async fn() {
    await inFolder(async (folder) => {
      const others: [string, string][] = [["index.json", "found a pipe"], ["socket", "found a socket"]];
      await pipe(join(folder, "index.json"));
      await pipe(join(folder, "actions.csv"));
      // Whoever waits all the same is let go after ten seconds, and found out.
      const script = "while sleep 10; do touch waited; : > index.json; done";
      const rescue = new Deno.Command("sh", { args: ["-c", script], cwd: folder }).spawn();
      using _socket = Deno.listen({ transport: "unix", path: join(folder, "socket") });
      Deno.symlinkSync(join(folder, "index.json"), join(folder, "link"));
      others.push(["link", "found a pipe"], ["actions.csv", "found a pipe"]);
      Deno.mkdirSync(join(folder, "sub"));
      others.push(["sub", "found a folder"], ["/dev/zero", "found a device"]);
      for (const [name, found] of others) {
        const path = name.startsWith("/") ? name : join(folder, name);
        for (const [reader, read] of Object.entries(readers)) {
          if (reader === "latentSet" && name !== "index.json") continue;
          assertRefused(() => read(path), "expected a regular file", found);
        }
        if (name === "sub") continue; // of images
        for (const open of [() => probeVideo(path), () => readFrames(path).next()]) {
          assertOneLine(await assertRejects<Error>(open), "expected a regular file");
        }
      }
      rescue.kill("SIGKILL");
      await rescue.status;
      assert(!exists(join(folder, "waited")), "a reader waited for somebody to write into the pipe");
      await pipe(join(folder, "dmlab.json"));
      const { code, stderr } = await far(["data", "check", join(folder, "dmlab.json")]);
      assertEquals(code, 1, stderr);
      assert(stderr.endsWith("dmlab.json: expected a regular file, found a pipe"), stderr);
    });
  },
});

Deno.test("text is UTF-8 of a bounded length; a mark in front of it is no part of it", async () => {
  await inFolder((folder) => {
    const path = join(folder, "a.csv");
    Deno.writeTextFileSync(path, "\ufeffaction\n3\n");
    assertEquals([...readActionFile(path)], [3]);
    Deno.writeFileSync(path, new Uint8Array([0xff, 0xfe, 0x30, 0]));
    assertRefused(() => readActionFile(path), "expected text in UTF-8");
    Deno.writeTextFileSync(path, "12345");
    assertEquals(readText(path, 5), "12345");
    assertRefused(() => readText(path, 4), "expected at most 4 bytes of text, found 5");
  });
});

Deno.test("a JSON file in which a key occurs twice is refused, because one of the values would be lost", async () => {
  await inFolder((folder) => {
    const path = join(folder, "a.json");
    const refused = (text: string, read: (path: string) => unknown, ...parts: string[]) => {
      Deno.writeTextFileSync(path, text);
      assertRefused(() => read(path), ...parts);
    };
    const list = (path: string) => readList(path, []);
    refused(
      '[{"video_path": "a", "video_path": "b"}]',
      list,
      'a list of clips in JSON: key "video_path" occurs twice',
    );
    refused('{"num_layers": 1, "num_layers": 2}', readJsonObject, 'key "num_layers" occurs twice');
    refused("[1]", readJsonObject, "expected one object in JSON, found a list");
    refused("null", readJsonObject, "expected one object in JSON, found null");
    refused("{", readJsonObject, "expected one object in JSON: ");
  });
});

Deno.test("an index of latents that does not add up is refused by the key that is wrong", async () => {
  await inFolder(async (folder) => {
    const clip = (source: string) => ({
      latents: { shape: [2, 1, 1, 1] as const, data: new Float32Array(2) },
      source,
    });
    await writeLatents(join(folder, "l"), [clip("a"), clip("b")]);
    const path = join(folder, "l/index.json"), good = readJsonObject(path);
    const shard = { file: "latents-00000.safetensors", first: 0, clips: 2 };
    const cases: [Record<string, unknown>, string][] = [
      [{ clips: 1.5 }, "clips: expected a positive whole number, found 1.5"],
      [{ clips: 0 }, "clips: expected a positive whole number, found 0"],
      [{ actions: "no" }, 'actions: expected true or false, found "no"'],
      [{ classes: -1 }, "classes: expected a positive whole number, found -1"],
      [{ rollouts: 3 }, "rollouts: expected a whole number up to 2, found 3"],
      [{ shards: null }, "expected shards with all 2 clips, found 0"],
      [{ shards: [null] }, "expected shards with all 2 clips, found 0"],
      [{ shards: [{ ...shard, clips: 1 }] }, "expected shards with all 2 clips, found 1"],
      [{ shards: [{ ...shard, first: 1 }] }, "expected shards with all 2 clips, found 0"],
      [{ shards: [{ ...shard, file: "../l/latents-00000.safetensors" }] }, "found 0"],
      [{ shards: [{ ...shard, file: ".." }] }, "found 0"],
      [{ shards: [{ ...shard, file: "gone.safetensors" }] }, "gone.safetensors: cannot open: no such file"],
    ];
    for (const [wrong, message] of cases) {
      Deno.writeTextFileSync(path, JSON.stringify({ ...good, ...wrong }));
      assertThrows(() => latentSet(join(folder, "l")), Error, message);
    }
    Deno.writeTextFileSync(path, JSON.stringify(good));
    assertEquals(latentSet(join(folder, "l")).length, 2);
  });
});
