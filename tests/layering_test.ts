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

/** Rank of each layer; an import may point to the same rank or a lower one. */
const LAYERS: Readonly<Record<string, number>> = {
  "far.ts": 5,
  cli: 4,
  experiments: 3,
  "mod.ts": 2.5,
  "lib/pipeline": 2.4,
  lib: 2,
  kernels: 1,
  // data: cards of the bundled models, and the version
  models: 0,
  "deno.json": 0,
};
const ANYTHING = ["bench", "tests", "notebooks"];

const layerOf = (path: string) => path.startsWith("lib/pipeline/") ? "lib/pipeline" : path.split("/")[0];
const resolve = (from: string, to: string) => new URL(to, new URL(from, root)).href.slice(root.href.length);

Deno.test("every folder with modules is a layer that this test knows", () => {
  for (const path of modules.keys()) {
    const layer = layerOf(path);
    assert(layer in LAYERS || ANYTHING.includes(layer), `${path}: name its layer in tests/layering_test.ts`);
  }
});

Deno.test("imports point downwards only: far.ts, cli, experiments, lib/pipeline, the rest of lib, kernels", () => {
  const upward: string[] = [];
  for (const { path, imports } of modules.values()) {
    const rank = LAYERS[layerOf(path)];
    if (rank === undefined) continue;
    for (const to of imports.filter((i) => i.startsWith("."))) {
      const target = resolve(path, to), targetRank = LAYERS[layerOf(target)];
      if (!(targetRank <= rank)) upward.push(`${path} imports ${target}`);
    }
  }
  assertEquals(upward, []);
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
const TASKS = ["kernels/cpu/build.ts", "kernels/show.ts", "experiments/train_world.ts"];

Deno.test("only lib/io, lib/data, lib/pipeline and cli touch files, processes or the network", () => {
  const found: string[] = [];
  for (const { path, code, imports } of modules.values()) {
    if (ANYTHING.includes(layerOf(path)) || /^(far\.ts$|cli\/|lib\/(?:io|data|pipeline)\/)/.test(path)) {
      continue;
    }
    if (TASKS.includes(path)) continue;
    const own = layerOf(path) === "kernels"; // its WebAssembly and its workers, by import.meta.url
    const uses = code.match(/\bDeno\.\w+|\bfetch\(|\bnew (?:WebSocket|Worker)\b/g) ?? [];
    const nodes = imports.filter((i) => /^node:(fs|child_process|net|http|https|dns|worker_threads)/.test(i));
    for (const use of [...uses, ...nodes]) {
      if (use === "Deno.customInspect") continue; // the name of a symbol
      if (own && /^(Deno\.readFile|fetch\(|new Worker|node:worker_threads)$/.test(use)) continue;
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
