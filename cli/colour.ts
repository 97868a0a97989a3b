/**
 * Colours on a terminal, used sparingly: headings, warnings and errors.
 *
 * @module
 */
import { environment } from "../lib/io/environment.ts";

/** The role of a piece of text. */
export type Tone = "heading" | "name" | "warning" | "error";

const CODES: Readonly<Record<Tone, readonly [number, number]>> = {
  heading: [1, 22],
  name: [36, 39],
  warning: [33, 39],
  error: [31, 39],
};

/**
 * Whether a stream gets colours: FORCE_COLOR asks for them (0 forbids them), then
 * NO_COLOR forbids them, else terminals get them. Deno and Node take the two in the same order.
 *
 * @param stream Where the text goes.
 */
export function hasColour(stream: { isTerminal(): boolean }): boolean {
  const forced = environment("FORCE_COLOR");
  if (forced !== undefined && forced !== "") return forced !== "0";
  return !Deno.noColor && stream.isTerminal();
}

/** Gives text its colour. */
export type Paint = (tone: Tone, text: string) => string;

/** Leaves text as it is. */
export const plain: Paint = (_, text) => text;

/** How to paint what goes to a stream. */
export function paintFor(stream: { isTerminal(): boolean }): Paint {
  if (!hasColour(stream)) return plain;
  return (tone, text) => {
    const [on, off] = CODES[tone];
    return `\x1b[${on}m${text}\x1b[${off}m`;
  };
}
