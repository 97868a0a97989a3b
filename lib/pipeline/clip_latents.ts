/**
 * One clip to a file of latents and back, of any length, with bounded memory for its frames.
 *
 * @module
 */
import { downsampling } from "../dcae/config.ts";
import { FileFormatError } from "../io/errors.ts";
import { stampFrames } from "../io/font.ts";
import { concatFrames, type Frames, makeFrames } from "../io/frames.ts";
import { fromFloat32, toFloat32 } from "../io/host.ts";
import { writeNpz } from "../io/npz.ts";
import { openTensorFile } from "../io/open.ts";
import { writeSafetensors } from "../io/safetensors.ts";
import { VIDEO_ENDINGS, writeFrames, writeVideo } from "../io/video_write.ts";
import { bytes, duration } from "../units.ts";
import { ChoiceError } from "./choice.ts";
import type { ClipOptions } from "./clip.ts";
import { streamClip } from "./clip_stream.ts";
import { decodeStream, encodeStream, framesPerBatch, type Latents, latentSize } from "./codec.ts";
import { dcaeCost, refuseTooLarge } from "./cost.ts";
import type { OpenModels } from "./models.ts";
import { FPS } from "./pictures.ts";
import { measureRates, secondsAt } from "./rates.ts";
import { unwatched, type Watch } from "./watch.ts";
import { RANDOM_STAMP } from "./weights.ts";

/** An autoencoder on its device. */
export type OpenCodec = Pick<OpenModels, "device" | "vae">;

/** Endings of files that {@linkcode decodeTo} writes. */
const DECODED_ENDINGS = [...VIDEO_ENDINGS, ".npz"];

const endingOf = (file: string) => /\.\w+$/.exec(file)?.[0].toLowerCase() ?? "";

/**
 * Checks the name of a file to write.
 *
 * @throws {ChoiceError} If there is no such kind of file.
 */
export function checkEnding(file: string, kind: "latents" | "frames"): void {
  const known = kind === "latents" ? [".safetensors", ".npz"] : DECODED_ENDINGS;
  if (known.includes(endingOf(file))) return;
  throw new ChoiceError(
    `{to}: expected a name ending in ${known.slice(0, -1).join(", ")} or ${known.at(-1)}, found ${file}`,
  );
}

/** Estimates the work of the autoencoder, says so, and refuses what does not fit. */
async function announce(
  { device, vae }: OpenCodec,
  way: "encode" | "decode",
  frames: number | undefined,
  { height, width }: { readonly height: number; readonly width: number },
  watch: Watch,
): Promise<void> {
  const size = [height, width] as const, batch = framesPerBatch(...size);
  const cost = dcaeCost(vae.config, way, frames ?? batch, size, vae.weights.dtype);
  refuseTooLarge(device, { [way]: cost.memory });
  const seconds = secondsAt(cost, await measureRates(device, [cost]));
  const time = frames === undefined
    ? `${duration(seconds / batch)} per frame`
    : `${duration(seconds)} for ${frames} frames`;
  watch.say(`estimate: ${time}, ${bytes(cost.memory)} of device memory`);
  watch.event("estimate", {
    seconds: frames === undefined ? null : { [way]: seconds },
    memory: cost.memory,
  });
}

/**
 * Encodes a clip into a file with scaled latents, `latents` [F, C, H, W].
 *
 * @param models The autoencoder on its device; nothing of it is loaded yet.
 * @param path What `readClip` reads.
 * @param to The file, `.safetensors` (with rate and autoencoder as metadata) or `.npz`.
 * @param options Which frames, and their size.
 * @returns The shape of the latents.
 * @throws {ChoiceError} If `to` has another ending.
 * @throws {RangeError} If the autoencoder cannot take the size of the frames, or the work does not fit into memory.
 */
