/**
 * `far.ts encode` and `far.ts decode`: one clip to latents and back, of any length, with bounded memory.
 *
 * @module
 */
import { downsampling } from "../lib/dcae/config.ts";
import { FileFormatError } from "../lib/io/errors.ts";
import { stampFrames } from "../lib/io/font.ts";
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { concatFrames, type Frames, makeFrames } from "../lib/io/frames.ts";
import { writeNpz } from "../lib/io/npz.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { isSame, isThere } from "../lib/io/paths.ts";
import { probeVideo, readFrames } from "../lib/io/video.ts";
import { VIDEO_ENDINGS, writeVideo } from "../lib/io/video_write.ts";
import { choice, integer, path, real, texts, UsageError, type Values, verb } from "./args.ts";
import { isWorld, readClip } from "../lib/pipeline/clip.ts";
import { clipFlags, clipOptions } from "./clip_flags.ts";
import { dcaeCost, refuseTooLarge } from "../lib/pipeline/cost.ts";
import { measureRates, secondsAt } from "../lib/pipeline/rates.ts";
import { encodeSet, setToEncode } from "./encode_set.ts";
import { availableMemory, deviceFlags, progressFlags, restartFlag } from "./flags.ts";
import { type Run, runAlone, runJob } from "./job.ts";
import { chooseDcae } from "../lib/pipeline/models.ts";
import { modelChoice, modelFlags } from "./model_flags.ts";
import { bytes, duration } from "../lib/units.ts";
import { batchesOf, decodeStream, encodeStream, framesPerBatch, latentSize } from "../lib/pipeline/codec.ts";

const vaeFlags = {
  vae: modelFlags.vae,
  "vae-weights": modelFlags["vae-weights"],
  "random-weights": modelFlags["random-weights"],
  dtype: modelFlags.dtype,
};
const { actions: _actions, ...frameFlags } = clipFlags;

const encodeFlags = {
  to: path(
    "file for the latents, .safetensors or .npz; a folder for those of a data set: new, empty or an earlier one",
    {
      default: "latents.safetensors",
      presentation: true,
    },
  ),
  ...restartFlag,
  part: choice(["train", "sample"], "data set of an option file", { default: "train" }),
  set: texts("replace an option of the file; may be given several times", { value: "PATH=VALUE" }),
  count: integer("at most so many frames (default: all)", { min: 1 }),
  ...frameFlags,
  ...vaeFlags,
  ...deviceFlags,
  ...progressFlags,
};

const decodeFlags = {
  to: path("video (.mp4, .mov, .webm, .gif) or .npz", { default: "clip.mp4" }),
  fps: real("frames per second (default: as the latents say, or 10)", { min: 0.1, max: 240 }),
  ...vaeFlags,
  ...deviceFlags,
  ...progressFlags,
};

/**
 * Refuses a file that must not be replaced: what is read itself, and, where the name is only the default, any that exists.
 *
 * @throws {UsageError} Which one, and what to give instead.
 */
function checkTarget(to: string, isGiven: boolean, source: string): void {
  if (isSame(to, source)) {
    throw new UsageError(`--to ${to}: is the file that is read, expected another`);
  }
  if (!isGiven && isThere(to)) {
    throw new UsageError(`${to}: exists already: name the file to write with --to`);
  }
}

/** Frames of a stream gathered into batches. */
async function* gather(frames: AsyncIterable<Frames>, most: number): AsyncGenerator<Frames> {
  let batch: Frames[] = [];
  for await (const frame of frames) {
    batch.push(frame);
    if (batch.length < Math.min(most, framesPerBatch(frame.height, frame.width))) continue;
    yield concatFrames(batch);
    batch = [];
  }
  if (batch.length > 0) yield concatFrames(batch);
}

