/**
 * The report of a prediction or a generation.
 *
 * @module
 */
import { html } from "../display/html.ts";
import { type Head, page, sheetFigure } from "./page.ts";
import type { Chart } from "../display/plot.ts";
import { chartFigure, type Clips, clipViewer, MOST_TRACKS } from "./viewer.ts";

/** Scores of one trajectory. */
export interface TrajectoryScores {
  readonly name: string;
  readonly frames: readonly {
    /** Number in the clip. */
    readonly frame: number;
    /** In dB; null (infinite) for identical frames. */
    readonly psnr: number | null;
    /** Null where there is none. */
    readonly ssim: number | null;
  }[];
}

/** Data of a prediction report. */
export interface PredictionReport extends Head {
  readonly clips: Clips;
  /** None without a truth. */
  readonly scores: readonly TrajectoryScores[];
  /** Contact sheet, PNG. */
  readonly sheet?: Uint8Array;
}

const METRICS = [
  { key: "psnr", title: "PSNR by frame", y: "PSNR, dB", digits: 2 },
  { key: "ssim", title: "SSIM by frame", y: "SSIM", digits: 4 },
] as const;

/** The page, from plain data. */
export function predictionReport(report: PredictionReport): string {
  const { body, player } = clipViewer(report.clips);
  const scored = report.scores.filter((s) => s.frames.length > 0).slice(0, MOST_TRACKS);
  const charts = METRICS
    .filter(({ key }) => scored.some((s) => s.frames.some((f) => f[key] !== null)))
    .map(({ key, title, y, digits }) => {
      const curves = scored.map(({ name, frames }) => ({
        name,
        points: frames.map((f) => [f.frame, f[key] ?? NaN] as const),
      }));
      const chart: Chart = { title, x: "frame", y, curves };
      return chartFigure(chart, digits);
    });
  const parts = html`${body}
${
    charts.length > 0 && html`<h2>Scores of the predicted frames</h2>
<div class="charts">${charts.map((c) => c.body)}</div>`
  }
${
    report.sheet && html`<h2>Contact sheet</h2>
${
      sheetFigure(
        report.sheet,
        `Frames by their number in the clip${
          player.predictedFrom === null ? "" : "; predicted ones have an orange edge"
        }`,
      )
    }`
  }`;
  return page(report, parts, player, charts.map((c) => c.data));
}
