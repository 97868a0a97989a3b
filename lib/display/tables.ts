/**
 * Tables, curves and cache levels in a notebook.
 *
 * @module
 */
import { html } from "./html.ts";
import type { Chart, Point } from "./plot.ts";
import { counted } from "../units.ts";
import { type MediaBundle, showing } from "./showing.ts";

/** A row of a table: cells by the name of their column. */
export type TableRow = Readonly<Record<string, unknown>>;

/** Rows that show themselves as a table. */
export interface Table {
  /** In order. */
  readonly rows: readonly TableRow[];
}

/** Rows beyond this many are left out in the middle. */
const MOST_ROWS = 40;

const cellText = (value: unknown): string =>
  typeof value === "number" && !Number.isInteger(value)
    ? String(Number(value.toPrecision(4)))
    : value === null || value === undefined
    ? "–"
    : String(value);

/** Rows of cells as text, the names of the columns first. */
function cells(rows: readonly TableRow[]): readonly (readonly string[])[] {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const text = (row: TableRow) => names.map((name) => cellText(row[name]));
  if (rows.length <= MOST_ROWS) return [names, ...rows.map(text)];
  const half = MOST_ROWS / 2;
  const left = names.map((_, i) => i === 0 ? `… ${rows.length - MOST_ROWS} more` : "");
  return [names, ...rows.slice(0, half).map(text), left, ...rows.slice(-half).map(text)];
}

/** Returns a display of rows: an HTML table, and the same in aligned text. */
export function tableBundle(rows: readonly TableRow[]): MediaBundle {
  const [names, ...body] = cells(rows);
  const widths = names.map((_, i) => Math.max(...[names, ...body].map((row) => row[i].length)));
  const line = (row: readonly string[]) => row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd();
  return {
    "text/html": html`
      <table>
        <thead>
          <tr>${names.map((n) => html`<th>${n}</th>`)}</tr>
        </thead>
        <tbody>${body.map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody>
      </table>
    `.text,
    "text/plain": [names, ...body].map(line).join("\n"),
  };
}

/**
 * A table that shows itself in a notebook. Columns are named by the rows' keys; numbers are rounded to four digits.
 *
 * @example
 * ```ts
 * import { table } from "../../mod.ts";
 * const { rows } = table([{ patch: 2, tokens: 4 }, { patch: 4, tokens: 1 }]);
 * console.assert(rows.length === 2);
 * ```
 */
export function table(rows: readonly TableRow[]): Table {
  return showing({ rows }, () => tableBundle(rows));
}

/** Labels of a chart of {@linkcode curves}. */
export interface CurveOptions {
  /** Default none. */
  readonly title?: string;
  /** Unit of x. Default `step`. */
  readonly x?: string;
  /** Quantity and unit of y. Default `value`. */
  readonly y?: string;
  /** A horizontal line at this y. */
  readonly rule?: number;
}

/**
 * Curves that show themselves in a notebook, drawn by Observable Plot: with a logarithmic value axis where they are
 * positive and span more than a factor of ten.
 *
 * @param lines By name: values for x = 0, 1, …, or points `[x, y]`, or `[x, y, error]` with a band of that half width.
 * Values that are not finite leave a gap.
 *
 * @example
 * ```ts
 * import { curves } from "../../mod.ts";
 * const chart = curves({ loss: [1.2, 0.8, 0.7], "held out": [[0, 1.3], [2, 0.9]] }, { y: "loss" });
 * console.assert(chart.curves[0].points[2][0] === 2);
 * ```
 */
export function curves(
  lines: Readonly<Record<string, ArrayLike<number> | readonly (readonly number[])[]>>,
  options: CurveOptions = {},
): Chart {
  const { title = "", x = "step", y = "value", rule } = options;
  const points = (values: ArrayLike<number | readonly number[]>) =>
    Array.from(values, (v, i): Point => typeof v === "number" ? [i, v] : v as unknown as Point);
  const named = Object.entries(lines).map(([name, values]) => ({ name, points: points(values) }));
  return showing({ title, x, y, curves: named, ...(rule === undefined ? {} : { rule }) }, curvesBundle);
}

/** Returns a display of a chart: SVG, and the ends of its curves in text. */
async function curvesBundle(chart: Chart): Promise<MediaBundle> {
  const { chartPicture } = await import("./plot.ts");
  const ends = chart.curves.map(({ name, points }) =>
    points.length === 0
      ? `${name}: no points`
      : `${name}: ${points.length} points from ${cellText(points[0][1])} to ${cellText(points.at(-1)![1])}`
  );
  return { "image/svg+xml": chartPicture(chart), "text/plain": ends.join("\n") };
}

/** Contents of a cache level for one clip. */
export interface CacheLevel {
  /** Frames in it. */
  readonly frames: number;
  /** Tokens per frame, which is keys per frame and block. */
  readonly tokens: number;
}

/** Levels of a key-value cache. */
export interface CacheLevels {
  /** L2: long-term frames, the older ones, with few tokens each. */
  readonly longTerm: CacheLevel;
  /** L1: short-term frames, the newest ones. */
  readonly shortTerm: CacheLevel;
  /** Bytes of keys and values that are allocated for the whole roll-out. */
  readonly bytes: number;
}

/** Returns a display of cache levels: a bar per frame, as high as its tokens; and a line per level. */
export function levelsBundle({ longTerm, shortTerm, bytes }: CacheLevels): MediaBundle {
  const total = longTerm.frames * longTerm.tokens + shortTerm.frames * shortTerm.tokens;
  const whole = (longTerm.frames + shortTerm.frames) * shortTerm.tokens;
  const say = (name: string, { frames, tokens }: CacheLevel) =>
    `${name}: ${counted(frames, "frame")} of ${counted(tokens, "token")}, ${counted(frames * tokens, "key")}`;
  const lines = [
    say("L1, short-term", shortTerm),
    say("L2, long-term", longTerm),
    `${total} keys per block${
      total < whole ? ` instead of ${whole} with all frames as short-term frames` : ""
    }, ${(bytes / 2 ** 20).toFixed(1)} MiB allocated`,
  ];
  const frames = longTerm.frames + shortTerm.frames, width = 640 / Math.max(frames, 40), height = 80;
  const most = Math.max(longTerm.tokens, shortTerm.tokens, 1);
  const bars = Array.from({ length: frames }, (_, f) => {
    const [level, colour] = f < longTerm.frames ? [longTerm, "#d55e00"] : [shortTerm, "#0072b2"];
    const tall = Math.max(2, height * level.tokens / most);
    return html`<rect x="${(f * width).toFixed(2)}" y="${(height - tall).toFixed(2)}" width="${
      (width * 0.85).toFixed(2)
    }" height="${tall.toFixed(2)}" fill="${colour}"></rect>`;
  });
  return {
    "text/html":
      html`<div><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 ${height}" width="640" height="${height}"
 role="img" aria-label="tokens of each cached frame">${bars}</svg><br>${
        lines.map((line) => html`${line}<br>`)
      }</div>`.text,
    "text/plain": lines.join("\n"),
  };
}
