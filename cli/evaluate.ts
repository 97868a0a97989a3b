/**
 * `far.ts evaluate`: scores of a model on held-out clips, beside simple baselines and itself with a short context.
 *
 * @module
 */
import { type Batch, batches } from "../lib/data/batches.ts";
import type { DataSet } from "../lib/data/clip.ts";
import { decoderOf, stampOf } from "../lib/data/stamp.ts";
import { dataSetOf } from "../lib/data/options.ts";
import { type Memory, memoryOf, Views } from "../lib/data/world/seen.ts";
import { worldScene } from "../lib/data/world/world.ts";
import { worldSet } from "../lib/data/world_set.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { writePng } from "../lib/io/image.ts";
import { readJsonObject } from "../lib/io/text.ts";
import { isFile } from "../lib/io/paths.ts";
import { fromPlanes } from "../lib/io/planes.ts";
import { contactSheet } from "../lib/io/sheet.ts";
import { disposeAll } from "../lib/tensor.ts";
import { readOptions } from "../lib/train/options.ts";
import { type Call, type Flags, integer, path, real, UsageError, type Values, verb } from "./args.ts";
import {
  memoryRows,
  memoryTable,
  methodRows,
  methodTable,
  type Span,
  spanTable,
} from "../lib/pipeline/evaluation_table.ts";
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
} from "../lib/pipeline/evaluation.ts";
import { refuseTooLarge } from "../lib/pipeline/cost.ts";
import { availableMemory, deviceFlags, progressFlags, restartFlag } from "./flags.ts";
import { fileHash } from "../lib/io/hash.ts";
import { deviceOf, type Job, runJob } from "./job.ts";
import { withCard } from "./card.ts";
import { chooseDcae, chooseFar, requireWeights } from "../lib/pipeline/models.ts";
import { modelChoice, modelFlags } from "./model_flags.ts";
import { SCORE_PROTOCOL } from "../lib/metrics/frames.ts";
import { RESULT_FILE, writeResult } from "../lib/pipeline/pictures.ts";
import { REPORT_FILE } from "../lib/pipeline/html_report.ts";
import { bytes, duration } from "../lib/units.ts";
import { shownClips, writeEvaluationReport } from "../lib/pipeline/report_evaluation.ts";

const evaluateFlags = {
  clips: integer("clips to score", { default: 32, min: 1, max: 100_000 }),
  ctx: integer("context frames that the model is given", { default: 144, min: 1, max: 100_000 }),
  pred: integer("frames to predict and score", { default: 156, min: 1, max: 100_000 }),
  short: integer("context frames of the second row, the last ones of --ctx", { default: 16, min: 1 }),
  ...modelFlags,
  steps: integer("Euler steps per frame", { default: 50, min: 1, max: 1000 }),
  guidance: real("classifier-free guidance: above 1 guides, -1 drops every condition", {
    default: 1,
    min: -1,
    max: 100,
  }),
  seed: integer("seed of the noise", { default: 0, min: 0 }),
  batch: integer("clips that are predicted together", { default: 8, min: 1, max: 256 }),
  sheets: integer("clips whose frames are shown: the worst, the best, the second worst, ...", {
    default: 4,
    min: 0,
    max: 1000,
  }),
  out: path("folder for the result: new, empty, or an earlier result of this verb, which is replaced", {
    default: "out/evaluate",
    presentation: true,
  }),
  ...restartFlag,
  ...deviceFlags,
  ...progressFlags,
};

type EvaluateFlags = Values<typeof evaluateFlags>;

/** The clips, and for the built-in world where each frame's place was seen. */
interface Clips {
  readonly set: DataSet;
  readonly interval: number;
  readonly memory?: (clip: number) => Promise<readonly Memory[]>;
}

