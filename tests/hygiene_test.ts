import { assert, assertEquals } from "@std/assert";
import { isFile } from "../lib/io/paths.ts";
import { toolTest } from "./tools.ts";

const root = new URL("../", import.meta.url);

/** Files that git keeps or would keep. */
async function files(): Promise<string[]> {
  const { success, stdout } = await new Deno.Command("git", {
    args: ["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    cwd: root,
  }).output();
  assert(success, "git ls-files failed");
  const names = new TextDecoder().decode(stdout).split("\0").filter((n) => n !== "");
  return names.filter((name) => isFile(new URL(name, root))); // not what is deleted in the working tree only
}

const BINARY = /\.(npz|npy|safetensors|pth|wasm|png|gif|mp4|avi|webm|jpg|zip|pkl)$/;
const MACHINE = new RegExp(
  [
    "registry\\.np" + "mjs", // split, so that this file passes its own test
    "python" + "hosted\\.org",
    "deb\\.deb" + "ian",
    "(?:^|[\\s\"'`(=])/(?:work|home/\\w+|root)/",
  ].join("|"),
  "m",
);

toolTest(["git"], "no file names a registry host or a path of one machine", async () => {
  const found: string[] = [];
  for (const name of await files()) {
    if (BINARY.test(name) || name === "deno.lock") continue;
    const match = MACHINE.exec(Deno.readTextFileSync(new URL(name, root)));
    if (match) found.push(`${name}: ${match[0]}`);
  }
  assertEquals(found, []);
});

toolTest(["git"], "no source file is longer than 500 lines", async () => {
  const long: string[] = [];
  for (const name of await files()) {
    if (!/\.(ts|wgsl|py|sh|md)$/.test(name)) continue;
    const lines = Deno.readTextFileSync(new URL(name, root)).split("\n").length;
    if (lines > 500) long.push(`${name}: ${lines} lines`);
  }
  assertEquals(long, []);
});

toolTest(["git"], "the repository stays small enough to clone in seconds", async () => {
  let total = 0;
  for (const name of await files()) {
    const { size } = Deno.statSync(new URL(name, root));
    assert(size < 16 * 2 ** 20, `${name} has ${size} bytes, expected under 16 MiB`);
    total += size;
  }
  assert(total < 25 * 2 ** 20, `${total} bytes in all, expected under 25 MiB`);
});
