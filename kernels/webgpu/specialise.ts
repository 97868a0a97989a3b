/**
 * Array sizes that WGSL wants as literals: replaces `const NAME = …u;` lines of a shader's text.
 *
 * @module
 */

/**
 * Returns the WGSL text with each constant set.
 *
 * @throws {Error} If the text declares no such constant.
 */
export function specialise(wgsl: string, constants: Readonly<Record<string, number>>): string {
  let text = wgsl;
  for (const [name, value] of Object.entries(constants)) {
    const declaration = new RegExp(`const ${name} = \\d+u;`);
    if (!declaration.test(text)) throw new Error(`specialise: the shader declares no constant ${name}`);
    text = text.replace(declaration, `const ${name} = ${value}u;`);
  }
  return text;
}
