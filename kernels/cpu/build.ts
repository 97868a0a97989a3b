/**
 * Compiles kernels/*.wasm.ts with AssemblyScript into kernels.wasm (relaxed SIMD) and kernels_simd.wasm beside this file.
 *
 *     deno task build:wasm            writes both
 *     deno task build:wasm --check    compares with what is checked in, byte by byte; exits 1 if it differs
 *
 * @module
 */
// deno-lint-ignore no-import-prefix -- used by this task alone, so it stays out of the import map
import asc from "npm:assemblyscript@0.28.20/asc";

const OPTIONS = [
  ...["-O3", "--noAssert", "--runtime", "stub", "--memoryBase", "1024", "--use", "abort="],
  ...["--enable", "simd", "--enable", "threads", "--enable", "bulk-memory"],
  ...["--importMemory", "--sharedMemory", "--initialMemory", "1", "--maximumMemory", "65536"],
];

const folder = new URL("../", import.meta.url);

/** Paths relative to kernels/ of the files whose exports become exports of the module. */
function entries(): string[] {
  const ops = [...Deno.readDirSync(folder)].map((e) => e.name).filter((name) => name.endsWith(".wasm.ts"));
  return [...ops.sort(), "cpu/pack.wasm.ts"];
}

async function compile(relaxed: boolean): Promise<Uint8Array> {
  let binary: Uint8Array | null = null;
  let messages = "";
  const { error } = await asc.main(
    [...entries(), "-o", "out.wasm", ...OPTIONS, ...(relaxed ? ["--enable", "relaxed-simd"] : [])],
    {
      readFile: (name: string) => {
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

if (import.meta.main) {
  const check = Deno.args.includes("--check");
  const unknown = Deno.args.find((a) => a !== "--check");
  if (unknown) {
    console.error(`build:wasm: unknown argument ${unknown}, expected --check or nothing`);
    Deno.exit(1);
  }
  for (const [name, relaxed] of [["kernels.wasm", true], ["kernels_simd.wasm", false]] as const) {
    const file = new URL(name, import.meta.url);
    const binary = await compile(relaxed);
    if (!check) {
      await Deno.writeFile(file, binary);
      console.log(`kernels/cpu/${name}: ${binary.length} bytes`);
      continue;
    }
    const present = await Deno.readFile(file).catch(() => new Uint8Array());
    if (present.length !== binary.length || present.some((byte, i) => byte !== binary[i])) {
      console.error(
        `build:wasm: kernels/cpu/${name} is not what its sources compile to; run deno task build:wasm`,
      );
      Deno.exit(1);
    }
    console.log(`kernels/cpu/${name} is up to date`);
  }
}
