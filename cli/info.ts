/**
 * `far.ts info`: what a model is made of and what it costs at a context length.
 *
 * @module
 */
import { openDryDevice } from "../kernels/dry.ts";
import { DCAE_MODELS, dcaeShapes, downsampling } from "../lib/dcae/config.ts";
import { KvCache } from "../lib/far/cache.ts";
import { countParameters, farShapes, widthOf } from "../lib/far/config.ts";
import { tokensPerFrame } from "../lib/far/layout.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { OwnedFolder } from "../lib/io/owned_folder.ts";
import { writePng } from "../lib/io/image.ts";
import type { Shape } from "../lib/tensor.ts";
import { choice, integer, path, real, toggle, type Values, verb } from "./args.ts";
import { toPixels, toSvg } from "../lib/report/drawing.ts";
import { framesPerBatch } from "../lib/pipeline/codec.ts";
import { dcaeCost, flopsOf, sampleCost } from "../lib/pipeline/cost.ts";
import { budgetDrawing, cacheDrawing, maskDrawing, tokensOf } from "../lib/report/model_drawings.ts";
import { resolveFar } from "../lib/pipeline/models.ts";
import { bytes } from "../lib/units.ts";

const flags = {
  ctx: integer("context frames", { default: 144, min: 0, max: 100_000 }),
  steps: integer("Euler steps per frame", { default: 50, min: 1, max: 1000 }),
  guidance: real("classifier-free guidance; above 1 doubles cache and arithmetic", { default: 1, min: -1 }),
  latent: integer("latent height and width", { default: 8, min: 1, max: 512 }),
  size: integer("frame height and width of an autoencoder, in pixels", { default: 64, min: 8, max: 4096 }),
  "action-classes": integer("actions that the model knows", { min: 1, max: 65536 }),
  window: integer("frames of the short-term window (FAR-Long)", { min: 1, max: 4096 }),
  dtype: choice(["f32", "f16"], "how weights are stored", { default: "f32" }),
  draw: path("folder for drawings of the mask, the token budget and the cache, each as SVG and PNG"),
  json: toggle("print everything as one JSON object"),
};
type InfoFlags = Values<typeof flags>;

/** Parts of a transformer by the names of their parameters. */
const PARTS: readonly (readonly [string, RegExp])[] = [
  ["attention", /\.attn\.(to_|norm_[qk])/],
  ["attention, long-term frames", /\.attn\.(add_|to_add|norm_added)/],
  ["feed-forward", /\.mlp\./],
  ["modulation", /norm(1|2|_out)\.linear/],
  ["embedders and output", /./],
];

const DCAE_PARTS: readonly (readonly [string, RegExp])[] = [["encoder", /^encoder\./], [
  "decoder",
  /^decoder\./,
]];

function byPart(shapes: Readonly<Record<string, Shape>>, parts: readonly (readonly [string, RegExp])[]) {
  const out: Record<string, number> = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const [part] = parts.find(([, pattern]) => pattern.test(name))!;
    out[part] = (out[part] ?? 0) + countParameters({ [name]: shape });
  }
  return out;
}

const million = (count: number) => `${(count / 1e6).toFixed(1)} M`;
const gflop = (flops: number) => `${(flops / 1e9).toFixed(flops < 1e10 ? 2 : 1)} GFLOP`;

