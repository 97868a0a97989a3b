/**
 * FAR: long-context autoregressive video models (arXiv 2503.19325) on WebGPU and WebAssembly.
 *
 * Functions over tensors: a model is a function of a parameter record and its inputs, randomness is an argument. The names
 * here are the paper's; the namespaces hold what is around them.
 *
 * @module
 */

// Devices, tensors, gradients, random numbers.
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
export type { Backward, GradientRule } from "./kernels/gradient.ts";
export type {
  BufferContract,
  Case as KernelCase,
  DType,
  HostBuffers,
  Kernel,
  KernelSpec,
  Params as KernelParams,
  ParamType,
  Pass,
  Passes,
  Shader,
  Shaped,
  Target,
  Tolerance,
  WasmSide,
  WgslSide,
} from "./kernels/spec.ts";
export { disposeAll, type Node as TensorNode, scope, type Shape, Tensor } from "./lib/tensor.ts";
export { checkpoint, type GradOptions, type ValueAndGrad, valueAndGrad } from "./lib/autograd.ts";
export { type Checkpoint, loadParams, type ParamOptions, type Params, randomParams } from "./lib/params.ts";
export type { WeightStorage } from "./lib/params.ts";
export type { HostDType, HostTensor, LazyTensor } from "./lib/io/host.ts";
export type { FileTensor, TensorFile, TensorFormat } from "./lib/io/tensor_file.ts";
export { type Key, normal, streamOf, uniform } from "./lib/random.ts";

// From a clip to what follows it.
export {
  decodeClip,
  encodeClip,
  loadModel,
  type LoadOptions,
  Model,
  type Prediction,
  rollout,
} from "./lib/pipeline/model.ts";
export type { PredictOptions } from "./lib/pipeline/task.ts";
export { type Clip, type ClipOptions, readClip } from "./lib/pipeline/clip.ts";
export type { Decoded, Latents } from "./lib/pipeline/codec.ts";
export type { Autoencoder, ModelChoice, OpenModels } from "./lib/pipeline/models.ts";
export type { Card, KindBound } from "./lib/pipeline/bundled.ts";
export type { Part, Weights, WeightType } from "./lib/pipeline/weights.ts";
export { type PlayedClip, type PlayedFrame, type PlayOptions, PlaySession } from "./lib/pipeline/play.ts";
export { type LoadedTransformer, Rollout, type RolloutOptions } from "./lib/pipeline/rollout.ts";
export { ChoiceError } from "./lib/pipeline/choice.ts";
export type { Fit, Frames } from "./lib/io/frames.ts";
export type { FrameScore } from "./lib/metrics/frames.ts";
export type { DcaeConfig, DcaeStage } from "./lib/dcae/config.ts";

// Values that show themselves in a notebook; so do frames, clips, predictions, latents, masks and tensors.
export {
  type CacheLevel,
  type CacheLevels,
  type CurveOptions,
  curves,
  type Table,
  table,
  type TableRow,
} from "./lib/display/tables.ts";
export type { MediaBundle } from "./lib/display/showing.ts";
export type { Chart, Curve, Point } from "./lib/display/plot.ts";

// The model.
export { type FarConfig, farConfig, farShapes } from "./lib/far/config.ts";
export { type AttentionMap, attentionMap } from "./lib/far/attention_map.ts";
export { far, type FarInput, type FarOptions } from "./lib/far/transformer.ts";
export { type FrameRange, patchify, unpatchify } from "./lib/far/patchify.ts";
export type { Output } from "./lib/far/layout.ts";
export type { Conditions } from "./lib/far/conditioning.ts";
export type { ConditionConfig } from "./lib/far/config.ts";
export { frameCausalMask, type KeyRows, type MaskOptions } from "./lib/far/mask.ts";
export type { Mask } from "./lib/ops.ts";
export { type RopeExtension, type RopeOptions, type RopeTable, ropeTable } from "./lib/far/rope.ts";

// Training and sampling.
export {
  drawNoise,
  eulerSchedule,
  flowMatchingLoss,
  type NoiseDraw,
  type NoiseOptions,
  type Schedule,
  type Velocity,
} from "./lib/far/flow.ts";
export { adamw, ema } from "./lib/train/adamw.ts";
export { sample, type SampledFrame, type SampleOptions } from "./lib/far/sample.ts";

// Everything else.
export * as data from "./lib/data/mod.ts";
export * as dcae from "./lib/dcae/mod.ts";
export * as io from "./lib/io/mod.ts";
export * as jobs from "./lib/pipeline/mod.ts";
export * as metrics from "./lib/metrics/mod.ts";
export * as model from "./lib/far/mod.ts";
export * as ops from "./lib/ops.ts";
export * as train from "./lib/train/mod.ts";
export * as world from "./lib/data/world/mod.ts";