function clipsOf(what: string, f: EvaluateFlags, size: number): Clips {
  const frames = f.ctx + f.pred;
  if (/\.ya?ml$/i.test(what)) {
    const block = readOptions(what).datasets.sample;
    if (block === null) throw new UsageError(`${what}: has no datasets.sample`);
    const { set, options } = dataSetOf({ ...block }, `${what}: datasets.sample`);
    if (set.holds === "latents") throw new UsageError(`${what}: ${set.name} holds latents, expected frames`);
    return { set, interval: options.interval ?? 1 };
  }
  if (what !== "world") throw new UsageError(`expected world or an option file (yml), found ${what}`);
  const set = worldSet({ split: "test", size, clips: f.clips, frames });
  const memory = async (index: number) => {
    const { maze } = worldScene({ seed: 0, split: "test", index });
    return memoryOf(new Views(maze, (await set.read(index)).poses!), f.ctx, frames, f.short);
  };
  return { set, interval: 1, memory };
}

/** Names of all files that an evaluation may write. */
const WORKING = ["clip-*.json", "sheet_*.png", "table.md", REPORT_FILE, RESULT_FILE];

const clipName = (index: number) => `clip-${String(index).padStart(5, "0")}.json`;
const sheetName = (index: number) => `sheet_${index}.png`;

/** Truth and predictions of one clip in one picture. */
async function writeSheet(
  file: string,
  batch: Batch,
  b: number,
  predicted: Predicted,
  f: EvaluateFlags,
): Promise<void> {
  const [, F, , H, W] = batch.shape, image = 3 * H * W, shown = Math.min(4, f.ctx);
  const clip = batch.data.subarray(b * F * image, (b + 1) * F * image);
  const frames = (after: Float32Array) => {
    const planes = new Float32Array((shown + f.pred) * image);
    planes.set(clip.subarray((f.ctx - shown) * image, f.ctx * image));
    planes.set(after, shown * image);
    return fromPlanes(planes.map((v) => v * 2 - 1), H, W);
  };
  const rows = [
    { label: "truth", frames: frames(clip.subarray(f.ctx * image)) },
    ...(["model", "short", "autoencoder"] as const).map((method) => ({
      label: methodName(method, f),
      frames: frames(predicted[method]),
      predictedFrom: shown,
    })),
  ];
  await writePng(file, contactSheet(rows, { firstFrame: f.ctx - shown }));
}

async function evaluate(call: Call<Flags>): Promise<void> {
  const { flags, operands: [what = "world"] } = withCard("evaluate", call);
  const f = flags as EvaluateFlags;
  if (f.short > f.ctx) throw new UsageError(`--short: expected at most --ctx ${f.ctx}, found ${f.short}`);
  requireWeights(modelChoice(f));
  await runJob({
    verb: "evaluate",
    declared: evaluateFlags,
    flags: f,
    operands: [what],
    out: { path: f.out, flag: "--out" },
    stopping: "stopping after this frame",
  }, (job) => evaluateSet(job, f, what));
}

