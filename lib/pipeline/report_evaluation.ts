/**
 * The report of `far.ts evaluate`, from what result.json holds and the contact sheets.
 *
 * @module
 */
import { type MeanError, meanError, pairedDifference } from "../metrics/paired.ts";
import type { EvaluationReport, ScoreTable } from "../report/evaluation.ts";
import type { Cell } from "../report/page.ts";
import type { Curve } from "../display/plot.ts";
import {
  DIGITS,
  type MemoryRow,
  type Metric,
  METRICS,
  type Row,
  SEEN,
  show,
  type Span,
} from "./evaluation_table.ts";
import { type ClipScores, type Method, methodName, METHODS } from "./evaluation.ts";
import {
  deviceFacts,
  flagFacts,
  type ModelFacts,
  modelFacts,
  RANDOM_WARNING,
  recordFacts,
  writeReport,
} from "./html_report.ts";
import { RESULT_FILE } from "./pictures.ts";
import { counted, duration } from "../units.ts";

/** The part of result.json that the report shows. */
export interface EvaluationResult {
  readonly settings: {
    readonly operands: readonly string[];
    readonly flags: Readonly<Record<string, unknown>>;
  };
  readonly random_weights: boolean;
  /** Further warnings. */
  readonly warnings: readonly string[];
  /** Name of the data set. */
  readonly data: string;
  readonly ctx: number;
  readonly pred: number;
  readonly short: number;
  readonly models: { readonly far: ModelFacts; readonly vae: ModelFacts };
  readonly protocol: { readonly sampler: string } & Readonly<Record<string, unknown>>;
  readonly seconds: number;
  readonly methods: readonly Row[];
  readonly by_frame: readonly Span[];
  readonly memory?: readonly MemoryRow[];
  readonly clip_scores: readonly Omit<ClipScores, "seconds">[];
}

const UNIT: Readonly<Record<Metric, string>> = { psnr: "PSNR, dB", ssim: "SSIM" };

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** Clips to show, the worst and the best by the model's PSNR in turn: the worst, the best, the second worst, … */
export function shownClips(clips: readonly Pick<ClipScores, "psnr">[], count: number): number[] {
  const order = clips.map((_, i) => i).sort((a, b) => mean(clips[a].psnr.model) - mean(clips[b].psnr.model));
  return Array.from(
    { length: Math.min(count, order.length) },
    (_, i) => i % 2 === 0 ? order[i / 2] : order[order.length - 1 - (i - 1) / 2],
  );
}

/** Mean and standard error over clips for each predicted frame. */
function curveOf(name: string, first: number, frames: number, of: (frame: number) => MeanError): Curve {
  return {
    name,
    points: Array.from({ length: frames }, (_, f) => {
      const { mean, error } = of(f);
      return [first + f, mean, Number.isNaN(error) ? 0 : error] as const;
    }),
  };
}

function chartsOf(result: EvaluationResult): EvaluationReport["charts"] {
  const { clip_scores: clips, ctx, pred } = result;
  const at = (metric: Metric, method: Method, f: number) => clips.map((c) => c[metric][method][f]);
  const levels = METRICS.map((metric) => ({
    digits: DIGITS[metric],
    chart: {
      title: metric.toUpperCase(),
      ...{ x: "frame", y: UNIT[metric] },
      curves: METHODS.map((method) =>
        curveOf(methodName(method, result), ctx, pred, (f) => meanError(at(metric, method, f)))
      ),
    },
  }));
  const ahead = METRICS.map((metric) => ({
    digits: DIGITS[metric],
    chart: {
      title: `${metric.toUpperCase()}: ${ctx} frames of context ahead of ${result.short}, paired by clip`,
      ...{ x: "frame", y: UNIT[metric], rule: 0 },
      curves: [
        curveOf(
          "model",
          ctx,
          pred,
          (f) => pairedDifference(at(metric, "model", f), at(metric, "short", f)),
        ),
      ],
    },
  }));
  return [...levels, ...ahead];
}

const empty: Cell = { text: "" };
const textCell = (text: string): Cell => ({ text });
const scored = (score: MeanError, metric: Metric, signed = false): Cell => ({
  text: show(score, metric, signed),
  value: score.mean,
});
const number = (value: number, digits: number): Cell => ({ text: value.toFixed(digits), value });

