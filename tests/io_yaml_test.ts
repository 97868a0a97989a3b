import { assert, assertEquals } from "@std/assert";
import { parseYaml, readYaml } from "../lib/io/yaml.ts";
import { didYouMean, nearest } from "../lib/nearest.ts";
import { assertRefused } from "./io_helpers.ts";

const OPTIONS = new URL("./data/options/", import.meta.url).pathname;

Deno.test("the authors' option files give the numbers that their own reader gives", () => {
  const files = [...Deno.readDirSync(OPTIONS)].filter(({ name }) => name.endsWith(".yml"));
  assert(files.length >= 2);
  for (const { name } of files) {
    const options = readYaml(OPTIONS + name);
    assertEquals(typeof options.name, "string");
    const train = options.train as Record<string, Record<string, unknown>>;
    assertEquals(train.optim_g.lr, 0.0001, name);
    const logger = options.logger as Record<string, unknown>;
    assertEquals(logger.save_checkpoint_freq, 50000, name);
  }
  const long = readYaml(`${OPTIONS}train_FAR_B_Long_dmlab.yml`);
  assertEquals((long.path as Record<string, unknown>).pretrain_network, null);
  const { init_cfg } =
    (long.models as Record<string, Record<string, Record<string, unknown>>>).model_cfg.transformer;
  assertEquals(init_cfg, {
    type: "FAR_B_Long",
    config: { condition_cfg: { type: "action", num_action_classes: 4 } },
  });
});

Deno.test("plain values are read as YAML 1.2 and the authors write them", () => {
  assertEquals(
    parseYaml("a: !!float 20000\nb: 1e-4\nc: [1, -2.5, .inf]\nd: ~\ne: true\nf: '1'\ng: {h: no}", "x.yml"),
    { a: 20000, b: 0.0001, c: [1, -2.5, Infinity], d: null, e: true, f: "1", g: { h: "no" } },
  );
  assertEquals(parseYaml("a: &x {p: 1}\nb: *x\nc: {<<: *x, q: 2}", "x.yml"), {
    a: { p: 1 },
    b: { p: 1 },
    c: { p: 1, q: 2 },
  });
  const named = parseYaml("__proto__: {polluted: 1}\nconstructor: 2", "x.yml") as Record<string, unknown>;
  assertEquals(Object.keys(named), ["__proto__", "constructor"]);
  assertEquals((({}) as Record<string, unknown>).polluted, undefined);
});

Deno.test("option files that are no plain YAML are refused in one line: where, and what", () => {
  const refused = (text: string, ...parts: string[]) =>
    assertRefused(() => readYaml(new TextEncoder().encode(text), "x.yml"), "x.yml: ", ...parts);
  refused("a: 1\na: 2", "duplicated key at line 2, column 1");
  refused("a: [1, 2", "flow collection");
  refused("a: 1\n---\nb: 2", "more than 1 document");
  refused("a: !!js/function 'x'", "unknown tag");
  refused("a: !python/object:os.system {}", "unknown tag");
  refused("a: !!int 12.5", "Cannot resolve");
  refused("a: {b: 2021-01-01}", '"a.b": is read as a date, put it in quotes');
  refused("a: [1, !!binary aGVsbG8=]", '"a[1]": expected a number, text');
  refused("a: &x [*x]", "inside itself");
  refused("[".repeat(100_000), "nested too deeply");
  refused("- 1", 'expected options as "key: value", found a list');
  refused("hello", "found a string");
  refused("", "found nothing");
  // Nine lists of nine times the list before: 387 million values from a few hundred bytes.
  let bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (let i = 1; i < 9; i++) bomb += `a${i}: &a${i} [${new Array(9).fill(`*a${i - 1}`).join(", ")}]\n`;
  refused(bomb, "holds more than 100000 values");
  refused(`a: ${"x".repeat(2 ** 20)}`, "at most 1048576 bytes");
  assertRefused(() => readYaml(new Uint8Array([0x61, 0x3a, 0x20, 0xff]), "x.yml"), "UTF-8");
});

Deno.test("nearest() finds what a mistyped name meant, and nothing when it meant nothing", () => {
  const keys = ["guidance_scale", "num_frames", "seed", "ctx", "kv-cache", "pred"];
  assertEquals(nearest("guidence_scale", keys), "guidance_scale");
  assertEquals(nearest("guidance-scale", keys), "guidance_scale");
  assertEquals(nearest("KvCache", keys), "kv-cache");
  assertEquals(nearest("sede", keys), "seed");
  assertEquals(nearest("num_frame", keys), "num_frames");
  assertEquals(nearest("ctxx", keys), "ctx");
  assertEquals(nearest("zzzzzz", keys), undefined);
  assertEquals(nearest("anything", []), undefined);
  assertEquals(didYouMean("sede", keys), ', did you mean "seed"?');
  assertEquals(didYouMean("zzzzzz", keys), "");
});
