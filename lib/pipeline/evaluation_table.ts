/**
 * The tables of `far.ts evaluate`: means over clips, paired differences with their standard errors, and what memory is worth.
 *
 * @module
 */
import type { Memory } from "../data/world/seen.ts";
import { type MeanError, meanError, pairedDifference } from "../metrics/paired.ts";
import { counted } from "../units.ts";
import { type ClipScores, type Method, methodName, METHODS, type Protocol } from "./evaluation.ts";
import { RANDOM_STAMP } from "./weights.ts";

/** Scores that are reported. */
export const METRICS = ["psnr", "ssim"] as const;

/** One of {@linkcode METRICS}. */
export type Metric = typeof METRICS[number];

/** One method's mean over clips, and how far the model lies above it. */
export interface Row {
  readonly method: Method;
  readonly mean: Readonly<Record<Metric, MeanError>>;
  /** Model minus this method, paired by clip; absent for the model itself. */
  readonly ahead?: Readonly<Record<Metric, MeanError>>;
}

/** Long against short context on the frames of one kind. */
export interface MemoryRow {
  /** Part of the context that has shown the place. */
  readonly seen: Memory;
  /** Frames of this kind in all clips. */
  readonly frames: number;
  readonly long: Readonly<Record<Metric, MeanError>>;
  readonly short: Readonly<Record<Metric, MeanError>>;
  /** Long minus short, paired by clip. */
  readonly ahead: Readonly<Record<Metric, MeanError>>;
}

/** Mean of the scores of the frames that `keep` takes, one number a clip; clips without any are left out. */
function perClip(
  clips: readonly ClipScores[],
  metric: Metric,
  method: Method,
  keep: (clip: number, frame: number) => boolean,
): number[] {
  return clips.flatMap((scores, clip) => {
    const kept = scores[metric][method].filter((_, frame) => keep(clip, frame));
    return kept.length === 0 ? [] : [kept.reduce((a, b) => a + b, 0) / kept.length];
  });
}

const both = (of: (metric: Metric) => MeanError): Readonly<Record<Metric, MeanError>> => ({
  psnr: of("psnr"),
  ssim: of("ssim"),
});

/** Means of all methods over predicted frames `from` to `to` - 1, and the model's margin over each. */
export function methodRows(clips: readonly ClipScores[], from = 0, to = Infinity): Row[] {
  const keep = (_: number, frame: number) => frame >= from && frame < to;
  return METHODS.map((method) => ({
    method,
    mean: both((metric) => meanError(perClip(clips, metric, method, keep))),
    ...(method === "model" ? {} : {
      ahead: both((metric) =>
        pairedDifference(perClip(clips, metric, "model", keep), perClip(clips, metric, method, keep))
      ),
    }),
  }));
}

/** Long against short context by where the context has shown the place; kinds that do not occur are left out. */
export function memoryRows(
  clips: readonly ClipScores[],
  memory: readonly (readonly Memory[])[],
): MemoryRow[] {
  return (["near", "distant", "new"] as const).flatMap((seen): MemoryRow[] => {
    const keep = (clip: number, frame: number) => memory[clip][frame] === seen;
    const frames = memory.flat().filter((m) => m === seen).length;
    if (frames === 0) return [];
    const of = (metric: Metric, method: Method) => perClip(clips, metric, method, keep);
    return [{
      seen,
      frames,
      long: both((metric) => meanError(of(metric, "model"))),
      short: both((metric) => meanError(of(metric, "short"))),
      ahead: both((metric) => pairedDifference(of(metric, "model"), of(metric, "short"))),
    }];
  });
}

/** Digits after the point that scores are given with. */
export const DIGITS: Readonly<Record<Metric, number>> = { psnr: 2, ssim: 4 };

/** A mean with its standard error, `?` for that of a single clip. */
export const show = ({ mean, error }: MeanError, metric: Metric, signed = false) =>
  `${signed && mean >= 0 ? "+" : ""}${mean.toFixed(DIGITS[metric])} ± ${
    Number.isNaN(error) ? "?" : error.toFixed(DIGITS[metric])
  }`;