async function infoFar(given: string, f: InfoFlags): Promise<Record<string, unknown>> {
  const more: Record<string, unknown> = {};
  if (f.window !== undefined) more.short_term_ctx_winsize = f.window;
  if (f["action-classes"] !== undefined) {
    more.condition_cfg = { type: "action", num_action_classes: f["action-classes"] };
  }
  const config = resolveFar(given, more), shapes = farShapes(config), frames = f.ctx + 1;
  const size = { height: f.latent, width: f.latent },
    { shortTerm, longTerm } = tokensPerFrame(config, f.latent, f.latent);
  const request = {
    clips: 1,
    ...size,
    context: f.ctx,
    predict: 1,
    steps: 2,
    guidance: f.guidance,
    cache: true,
  };
  const [cost] = await sampleCost(config, request, f.dtype);
  const dry = openDryDevice(), clips = f.guidance > 1 && config.condition !== null ? 2 : 1;
  new KvCache(dry, config, { clips, ...size, frames });
  const outside = config.long ? Math.max(0, frames - config.window) : 0,
    row = 2 * config.layers * widthOf(config) * 4 * clips;
  const dryUncached = await sampleCost(config, { ...request, cache: false, steps: 1 }, f.dtype);
  const result = {
    model: given,
    parameters: { total: countParameters(shapes), ...byPart(shapes, PARTS) },
    weights_bytes: { f32: 4 * countParameters(shapes), f16: 2 * countParameters(shapes) },
    tokens: {
      frame: shortTerm,
      distant_frame: longTerm,
      context_frames: f.ctx,
      total: tokensOf(config, frames, f.latent, f.latent),
      one_patch_size: frames * shortTerm,
    },
    flops: {
      first_step: flopsOf(cost.first),
      further_step: flopsOf(cost.further),
      frame: flopsOf(cost.first) + (f.steps - 1) * flopsOf(cost.further),
      frame_without_cache: f.steps * flopsOf(dryUncached[0].first),
      steps: f.steps,
    },
    cache_bytes: {
      total: dry.stats.liveBytes,
      l2: outside * longTerm * row,
      l1: (frames - outside) * shortTerm * row,
    },
    device_bytes: cost.further.memory,
    config,
  };
  if (f.draw !== undefined) {
    const subject = { name: given.replace(/^.*[/\\]/, ""), config, frames, ...size };
    const drawings = {
      mask: maskDrawing(subject),
      tokens: budgetDrawing(subject),
      cache: cacheDrawing(subject),
    };
    using folder = await OwnedFolder.claim(f.draw, { kind: "info", flag: "--draw" });
    const names = Object.keys(drawings).flatMap((name) => [`${name}.svg`, `${name}.png`]);
    await folder.begin(subject, { working: names, restart: true });
    for (const [name, drawing] of Object.entries(drawings)) {
      await writeAtomic(folder.part(`${name}.svg`), toSvg(drawing));
      await writePng(folder.part(`${name}.png`), toPixels(drawing));
    }
    await folder.place(names);
  }
  if (f.json) return result;
  const { total, ...parts } = result.parameters as Record<string, number>;
  console.log(
    `${given}: ${million(total)} parameters, ${config.layers} blocks of width ${
      widthOf(config)
    }, ${config.heads} heads`,
  );
  for (const [part, count] of Object.entries(parts)) {
    console.log(`  ${part.padEnd(28)}${million(count).padStart(9)}`);
  }
  console.log(`weights: ${bytes(4 * total)} as f32, ${bytes(2 * total)} as f16`);
  console.log(
    `tokens at ${f.ctx} context frames: ${result.tokens.total}` +
      (config.long
        ? ` (${
          frames - outside
        } short-term frames of ${shortTerm}, ${outside} long-term frames of ${longTerm}; ${
          frames * shortTerm
        } with one patch size)`
        : ` (${shortTerm} per frame)`),
  );
  console.log(
    `arithmetic: ${gflop(result.flops.first_step)} the first step of a frame, ${
      gflop(result.flops.further_step)
    } each further one`,
  );
  console.log(
    `  ${gflop(result.flops.frame)} per frame of ${f.steps} steps; ${
      gflop(result.flops.frame_without_cache)
    } without the cache`,
  );
  console.log(
    `cache: ${bytes(result.cache_bytes.total)} (L2 ${bytes(result.cache_bytes.l2)}, L1 ${
      bytes(result.cache_bytes.l1)
    })`,
  );
  console.log(`device memory while sampling: ${bytes(result.device_bytes)}, weights as ${f.dtype}`);
  if (f.draw !== undefined) console.log(`wrote mask, tokens and cache as .svg and .png into ${f.draw}`);
  return result;
}

function infoDcae(given: string, f: InfoFlags): Record<string, unknown> {
  const config = DCAE_MODELS[given], shapes = dcaeShapes(config), r = downsampling(config), side = f.size;
  if (side % r !== 0) throw new RangeError(`--size: expected a multiple of ${r}, found ${side}`);
  const batch = framesPerBatch(side, side);
  const cost = (way: "encode" | "decode") => dcaeCost(config, way, batch, [side, side], f.dtype);
  const encode = cost("encode"), decode = cost("decode");
  const result = {
    model: `DC-AE ${given}`,
    parameters: { total: countParameters(shapes), ...byPart(shapes, DCAE_PARTS) },
    latent: [config.latentChannels, side / r, side / r],
    flops_per_frame: { encode: flopsOf(encode) / batch, decode: flopsOf(decode) / batch },
    device_bytes: { encode: encode.memory, decode: decode.memory, batch },
  };
  if (f.json) return result;
  const { total, ...parts } = result.parameters as Record<string, number>;
  console.log(`DC-AE ${given}: ${million(total)} parameters`);
  for (const [part, count] of Object.entries(parts)) {
    console.log(`  ${part.padEnd(28)}${million(count).padStart(9)}`);
  }
  console.log(`latents of ${side}x${side} frames: ${result.latent.join(" x ")}`);
  console.log(
    `arithmetic per frame: encode ${gflop(result.flops_per_frame.encode)}, decode ${
      gflop(result.flops_per_frame.decode)
    }`,
  );
  console.log(
    `device memory, ${batch} frames at once: encode ${bytes(encode.memory)}, decode ${bytes(decode.memory)}`,
  );
  return result;
}

/** `far.ts info`. */
export const infoVerb = verb({
  name: "info",
  summary: "Show a model's parameters, tokens, arithmetic, memory and cache at a context length",
  operands: [{
    name: "MODEL",
    help: "FAR_B, FAR_M, FAR_L, FAR_XL, FAR_B_Long, FAR_M_Long, 8x, 16x, 32x, or a JSON file",
  }],
  flags,
  examples: [
    { does: "the long model with 144 frames of context", line: "info FAR_B_Long --ctx 144" },
    { does: "with drawings", line: "info FAR_B_Long --ctx 144 --draw out/info" },
    { does: "an autoencoder", line: "info 8x --size 64" },
  ],
  run: async ({ flags: f, operands: [model] }) => {
    const result = DCAE_MODELS[model] ? infoDcae(model, f) : await infoFar(model, f);
    if (f.json) console.log(JSON.stringify(result, null, 2));
  },
});
