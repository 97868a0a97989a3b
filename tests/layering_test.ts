import { assert, assertEquals } from "@std/assert";

const root = new URL("../", import.meta.url);

/** One module of the repository: its path from the root, its text without comments, and what it imports. */
interface Module {
  readonly path: string;
  readonly code: string;
  readonly imports: readonly string[];
}

function* walk(folder: URL): Generator<URL> {
  for (const entry of Deno.readDirSync(folder)) {
    if (entry.name.startsWith(".") || entry.name === "node_modules" || entry.name === "out") continue;
    const url = new URL(entry.isDirectory ? `${entry.name}/` : entry.name, folder);
    if (entry.isDirectory) yield* walk(url);
    else if (entry.name.endsWith(".ts") && !entry.name.endsWith(".wasm.ts")) yield url;
  }
}

/** Takes comments away; what is inside strings and templates stays. */
function withoutComments(text: string): string {
  const pattern = /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g;
  return text.replace(pattern, (_, kept) => kept ?? "");
}

function read(url: URL): Module {
  const code = withoutComments(Deno.readTextFileSync(url));
  const found = code.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*(?:new URL\(\s*)?)["']([^"']+)["']/g);
  return { path: url.href.slice(root.href.length), code, imports: [...found].map((m) => m[1]) };
}

const modules = new Map([...walk(root)].map(read).map((m) => [m.path, m]));

/** One place of the drawing in docs/architecture.md. */
interface Layer {
  /** Its row, 0 at the bottom. */
  readonly row: number;
  /** The others of its row, where arrows join them. */
  readonly joined: readonly string[];
}

/** The layers as docs/architecture.md draws them: the first block of the page, one row a line, the top row first. */
function drawnLayers(): ReadonlyMap<string, Layer> {
  const page = Deno.readTextFileSync(new URL("docs/architecture.md", root));
  const rows = /^```text\n([\s\S]*?)^```$/m.exec(page)![1].trimEnd().split("\n").reverse();
  const layers = new Map<string, Layer>();
  for (const [row, line] of rows.entries()) {
    const names = line.match(/^(?:\S+ (?:<-> | )?)+ /)![0].trim().split(/\s+/);
    const places = names.filter((name) => name !== "<->").map((name) => name.replace(/\/$/, ""));
    const arrows = names.includes("<->");
    if (arrows) {
      assertEquals(
        names.length,
        2 * places.length - 1,
        `docs/architecture.md: arrows join all of a row: ${line}`,
      );
    }
    for (const name of places) {
      layers.set(name, { row, joined: arrows ? places.filter((other) => other !== name) : [] });
    }
  }
  return layers;
}

const LAYERS = drawnLayers();
const ANYTHING = ["bench", "tests", "notebooks"];

/** The longest drawn place that a path is in, else its first part. */
function layerOf(path: string): string {
  const parts = path.split("/");
  const folder = parts.slice(0, 2).join("/");
  return parts.length > 2 && LAYERS.has(folder) ? folder : parts[0];
}

const resolve = (from: string, to: string) => new URL(to, new URL(from, root)).href.slice(root.href.length);

Deno.test("every module is in a place that docs/architecture.md draws, and every place has modules or data", () => {
  for (const path of modules.keys()) {
    const layer = layerOf(path);
    assert(LAYERS.has(layer) || ANYTHING.includes(layer), `${path}: draw its folder in docs/architecture.md`);
    const below = /^lib\/[^/]+\//.test(path);
    assert(!below || layer !== "lib", `${path}: draw its folder in docs/architecture.md`);
  }
  const there = new Set([...modules.keys(), "models/world/card.json", "deno.json"].map(layerOf));
  assertEquals([...LAYERS.keys()].filter((layer) => !there.has(layer)), []);
});

Deno.test("imports point downwards only, as docs/architecture.md draws them", () => {
  const upward: string[] = [], used = new Set<string>();
  for (const { path, imports } of modules.values()) {
    const from = layerOf(path), { row, joined } = LAYERS.get(from) ?? {};
    if (row === undefined || joined === undefined) continue;
    for (const to of imports.filter((i) => i.startsWith("."))) {
      const target = resolve(path, to), layer = layerOf(target), below = LAYERS.get(layer)?.row ?? Infinity;
      if (layer !== from) used.add(`${from} ${layer}`);
      if (layer !== from && !joined.includes(layer) && below >= row) upward.push(`${path} imports ${target}`);
    }
  }
  assertEquals(upward, []);
  // Arrows that no import needs are none: each place of such a row is imported from another one of it, and imports one.
  const idle = [...LAYERS].filter(([name, { joined }]) =>
    joined.length > 0 &&
    !(joined.some((other) => used.has(`${name} ${other}`)) &&
      joined.some((other) => used.has(`${other} ${name}`)))
  );
  assertEquals(idle, []);
});