async function evaluateSet(job: Job, f: EvaluateFlags, what: string): Promise<void> {
  const { progress, folder } = job;
  const chosen = modelChoice(f), far = chooseFar(chosen), vae = chooseDcae(chosen);
  const { set, interval, memory } = clipsOf(what, f, vae.side);
  const count = Math.min(f.clips, set.length), frames = f.ctx + f.pred;
  if (far.config.condition?.type === "action" && !set.actions) {
    throw new UsageError(`${set.name}: has no actions and ${far.name} needs one per frame`);
  }
  far.weights.verify();
  vae.weights.verify();
  const random = far.weights.path === null || vae.weights.path === null;
  const models = {
    far: { name: far.name, sha256: fileHash(far.weights.path), config: far.config },
    vae: { name: vae.name, sha256: fileHash(vae.weights.path), config: vae.config },
  };
  const device = await job.openDevice();
  const protocol: Protocol = f;
  const size = { clips: count, batch: f.batch, side: set.fit.resolution ?? vae.side, dtype: f.dtype };
  const expected = await expectedCost({ device, far, vae }, protocol, size);
  refuseTooLarge(device, expected.memory, availableMemory(), "take a smaller --batch, or --dtype f16");
  const all = Object.values(expected.seconds).reduce((a, b) => a + b, 0);
  progress.event("estimate", { ...expected });
  progress.say(
    `estimate: ${duration(all)} for ${count} clips, ${
      bytes(Math.max(...Object.values(expected.memory)))
    } of device memory`,
  );
  await job.begin({
    data: set.name,
    clips: stampOf(set, count),
    decoder: await decoderOf(set),
    interval,
    models,
  }, WORKING);
  const loaded: Loaded = {
    ...{ device, far, vae },
    transformer: far.weights.load(device),
    autoencoder: vae.weights.load(device),
  };
  await scoreAll(job, loaded, protocol, { set, count, frames, interval, f });
  disposeAll([loaded.transformer, loaded.autoencoder]);

  const clips = Array.from(
    { length: count },
    (_, i) => readJsonObject(folder.part(clipName(i))) as unknown as SavedScores,
  );
  const seconds = clips.reduce((sum, clip) => sum + clip.seconds, 0);
  const kinds = memory && await Promise.all(clips.map((_, i) => memory(i)));
  const methods = methodRows(clips), seen = kinds && memoryRows(clips, kinds);
  const ends = [16, 64, f.pred].filter((end, i, all) => end <= f.pred && all.indexOf(end) === i);
  const spans = ends.map((to, i): Span => {
    const from = i === 0 ? 0 : ends[i - 1];
    return { from: f.ctx + from, to: f.ctx + to, methods: methodRows(clips, from, to) };
  });
  const tables = [
    `${random ? "RANDOM WEIGHTS. " : ""}${set.name}, ${count} clips, frames ${f.ctx} to ${
      frames - 1
    }; ${far.name}, ` +
    `${f.steps} Euler step${
      f.steps === 1 ? "" : "s"
    }, guidance ${f.guidance}, seed ${f.seed}; mean ± standard error over clips.\n`,
    methodTable(methods, f),
    spanTable(spans, f),
    ...(seen ? [memoryTable(seen, f)] : []),
  ].join("\n");
  await writeAtomic(folder.part("table.md"), tables);
  const shown = shownClips(clips, f.sheets);
  const result = {
    settings: { verb: "evaluate", operands: [what], flags: f },
    random_weights: random,
    warnings: progress.warnings,
    data: set.name,
    ...{ ctx: f.ctx, pred: f.pred, short: f.short, steps: f.steps, guidance: f.guidance, seed: f.seed },
    ...{ clips: count, interval, batch: f.batch, sheets: f.sheets, dtype: f.dtype, models },
    device: deviceOf(device),
    protocol: {
      scores: `${SCORE_PROTOCOL}; PSNR at most ${MOST_PSNR} dB, so that means are finite`,
      means:
        "over predicted frames of a clip, then over clips; errors are standard errors over clips, differences paired",
      sampler: `Euler, ${f.steps} steps, guidance ${f.guidance}, seed ${f.seed}, one trajectory per clip`,
      ...(memory
        ? { seen: "half of a frame's columns of wall (within 4 cells) in sight; lib/data/world/seen.ts" }
        : {}),
    },
    seconds,
    methods,
    by_frame: spans,
    ...(seen ? { memory: seen } : {}),
    clip_scores: clips.map(({ seconds: _, fingerprint: __, ...c }, i) => ({
      ...c,
      ...(kinds ? { seen: kinds[i] } : {}),
    })),
  };
  await writeResult(folder.part(""), result);
  await writeEvaluationReport(folder.part(""), result, { ...device.info, reason: job.reason }, shown);
  await folder.place([...shown.map(sheetName), "table.md", REPORT_FILE, RESULT_FILE]);
  progress.event("done", { out: f.out, methods, memory: seen ?? null, seconds });
  progress.say(`took ${duration(seconds)}; wrote ${f.out}: table.md, ${RESULT_FILE}, ${REPORT_FILE}, sheets`);
  if (progress.mode === "bar" || progress.mode === "lines") console.log(tables);
}