export async function encodeTo(
  models: OpenCodec,
  path: string,
  to: string,
  options: Omit<ClipOptions, "last"> = {},
  watch: Watch = unwatched(),
): Promise<readonly [F: number, C: number, H: number, W: number]> {
  checkEnding(to, "latents");
  const { device, vae } = models, stream = await streamClip(path, { side: vae.side, ...options });
  const { channels, height, width } = latentSize(vae.config, stream), each = channels * height * width;
  await announce(models, "encode", stream.frames, stream, watch);
  const parts: Float32Array[] = [];
  for await (const { values } of encodeStream(device, vae, stream.batches, stream.frames, watch)) {
    parts.push(values);
  }
  const values = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (values.set(part, at), at + part.length), 0);
  const shape = [values.length / each, channels, height, width] as const;
  const tensors = { latents: fromFloat32(values, shape) };
  if (endingOf(to) === ".npz") await writeNpz(to, tensors);
  else {
    await writeSafetensors(to, tensors, {
      autoencoder: vae.name,
      weights: vae.weights.path ?? RANDOM_STAMP,
      scaling_factor: String(vae.config.scalingFactor),
      ...(stream.fps === undefined ? {} : { fps: String(stream.fps) }),
    });
  }
  return shape;
}

/** Latents out of a file, with the rate of their clip where the file says. */
export interface LatentFile {
  /** `[F, C, H, W]`, multiplied by the scaling factor. */
  readonly latents: Latents;
  /** Frames per second. */
  readonly fps?: number;
}

/**
 * Reads a file that {@linkcode encodeTo} wrote, or one with such a tensor.
 *
 * @param channels C of the autoencoder that will decode them.
 * @throws {FileFormatError} If the file holds something else: what was found.
 */
export function readLatentFile(file: string, channels: number): LatentFile {
  using open = openTensorFile(file);
  const name = open.tensors.has("latents") ? "latents" : [...open.tensors.keys()][0];
  const tensor = name === undefined ? undefined : open.tensors.get(name)!;
  if (tensor?.shape.length !== 4 || tensor.shape[1] !== channels || tensor.shape.includes(0)) {
    throw new FileFormatError(
      file,
      `expected latents [frames, ${channels}, height, width], found ${
        tensor ? `${name} [${tensor.shape}]` : "no tensor"
      }`,
    );
  }
  const [, , height, width] = tensor.shape;
  return {
    latents: { values: toFloat32(open.read(name)).slice(), channels, height, width },
    fps: Number(open.metadata.fps) || undefined,
  };
}

/**
 * Decodes latents into a file with frames. Those of random weights are stamped in a video.
 *
 * @param models The autoencoder on its device; nothing of it is loaded yet.
 * @param file Latents, and frames per second of the video; 10 unless given.
 * @param to The file: a video, or `.npz` with `video` [F, H, W, 3].
 * @returns The number of frames.
 * @throws {ChoiceError} If `to` has another ending.
 * @throws {RangeError} If the work does not fit into memory.
 */
export async function decodeTo(
  models: OpenCodec,
  { latents, fps = FPS }: LatentFile,
  to: string,
  watch: Watch = unwatched(),
): Promise<number> {
  checkEnding(to, "frames");
  const { device, vae } = models, r = downsampling(vae.config), { channels, height, width, values } = latents;
  const size = { height: height * r, width: width * r }, count = values.length / (channels * height * width);
  await announce(models, "decode", count, size, watch);
  const exact = endingOf(to) === ".npz", stamped = !exact && vae.weights.path === null;
  const stream = async function* (): AsyncGenerator<Frames> {
    for await (const { frames } of decodeStream(device, vae, latents, watch)) {
      yield stamped ? stampFrames(frames, RANDOM_STAMP) : frames;
    }
  };
  if (!exact) await writeVideo(to, stream(), { fps });
  else {
    const parts: Frames[] = [makeFrames(0, size.height, size.width)];
    for await (const part of stream()) parts.push(part);
    await writeFrames(to, concatFrames(parts));
  }
  return count;
}