/** Says what is about to happen, and refuses what does not fit. */
async function announce(
  at: Run,
  way: "encode" | "decode",
  vae: ReturnType<typeof chooseDcae>,
  frames: number | undefined,
  size: readonly [number, number],
  dtype: "f32" | "f16",
): Promise<void> {
  const cost = dcaeCost(vae.config, way, frames ?? framesPerBatch(...size), size, dtype);
  refuseTooLarge(at.device, { [way]: cost.memory }, availableMemory());
  const seconds = secondsAt(cost, await measureRates(at.device, [cost]));
  at.progress.say(
    frames === undefined
      ? `estimate: ${duration(seconds / framesPerBatch(...size))} per frame, ${
        bytes(cost.memory)
      } of device memory`
      : `estimate: ${duration(seconds)} for ${frames} frames, ${bytes(cost.memory)} of device memory`,
  );
  at.progress.event("estimate", {
    seconds: frames === undefined ? null : { [way]: seconds },
    memory: cost.memory,
  });
}

async function encodeClip(file: string, f: Values<typeof encodeFlags>): Promise<void> {
  if (!/\.(safetensors|npz)$/i.test(f.to)) {
    throw new UsageError(`--to: expected a name ending in .safetensors or .npz, found ${f.to}`);
  }
  const vae = chooseDcae(modelChoice(f)), side = f.size ?? vae.side;
  vae.weights.verify();
  await runAlone(f, "stopping", async (at) => {
    const device = await at.openDevice();
    let batches: Iterable<Frames> | AsyncIterable<Frames>, total: number | undefined, fps: number | undefined;
    let size: readonly [number, number] = [side, side];
    if (isWorld(file) || /\.(npz|npy|safetensors)$/i.test(file)) {
      const { frames } = await readClip(file, { ...clipOptions(f), frames: f.count, side });
      [batches, total, size] = [batchesOf(frames), frames.frames, [frames.height, frames.width]];
    } else {
      const select = f["from-fps"] === undefined ? { every: f.every } : { fps: f["from-fps"] };
      const read = {
        start: f.start,
        count: f.count,
        size: { height: side, width: side },
        fit: f.fit,
        ...select,
      };
      batches = gather(readFrames(file, read), framesPerBatch(side, side));
      if ((await Deno.stat(file)).isFile) {
        const info = await probeVideo(file);
        fps = f["from-fps"] ?? info.fps / f.every;
        const rest = info.frames === undefined ? undefined : Math.max(0, info.frames - f.start);
        const there = rest === undefined
          ? undefined
          : f["from-fps"] === undefined
          ? Math.ceil(rest / f.every)
          : Math.round(rest * f["from-fps"] / info.fps);
        total = there === undefined ? f.count : Math.min(there, f.count ?? Infinity);
      }
    }
    const { channels, height, width } = latentSize(vae.config, { height: size[0], width: size[1] });
    await announce(at, "encode", vae, total, size, f.dtype);
    const parts: Float32Array[] = [];
    let done = 0;
    for await (const { values } of encodeStream(device, vae, batches, total, at)) {
      parts.push(values);
      done += values.length / (channels * height * width);
    }
    const values = new Float32Array(done * channels * height * width);
    parts.reduce((from, part) => (values.set(part, from), from + part.length), 0);
    const tensors = { latents: fromFloat32(values, [done, channels, height, width]) };
    const random = vae.weights.path === null;
    const metadata = {
      autoencoder: vae.name,
      weights: vae.weights.path ?? "RANDOM WEIGHTS",
      scaling_factor: String(vae.config.scalingFactor),
      ...(fps === undefined ? {} : { fps: String(fps) }),
    };
    if (/\.npz$/i.test(f.to)) await writeNpz(f.to, tensors);
    else await writeSafetensors(f.to, tensors, metadata);
    at.progress.event("done", {
      path: f.to,
      shape: [done, channels, height, width],
      seconds: at.seconds,
      random_weights: random,
    });
    at.progress.say(
      `wrote ${f.to}: latents [${done}, ${channels}, ${height}, ${width}], times ${vae.config.scalingFactor}` +
        (random ? ", RANDOM WEIGHTS" : ""),
    );
  });
}

