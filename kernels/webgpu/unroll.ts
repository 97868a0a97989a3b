/**
 * Loops of a shader that are written out before it is compiled.
 *
 * naga gives every loop a counter of its own, and most drivers then leave it rolled: registers are indexed by variables, which
 * moves them to memory, and shared memory is read at clamped addresses. Written out, both have literal indices.
 *
 * @module
 */
import type { Target } from "../spec.ts";

const HEAD = /for \(var (\w+) = ([^;]+); \1 < ([^;]+); \1(?:\+\+| \+= ([^)]+))\) \{ \/\/ unroll *\n/;

/**
 * Writes out every loop whose first line ends in `// unroll`, inner ones too: one block per iteration, with the counter's value
 * in place of its name.
 *
 * Bounds are made of literals, of constants that the text declares (`const NAME = 8u;`), of counters of outer loops, and
 * of `+ - * / %` without parentheses.
 *
 * @throws {Error} If a bound cannot be evaluated, or the body leaves its loop early.
 */
export function unroll(wgsl: string): string {
  const constants = new Map(
    [...wgsl.matchAll(/^const (\w+) = (\d+)u;/gm)].map(([, name, value]) => [name, Number(value)] as const),
  );
  let text = wgsl;
  for (let head = HEAD.exec(text); head; head = HEAD.exec(text)) {
    const [line, counter, from, to, by = "1u"] = head;
    const begin = head.index + line.length, end = closing(text, begin), body = text.slice(begin, end);
    if (/\b(break|continue)\b/.test(body)) {
      throw new Error(`unroll: the loop over ${counter} leaves its body early, which a block cannot`);
    }
    const name = new RegExp(`(?<![.\\w])${counter}(?!\\w)`, "g"),
      [first, last, step] = [from, to, by].map((bound) => evaluate(bound, constants));
    let blocks = "";
    for (let i = first; i < last; i += step) blocks += `{\n${body.replace(name, `${i}u`)}}\n`;
    text = text.slice(0, head.index) + blocks + text.slice(end + 1);
  }
  return text;
}

/** The text with its loops written out for hardware; software adapters, which compile for seconds, keep them rolled. */
export const written = (wgsl: string, target: Target): string => target.software ? wgsl : unroll(wgsl);

/** Index of the brace that closes the block whose first character is at `begin`. */
function closing(text: string, begin: number): number {
  let depth = 1;
  for (let i = begin; i < text.length; i++) {
    if (text[i] === "{") depth++;
    else if (text[i] === "}" && --depth === 0) return i;
  }
  throw new Error("unroll: a loop has no end");
}

/** The value of a bound. Products before sums, from left to right. */
function evaluate(bound: string, constants: ReadonlyMap<string, number>): number {
  const value = (text: string): number => {
    const literal = /^(\d+)u$/.exec(text)?.[1], found = literal ? Number(literal) : constants.get(text);
    if (found === undefined) {
      throw new Error(`unroll: found the bound ${bound}, expected literals and constants`);
    }
    return found;
  };
  const terms = bound.trim().split(/\s+/), sum: number[] = [value(terms[0])];
  for (let i = 1; i < terms.length; i += 2) {
    const right = value(terms[i + 1] ?? "");
    if (terms[i] === "+") sum.push(right);
    else if (terms[i] === "-") sum.push(-right);
    else if (terms[i] === "*") sum.push(sum.pop()! * right);
    else if (terms[i] === "/") sum.push(Math.trunc(sum.pop()! / right));
    else if (terms[i] === "%") sum.push(sum.pop()! % right);
    else throw new Error(`unroll: found ${terms[i]} in the bound ${bound}, expected + - * / or %`);
  }
  return sum.reduce((a, b) => a + b, 0);
}
