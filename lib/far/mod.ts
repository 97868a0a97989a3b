/**
 * The parts of FAR, for those who change the model or the sampler: see `transformer.ts` first.
 *
 * @module
 */
export { type CacheSize, type KeyStore, KvCache } from "./cache.ts";
export {
  CLEAN_TIMESTEP,
  conditionCalls,
  conditionEmbedding,
  type Conditioning,
  ConditionRows,
  frameConditions,
  type FrameInputs,
  type Modulation,
  modulationOf,
  nullCondition,
  timestepFeatures,
} from "./conditioning.ts";
export { countParameters, FAR_MODELS, widthOf } from "./config.ts";
export {
  eulerDelta,
  eulerWeights,
  latentLoss,
  mixNoise,
  noiseDraw,
  trainSigmas,
  trainTimesteps,
  velocityTarget,
} from "./flow.ts";
export {
  type Call,
  type CallPlan,
  type ContextKind,
  type Layout,
  layoutOf,
  longTermFrames,
  type Part,
  prepareCall,
  tokensPerFrame,
  wholeClipPlan,
} from "./layout.ts";
export { maskOfQueries } from "./mask.ts";
export { ropeFrequencies } from "./rope.ts";
export { clipNoise, Sampler } from "./sample.ts";
export { velocity, type VelocityInput } from "./transformer.ts";
