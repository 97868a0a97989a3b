/**
 * `far.ts play` as people use it: keys in a terminal, keys and buttons on the page.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { readClip } from "../lib/pipeline/clip.ts";
import { withPage } from "./browser.ts";
import { CACHE, far, farArgs, inFolder, tinyWorld } from "./cli_helpers.ts";
import { toolTest } from "./tools.ts";

const ENVIRONMENT = { NO_COLOR: "1", FAR_CACHE: CACHE };

/** Flags of a tiny model with random weights on a walk of 16 pixels. */
async function tinyFlags(folder: string): Promise<string[]> {
  const [, ...model] = await tinyWorld(folder);
  return [
    "play",
    "grid:3",
    ...model,
    "--size",
    "16",
    "--ctx",
    "4",
    "--steps",
    "2",
    "--out",
    `${folder}/play`,
  ];
}

/** Runs a command in a pseudo-terminal; `keys` are sent one after the other, each when what stands before it has appeared. */
async function inTerminal(
  command: string,
  keys: readonly (readonly [shown: RegExp, key: string | (() => void)])[],
): Promise<{ code: number; output: string }> {
  const child = new Deno.Command("script", {
    args: ["-qec", command, "/dev/null"],
    ...{ stdin: "piped", stdout: "piped", stderr: "null", env: ENVIRONMENT },
    signal: AbortSignal.timeout(120_000),
  }).spawn();
  const writer = child.stdin.getWriter(), left = [...keys];
  let output = "", seen = 0;
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    output += text;
    for (let next = left[0]; next !== undefined; next = left[0]) {
      const found = next[0].exec(output.slice(seen));
      if (found === null) break;
      seen += found.index + found[0].length;
      left.shift();
      if (typeof next[1] === "string") await writer.write(new TextEncoder().encode(next[1]));
      else next[1]();
    }
  }
  await writer.close().catch(() => {}); // the terminal is gone already
  const { code } = await child.status;
  assertEquals(left, [], output);
  return { code, output };
}

const quoted = (words: readonly string[]) =>
  words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
const commandIn = (words: readonly string[]) =>
  `stty cols 120 rows 40; ${quoted([Deno.execPath(), ...farArgs(words)])}`;
/** Prints the state of the terminal after a command, and ends with that command's code. */
const thenState = (command: string) => `${command}; code=$?; stty -a; exit $code`;

/** Checks that the cursor is back, on the first screen, and that the terminal echoes lines again. */
function checkRestored(output: string): void {
  assert(output.lastIndexOf("\x1b[?25h") > output.lastIndexOf("\x1b[?25l"), "the cursor is hidden");
  assert(
    output.lastIndexOf("\x1b[?1049l") > output.lastIndexOf("\x1b[?1049h"),
    "the other screen is left open",
  );
  assertMatch(output, /(?<!-)\bicanon\b[^]*(?<!-)\becho\b/);
}

toolTest(
  ["script"],
  "in a terminal: arrows walk, t shows the world, r records, q ends and leaves it as it was",
  () =>
    inFolder(async (folder) => {
      const { code, output } = await inTerminal(thenState(commandIn(await tinyFlags(folder))), [
        [/q quit/, "2"],
        [/frame 4,/, "0"],
        [/frame 5,.*short-term 3 frames/, "t"],
        [/t world[^]*J/, "r"],
        [/wrote .*walk_1\.npz/, "q"],
      ]);
      assertEquals(code, 0, output);
      checkRestored(output);
      assertMatch(output, /RANDOM WEIGHTS: .*grid:3/);
      assertMatch(output, /\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m▀/);
      const { frames, actions } = await readClip(`${folder}/play/walk_1.npz`);
      const walked = await readClip("grid:3", { frames: 4, size: 16 });
      assertEquals([frames.frames, [...actions!]], [6, [...walked.actions!.slice(0, 3), 2, 0, 0]]);
    }),
);

toolTest(
  ["script"],
  "in a terminal: Ctrl-C and SIGTERM end with their codes and leave it as it was",
  () =>
    inFolder(async (folder) => {
      const flags = await tinyFlags(folder);
      const ctrlC = await inTerminal(thenState(commandIn(flags)), [[/q quit/, "\x03"]]);
      assertEquals(ctrlC.code, 130, ctrlC.output);
      assertMatch(ctrlC.output, /interrupted: nothing was recorded/);
      checkRestored(ctrlC.output);
      const pid = `${folder}/pid`, term = () => Deno.kill(Number(Deno.readTextFileSync(pid)), "SIGTERM");
      const inner = `stty cols 120 rows 40; sh -c 'echo $$ > ${pid}; exec "$0" "$@"' ${
        quoted([Deno.execPath(), ...farArgs(flags)])
      }`;
      const ended = await inTerminal(thenState(inner), [[/q quit/, term]]);
      assertEquals(ended.code, 143, ended.output);
      checkRestored(ended.output);
    }),
);

