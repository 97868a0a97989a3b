/**
 * HTML as values: a template that escapes everything that is not HTML already.
 *
 * @module
 */

/** Text that is HTML; only {@linkcode html} and {@linkcode raw} make it. */
export class Html {
  /** @param text The markup. */
  constructor(readonly text: string) {}
}

/** Values that a template takes; `null`, `undefined` and `false` render as nothing. */
export type Part = Html | string | number | null | undefined | false | readonly Part[];

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text as HTML that shows it, inside an element or a quoted attribute. */
export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (c) => ENTITIES[c]);

/** Declares that a text is HTML already, such as a picture from a plotting library. */
export const raw = (text: string): Html => new Html(text);

function partText(part: Part): string {
  if (part === null || part === undefined || part === false) return "";
  if (part instanceof Html) return part.text;
  return Array.isArray(part) ? part.map(partText).join("") : escapeHtml(String(part));
}

/**
 * Tagged template for HTML: every value is escaped unless it is {@linkcode Html}, so a file name cannot become markup.
 *
 * @example
 * ```ts
 * import { html } from "./html.ts";
 * console.assert(html`<b>${"<i>"}</b>`.text === "<b>&lt;i&gt;</b>");
 * ```
 */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.map((s, i) => s + (i < parts.length ? partText(parts[i]) : "")).join(""));
}

/** JSON that can stand inside a `script` element: it holds no `<`. Numbers that are not finite become null. */
export const scriptJson = (value: unknown): Html => raw(JSON.stringify(value).replaceAll("<", "\\u003c"));

/** Bytes of a PNG as the address of a picture. */
export const pngUrl = (png: Uint8Array): string => `data:image/png;base64,${png.toBase64()}`;
