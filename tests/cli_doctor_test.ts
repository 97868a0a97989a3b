import { assert, assertEquals, assertMatch } from "@std/assert";
import { KERNELS } from "../kernels/all.ts";
import { far } from "./cli_helpers.ts";
import { DEVICES } from "./helpers.ts";
import { needs } from "./tools.ts";

for (const device of DEVICES) {
  Deno.test(`doctor checks every kernel on ${device} and measures it`, async () => {
    const { code, stdout, stderr } = await far(["doctor", "--device", device, "--json"], {}, "-P=ffmpeg");
    assertEquals(code, 0, stderr);
    const found = JSON.parse(stdout);
    assertEquals(found.device.name, device);
    assertMatch(found.reason, /asked for by name/);
    assertEquals(found.kernels.map((k: { kernel: string }) => k.kernel), KERNELS.map((k) => k.name));
    for (const k of found.kernels) assert(k.cases >= 2 && k.worst <= k.bound, JSON.stringify(k));
    assert(found.linear.gflops > 0.01);
    assertMatch(
      found.ffmpeg.version ?? found.ffmpeg.error,
      needs(["ffmpeg"], "").ignore ? /in-process/ : /\d/,
    );
  });
}

Deno.test("doctor says why a device was chosen, and names FAR_DEVICE", async () => {
  const named = await far(["doctor"], { FAR_DEVICE: "cpu" });
  assertMatch(named.stdout, /^chosen +cpu: named by FAR_DEVICE$/m);
  for (const row of ["adapter", "device", "memory", "ffmpeg", "limits", "linear"]) {
    assertMatch(named.stdout, new RegExp(`^${row} `, "m"));
  }
  const wrong = await far(["doctor"], { FAR_DEVICE: "gpu" });
  assertEquals(wrong.code, 2);
  assertMatch(wrong.stderr, /FAR_DEVICE: expected auto or webgpu or cpu, found gpu$/);
});
