import { assertEquals } from "@std/assert";

Deno.test("mod.ts runs one operation when imported from an empty folder without an import map", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const mod = new URL("../mod.ts", import.meta.url).href;
    Deno.writeTextFileSync(
      `${folder}/use.ts`,
      `import { openDevice, ops, Tensor } from ${JSON.stringify(mod)};
       const { device } = await openDevice({ device: "cpu", threads: 1 });
       const x = Tensor.from(device, Float32Array.of(1, 2), [1, 2]);
       const w = Tensor.from(device, Float32Array.of(3, 4, 5, 6), [2, 2]);
       console.log([...await ops.linear(x, w).read()].join(" "));
       device.close();`,
    );
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-config", "--allow-read", "--allow-env", "use.ts"],
      cwd: folder,
    }).output();
    assertEquals(
      [success, new TextDecoder().decode(stdout)],
      [true, "11 17\n"],
      new TextDecoder().decode(stderr),
    );
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
