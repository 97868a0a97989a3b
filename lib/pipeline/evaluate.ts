/**
 * An evaluation as a job: predict and score held-out clips one after the other, then tables, contact sheets and report.
 * Stopped, the same job resumes with the first clip that has no scores.
 *
 * @module
 */
import { deviceOf } from "../../kernels/device.ts";
import { type Batch, batches } from "../data/batches.ts";
import { decoderOf, stampOf } from "../data/stamp.ts";
import { writeAtomic } from "../io/atomic.ts";
import { fileHash } from "../io/hash.ts";
import { writePng } from "../io/image.ts";
import { isFile } from "../io/paths.ts";
import { fromPlanes } from "../io/planes.ts";
import { contactSheet } from "../io/sheet.ts";
import { readJsonObject } from "../io/text.ts";
import { SCORE_PROTOCOL } from "../metrics/frames.ts";
import { disposeAll } from "../tensor.ts";
import { bytes, duration } from "../units.ts";
import { ChoiceError } from "./choice.ts";
import { refuseTooLarge } from "./cost.ts";
import {
  type ClipScores,
  expectedCost,
  type Loaded,
  methodName,
  MOST_PSNR,
  predictBatch,
  type Predicted,
  type Protocol,
  scoreClip,
} from "./evaluation.ts";
import type { EvaluationSet } from "./evaluation_set.ts";
import { evaluationTables, memoryRows, methodRows, type Span } from "./evaluation_table.ts";
import { REPORT_FILE } from "./html_report.ts";
import type { Job, PartStore } from "./job.ts";
import type { OpenModels } from "./models.ts";
import { RESULT_FILE, writeResult } from "./pictures.ts";
import { type EvaluationResult, shownClips, writeEvaluationReport } from "./report_evaluation.ts";
import { samplerText } from "./task.ts";
import type { Watch } from "./watch.ts";

/** Options of an evaluation. */
export interface EvaluationOptions extends Protocol {
  /** Clips that are predicted together. */
  readonly batch: number;
  /** Clips whose frames are shown: the worst, the best, the second worst, … */
  readonly sheets: number;
}

/** The file with the tables. */
export const TABLE_FILE = "table.md";

const clipName = (index: number) => `clip-${String(index).padStart(5, "0")}.json`;
const sheetName = (index: number) => `sheet_${index}.png`;

/** Names of all files that an evaluation may write. */
const WORKING = ["clip-*.json", "sheet_*.png", TABLE_FILE, REPORT_FILE, RESULT_FILE];

/** Scores of a clip as they are kept while a job is unfinished, with its digest. */
type SavedScores = ClipScores & { readonly fingerprint: string };

/** Whether a clip has its scores, and its sheet where sheets are wanted. */
export function isScored(store: PartStore, index: number, sheets: number): boolean {
  const file = store.part(clipName(index));
  return isFile(file) && readJsonObject(file).fingerprint === store.digest &&
    (sheets === 0 || isFile(store.part(sheetName(index))));
}

/** Truth and predictions of one clip in one picture. */
async function writeSheet(
  file: string,
  batch: Batch,
  b: number,
  predicted: Predicted,
  { ctx, pred, short }: Protocol,
): Promise<void> {
  const [, F, , H, W] = batch.shape, image = 3 * H * W, shown = Math.min(4, ctx);
  const clip = batch.data.subarray(b * F * image, (b + 1) * F * image);
  const frames = (after: Float32Array) => {
    const planes = new Float32Array((shown + pred) * image);
    planes.set(clip.subarray((ctx - shown) * image, ctx * image));
    planes.set(after, shown * image);
    return fromPlanes(planes.map((v) => v * 2 - 1), H, W);
  };
  const rows = [
    { label: "truth", frames: frames(clip.subarray(ctx * image)) },
    ...(["model", "short", "autoencoder"] as const).map((method) => ({
      label: methodName(method, { ctx, short }),
      frames: frames(predicted[method]),
      predictedFrom: shown,
    })),
  ];
  await writePng(file, contactSheet(rows, { firstFrame: ctx - shown }));
}

