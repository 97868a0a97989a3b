/**
 * DC-AE: frames to latents and back. Images are channels-last inside.
 *
 * @module
 */
import { checkpoint } from "../autograd.ts";
import {
  add,
  batchNorm,
  concat,
  conv2d,
  copyStrided,
  depthwiseConv2d,
  glu,
  groupedLinear,
  groupMean,
  linear,
  linearQkv,
  permute,
  reluAttention,
  rmsNorm,
  stridesOf,
} from "../ops.ts";
import { param, type Params } from "../params.ts";
import { recording } from "../tape.ts";
import { scope, Tensor } from "../tensor.ts";
import { type DcaeConfig, type DcaeStage, downsampling } from "./config.ts";
import { type Running, runningStatistics } from "./running.ts";

/** Sees the output of every module, `[B, H, W, C]`, by the authors' module name. */
export type Tap = (module: string, output: Tensor) => void;

/** Mode of {@linkcode encode} and {@linkcode decode}; evaluation by default. */
export interface DcaeOptions {
  /** Sees the output of every module. */
  readonly tap?: Tap;
  /**
   * Train mode: batch norm uses the statistics of this batch, and the running ones after it are put into this record. They
   * belong to the caller; the parameters stay as they are.
   */
  readonly updated?: Running;
  /** Under a gradient, compute each block again on the way back instead of keeping its activations. */
  readonly checkpoint?: boolean;
}

/** State shared by the parts of the network. */
interface Net extends DcaeOptions {
  readonly params: Params;
  readonly config: DcaeConfig;
}

const pixels = (x: Tensor): Tensor => x.reshape([x.size / x.shape[3], x.shape[3]]); // [B·H·W, C]

function conv(net: Net, name: string, x: Tensor, act: "none" | "silu" | "relu" = "none"): Tensor {
  return conv2d(x, param(net.params, `${name}.weight`), { bias: net.params[`${name}.bias`], act });
}

function normed(net: Net, name: string, x: Tensor, kind: DcaeStage["norm"], residual?: Tensor): Tensor {
  const p = (key: string) => param(net.params, `${name}.${key}`), flat = residual && pixels(residual);
  if (kind === "rms_norm") {
    return rmsNorm(pixels(x), p("weight"), { bias: p("bias"), residual: flat }).reshape(x.shape);
  }
  const statistics = net.updated
    ? runningStatistics(net.params, name, pixels(x), net.updated)
    : { mean: p("running_mean"), variance: p("running_var") };
  return batchNorm(pixels(x), { ...statistics, weight: p("weight"), bias: p("bias") }, { residual: flat })
    .reshape(x.shape);
}

/** `[B, H, W, C]` to `[B, H/2, W/2, 4C]`, channel c·4 + dy·2 + dx. */
export function pixelUnshuffle(x: Tensor): Tensor {
  const [B, H, W, C] = x.shape, y = Tensor.empty(x.device, [B, H / 2, W / 2, 4 * C]);
  const [b, r, c] = stridesOf(x.shape);
  const sizes = [B, H / 2, W / 2, C, 2, 2];
  copyStrided(x, y, { sizes, from: [b, 2 * r, 2 * c, 1, r, c], to: stridesOf(sizes) });
  return y;
}

/** `[B, H, W, 4C]` to `[B, 2H, 2W, C]`: the inverse of {@linkcode pixelUnshuffle}. */
export function pixelShuffle(x: Tensor): Tensor {
  const [B, H, W, C4] = x.shape, y = Tensor.empty(x.device, [B, 2 * H, 2 * W, C4 / 4]);
  const [b, r, c] = stridesOf(y.shape);
  const sizes = [B, H, W, C4 / 4, 2, 2];
  copyStrided(x, y, { sizes, from: stridesOf(sizes), to: [b, 2 * r, 2 * c, 1, r, c] });
  return y;
}

/** Each channel `times` times in a row: `[B, H, W, C]` to `[B, H, W, C·times]`. */
function repeatChannels(x: Tensor, times: number): Tensor {
  const [B, H, W, C] = x.shape, y = Tensor.empty(x.device, [B, H, W, C * times]);
  copyStrided(x, y, { sizes: [x.size, times], from: [1, 0], to: [times, 1] });
  return y;
}

/**
 * Whether one number of channels is a multiple of the other. Where it is not (the authors' code cannot build such a block), a
 * block has no shortcut: there are no groups of equal size to average, and no number of times to repeat.
 */
const divides = (most: number, least: number) => most % least === 0;

/** conv to a quarter of the channels, unshuffle; the shortcut averages groups of the unshuffled input. */
function downBlock(net: Net, name: string, x: Tensor, shortcut: boolean): Tensor {
  const y = pixelUnshuffle(conv(net, `${name}.conv`, x));
  if (!shortcut || !divides(4 * x.shape[3], y.shape[3])) return y;
  return groupMean(pixels(pixelUnshuffle(x)), y.shape[3], pixels(y)).reshape(y.shape);
}

