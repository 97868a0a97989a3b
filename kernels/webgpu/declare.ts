/**
 * The declarations that a shader begins with, made from the kernel's contract: `override` constants, the struct of
 * scalars, one binding per buffer.
 *
 * @module
 */
import type { BufferContract, Params, Target } from "../spec.ts";
import type { Program } from "./programs.ts";

/** WGSL type of one element of a buffer. */
function elementOf(kernel: Program, { name, dtypes }: BufferContract): string {
  const view = kernel.wgsl.views?.[name];
  if (view) return view;
  if (dtypes.length === 1 && dtypes[0] !== "f16") return dtypes[0];
  throw new Error(
    `${kernel.name}: ${name} may be ${dtypes.join(" or ")}; say in wgsl.views how the shader reads it`,
  );
}

/**
 * The declarations of a kernel's shader.
 *
 * @throws {Error} If a view names no buffer, or a buffer of several types has none.
 */
export function declarations(kernel: Program): string {
  const { name, buffers, params, flags, wgsl } = kernel;
  const lost = Object.keys(wgsl.views ?? {}).find((view) => !buffers.some((b) => b.name === view));
  if (lost) {
    throw new Error(`${name}: wgsl.views has ${lost}, expected ${buffers.map((b) => b.name).join(", ")}`);
  }
  const overrides = [...flags, ...Object.keys(wgsl.constants ?? {})].map((each) => `override ${each}: u32;`);
  const fields = Object.entries(params).map(([field, type]) => `  ${field}: ${type},`);
  const bindings = buffers.map((b, i) => {
    const access = b.output ? "read_write" : "read";
    return `@group(0) @binding(${i}) var<storage, ${access}> ${b.name}: array<${elementOf(kernel, b)}>; ` +
      `// [${b.letters.join(", ")}]`;
  });
  return [
    `// Made from the contract of ${name}.`,
    ...overrides,
    "struct Params {",
    ...fields,
    "}",
    ...bindings,
    `@group(0) @binding(${buffers.length}) var<uniform> p: Params;`,
    "",
  ].join("\n");
}

/** The whole WGSL text of a kernel at some sizes and flags. */
export function shaderOf(kernel: Program, p: Params, target: Target): string {
  const { source } = kernel.wgsl;
  return declarations(kernel) + (typeof source === "string" ? source : source(p, target));
}

/** The entry point of a kernel at some sizes and flags. */
export function entryOf({ wgsl }: Program, p: Params, target: Target): string {
  return typeof wgsl.entry === "string" ? wgsl.entry : wgsl.entry(p, target);
}

/** The values of a shader's `override` constants. */
export function constantsOf({ flags, wgsl }: Program, p: Params): Record<string, number> {
  const values: Record<string, number> = {};
  for (const flag of flags) values[flag] = p[flag];
  for (const [name, of] of Object.entries(wgsl.constants ?? {})) values[name] = of(p);
  return values;
}
