/**
 * How good predicted frames are: pixel scores, LPIPS, differences with their standard error.
 *
 * @module
 */
export { type FrameScore, meanScore, scoreFrames } from "./frames.ts";
export { type MeanError, meanError, pairedDifference } from "./paired.ts";
export {
  loadPerceptual,
  lpips,
  lpipsLayers,
  type PerceptualNetwork,
  perceptualShapes,
} from "./perceptual.ts";
export { type FrameShape, mse, type PixelScores, pixelScores, psnr, ssim, ssimMap } from "./pixel.ts";