async function decodeClip(file: string, f: Values<typeof decodeFlags>): Promise<void> {
  const ending = /\.\w+$/.exec(f.to)?.[0].toLowerCase() ?? "";
  if (ending !== ".npz" && !VIDEO_ENDINGS.includes(ending)) {
    throw new UsageError(
      `--to: expected a name ending in ${VIDEO_ENDINGS.join(", ")} or .npz, found ${f.to}`,
    );
  }
  const vae = chooseDcae(modelChoice(f));
  const { latents, metadata } = readLatents(file, vae.config.latentChannels);
  vae.weights.verify();
  await runAlone(f, "stopping", async (at) => {
    const device = await at.openDevice();
    const r = downsampling(vae.config), each = latents.channels * latents.height * latents.width;
    const total = latents.values.length / each;
    await announce(at, "decode", vae, total, [latents.height * r, latents.width * r], f.dtype);
    const stamp = vae.weights.path === null ? "RANDOM WEIGHTS" : undefined;
    const stream = async function* (): AsyncGenerator<Frames> {
      for await (const { frames } of decodeStream(device, vae, latents, at)) {
        yield stamp === undefined || ending === ".npz" ? frames : stampFrames(frames, stamp);
      }
    };
    if (ending === ".npz") {
      const parts: Frames[] = [];
      for await (const part of stream()) parts.push(part);
      const { frames, height, width, data } = parts.length > 0
        ? concatFrames(parts)
        : makeFrames(0, latents.height * r, latents.width * r);
      await writeNpz(f.to, { video: { shape: [frames, height, width, 3], dtype: "U8", data } });
    } else await writeVideo(f.to, stream(), { fps: f.fps ?? (Number(metadata.fps) || 10) });
    at.progress.event("done", {
      path: f.to,
      frames: total,
      seconds: at.seconds,
      random_weights: stamp !== undefined,
    });
    at.progress.say(`wrote ${f.to}: ${total} frames${stamp ? `, ${stamp}` : ""}`);
  });
}

/** Latents `[F, C, H, W]`, multiplied by the scaling factor, out of a file. */
function readLatents(file: string, channels: number) {
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
    metadata: open.metadata,
  };
}

/** `far.ts encode`. */
export const encodeVerb = verb({
  name: "encode",
  summary: "Encode a clip into latents",
  about:
    "Writes the latents of a video, a folder of images or an npz as `latents` [frames, channels, height, width], multiplied by the " +
    "autoencoder's scaling factor, as the transformer takes them. Videos of any length are streamed.\n\n" +
    "Given the option file of a training run, encodes its whole data set into the folder --to, which LatentDataset reads " +
    "(docs/training.md). Interrupted, the same command resumes with the first clip that is missing.",
  operands: [{
    name: "CLIP",
    help: "npz, npy, video or folder of images, or world:N; or an option file (YAML)",
  }],
  flags: encodeFlags,
  examples: [
    {
      does: "a walk through the built-in world with the bundled autoencoder",
      line: "encode world:0 --count 16",
    },
    {
      does: "a video at 64x64",
      line: "encode holiday.mp4 --vae-weights dcae.pth --size 64 --to holiday.safetensors",
    },
  ],
  run: ({ flags, given, operands: [clip] }) => {
    if (!/\.ya?ml$/i.test(clip)) {
      checkTarget(flags.to, given.has("to"), clip);
      return encodeClip(clip, flags);
    }
    const f = flags as Values<typeof encodeFlags>;
    const { set, sources } = setToEncode({ file: clip, part: f.part, set: f.set });
    return runJob({
      verb: "encode",
      declared: encodeFlags,
      flags: f,
      operands: [clip],
      out: { path: f.to, flag: "--to" },
      sources,
      stopping: "stopping after this clip",
    }, (job) => encodeSet(job, chooseDcae(modelChoice(f)), set));
  },
});

/** `far.ts decode`. */
export const decodeVerb = verb({
  name: "decode",
  summary: "Decode latents into a video",
  operands: [{ name: "LATENTS", help: "safetensors or npz that encode wrote" }],
  flags: decodeFlags,
  examples: [{
    does: "back to a video",
    line: "decode holiday.safetensors --vae-weights dcae.pth --to holiday.mp4",
  }],
  run: ({ flags, given, operands: [latents] }) => {
    checkTarget(flags.to, given.has("to"), latents);
    return decodeClip(latents, flags);
  },
});
