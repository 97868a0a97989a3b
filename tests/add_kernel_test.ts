/**
 * Follows docs/kernels.md: adds its example to a copy of the repository, as the page says, builds, and checks it there.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { DEVICES } from "./helpers.ts";
import { BLAS } from "./tools.ts";

const root = new URL("../", import.meta.url);

/** The listings of the page by file; the first line names the file. */
function listings(page: string): Map<string, string> {
  const found = page.matchAll(/^~~~\w+\n\/\/ (\S+)\n([\s\S]*?)^~~~$/gm);
  return new Map([...found].map(([, file, text]) => [file, text]));
}

/** Copies what a build needs: configuration, kernels/, lib/, tests/. */
async function copyTo(folder: string): Promise<void> {
  for (const part of ["deno.json", "deno.lock", "kernels", "lib", "mod.ts", "tests"]) {
    await copy(part, folder);
  }
}

async function copy(part: string, folder: string): Promise<void> {
  const from = new URL(part, root), to = `${folder}/${part}`;
  if (!(await Deno.stat(from)).isDirectory) return await Deno.copyFile(from, to);
  await Deno.mkdir(to);
  for await (const entry of Deno.readDir(from)) {
    if (entry.name !== "golden") await copy(`${part}/${entry.name}`, folder);
  }
}

async function run(folder: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: folder,
    env: { NO_COLOR: "1", FAR_DEVICES: DEVICES.join(",") },
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert(success, `deno ${args.join(" ")}\n${text}`);
  return text;
}

const PROGRAM = `
import { assertEquals } from "@std/assert";
import { channelScale } from "./lib/ops_image.ts";
import { Tensor } from "./lib/tensor.ts";
import { valueAndGrad } from "./lib/autograd.ts";
import { DEVICES, sharedDevice } from "./tests/helpers.ts";
for (const name of DEVICES) {
  const device = await sharedDevice(name);
  const x = Tensor.from(device, Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]);
  const gain = Tensor.from(device, Float32Array.of(10, -1));
  const { value, grads } = valueAndGrad((p) => channelScale(p.x, p.gain))({ x, gain });
  assertEquals([...await value.read()], [10, -2, 30, -4, 50, -6]);
  assertEquals([...await grads.x.read()], [10, -1, 10, -1, 10, -1]);
  assertEquals([...await grads.gain.read()], [9, 12]);
  device.close();
}
`;

Deno.test("the example of docs/kernels.md, added as the page says, passes the checks of every kernel on both devices", async () => {
  const page = await Deno.readTextFile(new URL("docs/kernels.md", root)), files = listings(page);
  assertEquals([...files.keys()], [
    ...["kernels/scale.ts", "kernels/scale.wgsl", "kernels/scale.wasm.ts"],
    "lib/ops_image.ts",
  ]);
  const folder = await Deno.makeTempDir({ prefix: "add-kernel-" });
  try {
    await copyTo(folder);
    for (const [file, text] of files) {
      const path = `${folder}/${file}`, present = await Deno.readTextFile(path).catch(() => "");
      assertEquals(present !== "", file === "lib/ops_image.ts", `${file} is new or not, as the page says`);
      // Imports come before those that are there, the row at the end.
      const lines = text.split("\n"), imports = lines.filter((l) => l.startsWith("import "));
      const at = present.search(/^import /m);
      const rest = lines.filter((l) => !l.startsWith("import ")).join("\n");
      await Deno.writeTextFile(
        path,
        present ? present.slice(0, at) + imports.join("\n") + "\n" + present.slice(at) + rest : text,
      );
    }
    await Deno.writeTextFile(`${folder}/example.ts`, PROGRAM);
    await run(folder, "task", "build:wasm");
    await run(folder, "fmt", "--check", "kernels/scale.ts", "kernels/all.ts");
    await run(folder, "check", "lib/ops_image.ts", "kernels/scale.ts");
    const tests = ["tests/kernels_test.ts", "tests/finite_differences_test.ts"];
    const text = await run(folder, "test", "-A", "--no-check", "--filter", "channelScale", ...tests);
    const settings = DEVICES.length + (BLAS && DEVICES.includes("cpu") ? 1 : 0), expected = 2 * settings + 1;
    assert(text.includes(`ok | ${expected} passed`), `expected ${expected} tests of channelScale:\n${text}`);
    await run(folder, "run", "-A", "--no-check", "example.ts");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