/** The first table, as Markdown. */
export function methodTable(
  rows: readonly Row[],
  contexts: { readonly ctx: number; readonly short: number },
): string {
  const lines = rows.map(({ method, mean, ahead }) =>
    `| ${methodName(method, contexts)} | ${show(mean.psnr, "psnr")} | ${
      ahead ? show(ahead.psnr, "psnr", true) : ""
    } | ` +
    `${show(mean.ssim, "ssim")} | ${ahead ? show(ahead.ssim, "ssim", true) : ""} |`
  );
  return ["| | PSNR, dB | model ahead by | SSIM | model ahead by |", "|---|---|---|---|---|", ...lines, ""]
    .join("\n");
}

/** Scores of the predicted frames of a stretch. */
export interface Span {
  /** First frame of the clip that counts. */
  readonly from: number;
  /** One past the last one. */
  readonly to: number;
  readonly methods: readonly Row[];
}

/** Scores by distance from the context, as Markdown: PSNR / SSIM. */
export function spanTable(
  spans: readonly Span[],
  contexts: { readonly ctx: number; readonly short: number },
): string {
  const lines = METHODS.map((method, i) =>
    `| ${methodName(method, contexts)} | ${
      spans.map(({ methods }) => {
        const { psnr, ssim } = methods[i].mean;
        return `${psnr.mean.toFixed(2)} / ${ssim.mean.toFixed(3)}`;
      }).join(" | ")
    } |`
  );
  const head = spans.map(({ from, to }) => ` frames ${from} to ${to - 1} |`).join("");
  return [`| PSNR, dB / SSIM |${head}`, `|---|${"---|".repeat(spans.length)}`, ...lines, ""].join("\n");
}

/** Parts of the context that have shown a place, in words. */
export const SEEN: Readonly<Record<Memory, string>> = {
  near: "in the last frames of the context",
  distant: "only before them (distant)",
  new: "not in the context",
};

/** The second table, as Markdown. */
export function memoryTable(
  rows: readonly MemoryRow[],
  { ctx, short }: { readonly ctx: number; readonly short: number },
): string {
  const lines = rows.map(({ seen, frames, long, short, ahead }) =>
    `| ${SEEN[seen]} | ${frames} (${counted(ahead.psnr.clips, "clip")}) | ${show(long.psnr, "psnr")} | ${
      show(short.psnr, "psnr")
    } | ` +
    `${show(ahead.psnr, "psnr", true)} | ${show(ahead.ssim, "ssim", true)} |`
  );
  return [
    `| the place was seen | frames | PSNR, ${ctx} frames | PSNR, ${short} frames | ahead, PSNR | ahead, SSIM |`,
    "|---|---|---|---|---|---|",
    ...lines,
    "",
  ].join("\n");
}

/** Facts and rows that {@linkcode evaluationTables} shows: a part of result.json. */
export interface TableContent extends Protocol {
  /** Whether weights were random. */
  readonly random_weights: boolean;
  /** Name of the data set. */
  readonly data: string;
  /** Number of clips. */
  readonly clips: number;
  readonly models: { readonly far: { readonly name: string } };
  /** Scores over all predicted frames. */
  readonly methods: readonly Row[];
  /** Scores by distance from the context. */
  readonly by_frame: readonly Span[];
  /** Scores by where the context has shown the place. */
  readonly memory?: readonly MemoryRow[];
}

/** All tables under one line of protocol, as Markdown: the content of table.md. */
export function evaluationTables(content: TableContent): string {
  const { random_weights, data, clips, ctx, pred, steps, guidance, seed, models, memory } = content;
  return [
    `${random_weights ? `${RANDOM_STAMP}. ` : ""}${data}, ${counted(clips, "clip")}, frames ${ctx} to ${
      ctx + pred - 1
    }; ` +
    `${models.far.name}, ${counted(steps, "Euler step")}, guidance ${guidance}, seed ${seed}; ` +
    "mean ± standard error over clips.\n",
    methodTable(content.methods, content),
    spanTable(content.by_frame, content),
    ...(memory ? [memoryTable(memory, content)] : []),
  ].join("\n");
}