/**
 * Predicts and scores a batch of clips, and writes the scores (and sheet) of each as an unfinished file of the job. Batches
 * depend on each other in nothing, so several processes may take turns.
 *
 * @param store Where the files go.
 * @param loaded The models with their parameters.
 * @param batch Clips with frames, `[B, ctx + pred, 3, H, W]`.
 * @param options What to predict.
 * @param watch May stop between frames and clips; what is done then is kept.
 * @param onFrame Told after each frame of the batch, twice `pred` times.
 */
export async function scoreBatch(
  store: PartStore,
  loaded: Loaded,
  batch: Batch,
  options: EvaluationOptions,
  watch: Watch,
  onFrame: () => void,
): Promise<void> {
  const start = performance.now();
  const predicted = await predictBatch(loaded, options, batch, async () => {
    onFrame();
    await watch.pause();
  });
  const [B, F, , H, W] = batch.shape, image = 3 * H * W, each = (performance.now() - start) / 1000 / B;
  for (const [b, index] of batch.indices.entries()) {
    const truth = batch.data.subarray((b * F + options.ctx) * image, (b + 1) * F * image);
    if (options.sheets > 0) await writeSheet(store.part(sheetName(index)), batch, b, predicted[b], options);
    const scores: SavedScores = {
      ...scoreClip(batch.sources[b], predicted[b], truth, [3, H, W], each),
      fingerprint: store.digest,
    };
    await writeAtomic(store.part(clipName(index)), `${JSON.stringify(scores)}\n`);
    await watch.pause();
  }
}

/** The first clips of a batch, at most `count`; null where none is left. */
function firstClips(batch: Batch, count: number): Batch | null {
  const [B, ...rest] = batch.shape;
  if (count <= 0) return null;
  if (count >= B) return batch;
  const part = <T extends Float32Array | Int32Array>(values: T) =>
    values.subarray(0, values.length / B * count) as T;
  return {
    ...batch,
    data: part(batch.data),
    shape: [count, ...rest],
    ...(batch.actions ? { actions: part(batch.actions) } : {}),
    ...(batch.label ? { label: part(batch.label) } : {}),
    indices: batch.indices.slice(0, count),
    sources: batch.sources.slice(0, count),
  };
}

/** Scores every clip that has no scores yet. */
async function scoreAll(
  job: Job,
  loaded: Loaded,
  { set, count, interval }: EvaluationSet,
  options: EvaluationOptions,
): Promise<void> {
  const { batch, pred, ctx, sheets } = options, perBatch = 2 * pred, total = Math.ceil(count / batch);
  let first = 0;
  while (first < count && isScored(job, first, sheets)) first++;
  const position = Math.floor(first / batch);
  let steps = position * perBatch;
  using stage = job.watch.stage("evaluate", total * perBatch, "step", steps);
  const order = { batch, frames: ctx + pred, interval, split: "validation", position } as const;
  for await (const all of batches(set, order)) {
    const clips = firstClips(all, count - all.indices[0]);
    if (clips === null) break;
    if (clips.indices.every((i) => isScored(job, i, sheets))) stage.update(steps += perBatch);
    else await scoreBatch(job, loaded, clips, options, job.watch, () => stage.update(++steps));
  }
}

/** Estimates the evaluation, says so, and refuses what does not fit. */
async function estimate(
  { watch }: Job,
  models: OpenModels,
  { set, count }: EvaluationSet,
  options: EvaluationOptions,
): Promise<void> {
  const side = set.fit.resolution ?? models.vae.side;
  const { seconds, memory } = await expectedCost(models, options, {
    clips: count,
    batch: options.batch,
    side,
  });
  refuseTooLarge(models.device, memory, "take a smaller --batch, or --dtype f16");
  const all = Object.values(seconds).reduce((a, b) => a + b, 0), most = Math.max(...Object.values(memory));
  watch.event("estimate", { seconds, memory });
  watch.say(`estimate: ${duration(all)} for ${count} clips, ${bytes(most)} of device memory`);
}

/** An evaluation that is done. */
export interface Evaluation {
  /** The content of result.json. */
  readonly result: EvaluationResult;
  /** The content of table.md. */
  readonly tables: string;
}

