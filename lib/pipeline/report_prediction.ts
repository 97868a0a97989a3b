/**
 * The report of `far.ts predict` and `far.ts generate`, from what result.json holds and the frames.
 *
 * @module
 */
import type { Frames } from "../io/frames.ts";
import type { PredictionReport } from "../report/prediction.ts";
import {
  deviceFacts,
  flagFacts,
  type ModelFacts,
  modelFacts,
  RANDOM_WARNING,
  recordFacts,
  timingFacts,
  writeReport,
} from "./html_report.ts";
import type { FrameScore, meanScore } from "../metrics/frames.ts";
import { RESULT_FILE } from "./pictures.ts";
import { bytes, counted, duration } from "../units.ts";

/** The part of result.json that the report shows. */
export interface PredictionResult {
  readonly settings: {
    readonly verb: string;
    readonly operands: readonly string[];
    readonly flags: Readonly<Record<string, unknown>>;
  };
  readonly random_weights: boolean;
  /** Further warnings. */
  readonly warnings: readonly string[];
  readonly models: { readonly far: ModelFacts; readonly vae: ModelFacts };
  readonly device: { readonly description: string; readonly reason: string };
  readonly estimate: {
    readonly seconds: Readonly<Record<string, number>>;
    readonly memory: Readonly<Record<string, number>>;
  };
  readonly seconds: Readonly<Record<string, number>>;
  readonly peak_device_bytes: number;
  readonly protocol: {
    readonly context_frames: number;
    readonly predicted_frames: number;
    readonly sampler: string;
  } & Readonly<Record<string, unknown>>;
  readonly scores: readonly {
    readonly mean: ReturnType<typeof meanScore>;
    readonly frames: readonly FrameScore[];
  }[];
  readonly files: readonly string[];
}

/** Frames as they are shown. */
export interface PredictionClips {
  readonly context: Frames;
  /** One clip a trajectory. */
  readonly predicted: readonly Frames[];
  readonly truth: Frames;
  readonly fps: number;
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** Data of the report. */
export function predictionData(
  result: PredictionResult,
  { context, predicted, truth, fps }: PredictionClips,
  sheet?: Uint8Array,
): PredictionReport {
  const { settings, protocol, models, seconds, scores, estimate } = result;
  const generated = protocol.context_frames === 0, many = predicted.length > 1;
  const name = (i: number) => `${generated ? "generated" : "prediction"}${many ? ` ${i}` : ""}`;
  const [{ height, width }] = predicted;
  const tile = (metric: "psnr" | "ssim", show: (value: number) => string, label: string) => {
    const means = scores.flatMap(({ mean }) => mean === null ? [] : [mean]);
    if (means.length === 0) return [];
    const values = means.flatMap((m) => m[metric] === null ? [] : [m[metric]]);
    return [
      [
        many ? `${label}, mean of ${means.length} trajectories` : label,
        values.length === means.length ? show(mean(values)) : metric === "psnr" ? "∞ dB" : "none",
      ] as const,
    ];
  };
  const took = Object.values(seconds).reduce((a, b) => a + b, 0);
  const missing = truth.frames > 0 && truth.frames < protocol.predicted_frames;
  return {
    title: [settings.verb, ...(generated ? [models.far.name] : settings.operands)].join(" "),
    lede: [
      models.far.name,
      generated
        ? `${counted(protocol.predicted_frames, "frame")} of ${width}×${height} generated`
        : `${
          counted(protocol.context_frames, "frame")
        } of context, ${protocol.predicted_frames} predicted, ${width}×${height}`,
      protocol.sampler,
    ].join(" · "),
    warnings: [
      ...(result.random_weights ? [RANDOM_WARNING] : []),
      ...result.warnings,
      ...(missing
        ? [
          `The clip ends after ${truth.frames} of the ${protocol.predicted_frames} predicted frames: ` +
          "later ones have no truth and no scores.",
        ]
        : []),
    ],
    tiles: [
      ...tile("psnr", (v) => `${v.toFixed(2)} dB`, "PSNR"),
      ...tile("ssim", (v) => v.toFixed(4), "SSIM"),
      ["time", duration(took)],
      [
        "speed",
        `${(protocol.predicted_frames * predicted.length / seconds.predict).toPrecision(3)} frames/s`,
      ],
      ["device memory", bytes(result.peak_device_bytes)],
    ],
    facts: [
      flagFacts(settings.flags),
      modelFacts(models),
      timingFacts(seconds, estimate.seconds),
      deviceFacts(result.device, {
        peak: result.peak_device_bytes,
        expected: Math.max(...Object.values(estimate.memory)),
      }),
      recordFacts("Protocol", protocol),
    ],
    files: [...result.files, RESULT_FILE],
    clips: {
      context,
      tracks: [
        ...(truth.frames > 0 ? [{ name: "truth", frames: truth, predicted: false }] : []),
        ...predicted.map((frames, i) => ({ name: name(i), frames, predicted: true })),
      ],
      fps,
    },
    scores: scores.map(({ frames }, i) => ({ name: name(i), frames })),
    ...(sheet ? { sheet } : {}),
  };
}

/** Writes the report beside the files of a result. */
export async function writePredictionReport(
  folder: string,
  result: PredictionResult,
  clips: PredictionClips,
): Promise<void> {
  const { predictionReport } = await import("../report/prediction.ts");
  const sheet = Deno.readFileSync(`${folder}/sheet.png`);
  await writeReport(folder, predictionReport(predictionData(result, clips, sheet)));
}
