/**
 * Long work that writes files and resumes when it was stopped: predictions, evaluations, latents of data sets. What the command
 * line runs.
 *
 * @module
 */
export { decodeTo, encodeTo, type LatentFile, type OpenCodec, readLatentFile } from "./clip_latents.ts";
export { encodeSet } from "./encode_set.ts";
export { type Evaluation, type EvaluationOptions, isScored, runEvaluation, scoreBatch } from "./evaluate.ts";
export type { ClipScores, Loaded, Method, Protocol } from "./evaluation.ts";
export { type EvaluationSet, openEvaluationSet } from "./evaluation_set.ts";
export type { MemoryRow, Metric, Row, Span, TableContent } from "./evaluation_table.ts";
export type { ModelFacts } from "./html_report.ts";
export { Job, type JobOptions, type PartStore, type Settings } from "./job.ts";
export type { LatentStatistics } from "./latent_parts.ts";
export { type FrameSet, openFrameSet } from "./option_set.ts";
export { type OutputOptions, predictTo, type PredictToOptions, runPrediction } from "./predict.ts";
export type { ByStage } from "./prediction_cost.ts";
export type { EvaluationResult } from "./report_evaluation.ts";
export type { PredictionResult } from "./report_prediction.ts";
export { checkRollouts, type RolloutModels, rollOutSet, type SetRollouts } from "./rollout_set.ts";
export { generationTask, type PredictionTask, predictionTask } from "./task.ts";
export { type Stage, unwatched, type Watch } from "./watch.ts";