function tablesOf(result: EvaluationResult): ScoreTable[] {
  const { methods, by_frame, memory, clip_scores, ctx, short } = result;
  const last = clip_scores.map((c, i) => [
    number(i, 0),
    textCell(c.source),
    number(mean(c.psnr.model), 2),
    number(mean(c.psnr.model) - mean(c.psnr.short), 2),
    number(mean(c.psnr.model) - mean(c.psnr.last), 2),
    number(mean(c.psnr.autoencoder), 2),
    number(mean(c.ssim.model), 4),
    number(mean(c.ssim.model) - mean(c.ssim.short), 4),
  ]);
  return [
    {
      caption: "All predicted frames",
      head: ["method", "PSNR, dB", "model ahead by", "SSIM", "model ahead by"],
      rows: methods.map(({ method, mean, ahead }) => [
        textCell(methodName(method, result)),
        ...METRICS.flatMap((m) => [scored(mean[m], m), ahead ? scored(ahead[m], m, true) : empty]),
      ]),
    },
    ...METRICS.map((m): ScoreTable => ({
      caption: `${UNIT[m]} by distance from the context`,
      head: ["method", ...by_frame.map(({ from, to }) => `frames ${from} to ${to - 1}`)],
      rows: METHODS.map((method, i) => [
        textCell(methodName(method, result)),
        ...by_frame.map(({ methods }) => scored(methods[i].mean[m], m)),
      ]),
    })),
    ...(memory
      ? [{
        caption: "By where the context has shown the place",
        head: [
          "the place was seen",
          "frames",
          `PSNR, ${ctx} frames`,
          `PSNR, ${short} frames`,
          "ahead, PSNR",
          "ahead, SSIM",
        ],
        rows: memory.map(({ seen, frames, long, short, ahead }) => [
          textCell(SEEN[seen]),
          number(frames, 0),
          ...[scored(long.psnr, "psnr"), scored(short.psnr, "psnr")],
          ...[scored(ahead.psnr, "psnr", true), scored(ahead.ssim, "ssim", true)],
        ]),
      }]
      : []),
    {
      caption: "Clips",
      head: [
        ...["clip", "source", "PSNR, dB", "ahead of short context", "ahead of last frame"],
        ...["PSNR, autoencoder", "SSIM", "SSIM ahead of short context"],
      ],
      rows: last,
    },
  ];
}

/** Data of the report. */
export function evaluationData(
  result: EvaluationResult,
  device: { readonly description: string; readonly reason: string },
  sheets: ReadonlyMap<number, Uint8Array>,
): EvaluationReport {
  const { settings, protocol, models, methods, clip_scores: clips, ctx, pred } = result;
  const [model, short] = methods;
  const order = shownClips(clips, clips.length), ranks = new Map(order.map((clip, i) => [clip, i]));
  const place = (clip: number) => {
    const i = ranks.get(clip)!, nth = Math.floor(i / 2) + 1;
    return `${nth === 1 ? "" : `${nth}${["", "", "nd", "rd"][nth] ?? "th"} `}${
      i % 2 === 0 ? "worst" : "best"
    }`;
  };
  return {
    title: ["evaluate", ...settings.operands].join(" "),
    lede: [
      `${models.far.name} on ${result.data}`,
      `${counted(clips.length, "clip")}, frames ${ctx} to ${ctx + pred - 1}`,
      protocol.sampler,
    ].join(" · "),
    warnings: [
      ...(result.random_weights ? [RANDOM_WARNING] : []),
      ...result.warnings,
      ...(clips.length === 1 ? ["There is one clip only, so there are no standard errors."] : []),
    ],
    tiles: [
      ["PSNR", `${show(model.mean.psnr, "psnr")} dB`],
      ["SSIM", show(model.mean.ssim, "ssim")],
      [`ahead of ${result.short} frames of context`, `${show(short.ahead!.psnr, "psnr", true)} dB`],
      ["time", duration(result.seconds)],
    ],
    facts: [
      flagFacts(settings.flags),
      modelFacts(models),
      deviceFacts(device),
      recordFacts("Protocol", protocol),
    ],
    files: ["table.md", RESULT_FILE, ...[...sheets.keys()].map((i) => `sheet_${i}.png`)],
    charts: chartsOf(result),
    tables: tablesOf(result),
    sheets: [...sheets].map(([clip, png]) => ({
      png,
      caption: `Clip ${clip}, ${clips[clip].source}: PSNR ${
        mean(clips[clip].psnr.model).toFixed(2)
      } dB, SSIM ${mean(clips[clip].ssim.model).toFixed(4)} (${place(clip)})`,
    })),
  };
}

/**
 * Writes the report beside the files of a result.
 *
 * @param shown Clips with a sheet in the folder, in the order in which they are shown.
 */
export async function writeEvaluationReport(
  folder: string,
  result: EvaluationResult,
  device: { readonly description: string; readonly reason: string },
  shown: readonly number[],
): Promise<void> {
  const { evaluationReport } = await import("../report/evaluation.ts");
  const sheets = new Map(shown.map((clip) => [clip, Deno.readFileSync(`${folder}/sheet_${clip}.png`)]));
  await writeReport(folder, evaluationReport(evaluationData(result, device, sheets)));
}
