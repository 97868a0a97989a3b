/**
 * Training: trainers of FAR and of the autoencoder, their objectives, optimizer state, checkpoints, whole runs.
 *
 * @module
 */
export { AdamW, type AdamWOptions, clipFactor, Ema, gradientNorm, Slots } from "./adamw.ts";
export {
  type Fingerprint,
  latestCheckpoint,
  type RunRecord,
  saveCheckpoint,
  type SavedRun,
  type SavedState,
  type SaveOptions,
} from "./checkpoint.ts";
export { type StepCost, stepCost } from "./cost.ts";
export { type HalfWeights, stateBytes, storeWeights } from "./half.ts";
export { type FreshValues, type InitialParams, initialParams, type InitMatch } from "./init.ts";
export type { LoopOptions, Picture, RunEnd, RunProgress, RunStart } from "./loop.ts";
export { farLoss, type LossInput, type ObjectiveConfig, prepareBatch, type TrainBatch } from "./objective.ts";
export { rateFactor, type RateSchedule } from "./rate.ts";
export { type RunOptions, trainRun, type Validation } from "./run.ts";
export {
  type BatchSource,
  DivergedError,
  type SavedTensors,
  type StepReport,
  Trainer,
  type TrainerConfig,
  type TrainerState,
} from "./trainer.ts";
export {
  adversarialStep,
  reconstructionStep,
  type VaeAccumulation,
  type VaeLosses,
  type VaeObjective,
  type VaeStep,
} from "./vae_loss.ts";
export {
  latestVae,
  type SavedVae,
  type VaeStepReport,
  VaeTrainer,
  type VaeTrainerConfig,
} from "./vae_trainer.ts";
