/**
 * The report of a training run.
 *
 * @module
 */
import { spaced } from "../io/sheet.ts";
import { html } from "../display/html.ts";
import { type Head, page } from "./page.ts";
import type { Chart } from "../display/plot.ts";
import { chartFigure, chartScrubber, type Picture, pictureViewer } from "./viewer.ts";

/** A line of a run's log: its step, the first one being 0, and numbers by name. */
export type LogLine = { readonly step: number } & Readonly<Record<string, unknown>>;

/** Data of a training report. */
export interface TrainingReport extends Head {
  /** The log. */
  readonly lines: readonly LogLine[];
  /** Sheets by the number of steps after which they were made. */
  readonly samples: readonly Picture[];
}

/** Numbers of the log that are no losses, each with a chart of its own. */
const OWN = [
  { key: "lr", title: "Learning rate", y: "learning rate" },
  { key: "gradientNorm", title: "Gradient norm", y: "norm before clipping" },
  { key: "framesPerSecond", title: "Speed", y: "frames per second" },
] as const;

/** Numbers that no chart shows. */
const HIDDEN = ["step", "time", "seconds", "flopsPerSecond", "memory", ...OWN.map((o) => o.key)];

const LOSSES: Readonly<Record<string, string>> = {
  loss: "training",
  validation_loss: "validation",
  validation_loss_ema: "validation, averaged weights",
  distant_loss: "distant frames, whole context",
  distant_loss_window: "distant frames, window only",
  distant_loss_ema: "distant frames, whole context, averaged weights",
  distant_loss_window_ema: "distant frames, window only, averaged weights",
};

/** Sheets beyond this many are left out evenly. */
const MOST_SAMPLES = 24;

/** `adaptiveWeight` as `adaptive weight`. */
const words = (key: string) => key.replace(/([A-Z])/g, (c) => ` ${c.toLowerCase()}`).replaceAll("_", " ");

/**
 * The charts of a run's log over the number of steps that were done: losses, their terms, and what else it counts. Those
 * without values are left out.
 */
export function trainingCharts(
  lines: readonly LogLine[],
): Chart[] {
  const curve = (key: string, name: string) => ({
    name,
    points: lines.filter((l) => typeof l[key] === "number").map((l) =>
      [l.step + 1, l[key] as number] as const
    ),
  });
  const terms = [...new Set(lines.flatMap((l) => Object.keys(l)))].filter((key) =>
    !HIDDEN.includes(key) && !(key in LOSSES)
  ).map((key) => curve(key, words(key))).filter(({ points }) => points.some(([, value]) => value !== 0));
  const groups = [
    {
      ...{ title: "Loss", y: "loss" },
      curves: Object.entries(LOSSES).map(([key, name]) => curve(key, name)),
    },
    { ...{ title: "Terms of the loss", y: "value" }, curves: terms },
    ...OWN.map(({ key, ...own }) => ({ ...own, curves: [curve(key, words(key))] })),
  ];
  return groups
    .map(({ title, y, curves }): Chart => ({
      title,
      x: "step",
      y,
      curves: curves.filter((c) => c.points.length > 0),
    }))
    .filter((chart) => chart.curves.length > 0);
}

/** The page, from plain data. */
export function trainingReport(report: TrainingReport): string {
  const charts = trainingCharts(report.lines).map((chart) => chartFigure(chart, null));
  const samples = spaced(report.samples.length, MOST_SAMPLES).map((i) => report.samples[i]);
  const steps = [...new Set(report.lines.map((l) => l.step + 1))];
  const viewer = samples.length > 0
    ? pictureViewer("step", samples)
    : steps.length > 0
    ? chartScrubber("step", spaced(steps.length, 1000).map((i) => steps[i]))
    : null;
  const parts = html`${
    samples.length > 0 && html`<h2>Samples over time</h2>
${viewer!.body}
${
      samples.length < report.samples.length &&
      html`<p class="note">${samples.length} of ${report.samples.length} samples are in this page.</p>`
    }`
  }
<h2>Curves</h2>
${
    charts.length > 0
      ? html`<div class="charts">${charts.map((c) => c.body)}</div>`
      : html`<p class="note">Nothing was logged.</p>`
  }
${samples.length === 0 && viewer?.body}`;
  return page(report, parts, viewer?.player ?? null, charts.map((c) => c.data));
}
