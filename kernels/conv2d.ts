/**
 * Convolutions on channels-last images `[B, H, W, C]` with the authors' weights `[O, I, KH, KW]`.
 *
 * @module
 */
import wgsl from "./conv2d.wgsl" with { type: "text" };
import { activate } from "./activation.ts";
import activation from "./activation.wgsl" with { type: "text" };
import { productScratch, productTasks } from "./cpu/blocks.ts";
import type { Kernel, Params } from "./spec.ts";
import { gemmSide } from "./webgpu/gemm.ts";
import { sections } from "./webgpu/sections.ts";

/** Input channels that the WGSL takes for one tap, in fours: a tile's sixteen, fewer where there are fewer. */
const channelSteps = (p: Params) => Math.min(4, Math.ceil(p.I / 4));

/** Dense convolution: y = act(conv(x, w) + bias), zero padding `pad` on all sides, stride in both directions. */
export const conv2d: Kernel = {
  name: "conv2d",
  inputs: { x: "B H W I", w: "O I KH KW:f32|f16", bias: "O?" },
  outputs: { y: "B OH OW O" },
  params: {
    B: "u32",
    H: "u32",
    W: "u32",
    I: "u32",
    O: "u32",
    KH: "u32",
    KW: "u32",
    OH: "u32",
    OW: "u32",
    stride: "u32",
    pad: "u32",
  },
  flags: ["act", "hasBias", "half"],
  flops: (p) => 2 * p.B * p.OH * p.OW * p.O * p.I * p.KH * p.KW,
  reference: (io, p) => {
    for (let b = 0; b < p.B; b++) {
      for (let oy = 0; oy < p.OH; oy++) {
        for (let ox = 0; ox < p.OW; ox++) {
          for (let o = 0; o < p.O; o++) {
            let sum = p.hasBias ? io.bias![o] : 0;
            for (let ky = 0; ky < p.KH; ky++) {
              const iy = oy * p.stride + ky - p.pad;
              if (iy < 0 || iy >= p.H) continue;
              for (let kx = 0; kx < p.KW; kx++) {
                const ix = ox * p.stride + kx - p.pad;
                if (ix < 0 || ix >= p.W) continue;
                for (let i = 0; i < p.I; i++) {
                  sum += io.x![((b * p.H + iy) * p.W + ix) * p.I + i] *
                    io.w![((o * p.I + i) * p.KH + ky) * p.KW + kx];
                }
              }
            }
            io.y![((b * p.OH + oy) * p.OW + ox) * p.O + o] = activate(p.act, sum);
          }
        }
      }
    }
  },
  wgsl: gemmSide(
    activation + sections(wgsl, "dense"),
    (p) => ({
      rows: p.B * p.OH * p.OW,
      columns: p.O,
      depth: Math.ceil(p.I / (4 * channelSteps(p))) * p.KH * p.KW * channelSteps(p),
    }),
    (p) => ({ taps: p.KH * p.KW, tapsAcross: p.KW, steps: channelSteps(p) }),
  ),
  wasm: {
    fn: "conv2d",
    tasks: (p) => productTasks(p.B * p.OH * p.OW, p.O),
    scratch: (p) => 4 * p.I + 16 + productScratch(p.I, p.KH * p.KW), // a row of zeros first
    packed: (p) => ({ w: [p.O, p.I, p.KH * p.KW] }),
  },
};

/** Depthwise convolution, one filter a channel, stride 1, zero padding K/2: y = act(conv(x, w) + bias). */
export const depthwiseConv2d: Kernel = {
  name: "depthwiseConv2d",
  inputs: { x: "B H W C", w: "C 1 K K", bias: "C?" },
  outputs: { y: "B H W C" },
  params: { B: "u32", H: "u32", W: "u32", C: "u32", K: "u32" },
  flags: ["act", "hasBias"],
  flops: (p) => 2 * p.B * p.H * p.W * p.C * p.K * p.K,
  reference: (io, p) => {
    const pad = (p.K - 1) / 2;
    for (let b = 0; b < p.B; b++) {
      for (let y = 0; y < p.H; y++) {
        for (let x = 0; x < p.W; x++) {
          for (let c = 0; c < p.C; c++) {
            let sum = p.hasBias ? io.bias![c] : 0;
            for (let ky = 0; ky < p.K; ky++) {
              for (let kx = 0; kx < p.K; kx++) {
                const iy = y + ky - pad, ix = x + kx - pad;
                if (iy < 0 || iy >= p.H || ix < 0 || ix >= p.W) continue;
                sum += io.x![((b * p.H + iy) * p.W + ix) * p.C + c] * io.w![(c * p.K + ky) * p.K + kx];
              }
            }
            io.y![((b * p.H + y) * p.W + x) * p.C + c] = activate(p.act, sum);
          }
        }
      }
    }
  },
  wgsl: {
    source: activation + sections(wgsl, "depthwise"),
    entry: "forward",
    groups: (p) => Math.ceil(p.B * p.H * p.W * p.C / 64),
    loops: (p) => p.K * p.K + p.K,
  },
  wasm: {
    fn: "depthwiseConv2d",
    tasks: (p) => p.B * Math.ceil(p.C / 32),
    scratch: (p) => 128 * (p.K * p.K + 1),
  },
};
