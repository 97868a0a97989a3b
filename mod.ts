/**
 * FAR: long-context autoregressive video models (arXiv 2503.19325) on WebGPU and WebAssembly.
 *
 * @module
 */
export { openDevice, type Opened, type OpenOptions } from "./kernels/open.ts";
export type {
  Device,
  DeviceInfo,
  DeviceName,
  DeviceStats,
  Launch,
  PackRequest,
  Storage,
} from "./kernels/device.ts";
export type {
  DType,
  HostBuffers,
  Kernel,
  Params as KernelParams,
  ParamType,
  Target,
  WasmSide,
  WgslSide,
} from "./kernels/spec.ts";
export { disposeAll, type Node as TensorNode, scope, type Shape, Tensor } from "./lib/tensor.ts";
export * as ops from "./lib/ops.ts";
export {
  type Checkpoint,
  checkShapes,
  loadParams,
  type ParamOptions,
  type Params,
  randomParams,
  type WeightStorage,
} from "./lib/params.ts";
export { type Key, normal, philox, streamOf, uniform } from "./lib/random.ts";
export {
  type ConditionConfig,
  countParameters,
  FAR_MODELS,
  type FarConfig,
  farConfig,
  farShapes,
} from "./lib/far/config.ts";
export { type CacheSize, KvCache } from "./lib/far/cache.ts";
export {
  type CallPlan,
  frameCausalMask,
  type FrameRange,
  type Layout,
  layoutOf,
  type Part,
} from "./lib/far/layout.ts";
export { far, type FarInput } from "./lib/far/model.ts";
export { patchify, unpatchify } from "./lib/far/patchify.ts";
export {
  type RopeExtension,
  ropeFrequencies,
  type RopeOptions,
  type RopeTable,
  ropeTable,
} from "./lib/far/rope.ts";
export { eulerDelta, eulerSchedule, type Schedule, trainSigmas, trainTimesteps } from "./lib/far/flow.ts";
export { CLEAN_TIMESTEP, timestepFeatures } from "./lib/far/timestep.ts";
export { sample, type SampledFrame, type SampleOptions } from "./lib/far/sample.ts";
export { type DcaeOptions, decode, encode, type Tap } from "./lib/dcae/autoencoder.ts";
export { discriminate, discriminatorShapes, initialDiscriminator } from "./lib/dcae/discriminator.ts";
export type { Running } from "./lib/dcae/running.ts";
export {
  loadPerceptual,
  lpips,
  lpipsLayers,
  type PerceptualNetwork,
  perceptualShapes,
} from "./lib/metrics/perceptual.ts";
export { DCAE_MODELS, type DcaeConfig, dcaeConfig, dcaeShapes, type DcaeStage } from "./lib/dcae/config.ts";
export type { KeyStore } from "./lib/far/transformer.ts";
export { openSafetensors, writeSafetensors } from "./lib/io/safetensors.ts";
export { type NpzOptions, openNpy, openNpz, writeNpy, writeNpz } from "./lib/io/npz.ts";
export { type HostDType, type HostTensor, type LazyTensor, toFloat32, toInt32 } from "./lib/io/host.ts";
export { type FileTensor, TensorFile, type TensorFormat, type TensorsToWrite } from "./lib/io/tensor_file.ts";
export {
  checkpoint,
  type GradOptions,
  type ValueAndGrad,
  valueAndGrad,
  type Vjp,
  vjp,
} from "./lib/autograd.ts";
export { AdamW, type AdamWOptions, clipFactor, Ema, gradientNorm, Slots } from "./lib/train/adamw.ts";
export { type HalfWeights, stateBytes, storeWeights } from "./lib/train/half.ts";
export { type FreshValues, type InitialParams, initialParams, type InitMatch } from "./lib/train/init.ts";
export {
  latestVae,
  type SavedVae,
  type VaeStepReport,
  VaeTrainer,
  type VaeTrainerConfig,
} from "./lib/train/vae_trainer.ts";
export {
  adversarialStep,
  reconstructionStep,
  type VaeAccumulation,
  type VaeLosses,
  type VaeObjective,
  type VaeStep,
} from "./lib/train/vae_loss.ts";
export {
  drawNoise,
  flowMatchingLoss,
  type LossInput,
  mixNoise,
  type NoiseDraw,
  type NoisyBatch,
  type ObjectiveConfig,
  type TrainBatch,
} from "./lib/train/objective.ts";
export {
  type BatchSource,
  DivergedError,
  type SavedTensors,
  type StepReport,
  Trainer,
  type TrainerConfig,
  type TrainerState,
} from "./lib/train/trainer.ts";
export { rateFactor, type RateSchedule } from "./lib/train/rate.ts";
export { latestCheckpoint, saveCheckpoint, type SavedRun } from "./lib/train/checkpoint.ts";
export { type Batch, batches, type BatchOptions } from "./lib/data/batches.ts";
export { checkSet, type Problem, type SetStats, statsOf } from "./lib/data/check.ts";
export {
  chooseFrames,
  type Clip,
  type ClipRange,
  type DataSet,
  type FrameFit,
  type FrameRule,
  type Latents,
} from "./lib/data/clip.ts";
export { Draws } from "./lib/data/draws.ts";
export { type FolderOptions, folderSet } from "./lib/data/folder.ts";
export { type LatentOptions, latentSet, writeLatents } from "./lib/data/latents.ts";
export { type Block, dataSetOf, type OpenedSet } from "./lib/data/options.ts";
export { bair, dmlab, minecraft, type PaperSetOptions, ucf101 } from "./lib/data/sets.ts";
export { worldSet, type WorldSetOptions } from "./lib/data/world_set.ts";
export type { Maze } from "./lib/data/world/maze.ts";
export type { Pose } from "./lib/data/world/pose.ts";
export { type Memory, memoryOf, type PlaceOptions, placeSeen, Views } from "./lib/data/world/seen.ts";
export {
  type Split,
  type WorldClip,
  worldClip,
  type WorldFrame,
  worldFrames,
  type WorldOptions,
  type WorldRange,
} from "./lib/data/world/world.ts";
export {
  type FrameShape,
  mse,
  type PixelScores,
  pixelScores,
  psnr,
  ssim,
  ssimMap,
} from "./lib/metrics/pixel.ts";
export { type ByteSource, visitSource } from "./lib/io/source.ts";
export { type MeanError, meanError, pairedDifference } from "./lib/metrics/paired.ts";
export { type Frames, makeFrames } from "./lib/io/frames.ts";
export { type StepCost, stepCost } from "./lib/train/cost.ts";
export type { LoopOptions, Picture, RunEnd, RunProgress, RunStart } from "./lib/train/loop.ts";
export { type RunOptions, trainRun, type Validation } from "./lib/train/run.ts";
