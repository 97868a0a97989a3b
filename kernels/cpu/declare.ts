/**
 * Arguments of the AssemblyScript side of a kernel: a class with a field per word of a launch's arguments, made from the
 * kernel's contract. `deno task build:wasm` hands the classes of all kernels to the compiler as `./arguments`.
 *
 * @module
 */
import type { Kernel } from "../spec.ts";

/** One word of a launch's arguments. */
export interface Word {
  readonly name: string;
  /** AssemblyScript type: an address, a size or flag (below 2^31, so signed), or a float. */
  readonly type: "usize" | "i32" | "f32";
}

/**
 * The arguments of a kernel in the order in which the device writes them: buffers, scalars, flags, then the address of the
 * memory that its phases share, 4 bytes each.
 */
export function wordsOf({ buffers, params, flags, wasm }: Kernel): Word[] {
  return [
    ...buffers.map(({ name }): Word => ({ name, type: "usize" })),
    ...Object.entries(params).map(([name, type]): Word => ({ name, type: type === "f32" ? "f32" : "i32" })),
    ...flags.map((name): Word => ({ name, type: "i32" })),
    ...(wasm.shared ? [{ name: "shared", type: "usize" }] as const : []),
  ];
}

/** Name of the class that holds the arguments of a kernel: `MaxPool2d` for `maxPool2d`. */
export const className = ({ name }: Kernel): string => name[0].toUpperCase() + name.slice(1);

/** The class of a kernel's arguments. */
export function argumentsOf(kernel: Kernel): string {
  const fields = wordsOf(kernel).map(({ name, type }) => `  readonly ${name}!: ${type};`);
  return [
    `/** Arguments of ${kernel.name}. */`,
    "@unmanaged",
    `export class ${className(kernel)} {`,
    ...fields,
    "}",
    "",
  ]
    .join("\n");
}
