/**
 * Holds README and docs to the program: every command parses by its verb's own declaration, the cheap ones run, and every
 * flag, verb, task, file, option and variable that the pages name exists. TypeScript blocks run under `deno test --doc`; the
 * listings of docs/kernels.md are followed by tests/add_kernel_test.ts.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { parseCall } from "../cli/args.ts";
import { ENVIRONMENT, EXIT_CODES } from "../cli/help.ts";
import { allVerbs } from "../cli/main.ts";
import { isFile } from "../lib/io/paths.ts";
import { readOptions } from "../lib/train/options.ts";
import { far, inFolder } from "./cli_helpers.ts";

const VERBS = await allVerbs();

const root = new URL("../", import.meta.url);
const PAGES = [
  "README.md",
  "bench/README.md",
  "models/world/README.md",
  "notebooks/README.md",
  ...[...Deno.readDirSync(new URL("docs/", root))].map(({ name }) => `docs/${name}`).sort(),
];

/** A fenced block: the word after the fence, and its text. */
interface Block {
  readonly page: string;
  readonly kind: string;
  readonly text: string;
}

const textOf = (page: string) => Deno.readTextFileSync(new URL(page, root));
const FENCE = /^(```|~~~)(.*)\n([\s\S]*?)^\1$/gm;
const blocksOf = (page: string): Block[] =>
  [...textOf(page).matchAll(FENCE)].map(([, , kind, text]) => ({ page, kind, text }));
const BLOCKS = PAGES.flatMap(blocksOf);

/** The lines of a shell block: continued ones joined, comments dropped. */
const commandsOf = ({ text }: Block): string[] =>
  text.replaceAll("\\\n", " ").split("\n").map((line) => line.replace(/\s+#.*$|^#.*$/, "").trim())
    .filter((line) => line !== "");
const COMMANDS = BLOCKS.filter(({ kind }) => kind === "sh")
  .flatMap((block) => commandsOf(block).map((line) => ({ page: block.page, line })));

/** Text of a page without its blocks, and the pieces of it that are set as code. */
const proseOf = (page: string) => textOf(page).replace(FENCE, "");
const inlineOf = (page: string) => [...proseOf(page).matchAll(/`([^`\n]+)`/g)].map(([, code]) => code);
const INLINE = PAGES.flatMap((page) => inlineOf(page).map((code) => ({ page, code })));

const permissions = config.permissions as Record<string, unknown>,
  tasks: Record<string, unknown> = config.tasks;
const verbOf = (name: string) => VERBS.find((v) => v.name === name);

/** Checks `deno run -P=SET far.ts VERB ...`. */
function checkVerb(who: string, set: string, [name, ...args]: readonly string[]): void {
  const verb = verbOf(name);
  if (verb === undefined) throw new Error(`${who}: there is no verb ${name}`);
  parseCall(verb, args); // throws on unknown flags and wrong values
  assert(set in permissions, `${who}: there is no permission set ${set}`);
  if (name === "weights") assertEquals(set, "net", `${who}: only -P=net has the network`);
}

Deno.test("every block is of a kind that a test looks at, and none is ignored", () => {
  const kinds = new Map([["sh", "here"], ["ts", "deno test --doc"], ["text", "a drawing"], [
    "python",
    "numpy",
  ]]);
  for (const { page, kind } of BLOCKS) {
    if (page === "docs/kernels.md" && /^(ts|wgsl)$/.test(kind)) continue; // tests/add_kernel_test.ts
    assert(kinds.has(kind), `${page}: a block of kind "${kind}"`);
  }
  assert(BLOCKS.length >= 20, `${BLOCKS.length} blocks`);
  // deno test --doc takes them, because it is given neither paths nor an exclude.
  assertEquals(config.tasks.test.command.includes("--doc"), true);
  assertEquals(config.exclude.some((pattern) => /md|docs/.test(pattern)), false);
});

Deno.test("every shell command of the pages is one that the program takes", () => {
  for (const { page, line } of COMMANDS) {
    const who = `${page}: ${line}`, words = line.split(/\s+/);
    const far = /^deno run -P(?:=(\S+))? far\.ts (.*)$/.exec(line);
    if (far) checkVerb(who, far[1] ?? "default", far[2].split(/\s+/));
    else if (line.startsWith("deno task ")) assert(words[2] in tasks, `${who}: there is no task ${words[2]}`);
    else if (/^deno (run|test) /.test(line)) {
      const programs = words.filter((word) => word.endsWith(".ts"));
      assert(programs.length > 0, who);
      for (const program of programs) {
        assert(isFile(new URL(program, root)), `${who}: there is no ${program}`);
      }
    } else assertMatch(line, /^(apt-get install|python3 -m venv|deno jupyter|jupyter lab) /, who);
    for (const word of words) {
      if (/^(models|experiments|tests|assets|bench|notebooks)\//.test(word)) {
        assert(isFile(new URL(word, root)), `${who}: ${word}`);
      }
    }
  }
  assert(COMMANDS.length >= 30, `${COMMANDS.length} commands`);
});

/** Commands that end within seconds and need no file that is not there. */
const CHEAP =
  /^deno run (-P\S*) far\.ts ((?:info|completion|weights list|data (?!check CLIPS|stats CLIPS)).*|\S+ --help)$/;

Deno.test("the cheap commands of the pages run, and leave the lock file alone", () =>
  inFolder(async (folder) => {
    const lock = textOf("deno.lock");
    const cheap = COMMANDS.flatMap(({ page, line }) => {
      const [, set, words] = CHEAP.exec(line) ?? [];
      return set ? [{ page, line, set, words: words.split(/\s+/) }] : [];
    });
    for (const { page, line, set, words } of cheap) {
      const { code, stdout, stderr } = await far(
        words.map((w) => w.replace(/^out\//, `${folder}/`)),
        {},
        set,
      );
      assertEquals(code, 0, `${page}: ${line}\n${stderr}`);
      assert(stdout.length + stderr.length > 0, line);
    }
    assert(cheap.length >= 6, `${cheap.length} commands`);
    assertEquals(textOf("deno.lock"), lock);
  }));

Deno.test("docs/usage.md: repeating a run, and latents there and back, work as the page says", () =>
  inFolder(async (folder) => {
    const small = blocksOf("docs/usage.md").filter(({ text }) => /--from out\/|far\.ts decode/.test(text));
    assertEquals(small.length, 2);
    for (const line of small.flatMap(commandsOf)) {
      const words = line.split(/\s+/).slice(4).map((word) =>
        word.replace(/^(out\/|latents\.|clip\.mp4)/, `${folder}/$1`)
      );
      const { code, stderr } = await far([...words, "--device", "cpu"]);
      assertEquals(code, 0, `${line}\n${stderr}`);
    }
    const result = (name: string) => JSON.parse(Deno.readTextFileSync(`${folder}/out/${name}/result.json`));
    const [first, second] = [result("first"), result("second")];
    assertEquals([second.settings.flags.ctx, second.settings.flags.pred], [8, 2]);
    assertEquals([first.settings.flags.seed, second.settings.flags.seed], [0, 1]);
    assert(isFile(`${folder}/clip.mp4`));
    // The table of files is that of a folder.
    const listed = [...textOf("docs/usage.md").matchAll(/^\| (`[^|]*) \|/gm)].flatMap(([, cell]) =>
      [...cell.matchAll(/`([\w.-]+)`/g)].map(([, name]) => name)
    );
    const there = [...Deno.readDirSync(`${folder}/out/first`)].map(({ name }) => name).sort();
    for (const name of there) assert(listed.includes(name), `docs/usage.md does not list ${name}`);
    for (const name of listed) {
      assert(there.includes(name) || name === "far-job.lock", `${name} is not written`);
    }
  }));

/** Flags of Deno and of other programs that the pages name. */
const OTHERS = [
  "--allow-ffi=PATH",
  "--allow-net=HOST",
  "--allow-run=/path/to/ffmpeg",
  "--cached-only",
  "--frozen",
  "--v8-flags",
];
const BENCH = ["--save", "--python", "--coretype Haswell", "--dry-run", "--experimental-wasm-revectorize"];
const FOREIGN = new Set([...OTHERS, ...BENCH, "--no-wasm-bounds-checks"]);

Deno.test("every flag that the pages name is a flag of some verb", () => {
  const known = new Set(VERBS.flatMap((verb) => [...Object.keys(verb.flags), "help"]));
  let seen = 0;
  for (const { page, code } of INLINE) {
    if (FOREIGN.has(code)) continue;
    for (const [, flag] of code.matchAll(/(?:^| )--([\w-]+)/g)) {
      if (/^(deno (run|test|task)|tensorboard|far_torch|linear\.ts)/.test(code)) continue;
      assert(known.has(flag), `${page}: no verb has --${flag} (\`${code}\`)`);
      seen++;
    }
  }
  assert(seen > 30, `${seen} flags`);
});

Deno.test("every verb, task, variable and option that the pages name exists", () => {
  // FAR_DEVICES, FAR_GOLDEN: of the tests. FAR_B and the like are models.
  const variables = new Set([...Object.keys(ENVIRONMENT), "FAR_DEVICES", "FAR_GOLDEN"]);
  const tiny = new URL("experiments/configs/world_tiny.yml", root).pathname;
  for (const { page, code } of INLINE) {
    const who = `${page}: \`${code}\``;
    const verb = /(?:^|\s)far\.ts ([a-z][\w-]*)/.exec(code)?.[1], task = /^deno task (\S+)/.exec(code)?.[1];
    if (verb) assert(verbOf(verb), `${who}: there is no verb ${verb}`);
    if (task) assert(task in tasks, `${who}: there is no task ${task}`);
    const full = /^deno run -P(?:=(\S+))? far\.ts (.*)$/.exec(code);
    if (full && full[2] !== "...") checkVerb(who, full[1] ?? "default", full[2].split(/\s+/));
    const variable = /^(FAR_[A-Z_]+|HF_TOKEN|FFMPEG_BIN)(?:=.*)?$/.exec(code)?.[1];
    if (variable && !/^FAR_(B|M|L|XL|B_|M_)/.test(variable)) {
      assert(variables.has(variable), `${who}: no such variable`);
    }
    const option = /^(?:--set )?((?:models|train|val|logger|datasets)\.[\w.]+?)(?:[:=].*)?$/.exec(code)?.[1];
    if (option) {
      try {
        readOptions(tiny, [`${option}=~`]);
      } catch (error) { // null may not be a value of it, but the option is known
        assert(
          !/there is no such option/.test((error as Error).message),
          `${who}: ${(error as Error).message}`,
        );
      }
    }
  }
});

Deno.test("every file and link that the pages name exists", () => {
  let links = 0;
  for (const page of PAGES) {
    const base = new URL(page, root);
    for (const [, target] of proseOf(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https:/.test(target)) continue;
      const [path, anchor] = target.split("#");
      assert(isFile(new URL(path || page, path ? base : root)), `${page}: ${target}`);
      assertEquals(anchor, undefined, `${page}: ${target}`);
      links++;
    }
    for (const code of inlineOf(page)) {
      if (!/^(lib|cli|kernels|docs|tests|experiments|bench|models|assets)\/[\w./-]+\.\w+$/.test(code)) {
        continue;
      }
      if (/NAME|\*/.test(code) || code.startsWith("kernels/scale.")) continue; // docs/kernels.md makes these
      assert(isFile(new URL(code, root)), `${page}: there is no ${code}`);
    }
    for (const code of inlineOf(page)) {
      if (/^(lib|cli|kernels|docs|tests|experiments|bench|models|assets)\/([\w-]+\/)*$/.test(code)) {
        assert(Deno.statSync(new URL(code, root)).isDirectory, `${page}: ${code}`);
      }
    }
  }
  assert(links > 20, `${links} links`);
});

Deno.test("README lists every verb, docs/usage.md every exit code in the words of --help", () => {
  const listed = [...textOf("README.md").matchAll(/^\| (`[^|]*`) \|/gm)].flatMap(([, cell]) =>
    [...cell.matchAll(/`([\w-]+)`/g)].map(([, name]) => name)
  );
  for (const { name } of VERBS) assert(listed.includes(name), `README does not list ${name}`);
  const usage = textOf("docs/usage.md"), help = (text: string) => text.split(/[:;,]/)[0];
  const rows = [...usage.matchAll(/^\| (\d+) \| (.*) \|$/gm)].map(([, code, means]) => [code, help(means)]);
  assertEquals(rows, Object.entries(EXIT_CODES).map(([code, means]) => [code, help(means)]));
});

Deno.test("scores that README and the model's card quote stand in table.md", () => {
  const table = textOf("models/world/table.md"), card = textOf("models/world/README.md");
  const [, first] = table.split("\n\n");
  assert(card.includes(first.trim()), "models/world/README.md: its table is not the first one of table.md");
  const quoted = (text: string) =>
    [...text.matchAll(/(\d+\.\d+)(?: ± (\d+\.\d+))?\s+dB/g)].map(([, n, e]) => e ? `${n} ± ${e}` : n);
  const readme = quoted(textOf("README.md"));
  assert(readme.length >= 2 && readme.length <= 4, `README quotes ${readme.length} scores`);
  const what = card.slice(card.indexOf("**What works.**"), card.indexOf("**One Euler step"));
  const inCard = quoted(what);
  assert(inCard.length >= 2);
  for (const score of [...readme, ...inCard]) assert(table.includes(score), `${score} dB is not in table.md`);
});

Deno.test("README is short", () => {
  const lines = textOf("README.md").split("\n").length;
  assert(lines <= 100, `README has ${lines} lines, expected at most 100: docs/ is for the rest`);
});

Deno.test("docs/usage.md lists the permission sets, and names ffmpeg where it may run", () => {
  const rows = [...textOf("docs/usage.md").matchAll(/^\| (\w+), `-P(?:=\w+)?` \| (.*) \|$/gm)];
  assertEquals(rows.map(([, name]) => name), Object.keys(permissions));
  for (const [, name, text] of rows) {
    const { run } = permissions[name] as { run?: string[] };
    assertEquals(text.includes("`ffmpeg`"), run !== undefined, name);
  }
});
