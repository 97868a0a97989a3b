/** What lib/io/yaml.ts uses of the standard library's yaml module, which comes without types. */
export function parse(text: string): unknown;
