import { assert, assertEquals, assertMatch } from "@std/assert";
import { BUNDLED } from "../lib/pipeline/bundled.ts";
import { strangeness } from "../lib/pipeline/kind.ts";
import { far, inFolder } from "./cli_helpers.ts";

Deno.test("a clip that is not the bundled model's kind is warned of, on the terminal and in the result", async () => {
  await inFolder(async (folder) => {
    const clip = new URL("../assets/dmlab_24.npz", import.meta.url).pathname;
    const warned = async (name: string, ...args: string[]) => {
      const out = `${folder}/${name}`;
      const { code, stderr } = await far([
        ...["predict", ...args, "--pred", "1", "--device", "cpu", "--format", "gif", "--out", out],
      ]);
      assertEquals(code, 0, stderr);
      const { warnings } = JSON.parse(Deno.readTextFileSync(`${out}/result.json`));
      const lines = stderr.split("\n").filter((line) => line.startsWith("warning: "));
      assertEquals(lines, warnings.map((warning: string) => `warning: ${warning}`));
      return warnings;
    };
    for (const ctx of ["2", "20"]) {
      const [warning, ...others] = await warned(`lab${ctx}`, clip, "--actions", "0", "--ctx", ctx);
      assertMatch(
        warning,
        /^the clip does not look like what world was trained on, walks with grid steps through the built-in world: /,
      );
      assertEquals(others, []);
      assertEquals(await warned(`walk${ctx}`, "grid:7", "--ctx", ctx), []);
    }
    // Another autoencoder, or random weights, says nothing about a clip.
    assertEquals(await warned("random", clip, "--actions", "0", "--ctx", "2", "--random-weights"), []);
  });
});

Deno.test("frames are strange below the bound on their PSNR or above that on their latents, by how many there are", () => {
  const card = {
    ...BUNDLED.world,
    kind: { what: "walks", bounds: [{ frames: 2, psnr: 20, rms: 1.5 }, { frames: 4, psnr: 24, rms: 1.2 }] },
  };
  const strange = (psnr: number[], rms: number) => strangeness(card, "m", psnr, rms) !== undefined;
  assertEquals(strange([1], 9), false, "too few frames to say");
  assertEquals([strange([21, 21, 21], 1.4), strange([19, 19, 30], 1), strange([30, 30], 1.6)], [
    false,
    true,
    true,
  ]);
  assertEquals(
    [strange([25, 25, 25, 25], 1.1), strange([21, 21, 21, 25], 1), strange([25, 25, 25, 25], 1.4)],
    [
      false,
      true,
      true,
    ],
  );
  assertEquals(strange([1, 25, 26, 27, 28], 1), false, "the median counts");
  assert(BUNDLED.world.kind.bounds.every((b, i, all) => i === 0 || b.frames > all[i - 1].frames), "in order");
});
