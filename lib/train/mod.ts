/**
 * Training: one trainer over an objective, the objectives of FAR and of the autoencoder, checkpoints, whole runs.
 *
 * @module
 */
export { AdamW, type AdamWOptions, clipFactor, Ema, gradientNorm, OptimizerState } from "./adamw.ts";
export {
  type Fingerprint,
  latestCheckpoint,
  latestState,
  readCheckpoint,
  type RunRecord,
  saveCheckpoint,
  type SavedRun,
  type SavedState,
  type SaveOptions,
} from "./checkpoint.ts";
export { type StepCost, stepCost, vaeStepCost } from "./cost.ts";
export {
  farLoss,
  type FarObjectiveConfig,
  type LossInput,
  prepareBatch,
  type TrainBatch,
} from "./far_loss.ts";
export { farObjective, type FarTrainingConfig, farValidationLoss } from "./far_objective.ts";
export { type HalfWeights, stateBytes, storeWeights } from "./half.ts";
export { type FreshValues, freshValues, type InitialParams, initialParams, type InitMatch } from "./init.ts";
export { distantFrames, type MemoryCase, memoryCase, type MemoryLoss, memoryLoss } from "./memory.ts";
export type { RunProgress } from "./meter.ts";
export type { Measurement, Network, NetworkSpec, NetworkWeights, SavedNetwork } from "./network.ts";
export {
  type BatchShape,
  type ByNetwork,
  type GradientOptions,
  type Gradients,
  lossObjective,
  type LossOptions,
  type Objective,
  type TrainInput,
} from "./objective.ts";
export { rateFactor, type RateSchedule } from "./rate.ts";
export {
  type LoopOptions,
  type Picture,
  type RunEnd,
  type RunOptions,
  type RunStart,
  trainRun,
  type Validation,
} from "./run.ts";
export type { BatchSource } from "./source.ts";
export {
  DivergedError,
  type SavedTrainer,
  type StepReport,
  Trainer,
  type TrainerConfig,
  type TrainerStart,
  type TrainerState,
} from "./trainer.ts";
export {
  adversarialStep,
  reconstructionStep,
  type VaeAccumulation,
  type VaeLosses,
  type VaeLossOptions,
  type VaeStep,
} from "./vae_loss.ts";
export {
  reconstruct,
  type Reconstruction,
  vaeLossOptions,
  vaeObjective,
  type VaeTrainingConfig,
  vaeValidationLoss,
} from "./vae_objective.ts";
