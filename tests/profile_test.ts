import { assert, assertEquals, assertMatch } from "@std/assert";
import { type DeviceName } from "../kernels/device.ts";
import { profileLines } from "../cli/profile.ts";
import { binary } from "../kernels/elementwise.ts";
import { openDevice } from "../kernels/open.ts";
import { Profile, profiled } from "../kernels/profile.ts";
import { softmax } from "../kernels/softmax.ts";
import { far, inFolder, tinyWorld } from "./cli_helpers.ts";
import { DEVICES } from "./helpers.ts";

/** Opened here, not shared: a GPU device that was profiled once keeps doing so. */
async function profileOf(name: DeviceName) {
  const { device: inner } = await openDevice({ device: name, threads: 1 });
  const profile = new Profile(), device = profiled(inner, profile);
  const [a, b, y] = [device.alloc(4096), device.alloc(4096), device.alloc(4096)];
  device.write(a, Float32Array.from({ length: 1024 }, (_, i) => i));
  device.write(b, new Float32Array(1024).fill(0.5));
  for (let i = 0; i < 3; i++) {
    device.run({ kernel: binary, buffers: [a, b, y], params: { E: 1024, op: 0, alpha: 2, beta: 1 } });
  }
  device.run({ kernel: softmax, buffers: [y, b], params: { P: 16, C: 64 } });
  const sums = new Float32Array(await device.read(y));
  await device.sync();
  const wall = profile.now;
  device.close();
  return { profile, sums, wall };
}

for (const name of ["cpu", "webgpu"] as const) {
  Deno.test({
    name: `${name}: a profile counts every launch, copy and wait, and changes no result`,
    ignore: !DEVICES.includes(name),
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const { profile, sums, wall } = await profileOf(name);
      assertEquals([sums[0], sums[1], sums[1023]], [0.5, 2.5, 2046.5]);
      const count = (kind: string, what: string) =>
        profile.rows().find((row) => row.kind === kind && row.name === what)?.count;
      assertEquals(count("kernel", "binary"), 3);
      assertEquals(count("kernel", "softmax"), 1);
      assertEquals(count("launch", "binary"), name === "cpu" ? undefined : 3);
      assertEquals(count("copy", "write"), 2);
      assertEquals([count("wait", "read"), count("wait", "sync")], [1, 1]);
      assert(profile.seconds("kernel") <= wall, "kernels ran one after another within the wall time");

      const { traceEvents, otherData } = JSON.parse(profile.trace());
      const spans = traceEvents.filter((e: { ph: string }) => e.ph === "X");
      assertEquals(otherData, { dropped: 0 });
      assertEquals(spans.length, profile.rows().reduce((sum, row) => sum + row.count, 0));
      const kernels = spans.filter((e: { cat: string }) => e.cat === "kernel");
      assert(kernels.every((e: { tid: number; dur: number }) => e.tid === 1 && e.dur >= 0));
      assert(
        kernels.every((e: { ts: number }, i: number) => i === 0 || e.ts >= kernels[i - 1].ts),
        "kernels are in the order of their launches",
      );
      const micros = kernels.reduce((sum: number, e: { dur: number }) => sum + e.dur, 0);
      assert(Math.abs(micros / 1e6 - profile.seconds("kernel")) < 1e-5, "the trace is in microseconds");
    },
  });
}

Deno.test("a profile keeps the sums of spans that the trace has no room for", () => {
  const profile = new Profile();
  for (let i = 0; i < 200_010; i++) profile.add({ kind: "kernel", name: "k", start: i, seconds: 2 });
  profile.add({ kind: "wait", name: "read", start: 0, seconds: 1 });
  assertEquals(profile.rows(), [
    { kind: "kernel", name: "k", count: 200_010, seconds: 400_020 },
    { kind: "wait", name: "read", count: 1, seconds: 1 },
  ]);
  assertEquals(JSON.parse(profile.trace()).otherData.dropped, 11);
});

Deno.test("the lines of a profile give every kind its share of the run, and the rest to the host", () => {
  const profile = new Profile();
  for (let i = 0; i < 18; i++) {
    profile.add({ kind: "kernel", name: `k${i}`, start: 0, seconds: i === 7 ? 2 : 0.1 });
  }
  profile.add({ kind: "wait", name: "read", start: 0, seconds: 1 });
  const lines = profileLines(profile, 10);
  assertEquals(
    lines[0],
    "profile of 10 s: kernels 3.7 s (37 %), host, waiting 1.0 s (10 %), host, other work 5.3 s (53 %)",
  );
  assertEquals(lines[1], "kernel         k7    2.000 s  20 %  1 times");
  assertEquals(lines[2], "host, waiting  read  1.000 s  10 %  1 times");
  assertEquals(lines.length, 1 + 16 + 1);
  assertEquals(lines.at(-1), "  and 3 more, in the trace");
  profile.add({ kind: "launch", name: "k7", start: 0, seconds: 0.5 });
  assert(
    profileLines(profile, 10)[0].endsWith("host, other work 8.5 s (85 %)"),
    "kernels of a GPU run beside the host",
  );
});

Deno.test("--profile writes a trace beside the result, and changes no byte of it", async () => {
  await inFolder(async (folder) => {
    const flags = await tinyWorld(folder);
    const run = async (out: string, ...more: string[]) => {
      const words = ["predict", ...flags, "--ctx", "2", "--pred", "2", "--device", "cpu", ...more];
      const { code, stderr } = await far([...words, "--out", `${folder}/${out}`]);
      assertEquals(code, 0, stderr);
      return stderr;
    };
    await run("plain");
    const said = await run("profiled", "--profile", `${folder}/trace.json`);
    assertMatch(said, /profile of .* s: kernels /);
    const { traceEvents } = JSON.parse(await Deno.readTextFile(`${folder}/trace.json`));
    assert(
      traceEvents.some((e: { name: string; cat: string }) => e.cat === "kernel" && e.name === "attention"),
    );
    const bytes = (out: string) => Deno.readFile(`${folder}/${out}/prediction.npz`);
    assertEquals(await bytes("profiled"), await bytes("plain"));
  });
});
