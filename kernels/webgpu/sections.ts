/**
 * WGSL texts in parts: a shader takes the parts that it uses, so that one file can hold kernels whose bindings differ.
 *
 * @module
 */

/**
 * Returns the parts of a text that begin at the lines `//# name`, in the order asked for.
 *
 * @throws {Error} If the text has no such part.
 */
export function sections(wgsl: string, ...names: string[]): string {
  const parts = new Map<string, string>();
  for (const part of wgsl.split(/^\/\/# /m).slice(1)) {
    const end = part.indexOf("\n");
    parts.set(part.slice(0, end).trim(), part.slice(end));
  }
  return names.map((name) => {
    const part = parts.get(name);
    if (part === undefined) throw new Error(`sections: the shader has no part ${name}`);
    return part;
  }).join("\n");
}
