/**
 * Writes what follows from the kernel files: kernels/all.ts, which lists them, and kernels.wasm (relaxed SIMD) and
 * kernels_simd.wasm beside this file, which AssemblyScript compiles from kernels/*.wasm.ts and the classes of arguments
 * that are made from the contracts (declare.ts).
 *
 *     deno task build:wasm            writes all three
 *     deno task build:wasm --check    compares with what is checked in, byte by byte; exits 1 if it differs
 *
 * @module
 */
import type { Kernel } from "../spec.ts";
import { argumentsOf } from "./declare.ts";

/**
 * The compiler, and binaryen with it (100 MB), which only this task needs. `deno task` downloads every package of deno.lock, and
 * `deno check` adds every specifier that it can read, so this one is not a literal import and its lock file is build.lock.
 */
const ASSEMBLYSCRIPT = "npm:assemblyscript@0.28.20/asc";

/** The part of AssemblyScript's `asc` module that is used. */
interface Compiler {
  main(args: readonly string[], host: Record<string, unknown>): Promise<{ readonly error: Error | null }>;
}

const asc: Compiler = (await import(ASSEMBLYSCRIPT)).default;

const OPTIONS = [
  ...["-O3", "--noAssert", "--runtime", "stub", "--memoryBase", "1024", "--use", "abort="],
  ...["--enable", "simd", "--enable", "threads", "--enable", "bulk-memory"],
  ...["--importMemory", "--sharedMemory", "--initialMemory", "1", "--maximumMemory", "65536"],
];

const folder = new URL("../", import.meta.url);

/** Files in kernels/ whose name ends so, without that end, sorted. */
function filesThatEnd(end: string): string[] {
  const names = [...Deno.readDirSync(folder)].filter((e) => e.isFile && e.name.endsWith(end)).map((e) =>
    e.name
  );
  return names.map((name) => name.slice(0, -end.length)).sort();
}

/** Names of the files that define kernels: those with a WebAssembly side beside them. */
function families(): string[] {
  const sides = filesThatEnd(".wasm.ts");
  return filesThatEnd(".ts").filter((name) => sides.includes(name));
}

/** Text of kernels/all.ts. */
function index(): string {
  return `/**
 * Every kernel of the toolkit: what doctor checks and the tests go through. Written by deno task build:wasm.
 *
 * @module
 */
${families().map((name) => `import * as ${name} from "./${name}.ts";`).join("\n")}
import { type Kernel, kernelsOf } from "./spec.ts";

/** All kernels, file by file. */
export const KERNELS: readonly Kernel[] = [
${families().map((name) => `  ...kernelsOf(${name}),`).join("\n")}
];
`;
}

/** Compiles the kernels. `classes` is the module that they import as `./arguments`. */
async function compile(classes: string, relaxed: boolean): Promise<Uint8Array> {
  const entries = [
    ...filesThatEnd(".wasm.ts").map((name) => `${name}.wasm.ts`),
    "cpu/pack.wasm.ts",
    "cpu/blas.wasm.ts",
  ];
  let binary: Uint8Array | null = null;
  let messages = "";
  const { error } = await asc.main(
    [...entries, "-o", "out.wasm", ...OPTIONS, ...(relaxed ? ["--enable", "relaxed-simd"] : [])],
    {
      readFile: (name: string) => {
        if (name === "arguments.ts") return classes;
        try {
          return Deno.readTextFileSync(new URL(name, folder));
        } catch {
          return null;
        }
      },
      writeFile: (name: string, contents: Uint8Array | string) => {
        if (name === "out.wasm") binary = contents as Uint8Array;
      },
      listFiles: () => [],
      stderr: {
        write: (text: string) => {
          messages += text;
        },
      },
    },
  );
  if (error || !binary) throw new Error(`build:wasm: ${error?.message ?? "no output"}\n${messages}`);
  return binary;
}

/** Writes a file, or checks that it holds these bytes already. */
async function settle(path: string, contents: Uint8Array, check: boolean): Promise<void> {
  const file = new URL(path, folder);
  if (!check) {
    await Deno.writeFile(file, contents);
    console.log(`kernels/${path}: ${contents.length} bytes`);
    return;
  }
  const present = await Deno.readFile(file).catch(() => new Uint8Array());
  if (present.length !== contents.length || present.some((byte, i) => byte !== contents[i])) {
    console.error(
      `build:wasm: kernels/${path} does not follow from the kernel files; run deno task build:wasm`,
    );
    Deno.exit(1);
  }
  console.log(`kernels/${path} is up to date`);
}

if (import.meta.main) {
  const check = Deno.args.includes("--check");
  const unknown = Deno.args.find((a) => a !== "--check");
  if (unknown) {
    console.error(`build:wasm: unknown argument ${unknown}, expected --check or nothing`);
    Deno.exit(1);
  }
  await settle("all.ts", new TextEncoder().encode(index()), check);
  const { KERNELS } = await import("../all.ts") as { KERNELS: readonly Kernel[] };
  const classes = KERNELS.map(argumentsOf).join("\n");
  await settle("cpu/kernels.wasm", await compile(classes, true), check);
  await settle("cpu/kernels_simd.wasm", await compile(classes, false), check);
}
