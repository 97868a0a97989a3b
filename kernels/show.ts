/**
 * Prints what is generated from the contract of a kernel: the class of its arguments for AssemblyScript, and its whole
 * WGSL text with entry point and constants.
 *
 *     deno task kernel                      lists the kernels
 *     deno task kernel maxPool2d            at the sizes of its first case
 *     deno task kernel linear --case 3      at those of another
 *     deno task kernel linear --software    the variant for software adapters
 *
 * @module
 */
import { KERNELS } from "./all.ts";
import { argumentsOf } from "./cpu/declare.ts";
import type { Kernel, Params } from "./spec.ts";
import { constantsOf, entryOf, shaderOf } from "./webgpu/declare.ts";
import { stepsOf } from "./webgpu/programs.ts";

/** The generated text of a kernel for one of its cases: a shader for each of its passes. */
export function show(kernel: Kernel, params: Params, software: boolean): string {
  const target = { software, sharedBytes: 16_384 }, { steps, scratch } = stepsOf(kernel, params, target);
  const shaders = steps.flatMap(({ program }) => [
    `// WGSL, entry point ${entryOf(program, params, target)}, constants ${
      JSON.stringify(constantsOf(program, params))
    }`,
    shaderOf(program, params, target),
  ]);
  return [
    `// ${kernel.name} ${JSON.stringify(params)}`,
    "",
    "// AssemblyScript, from ./arguments",
    argumentsOf(kernel),
    ...Object.entries(scratch).map(([name, bytes]) => `// Scratch memory ${name}: ${bytes} bytes`),
    ...shaders,
  ].join("\n");
}

if (import.meta.main) {
  const [name, ...options] = Deno.args;
  const known = KERNELS.map((k) => k.name).sort().join(" "), kernel = KERNELS.find((k) => k.name === name);
  if (!name) console.log(known);
  else if (!kernel) {
    console.error(`kernel: found ${name}, expected one of ${known}`);
    Deno.exit(1);
  } else {
    const at = options.indexOf("--case"), index = at < 0 ? 0 : Number(options[at + 1]);
    const test = kernel.cases[index];
    const rest = options.filter((o, i) => o !== "--software" && (at < 0 || (i !== at && i !== at + 1)));
    if (!test || rest.length > 0) {
      console.error(
        `kernel: found ${options.join(" ")}, expected --case 0 to ${kernel.cases.length - 1} or --software`,
      );
      Deno.exit(1);
    }
    console.log(show(kernel, test.params, options.includes("--software")));
  }
}