/** conv to four times the channels, shuffle; the shortcut repeats input channels and shuffles them. */
function upBlock(net: Net, name: string, x: Tensor, shortcut: boolean): Tensor {
  const wide = conv(net, `${name}.conv`, x), [channels, given] = [wide.shape[3], x.shape[3]];
  const repeated = shortcut && divides(channels, given);
  return pixelShuffle(repeated ? add(wide, repeatChannels(x, channels / given)) : wide);
}

function resBlock(net: Net, name: string, x: Tensor, stage: DcaeStage): Tensor {
  const hidden = conv(net, `${name}.conv1`, x, stage.act);
  return normed(net, `${name}.norm`, conv(net, `${name}.conv2`, hidden), stage.norm, x);
}

/** Multi-scale ReLU linear attention with residual. */
function attentionBlock(net: Net, name: string, x: Tensor, stage: DcaeStage): Tensor {
  const { params, config: { headDim } } = net, [B, H, W] = x.shape;
  const [q, k, v] = ["to_q", "to_k", "to_v"].map((to) => param(params, `${name}.${to}.weight`));
  const inner = q.shape[0];
  const qkv = linearQkv(pixels(x), [q, k, v], null); // [B·H·W, 3·inner] = [all q | all k | all v]
  const branches = stage.multiscales.map((_, i) => {
    const branch = `${name}.to_qkv_multiscale.${i}`;
    const near = depthwiseConv2d(
      qkv.reshape([B, H, W, 3 * inner]),
      param(params, `${branch}.proj_in.weight`),
    );
    const w = param(params, `${branch}.proj_out.weight`);
    return groupedLinear(pixels(near), w.reshape([w.shape[0], headDim])); // [B·H·W, 3·inner]
  });
  const all = branches.length ? concat([qkv, ...branches], 1) : qkv;
  const attended = reluAttention(all.reshape([B, H * W, all.shape[1]]), headDim); // [B, H·W, inner·scales]
  const flat = attended.reshape([B * H * W, attended.shape[2]]);
  const out = linear(flat, param(params, `${name}.to_out.weight`)).reshape(x.shape);
  return normed(net, `${name}.norm_out`, out, stage.norm, x);
}

/** GLUMBConv: 1x1 to 8C with SiLU, depthwise 3x3, a·silu(gate), 1x1 back to C, RMS norm, residual. */
function gluBlock(net: Net, name: string, x: Tensor): Tensor {
  const { params } = net, [B, H, W, C] = x.shape, p = (key: string) => param(params, `${name}.${key}`);
  const inverted = p("conv_inverted.weight"), point = p("conv_point.weight");
  const bias = p("conv_inverted.bias");
  const wide = linear(pixels(x), inverted.reshape([8 * C, C]), { bias, act: "silu" }); // [B·H·W, 8C]
  const depth = depthwiseConv2d(wide.reshape([B, H, W, 8 * C]), p("conv_depth.weight"), {
    bias: p("conv_depth.bias"),
  });
  const gated = glu(pixels(depth)); // [B·H·W, 4C]
  const out = linear(gated, point.reshape([C, 4 * C])).reshape(x.shape);
  return normed(net, `${name}.norm`, out, "rms_norm", x);
}

function block(net: Net, name: string, x: Tensor, stage: DcaeStage): Tensor {
  if (stage.block === "ResBlock") return resBlock(net, name, x, stage);
  const attended = attentionBlock(net, `${name}.attn`, x, stage);
  net.tap?.(`${name}.attn`, attended);
  return gluBlock(net, `${name}.conv_out`, attended);
}

/** One block, whose input is not needed afterwards. */
function step(net: Net, input: Tensor, body: () => Tensor): Tensor {
  if (net.checkpoint && recording()) return checkpoint(body, input);
  const y = scope(body);
  input.dispose();
  return y;
}

/** Runs one module in a scope and shows its output to the tap. */
function module(net: Net, name: string, body: () => Tensor): Tensor {
  const y = scope(body);
  net.tap?.(name, y);
  return y;
}

/**
 * Frames to latents.
 *
 * @param images `[B, 3, H, W]` in [-1, 1].
 * @returns `[B, C, H/r, W/r]`, r the downsampling factor; not multiplied by the scaling factor.
 * @throws {RangeError} If H or W is not a multiple of the downsampling factor.
 */
