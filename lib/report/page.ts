/**
 * The frame of every report: one file with style, script, data and pictures inside, which may load nothing.
 *
 * @module
 */
import { createHash } from "node:crypto";
import style from "./page.css" with { type: "text" };
import script from "./page.js" with { type: "text" };
import { type Html, html, type Part, pngUrl, raw, scriptJson } from "../display/html.ts";
import type { ChartData, Player } from "./viewer.ts";

/** A row of a table of facts. */
export type Fact = readonly [name: string, value: string];

/** A titled table of facts. */
export interface Facts {
  readonly title: string;
  readonly rows: readonly Fact[];
  /** Shown only when it is opened. */
  readonly folded?: boolean;
}

/** Head and foot of every report. */
export interface Head {
  /** The call, such as `predict world:0`. */
  readonly title: string;
  /** One line on model, clip and setting. */
  readonly lede: string;
  /** Warnings, shown first. */
  readonly warnings: readonly string[];
  /** The figures that matter most. */
  readonly tiles: readonly Fact[];
  /** Settings, models, timings and the like. */
  readonly facts: readonly Facts[];
  /** Files beside the report. */
  readonly files: readonly string[];
}

/** Picture of a sheet with what it shows. */
export function sheetFigure(png: Uint8Array, caption: string): Html {
  return html`
    <figure class="sheet"><figcaption>${caption}</figcaption><img alt="${caption}" src="${pngUrl(
      png,
    )}"></figure>
  `;
}

/** A cell of a table that sorts: what it says, and the number that it is sorted by. */
export interface Cell {
  readonly text: string;
  readonly value?: number;
}

/** A table whose rows sort by the column that is pressed. */
export function sortableTable(
  caption: string,
  head: readonly string[],
  rows: readonly (readonly Cell[])[],
): Html {
  return html`
    <h3>${caption}</h3>
    <div class="scroll">
      <table class="sortable" aria-label="${caption}">
        <thead>
          <tr>${head.map((name, i) => {
            const kind = rows.some((row) => row[i].value !== undefined) ? "number" : "words";
            return html`<th scope="col" class="${kind}"><button type="button">${name}</button></th>`;
          })}</tr>
        </thead>
        <tbody>
    ${rows.map((row) =>
      html`
        <tr>${row.map(({ text, value }) =>
          value === undefined ? html`<td>${text}</td>` : html`<td data-value="${value}">${text}</td>`
        )}</tr>
      `
    )}</tbody>
      </table>
    </div>
  `;
}

function factsTable({ title, rows, folded = false }: Facts): Part {
  if (rows.length === 0) return null;
  const table = html`<table>${
    rows.map(([name, value]) =>
      html`
        <tr>
          <th scope="row">${name}</th>
          <td>${value}</td>
        </tr>
      `
    )
  }</table>`;
  return folded
    ? html`<details><summary><h3>${title}</h3></summary>${table}</details>`
    : html`<div><h3>${title}</h3>${table}</div>`;
}

/** Names in a relative address: each part is encoded, slashes stay. */
const address = (file: string) => file.split("/").map(encodeURIComponent).join("/");

/**
 * A whole page. Its content security policy permits its own script, style and pictures, and no connection at all.
 *
 * @param body What stands between the head and the settings.
 * @param player The scrubber's data; null where the page has none.
 * @param charts Data of the charts, in the order of their figures in the page.
 */
export function page(head: Head, body: Part, player: Player | null, charts: readonly ChartData[]): string {
  const hash = createHash("sha256").update(script).digest("base64");
  const policy = `default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-${hash}'`;
  const { title, lede, warnings, tiles, facts, files } = head;
  return html`
    <!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta http-equiv="Content-Security-Policy" content="${policy}">
        <title>${title}</title>
        <link rel="icon" href="data:,">
        <style>${raw(style)}</style>
      </head>
      <body>
        <header>
    <h1>${title}</h1>
    <p class="lede">${lede}</p>
    ${warnings.length > 0 &&
      html`<ul class="warnings" aria-label="Warnings">${warnings.map((w) => html`<li>${w}</li>`)}</ul>`}
    <dl class="tiles">${tiles.map(([name, value]) =>
      html`
        <div>
          <dt>${name}</dt>
          <dd>${value}</dd>
        </div>
      `
    )}</dl>
        </header>
        <main>
    ${body}
    <h2>Settings and measurements</h2>
    <div class="columns">${facts.map(factsTable)}</div>
    ${files.length > 0 && html`<h2>Files</h2>
<ul>${files.map((file) => html`<li><a href="${address(file)}">${file}</a></li>`)}</ul>`}
        </main>
        <script type="application/json" id="data">${scriptJson({ player, charts })}</script>
        <script type="module">${raw(script)}</script>
      </body>
    </html>
  `.text;
}