/**
 * Scores a model on held-out clips and writes tables, scores, sheets and report into a folder.
 *
 * @param job The folder; not begun yet.
 * @param models The models on their device; nothing of them is loaded yet.
 * @param clips What to score on.
 * @param options What to predict.
 * @throws {ChoiceError} If the model needs actions and the clips have none.
 * @throws {RangeError} If the work does not fit into memory.
 */
export async function runEvaluation(
  job: Job,
  models: OpenModels,
  clips: EvaluationSet,
  options: EvaluationOptions,
): Promise<Evaluation> {
  const { device, far, vae } = models, { set, count, interval } = clips;
  if (far.config.condition?.type === "action" && !set.actions) {
    throw new ChoiceError(`${set.name}: has no actions and ${far.name} needs one per frame`);
  }
  const facts = {
    far: { name: far.name, sha256: fileHash(far.weights.path), config: far.config },
    vae: { name: vae.name, sha256: fileHash(vae.weights.path), config: vae.config },
  };
  await estimate(job, models, clips, options);
  const stamps = { data: set.name, clips: stampOf(set, count), decoder: await decoderOf(set), interval };
  await job.begin(device, { ...stamps, models: facts }, WORKING);
  const transformer = far.weights.load(device), autoencoder = vae.weights.load(device);
  try {
    await scoreAll(job, { device, far, vae, transformer, autoencoder }, clips, options);
  } finally {
    disposeAll([transformer, autoencoder]);
  }
  return await writeEvaluation(job, models, clips, options, facts);
}

/** Writes result, tables and report from the scores of all clips, and puts them in place. */
async function writeEvaluation(
  job: Job,
  { device, reason, far, vae }: OpenModels,
  { set, count, interval, memory }: EvaluationSet,
  options: EvaluationOptions,
  models: EvaluationResult["models"],
): Promise<Evaluation> {
  const { ctx, pred, short, steps, guidance, seed, batch, sheets } = options;
  const scores = Array.from(
    { length: count },
    (_, i) => readJsonObject(job.part(clipName(i))) as unknown as SavedScores,
  );
  const kinds = memory && await Promise.all(scores.map((_, i) => memory(i)));
  const seen = kinds && memoryRows(scores, kinds), shown = shownClips(scores, sheets);
  const ends = [16, 64, pred].filter((end, i, all) => end <= pred && all.indexOf(end) === i);
  const spans = ends.map((to, i): Span => {
    const from = i === 0 ? 0 : ends[i - 1];
    return { from: ctx + from, to: ctx + to, methods: methodRows(scores, from, to) };
  });
  const result = {
    settings: job.settings,
    random_weights: far.weights.path === null || vae.weights.path === null,
    warnings: job.watch.warnings,
    data: set.name,
    ...{ ctx, pred, short, steps, guidance, seed },
    ...{ clips: count, interval, batch, sheets, dtype: far.weights.dtype, models },
    device: deviceOf(device),
    protocol: {
      scores: `${SCORE_PROTOCOL}; PSNR at most ${MOST_PSNR} dB, so that means are finite`,
      means:
        "over predicted frames of a clip, then over clips; errors are standard errors over clips, differences paired",
      sampler: `${samplerText(options)}, one trajectory per clip`,
      ...(memory
        ? { seen: "half of a frame's columns of wall (within 4 cells) in sight; lib/data/world/seen.ts" }
        : {}),
    },
    seconds: scores.reduce((sum, clip) => sum + clip.seconds, 0),
    methods: methodRows(scores),
    by_frame: spans,
    ...(seen ? { memory: seen } : {}),
    clip_scores: scores.map(({ seconds: _, fingerprint: __, ...clip }, i) => ({
      ...clip,
      ...(kinds ? { seen: kinds[i] } : {}),
    })),
  };
  const tables = evaluationTables(result);
  await writeAtomic(job.part(TABLE_FILE), tables);
  await writeResult(job.part(""), result);
  await writeEvaluationReport(job.part(""), result, { ...device.info, reason }, shown);
  await job.place([...shown.map(sheetName), TABLE_FILE, REPORT_FILE, RESULT_FILE]);
  return { result, tables };
}
