/**
 * The lock file is complete, and holds nothing that only builds need: `deno task` downloads every package of it before the
 * first prediction.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";

const root = new URL("../", import.meta.url);
const read = (path: string) => Deno.readTextFileSync(new URL(path, root));

/** A lock file, as far as it is looked at. */
interface Lock {
  readonly specifiers: Readonly<Record<string, string>>;
  readonly npm: Readonly<Record<string, { readonly dependencies?: readonly string[] }>>;
}

const lock: Lock = JSON.parse(read("deno.lock")), build: Lock = JSON.parse(read("kernels/cpu/build.lock"));
const { imports } = JSON.parse(read("deno.json")) as { imports: Record<string, string> };

function* walk(folder: URL): Generator<URL> {
  for (const entry of Deno.readDirSync(folder)) {
    if (entry.name.startsWith(".") || ["node_modules", "out"].includes(entry.name)) continue;
    const url = new URL(entry.isDirectory ? `${entry.name}/` : entry.name, folder);
    if (entry.isDirectory) yield* walk(url);
    else if (entry.name.endsWith(".ts")) yield url;
  }
}

/** `npm:NAME@VERSION` of everything that a module imports by name; what it imports by path is loaded by itself. */
function packagesOf(url: URL): string[] {
  const found = Deno.readTextFileSync(url).matchAll(
    /^(?:import|export|\} from)\b.*?["']([^".'][^"']*)["']/gm,
  );
  return [...found].map(([, name]) => imports[name] ?? name).filter((name) => name.startsWith("npm:"))
    .map((name) => /^npm:(?:@[^/]+\/)?[^/]+/.exec(name)![0]);
}

Deno.test("deno.lock names every package that a module imports, and no other", () => {
  const used = new Set(Object.values(imports).map((name) => /^npm:(?:@[^/]+\/)?[^/]+/.exec(name)![0]));
  for (const url of walk(root)) for (const name of packagesOf(url)) used.add(name);
  assertEquals(Object.keys(lock.specifiers).sort(), [...used].sort());
  assert(used.size >= 9, `${used.size} packages`);
});

Deno.test("the packages of the kernel build are in their own lock file alone", () => {
  const names = (of: Lock) => Object.keys(of.npm).map((key) => key.replace(/(.)@.*/, "$1"));
  const needed = names(build);
  for (const name of ["assemblyscript", "binaryen"]) assert(needed.includes(name), name);
  assertEquals(names(lock).filter((name) => needed.includes(name)), []);
  const specifier = /"(npm:assemblyscript@[\d.]+)\/asc"/.exec(read("kernels/cpu/build.ts"))?.[1];
  assertEquals(Object.keys(build.specifiers), [specifier!]);
  const { command } = JSON.parse(read("deno.json")).tasks["build:wasm"];
  assert(command.includes("--frozen --lock=kernels/cpu/build.lock"), command);
});

Deno.test("a lock file names no registry, and has every dependency of its packages", () => {
  for (const { npm } of [lock, build]) {
    assert(!/https?:/.test(JSON.stringify(npm)));
    const names = Object.keys(npm).map((key) => key.replace(/(.)@.*/, "$1"));
    for (const [key, { dependencies = [] }] of Object.entries(npm)) {
      for (const name of dependencies) {
        assert(names.includes(name.replace(/(.)@.*/, "$1")), `${key} needs ${name}`);
      }
    }
  }
});
