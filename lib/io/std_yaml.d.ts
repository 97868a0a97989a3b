/** The part of the standard library's yaml module that lib/io/yaml.ts uses; the module comes without types. */
export function parse(text: string): unknown;
