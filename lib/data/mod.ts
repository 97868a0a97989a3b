/**
 * Clips for training and evaluation: sets, batches, checks.
 *
 * @module
 */
export { type Batch, batches, type BatchOptions } from "./batches.ts";
export { checkSet, type Problem, type SetStats, statsOf } from "./check.ts";
export {
  chooseFrames,
  type Clip,
  type ClipRange,
  type DataSet,
  type FrameFit,
  type FrameRule,
  type Latents,
} from "./clip.ts";
export { RandomStream } from "./random_stream.ts";
export { type FolderOptions, folderSet } from "./folder.ts";
export { type LatentOptions, latentSet, writeLatents } from "./latents.ts";
export { type Block, dataSetOf, type OpenedSet } from "./options.ts";
export { bair, dmlab, minecraft, type PaperSetOptions, ucf101 } from "./sets.ts";
export { placesSet, walkSet } from "./walk_set.ts";
export { worldSet, type WorldSetOptions } from "./world_set.ts";
