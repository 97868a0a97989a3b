/**
 * The parts of a model and its cost at a context length, counted without computing anything.
 *
 * @module
 */
import { openDryDevice } from "../../kernels/dry.ts";
import { type DcaeConfig, dcaeShapes, downsampling } from "../dcae/config.ts";
import { KvCache } from "../far/cache.ts";
import { countParameters, type FarConfig, farShapes, widthOf } from "../far/config.ts";
import { tokensPerFrame } from "../far/layout.ts";
import { writeAtomic } from "../io/atomic.ts";
import { writePng } from "../io/image.ts";
import { OwnedFolder } from "../io/owned_folder.ts";
import { toPixels, toSvg } from "../report/drawing.ts";
import { budgetDrawing, cacheDrawing, maskDrawing, tokensOf } from "../report/model_drawings.ts";
import type { Shape } from "../tensor.ts";
import { bytes } from "../units.ts";
import { framesPerBatch } from "./codec.ts";
import { dcaeCost, flopsOf, sampleCost } from "./cost.ts";
import type { WeightType } from "./weights.ts";

/** Facts for programs and lines that say the same to people. */
export interface Facts {
  /** Numbers: parameters, tokens, FLOP, bytes. */
  readonly values: Readonly<Record<string, unknown>>;
  /** The same in words. */
  readonly lines: readonly string[];
}

/** How a transformer is used. */
export interface FarUse {
  /** Context frames. */
  readonly context: number;
  /** Euler steps per frame. */
  readonly steps: number;
  /** Classifier-free guidance. */
  readonly guidance: number;
  /** Rows and columns of the latents. */
  readonly latent: number;
  /** Storage of the weights. */
  readonly dtype: WeightType;
}

type Parts = readonly (readonly [string, RegExp])[];

/** Parts of a transformer by the names of their parameters. */
const FAR_PARTS: Parts = [
  ["attention", /\.attn\.(to_|norm_[qk])/],
  ["attention, long-term frames", /\.attn\.(add_|to_add|norm_added)/],
  ["feed-forward", /\.mlp\./],
  ["modulation", /norm(1|2|_out)\.linear/],
  ["embedders and output", /./],
];

const DCAE_PARTS: Parts = [["encoder", /^encoder\./], ["decoder", /^decoder\./]];

function byPart(shapes: Readonly<Record<string, Shape>>, parts: Parts): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const [part] = parts.find(([, pattern]) => pattern.test(name))!;
    out[part] = (out[part] ?? 0) + countParameters({ [name]: shape });
  }
  return out;
}

const million = (count: number) => `${(count / 1e6).toFixed(1)} M`;
const gflop = (flops: number) => `${(flops / 1e9).toFixed(flops < 1e10 ? 2 : 1)} GFLOP`;

const partLines = (parts: Readonly<Record<string, number>>) =>
  Object.entries(parts).map(([part, count]) => `  ${part.padEnd(28)}${million(count).padStart(9)}`);

/**
 * Counts the parts of a transformer, and the cost of the frame after its context.
 *
 * @param model Its name.
 * @param config What it is.
 * @param use How it is used.
 */
