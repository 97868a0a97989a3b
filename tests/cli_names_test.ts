import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { printable, quote, show } from "../lib/io/errors.ts";
import { fromFloat32 } from "../lib/io/host.ts";
import { writeNpz } from "../lib/io/npz.ts";
import { writePth } from "../lib/io/pth_write.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { far, inFolder, tinyWorld } from "./cli_helpers.ts";

/** Clears the screen, forges a line, turns the writing direction, and hides a letter; also in 8-bit control codes. */
const NASTY = "w\x1b[2J\nfar: all is well\r\u009b31m\u202egpj\u200b\u2028\u{e0041}\ud800";

/** What a terminal would obey or hide; a line break ends a line of ours. */
const UNSAFE = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;

Deno.test("printable() leaves nothing that a terminal obeys or hides, and JSON stays what it was", () => {
  assert(!UNSAFE.test(printable(NASTY)) && !printable(NASTY).includes("\n"));
  assertEquals(printable("blocks.0.weight ünï 鏡 🙂"), "blocks.0.weight ünï 鏡 🙂");
  assertEquals(printable("\x1b\u{e0041}"), "\\u001b\\udb40\\udc41");
  for (const text of [quote(NASTY), show({ [NASTY]: NASTY }), printable(JSON.stringify(NASTY))]) {
    assert(!UNSAFE.test(text) && !text.includes("\n"), text);
  }
  assertEquals(JSON.parse(printable(JSON.stringify(NASTY))), NASTY);
});

Deno.test("names out of files can neither colour the screen nor forge a line, in reports and in errors", async () => {
  await inFolder(async (folder) => {
    const at = (name: string) => join(folder, name), one = fromFloat32(new Float32Array(2), [2]);
    await writeSafetensors(at("a.safetensors"), { [NASTY]: one, b: one }, { [NASTY]: NASTY });
    await writePth(at("a.pth"), { [NASTY]: one });
    await writeNpz(at("a.npz"), { [NASTY]: one, [`${NASTY}2`]: one });
    Deno.writeTextFileSync(at("config.json"), JSON.stringify({ type: "FAR", [NASTY]: 1 }));
    Deno.writeTextFileSync(at("type.json"), JSON.stringify({ type: NASTY }));
    Deno.writeTextFileSync(at("value.json"), JSON.stringify({ type: "FAR", num_layers: NASTY }));
    Deno.writeTextFileSync(at("vae.json"), JSON.stringify({ [NASTY]: 1 }));
    Deno.writeTextFileSync(
      at("result.json"),
      JSON.stringify({ settings: { verb: NASTY, operands: [], flags: {} } }),
    );
    Deno.writeTextFileSync(
      at("options.yml"),
      `${JSON.stringify(NASTY.replaceAll("\ud800", ""))}: 1\nname: x\n`,
    );
    Deno.writeTextFileSync(at("value.yml"), `name: ${JSON.stringify(NASTY.replaceAll("\ud800", ""))}\n`);
    Deno.writeTextFileSync(at("dmlab.json"), JSON.stringify([{ video_path: NASTY }]));
    Deno.writeTextFileSync(at("clip.npz"), "");
    Deno.writeTextFileSync(
      at("dmlab2.json"),
      JSON.stringify([{ video_path: at("clip.npz") }, { video_path: NASTY }]),
    );
    Deno.writeTextFileSync(at("actions.csv"), `frame,${NASTY.replaceAll("\n", "")}\n0,1\n`);
    const flags = await tinyWorld(folder);
    // Lines of stdout and stderr that each command writes.
    const runs: [args: string[], lines: number][] = [
      [["weights", "inspect", at("a.safetensors"), "--stats"], 6],
      [["weights", "inspect", at("a.pth")], 4],
      [["weights", "inspect", at("a.npz")], 5],
      [["weights", "convert", at("a.npz"), at("b.safetensors"), "--entry", "x"], 1],
      [
        [
          "predict",
          ...flags,
          "--weights",
          at("a.safetensors"),
          "--ctx",
          "2",
          "--pred",
          "1",
          "--out",
          at("o"),
        ],
        1,
      ],
      [
        [
          "predict",
          "--quiet",
          ...flags,
          "--actions",
          at("actions.csv"),
          "--ctx",
          "2",
          "--pred",
          "1",
          "--out",
          at("o"),
        ],
        1,
      ],
      ...["config.json", "type.json", "value.json"].map((
        name,
      ): [string[], number] => [["info", at(name)], 1]),
      [["info", at("vae.json")], 1],
      [["predict", "--from", at("result.json")], 1],
      [["train", "--config", at("options.yml"), "--out", at("t")], 1],
      [["train", "--config", at("value.yml"), "--out", at("t")], 1],
      [["data", "check", at("dmlab.json")], 1],
      [["data", "check", at("dmlab2.json")], 3],
    ];
    for (const [args, lines] of runs) {
      const quiet = args[0] === "predict" ? ["--quiet"] : [];
      const { stdout, stderr } = await far([...args, ...quiet]),
        text = stdout + stderr,
        said = args.join(" ");
      assert(!UNSAFE.test(text), `${said}: ${JSON.stringify(text)}`);
      assert(text !== "" && !/^far: all is well/m.test(text), `${said}: ${text}`);
      assert(text.trim().split("\n").length <= lines, `${said}: expected ${lines} lines, found: ${text}`);
    }
    const { stdout } = await far(["weights", "inspect", at("a.pth"), "--json"]);
    assert(!UNSAFE.test(stdout), stdout);
    assertEquals(
      JSON.parse(stdout).tensors[0].name,
      new TextDecoder().decode(new TextEncoder().encode(NASTY)),
    );
  });
});