toolTest(["script"], "a walk that fails leaves the terminal as it was, before the program ends", () => {
  const module = new URL("../lib/pipeline/play_terminal.ts", import.meta.url).href;
  const program = `
    import { playInTerminal } from "${module}";
    const picture = { frames: 1, height: 2, width: 1, data: new Uint8Array(6) };
    const act = () => Promise.reject(new Error("lost the device"));
    const walk = { actions: ["go"], keys: { 0: 0 }, last: () => [picture], act };
    const options = { title: "t", record: () => Promise.resolve([]), stopped: new Promise(() => {}) };
    await playInTerminal(walk, options).catch((error) => console.log(error.message));
    await new Deno.Command("stty", { args: ["-a"], stdin: "inherit", stdout: "inherit" }).output();
    Deno.exit(3);`;
  return inTerminal(quoted([Deno.execPath(), "eval", program]), [[/q quit/, "0"]]).then(
    ({ code, output }) => {
      assertEquals(code, 3, output);
      assertMatch(output, /lost the device/);
      checkRestored(output);
    },
  );
});

Deno.test("without a terminal, play says what to do instead; a port needs a page, a page the permission", () =>
  inFolder(async (folder) => {
    const flags = await tinyFlags(folder);
    const off = await far(flags), port = await far([...flags, "--port", "8123"]);
    const refused = await far([...flags, "--page"]);
    assertEquals([off.code, port.code, refused.code], [2, 2, 2]);
    assertMatch(refused.stderr, /--page needs permission .*-P=play/);
    assertMatch(off.stderr, /expected a terminal; --page serves a page/);
    assertMatch(port.stderr, /--port is for --page/);
  }));

toolTest(
  ["chromium"],
  "on the page: keys walk, T shows the world, R records, buttons act, and nothing else is loaded",
  () =>
    inFolder(async (folder) => {
      const child = new Deno.Command(Deno.execPath(), {
        args: farArgs([...await tinyFlags(folder), "--page"], "-P=play"),
        ...{ stdin: "null", stdout: "piped", stderr: "null", env: ENVIRONMENT },
      }).spawn();
      const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      while (!/open (\S+)\n/.test(text)) {
        const { done, value } = await reader.read();
        if (done) throw new Error(`play ended: ${text}`);
        text += value;
      }
      const url = /open (\S+)\n/.exec(text)![1];
      await withPage(url, async (page) => {
        const read = (id: string) => page.evaluate<string>(`document.getElementById("${id}").textContent`);
        const source = (id: string) => page.evaluate<string>(`document.getElementById("${id}").src`);
        const until = async (what: string) => {
          const end = Date.now() + 60_000;
          while (!await page.evaluate(what)) {
            if (Date.now() > end) {
              throw new Error(`still not ${what}: ${await read("facts")} ${await read("message")}`);
            }
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
        };
        const frames = (n: number) => until(`document.documentElement.dataset.frames === "${n}"`);
        assertMatch(await read("title"), /after 4 frames of grid:3/);
        assertEquals(await read("stamp"), "RANDOM WEIGHTS");
        const first = await source("frame");
        await page.press("2");
        await frames(1);
        assertMatch(
          await read("facts"),
          /^frame 4, .*frames per second.*long-term 2 frames of .*short-term 3 frames of/,
        );
        assert(await source("frame") !== first);
        await page.press("1");
        await frames(2);
        assertMatch(await read("facts"), /^frame 5,/);
        assertEquals(await page.evaluate(`document.getElementById("beside").hidden`), true);
        await page.press("t");
        assertEquals(await page.evaluate(`document.getElementById("beside").hidden`), false);
        const turned = await source("truth");
        await page.evaluate(`document.querySelectorAll("#actions button")[0].click()`); // 2, 1, 0: turned back
        await frames(3);
        assert(await source("truth") !== turned);
        await page.press("x"); // no key of ours
        assertEquals(await page.evaluate(`document.querySelectorAll("#strip img").length`), 7);
        await page.press("r");
        await until(`document.getElementById("message").textContent.includes("walk_1.npz")`);
        assertEquals(page.errors, []);
        assertEquals(page.requests.filter((request) => !request.startsWith(url)), []);
      });
      child.kill("SIGINT");
      assertEquals((await child.status).code, 130);
      await reader.cancel();
      const { frames, actions } = await readClip(`${folder}/play/walk_1.npz`);
      assertEquals([frames.frames, [...actions!.slice(3)]], [7, [2, 1, 0, 0]]);
    }),
);