/** The video codec in WebAssembly, which computes nothing of ours: compiled once, started in a worker for each file. */
const CODEC = ["lib/io/ffmpeg_core.ts", "lib/io/ffmpeg_worker.ts"];

Deno.test("only kernels/ speaks to WebGPU objects or a WebAssembly instance", () => {
  const found: string[] = [];
  for (const { path, code } of modules.values()) {
    if (layerOf(path) === "kernels" || ANYTHING.includes(layerOf(path))) continue;
    const match = /\bGPU[A-Z]\w+|\bWebAssembly\b|\bnavigator\.gpu\b|\brequestAdapter\b/.exec(code);
    if (match && !(CODEC.includes(path) && match[0] === "WebAssembly")) found.push(`${path}: ${match[0]}`);
  }
  assertEquals(found, []);
});

/** Programs that deno.json starts as tasks and nothing imports. */
const TASKS = [
  "kernels/cpu/build.ts",
  "kernels/show.ts",
  "experiments/train_world.ts",
  "experiments/attention.ts",
  "experiments/animation.ts",
];

Deno.test("only lib/io, lib/data, lib/pipeline and cli touch files, processes or the network", () => {
  const found: string[] = [];
  for (const { path, code, imports } of modules.values()) {
    if (ANYTHING.includes(layerOf(path)) || /^(far\.ts$|cli\/|lib\/(?:io|data|pipeline)\/)/.test(path)) {
      continue;
    }
    if (TASKS.includes(path)) continue;
    // The BLAS of the system, called by the cpu device.
    const calls = path === "kernels/cpu/blas.ts" ? /^Deno\.(dlopen|permissions|build|[A-Z]\w+)$/ : null;
    const own = layerOf(path) === "kernels"; // its WebAssembly and its workers, by import.meta.url
    const uses = code.match(/\bDeno\.\w+|\bfetch\(|\bnew (?:WebSocket|Worker)\b/g) ?? [];
    const nodes = imports.filter((i) => /^node:(fs|child_process|net|http|https|dns|worker_threads)/.test(i));
    for (const use of [...uses, ...nodes]) {
      if (use === "Deno.customInspect") continue; // the name of a symbol
      if (own && /^(Deno\.readFile|fetch\(|new Worker|node:worker_threads)$/.test(use)) continue;
      if (calls?.test(use)) continue;
      found.push(`${path}: ${use}`);
    }
  }
  assertEquals(found, []);
});

Deno.test("nothing reachable from mod.ts uses a bare specifier", () => {
  const seen = new Set<string>(), open = ["mod.ts"], bare: string[] = [];
  while (open.length > 0) {
    const path = open.pop()!;
    if (seen.has(path)) continue;
    seen.add(path);
    for (const to of modules.get(path)?.imports ?? []) {
      if (to.startsWith(".")) open.push(resolve(path, to));
      else if (!/^(npm:(@[\w.-]+\/)?[\w.-]+@\d|node:)/.test(to)) bare.push(`${path} imports ${to}`);
    }
  }
  assert(seen.size > 10, `only ${seen.size} modules are reachable from mod.ts`);
  assertEquals(bare, []);
});

Deno.test("no two modules import each other in a circle", () => {
  const state = new Map<string, "open" | "done">(), circles: string[] = [];
  const visit = (path: string, trail: readonly string[]) => {
    if (state.get(path) === "done") return;
    if (state.get(path) === "open") {
      circles.push([...trail.slice(trail.indexOf(path)), path].join(" -> "));
      return;
    }
    state.set(path, "open");
    const { code = "", imports = [] } = modules.get(path) ?? {};
    for (const to of imports.filter((i) => i.startsWith("."))) {
      // A type-only import vanishes when the module is loaded.
      const escaped = to.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
      if (new RegExp(`import type [^;]*from\\s*["']${escaped}["']`).test(code)) continue;
      visit(resolve(path, to), [...trail, path]);
    }
    state.set(path, "done");
  };
  for (const path of modules.keys()) visit(path, []);
  assertEquals(circles, []);
});