/** Scores of a clip as they are kept while a run is unfinished, with the fingerprint of the run. */
interface SavedScores extends ClipScores {
  readonly fingerprint: string;
}

/** Whether a clip of this run has its scores. */
function isScored({ folder, digest }: Job, index: number, sheets: number): boolean {
  const file = folder.part(clipName(index));
  return isFile(file) && readJsonObject(file).fingerprint === digest &&
    (sheets === 0 || isFile(folder.part(sheetName(index))));
}

/** Scores every clip that has no scores yet. */
async function scoreAll(
  job: Job,
  loaded: Loaded,
  protocol: Protocol,
  { set, count, frames, interval, f }: {
    readonly set: DataSet;
    readonly count: number;
    readonly frames: number;
    readonly interval: number;
    readonly f: EvaluateFlags;
  },
): Promise<void> {
  const perBatch = 2 * f.pred;
  let first = 0;
  while (first < count && isScored(job, first, f.sheets)) first++;
  const position = Math.floor(first / f.batch), total = Math.ceil(count / f.batch);
  using stage = job.progress.stage("evaluate", total * perBatch, "step", position * perBatch);
  let steps = position * perBatch;
  const options = { batch: f.batch, frames, interval, split: "validation", position } as const;
  for await (const all of batches(set, options)) {
    const batch = firstClips(all, count - all.indices[0]);
    if (batch === null) break;
    const start = performance.now();
    const predicted = await predictBatch(loaded, protocol, batch, async () => {
      stage.update(++steps);
      await job.pause();
    });
    const [B, F, , H, W] = batch.shape, image = 3 * H * W, each = (performance.now() - start) / 1000 / B;
    for (const [b, index] of batch.indices.entries()) {
      const truth = batch.data.subarray((b * F + f.ctx) * image, (b + 1) * F * image);
      if (f.sheets > 0) await writeSheet(job.folder.part(sheetName(index)), batch, b, predicted[b], f);
      const scores: SavedScores = {
        ...scoreClip(batch.sources[b], predicted[b], truth, [3, H, W], each),
        fingerprint: job.digest,
      };
      await writeAtomic(job.folder.part(clipName(index)), `${JSON.stringify(scores)}\n`);
      await job.pause();
    }
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

/** `far.ts evaluate`. */
export const evaluateVerb = verb({
  name: "evaluate",
  summary: "Score a model on held-out clips, beside baselines and a short context",
  about:
    "Predicts clips that were not trained on and scores every frame (PSNR, SSIM): the model, the model with the last --short " +
    "frames of context only, the last frame repeated, the mean of the context, and the truth through the autoencoder, which " +
    "bounds them all. Differences are paired by clip and come with their standard error. For the built-in world, frames are " +
    "also sorted by where the context has shown their place: near, only long ago, or never.\n\n" +
    "Writes table.md, result.json (every score of every frame, with the protocol), contact sheets and report.html (curves by " +
    "frame, tables that sort) into --out. Ctrl-C keeps the clips that are done; the same command then resumes the run.",
  operands: [{
    name: "SET",
    help: "world (default), or an option file (yml), of which datasets.sample is taken",
    optional: true,
  }],
  flags: evaluateFlags,
  examples: [
    { does: "the bundled model on 32 test walks of the built-in world", line: "evaluate world" },
    {
      does: "the authors' DMLab model on clips of an option file",
      line:
        "evaluate train_FAR_B_Long_dmlab.yml --model FAR_B_Long --weights far_b_long.pth --vae-weights dcae.pth",
    },
  ],
  run: evaluate,
});
