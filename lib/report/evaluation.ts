/**
 * The report of an evaluation.
 *
 * @module
 */
import { html } from "../display/html.ts";
import { type Cell, type Head, page, sheetFigure, sortableTable } from "./page.ts";
import type { Chart } from "../display/plot.ts";
import { chartFigure, chartScrubber } from "./viewer.ts";

/** A table that sorts. */
export interface ScoreTable {
  readonly caption: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
}

/** Data of an evaluation report. */
export interface EvaluationReport extends Head {
  /** Curves by frame number, with the digits that are said. */
  readonly charts: readonly { readonly chart: Chart; readonly digits: number }[];
  readonly tables: readonly ScoreTable[];
  /** Contact sheets in the order in which they are shown. */
  readonly sheets: readonly { readonly caption: string; readonly png: Uint8Array }[];
}

/** The page, from plain data. */
export function evaluationReport(report: EvaluationReport): string {
  const charts = report.charts.map(({ chart, digits }) => chartFigure(chart, digits));
  const frames = report.charts[0].chart.curves[0].points.map(([x]) => x);
  const { body, player } = chartScrubber("frame", frames);
  const parts = html`<h2>Scores by frame, mean ± standard error over clips</h2>
<div class="charts">${charts.map((c) => c.body)}</div>
${body}
<h2>Tables</h2>
${report.tables.map(({ caption, head, rows }) => sortableTable(caption, head, rows))}
${
    report.sheets.length > 0 && html`<h2>Clips, the worst and the best first</h2>
${report.sheets.map(({ png, caption }) => sheetFigure(png, caption))}`
  }`;
  return page(report, parts, player, charts.map((c) => c.data));
}
