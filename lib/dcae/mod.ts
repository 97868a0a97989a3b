/**
 * DC-AE, the autoencoder between frames and latents, and the discriminator that it is trained against.
 *
 * @module
 */
export { type DcaeOptions, decode, encode, type Tap } from "./autoencoder.ts";
export { DCAE_MODELS, type DcaeConfig, dcaeConfig, dcaeShapes, type DcaeStage } from "./config.ts";
export {
  discriminate,
  discriminatorShapes,
  discriminatorValues,
  initialDiscriminator,
} from "./discriminator.ts";
export type { Running } from "./running.ts";