export function encode(
  params: Params,
  config: DcaeConfig,
  images: Tensor,
  options: DcaeOptions = {},
): Tensor {
  const net: Net = { params, config, ...options },
    { encoder } = config,
    [, C, H, W] = images.shape,
    r = downsampling(config);
  if (images.shape.length !== 4 || C !== config.inChannels || H % r !== 0 || W % r !== 0) {
    throw new RangeError(
      `encode: images have shape [${images.shape}], expected [B, ${config.inChannels}, H, W], H and W multiples of ${r}`,
    );
  }
  return scope(() => {
    let x = permute(images, [0, 2, 3, 1]); // [B, H, W, 3]
    const blocks = (): void => {
      encoder.forEach((stage, i) => {
        const name = `encoder.down_blocks.${i}`;
        for (let j = 0; j < stage.layers; j++) {
          const input = x;
          x = step(net, input, () => block(net, `${name}.${j}`, input, stage));
        }
        if (i < encoder.length - 1 && stage.layers > 0) {
          const input = x;
          x = step(net, input, () => downBlock(net, `${name}.${stage.layers}`, input, true));
        }
        net.tap?.(name, x);
      });
    };
    x = module(
      net,
      "encoder.conv_in",
      () =>
        encoder[0].layers > 0 ? conv(net, "encoder.conv_in", x) : downBlock(net, "encoder.conv_in", x, false),
    );
    blocks();
    const latents = module(net, "encoder.conv_out", () => conv(net, "encoder.conv_out", x));
    const z = groupMean(pixels(x), config.latentChannels, pixels(latents)).reshape(latents.shape);
    return permute(z, [0, 3, 1, 2]); // [B, C, H/r, W/r]
  });
}

/**
 * Latents to frames.
 *
 * @param latents `[B, C, h, w]`, divided by the scaling factor.
 * @returns `[B, 3, h·r, w·r]`, about [-1, 1], not clamped.
 */
export function decode(
  params: Params,
  config: DcaeConfig,
  latents: Tensor,
  options: DcaeOptions = {},
): Tensor {
  return scope(() => decoderHead(params, config, decoderFeatures(params, config, latents, options)));
}

/**
 * The decoder up to its last convolution.
 *
 * @param latents `[B, C, h, w]`, divided by the scaling factor.
 * @returns Features `[B, H, W, channels]` for {@linkcode decoderHead}; H and W of the finest stage that has blocks.
 */
export function decoderFeatures(
  params: Params,
  config: DcaeConfig,
  latents: Tensor,
  options: DcaeOptions = {},
): Tensor {
  const net: Net = { params, config, ...options }, { decoder } = config;
  if (latents.shape.length !== 4 || latents.shape[1] !== config.latentChannels) {
    throw new RangeError(
      `decode: latents have shape [${latents.shape}], expected [B, ${config.latentChannels}, h, w]`,
    );
  }
  return scope(() => {
    const z = permute(latents, [0, 2, 3, 1]), top = decoder.length - 1; // [B, h, w, C]
    const wide = module(net, "decoder.conv_in", () => conv(net, "decoder.conv_in", z));
    let x = add(wide, repeatChannels(z, decoder[top].channels / config.latentChannels)); // [B, h, w, channels]
    for (let i = top; i >= 0; i--) {
      const stage = decoder[i], name = `decoder.up_blocks.${i}`, up = i < top && stage.layers > 0 ? 1 : 0;
      if (up) {
        const input = x;
        x = step(net, input, () => upBlock(net, `${name}.0`, input, true));
      }
      for (let j = 0; j < stage.layers; j++) {
        const input = x;
        x = step(net, input, () => block(net, `${name}.${j + up}`, input, stage));
      }
      net.tap?.(name, x);
    }
    const p = (key: string) => param(params, `decoder.norm_out.${key}`);
    net.tap?.("decoder.norm_out", rmsNorm(pixels(x), p("weight"), { bias: p("bias") }).reshape(x.shape));
    return rmsNorm(pixels(x), p("weight"), { bias: p("bias"), act: "relu" }).reshape(x.shape);
  });
}

/** The decoder's last convolution: features of {@linkcode decoderFeatures} to frames `[B, 3, h·r, w·r]`. */
export function decoderHead(params: Params, config: DcaeConfig, features: Tensor): Tensor {
  const net: Net = { params, config };
  return scope(() => {
    const rgb = config.decoder[0].layers > 0
      ? conv(net, "decoder.conv_out", features)
      : upBlock(net, "decoder.conv_out", features, false);
    return permute(rgb, [0, 3, 1, 2]); // [B, 3, H, W]
  });
}

/** Names of the weights of {@linkcode decoderHead}: the layer at which the adversarial loss is weighed. */
export const headNames = (config: DcaeConfig): { readonly weight: string; readonly bias: string } => {
  const name = config.decoder[0].layers > 0 ? "decoder.conv_out" : "decoder.conv_out.conv";
  return { weight: `${name}.weight`, bias: `${name}.bias` };
};