export async function farFacts(model: string, config: FarConfig, use: FarUse): Promise<Facts> {
  const { context, steps, guidance, latent, dtype } = use, frames = context + 1;
  const shapes = farShapes(config), total = countParameters(shapes), parts = byPart(shapes, FAR_PARTS);
  const size = { height: latent, width: latent };
  const { shortTerm, longTerm } = tokensPerFrame(config, latent, latent);
  const request = { clips: 1, ...size, context, predict: 1, steps: 2, guidance, cache: true };
  const [{ first, further }] = await sampleCost(config, request, dtype);
  const [{ first: alone }] = await sampleCost(config, { ...request, cache: false, steps: 1 }, dtype);
  const dry = openDryDevice(), clips = guidance > 1 && config.condition !== null ? 2 : 1;
  new KvCache(dry, config, { clips, ...size, frames });
  const outside = config.long ? Math.max(0, frames - config.window) : 0;
  const row = 2 * config.layers * widthOf(config) * 4 * clips;
  const tokens = {
    frame: shortTerm,
    distant_frame: longTerm,
    context_frames: context,
    total: tokensOf(config, frames, latent, latent),
    one_patch_size: frames * shortTerm,
  };
  const flops = {
    first_step: flopsOf(first),
    further_step: flopsOf(further),
    frame: flopsOf(first) + (steps - 1) * flopsOf(further),
    frame_without_cache: steps * flopsOf(alone),
    steps,
  };
  const cache = {
    total: dry.stats.liveBytes,
    l2: outside * longTerm * row,
    l1: (frames - outside) * shortTerm * row,
  };
  const kinds = config.long
    ? `${frames - outside} short-term frames of ${shortTerm}, ${outside} long-term frames of ${longTerm}; ` +
      `${tokens.one_patch_size} with one patch size`
    : `${shortTerm} per frame`;
  return {
    values: {
      model,
      parameters: { total, ...parts },
      weights_bytes: { f32: 4 * total, f16: 2 * total },
      tokens,
      flops,
      cache_bytes: cache,
      device_bytes: further.memory,
      config,
    },
    lines: [
      `${model}: ${million(total)} parameters, ${config.layers} blocks of width ${
        widthOf(config)
      }, ${config.heads} heads`,
      ...partLines(parts),
      `weights: ${bytes(4 * total)} as f32, ${bytes(2 * total)} as f16`,
      `tokens at ${context} context frames: ${tokens.total} (${kinds})`,
      `arithmetic: ${gflop(flops.first_step)} the first step of a frame, ${
        gflop(flops.further_step)
      } each further one`,
      `  ${gflop(flops.frame)} per frame of ${steps} steps; ${
        gflop(flops.frame_without_cache)
      } without the cache`,
      `cache: ${bytes(cache.total)} (L2 ${bytes(cache.l2)}, L1 ${bytes(cache.l1)})`,
      `device memory while sampling: ${bytes(further.memory)}, weights as ${dtype}`,
    ],
  };
}

/**
 * Counts the parts of an autoencoder, and the cost of a frame.
 *
 * @param model Its name.
 * @param config What it is.
 * @param side Rows and columns of the frames.
 * @param dtype Storage of the weights.
 * @throws {RangeError} If it cannot take frames of that size.
 */
export function dcaeFacts(model: string, config: DcaeConfig, side: number, dtype: WeightType): Facts {
  const shapes = dcaeShapes(config), r = downsampling(config), batch = framesPerBatch(side, side);
  if (side % r !== 0) throw new RangeError(`--size: expected a multiple of ${r}, found ${side}`);
  const total = countParameters(shapes), parts = byPart(shapes, DCAE_PARTS);
  const cost = (way: "encode" | "decode") => dcaeCost(config, way, batch, [side, side], dtype);
  const encode = cost("encode"),
    decode = cost("decode"),
    latent = [config.latentChannels, side / r, side / r];
  const flops = { encode: flopsOf(encode) / batch, decode: flopsOf(decode) / batch };
  return {
    values: {
      model: `DC-AE ${model}`,
      parameters: { total, ...parts },
      latent,
      flops_per_frame: flops,
      device_bytes: { encode: encode.memory, decode: decode.memory, batch },
    },
    lines: [
      `DC-AE ${model}: ${million(total)} parameters`,
      ...partLines(parts),
      `latents of ${side}x${side} frames: ${latent.join(" x ")}`,
      `arithmetic per frame: encode ${gflop(flops.encode)}, decode ${gflop(flops.decode)}`,
      `device memory, ${batch} frames at once: encode ${bytes(encode.memory)}, decode ${
        bytes(decode.memory)
      }`,
    ],
  };
}

/**
 * Draws a transformer's mask, token budget and cache, each as SVG and PNG.
 *
 * @param folder New, empty, or with earlier drawings, which are replaced.
 * @param name What stands in the drawings.
 * @param config The transformer.
 * @param use How it is used.
 * @throws {OwnershipError} If the folder holds something else.
 */
export async function drawFacts(folder: string, name: string, config: FarConfig, use: FarUse): Promise<void> {
  const subject = { name, config, frames: use.context + 1, height: use.latent, width: use.latent };
  const drawings = {
    mask: maskDrawing(subject),
    tokens: budgetDrawing(subject),
    cache: cacheDrawing(subject),
  };
  using owned = await OwnedFolder.claim(folder, { kind: "info", flag: "--draw" });
  const names = Object.keys(drawings).flatMap((name) => [`${name}.svg`, `${name}.png`]);
  await owned.begin(subject, { working: names, restart: true });
  for (const [name, drawing] of Object.entries(drawings)) {
    await writeAtomic(owned.part(`${name}.svg`), toSvg(drawing));
    await writePng(owned.part(`${name}.png`), toPixels(drawing));
  }
  await owned.place(names);
}
