/**
 * Convolutions on channels-last images `[B, H, W, C]` with the authors' weights `[O, I, KH, KW]`.
 *
 * @module
 */
import wgsl from "./conv2d.wgsl" with { type: "text" };
import { activate, activations } from "./activation.ts";
import { gatherScratch, gatherTasks } from "./cpu/blocks.ts";
import {
  isWinograd,
  winogradGradScratch,
  winogradGradShared,
  winogradGradTasks,
  winogradScratch,
  winogradShared,
  winogradTasks,
} from "./cpu/winograd.ts";
import { type Case, defineKernel, type Kernel, type Params } from "./spec.ts";
import { type Gemm, gemmSide } from "./webgpu/gemm.ts";
import { sections } from "./webgpu/sections.ts";

/** Channels that the WGSL takes for one tap, in fours: those of a tile's stage, 16 or 64; fewer where there are fewer. */
const channelSteps = (channels: number) => channels % 64 === 0 ? 16 : Math.min(4, Math.ceil(channels / 4));

/** Steps of four k of a WGSL product over channels and taps. */
const channelDepth = (p: Params, channels: number) => {
  const steps = channelSteps(channels);
  return Math.ceil(channels / (4 * steps)) * p.KH * p.KW * steps;
};

/** Taps of a filter, taps in a row of it, and the stride, as constants of the shader. */
const TAPS = {
  taps: (p: Params) => p.KH * p.KW,
  tapsAcross: (p: Params) => p.KW,
  stride: (p: Params) => p.stride,
};

/**
 * The product over channels and taps that both a convolution and the gradient of its input are on WebGPU: an image and packed
 * weights, `rows` of them.
 */
function channelProduct(
  name: "dense" | "gradInput",
  image: string,
  pixels: (p: Params) => number,
  rows: (p: Params) => number,
  channels: (p: Params) => number,
  result: Gemm["result"],
) {
  const depth = (p: Params) => channelDepth(p, channels(p));
  const constants = { ...TAPS, steps: (p: Params) => channelSteps(channels(p)) };
  const values = (p: Params) => 4 * rows(p) * depth(p);
  return gemmSide({
    sizes: (p) => ({ rows: pixels(p), columns: rows(p), depth: depth(p) }),
    text: sections(wgsl, "blocks", `${name}Sizes`),
    operands: {
      text: sections(wgsl, "quads", "packed", name),
      reads: [image, "packed"],
      flags: [],
      views: { [image]: "vec4f", packed: "vec4f" },
      constants: {
        ...constants,
        together: (p, stage) => channelSteps(channels(p)) % stage === 0 ? 1 : 0,
        even: (p) => channels(p) % (4 * channelSteps(channels(p))) === 0 ? 1 : 0,
      },
    },
    result: { ...result, constants: { ...constants, together: () => 1 } },
    pack: {
      values,
      pass: {
        source: sections(wgsl, "blocks", "pack"),
        entry: "pack",
        views: { w: "u32", packed: "vec4f" },
        constants: { ...constants, together: () => 1, turned: () => name === "dense" ? 0 : 1 },
        groups: (p) => Math.ceil(values(p) / 256),
        loops: () => 0,
        reads: ["w"],
        writes: ["packed"],
        flags: ["half"],
      },
    },
  });
}

/** The product that a convolution is on the cpu, unless it is computed by Winograd's algorithm. */
const gathered = (p: Params) => ({ length: p.I, taps: p.KH * p.KW, N: p.O });

/** Number of windows of `K` pixels over `length` pixels. */
export function windows(length: number, K: number, stride: number, pad: number): number {
  return Math.floor((length + 2 * pad - K) / stride) + 1;
}

/** Dense convolution: y = act(conv(x, w) + bias), zero padding `pad` on all sides, stride in both directions. */
export const conv2d: Kernel = defineKernel({
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
  wgsl: channelProduct("dense", "x", (p) => p.B * p.OH * p.OW, (p) => p.O, (p) => p.I, {
    text: activations("exp", "silu", "activate") + sections(wgsl, "denseStore"),
    reads: ["bias"],
    writes: ["y"],
    flags: ["act", "hasBias"],
  }),
  wasm: {
    tasks: (p, blas) =>
      isWinograd(p, p.I, p.O)
        ? winogradTasks(p, p.I, p.O, blas)
        : gatherTasks(p.B * p.OH * p.OW, gathered(p), blas),
    shared: (p) => isWinograd(p, p.I, p.O) ? winogradShared(p.I, p.O) : 0,
    scratch: (p, blas) =>
      isWinograd(p, p.I, p.O) ? winogradScratch(p.I, blas) : gatherScratch(gathered(p), blas),
    packed: (p) => ({ w: [p.O, p.I, p.KH * p.KW] }),
  },
  cases: convCases(),
  tolerance: { bound: 1e-5, why: "f32 sums over I*KH*KW up to 4608" },
  gradient: {
    saves: ["x", "w"],
    when: (p) => !p.act,
    backward: (b) => {
      const { stride, pad, hasBias, half } = b.params, dz = b.grad("y");
      if (b.wants("x")) {
        const fresh = b.fresh("x"), accumulate = fresh ? 0 : 1;
        const dx = fresh ?? b.sum("x");
        b.launch(conv2dGradInput, { dz, w: b.saved("w") }, { stride, pad, accumulate, half }, { dx });
      }
      if (b.wants("w")) { // a layer whose weight is fixed has a fixed bias
        const sums = { dw: b.sum("w"), db: hasBias ? b.sum("bias") : null };
        b.launch(conv2dGradWeight, { dz, x: b.saved("x") }, { stride, pad, hasBias }, sums);
      }
    },
  },
});

/** Scratch of a depthwise task of some channels on the cpu: a filter and a bias, K padded rows and one more. */
const depthwiseScratch = (p: Params, channels: number) =>
  4 * channels * (p.K * p.K + 1 + p.K * (p.W + p.K - 1) + p.W);

/** Depthwise convolution, one filter a channel, stride 1, zero padding K/2: y = act(conv(x, w) + bias). */
export const depthwiseConv2d: Kernel = defineKernel({
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
    source: activations("exp", "silu", "activate") + sections(wgsl, "depthwise"),
    entry: "forward",
    groups: (p) => Math.ceil(p.B * p.H * p.W * p.C / 64),
    loops: (p) => p.K * p.K + p.K,
  },
  wasm: {
    tasks: (p) => p.B * Math.ceil(p.C / 32),
    scratch: (p) => depthwiseScratch(p, 32),
  },
  cases: [depthwiseCase(2, 5, 6, 24, 3, 0, 1), depthwiseCase(1, 8, 8, 30, 5, 1, 0)],
  gradient: {
    saves: ["x", "w"],
    when: (p) => !p.act,
    backward: (b) => {
      const { hasBias, K } = b.params, dz = b.grad("y");
      if (b.wants("x")) b.give("x", b.launch(depthwiseConv2dGradInput, { dz, w: b.saved("w") }, {}).dx);
      if (b.wants("w")) {
        const sums = { dw: b.sum("w"), db: hasBias ? b.sum("bias") : null };
        b.launch(depthwiseConv2dGradWeight, { dz, x: b.saved("x") }, { hasBias, K }, sums);
      }
    },
  },
});

/** Calls `visit` for every product of a dense convolution: offsets in z, x and w. */
function eachProduct(p: Params, visit: (z: number, x: number, w: number) => void): void {
  for (let b = 0; b < p.B; b++) {
    for (let oy = 0; oy < p.OH; oy++) {
      for (let ox = 0; ox < p.OW; ox++) {
        for (let ky = 0; ky < p.KH; ky++) {
          const iy = oy * p.stride + ky - p.pad;
          if (iy < 0 || iy >= p.H) continue;
          for (let kx = 0; kx < p.KW; kx++) {
            const ix = ox * p.stride + kx - p.pad;
            if (ix < 0 || ix >= p.W) continue;
            const z = ((b * p.OH + oy) * p.OW + ox) * p.O, x = ((b * p.H + iy) * p.W + ix) * p.I;
            for (let o = 0; o < p.O; o++) {
              for (let i = 0; i < p.I; i++) {
                visit(z + o, x + i, ((o * p.I + i) * p.KH + ky) * p.KW + kx);
              }
            }
          }
        }
      }
    }
  }
}

/** Blocks of 192 input pixels on the cpu: pixels of one block agree in row and column modulo the stride. */
function inputBlocks(p: Params): number {
  let blocks = 0;
  for (let y = 0; y < Math.min(p.stride, p.H); y++) {
    for (let x = 0; x < Math.min(p.stride, p.W); x++) {
      blocks += Math.ceil(p.B * Math.ceil((p.H - y) / p.stride) * Math.ceil((p.W - x) / p.stride) / 192);
    }
  }
  return blocks;
}

/**
 * Gradient of a dense convolution's input: dx (+)= the transposed convolution of dz, the gradient before the activation.
 * With `accumulate` it adds to what is there.
 */
export const conv2dGradInput: Kernel = defineKernel({
  name: "conv2dGradInput",
  inputs: { dz: "B OH OW O", w: "O I KH KW:f32|f16" },
  outputs: { dx: "B H W I" },
  params: conv2d.params,
  flags: ["accumulate", "half"],
  flops: (p) => 2 * p.B * p.OH * p.OW * p.O * p.I * p.KH * p.KW,
  reference: (io, p) => {
    if (!p.accumulate) io.dx!.fill(0);
    eachProduct(p, (z, x, w) => io.dx![x] += io.dz![z] * io.w![w]);
  },
  wgsl: channelProduct("gradInput", "dz", (p) => p.B * p.H * p.W, (p) => p.I, (p) => p.O, {
    text: sections(wgsl, "gradInputStore"),
    reads: [],
    writes: ["dx"],
    flags: ["accumulate"],
  }),
  wasm: {
    tasks: (p, blas) =>
      isWinograd(p, p.O, p.I) ? winogradTasks(p, p.O, p.I, blas) : inputBlocks(p) * Math.ceil(p.I / 48),
    shared: (p) => isWinograd(p, p.O, p.I) ? winogradShared(p.O, p.I) : 0,
    // A row of zeros, addresses of rows of dz and dx, one register tile, one panel.
    scratch: (p, blas) =>
      isWinograd(p, p.O, p.I)
        ? winogradScratch(p.O, blas)
        : 4 * p.O + 16 + 4 * 192 * (p.KH * p.KW + 1) + 512 + 64 * p.O * p.KH * p.KW,
  },
  cases: convGradCases(false),
  tolerance: { bound: 1e-5, why: "f32 sums over O*KH*KW up to 2340" },
});

/** Gradients of a dense convolution's weight and bias, accumulated: dw += dz * x, db += sums of dz over the pixels. */
export const conv2dGradWeight: Kernel = defineKernel({
  name: "conv2dGradWeight",
  inputs: { dz: "B OH OW O", x: "B H W I" },
  outputs: { dw: "O I KH KW", db: "O?" },
  params: conv2d.params,
  flags: ["hasBias"],
  flops: (p) => 2 * p.B * p.OH * p.OW * p.O * p.I * p.KH * p.KW,
  reference: (io, p) => {
    eachProduct(p, (z, x, w) => io.dw![w] += io.dz![z] * io.x![x]);
    if (p.hasBias) io.dz!.forEach((v, i) => io.db![i % p.O] += v);
  },
  wgsl: gemmSide({
    sizes: (p) => ({
      rows: p.O,
      columns: p.I * p.KH * p.KW + p.hasBias,
      depth: Math.ceil(p.B * p.OH * p.OW / 4),
    }),
    text: sections(wgsl, "gradWeightSizes"),
    operands: {
      text: sections(wgsl, "gradWeight"),
      reads: ["dz", "x"],
      flags: ["hasBias"],
      constants: { ...TAPS, whole: (p) => p.B * p.OH * p.OW % 4 === 0 ? 1 : 0 },
      byRow: { left: true, right: true },
    },
    result: {
      text: sections(wgsl, "gradWeightStore"),
      reads: [],
      writes: ["dw", "db"],
      flags: ["hasBias"],
      constants: TAPS,
    },
  }),
  wasm: {
    tasks: (p) =>
      isWinograd(p, p.I, p.O)
        ? winogradGradTasks(p)
        : Math.ceil(p.O / 192) * Math.ceil(p.I * p.KH * p.KW / 192),
    shared: (p) => isWinograd(p, p.I, p.O) ? winogradGradShared(p) : 0,
    // Addresses, one register tile, one panel, the transposed block of dz, places of a panel's columns.
    scratch: (p) =>
      isWinograd(p, p.I, p.O) ? winogradGradScratch(p) : 4 * 192 + 512 + 64 * 512 + 4 * 192 * 528 + 64,
  },
  cases: convGradCases(true),
});

/** Calls `visit` for every product of a depthwise convolution: offsets in z, x and w, and the channel. */
function eachDepthwise(p: Params, visit: (z: number, x: number, w: number, c: number) => void): void {
  const pad = (p.K - 1) / 2;
  for (let i = 0; i < p.B * p.H * p.W * p.C; i++) {
    const c = i % p.C, x = Math.floor(i / p.C) % p.W, y = Math.floor(i / (p.C * p.W)) % p.H;
    for (let ky = 0; ky < p.K; ky++) {
      for (let kx = 0; kx < p.K; kx++) {
        const iy = y + ky - pad, ix = x + kx - pad;
        if (iy < 0 || iy >= p.H || ix < 0 || ix >= p.W) continue;
        visit(i, i + ((iy - y) * p.W + ix - x) * p.C, (c * p.K + ky) * p.K + kx, c);
      }
    }
  }
}

/** Gradient of a depthwise convolution's input; dz is the gradient before the activation. */
export const depthwiseConv2dGradInput: Kernel = defineKernel({
  name: "depthwiseConv2dGradInput",
  inputs: { dz: "B H W C", w: "C 1 K K" },
  outputs: { dx: "B H W C" },
  params: depthwiseConv2d.params,
  flags: [],
  flops: (p) => 2 * p.B * p.H * p.W * p.C * p.K * p.K,
  reference: (io, p) => {
    io.dx!.fill(0);
    eachDepthwise(p, (z, x, w) => io.dx![x] += io.dz![z] * io.w![w]);
  },
  wgsl: {
    source: sections(wgsl, "depthwiseGradInput"),
    entry: "backward",
    groups: (p) => Math.ceil(p.B * p.H * p.W * p.C / 64),
    loops: (p) => p.K * p.K + p.K,
  },
  wasm: {
    tasks: (p) => p.B * Math.ceil(p.C / 32),
    scratch: (p) => depthwiseScratch(p, 32),
  },
  cases: depthwiseGradCases(false),
});

/** Gradients of a depthwise convolution's weight and bias, accumulated. */
export const depthwiseConv2dGradWeight: Kernel = defineKernel({
  name: "depthwiseConv2dGradWeight",
  inputs: { dz: "B H W C", x: "B H W C" },
  outputs: { dw: "C 1 K K", db: "C?" },
  params: depthwiseConv2d.params,
  flags: ["hasBias"],
  flops: (p) => 2 * p.B * p.H * p.W * p.C * p.K * p.K,
  reference: (io, p) => {
    eachDepthwise(p, (z, x, w) => io.dw![w] += io.dz![z] * io.x![x]);
    if (p.hasBias) io.dz!.forEach((v, i) => io.db![i % p.C] += v);
  },
  wgsl: {
    source: sections(wgsl, "depthwiseGradWeight"),
    entry: "backward",
    groups: (p) => Math.ceil(p.C * (p.K * p.K + p.hasBias) / 64),
    loops: (p) => p.B * p.H * (p.W + 1),
  },
  wasm: {
    tasks: (p) => Math.ceil(p.C / 16),
    scratch: (p) => depthwiseScratch(p, 16),
  },
  cases: depthwiseGradCases(true),
});

type ImageSizes = readonly [B: number, H: number, W: number, I: number, O: number];

function convCase([B, H, W, I, O]: ImageSizes, K: number, more: Record<string, number> = {}): Case {
  const { stride, pad, ...flags }: Record<string, number> = {
    ...{ stride: 1, pad: (K - 1) / 2, act: 0, hasBias: 1, half: 0 },
    ...more,
  };
  const OH = windows(H, K, stride, pad), OW = windows(W, K, stride, pad);
  const params = { B, H, W, I, O, KH: K, KW: K, OH, OW, stride, pad, ...flags };
  return { params, absent: flags.hasBias ? [] : ["bias"] };
}

function convCases(): Case[] {
  return [
    convCase([1, 1, 1, 1, 1], 1),
    convCase([2, 5, 7, 3, 10], 3, { act: 1 }),
    convCase([1, 8, 8, 32, 48], 3, { hasBias: 0 }),
    convCase([1, 9, 8, 20, 70], 3, { act: 3 }),
    convCase([2, 9, 11, 6, 5], 4, { stride: 2, pad: 1 }),
    convCase([1, 23, 23, 3, 9], 11, { stride: 4, pad: 2, act: 3 }),
    convCase([1, 6, 6, 12, 16], 5),
    convCase([1, 8, 8, 16, 24], 3, { half: 1 }),
    convCase([1, 6, 6, 256, 40], 3),
    convCase([1, 3, 3, 1023, 9], 3), // long: a loop in a loader would pass what a software adapter runs
    convCase([1, 4, 4, 512, 40], 3), // 4608 products: VGG16 and the widest stages
    convCase([1, 7, 9, 300, 20], 4, { stride: 2, pad: 1 }), // more taps than a BLAS takes at a time
    convCase([2, 34, 30, 8, 200], 4, { stride: 2, pad: 1, act: 1 }), // more rows and columns than one of its tasks has
    convCase([2, 9, 11, 20, 28], 3, { act: 1 }), // tiles that reach over the edge
    convCase([3, 26, 31, 16, 12], 3), // more tiles than one task has
    convCase([1, 8, 10, 260, 204], 3, { hasBias: 0 }), // more columns than one task computes at a time
  ];
}

function convGradCases(weight: boolean): Case[] {
  const of = ([B, H, W, I, O]: ImageSizes, KH: number, more: Record<string, number> = {}): Case => {
    const { KW, stride, pad, ...flags }: Record<string, number> = {
      ...{ KW: KH, stride: 1, pad: (KH - 1) / 2, accumulate: 0, hasBias: 1, half: 0 },
      ...more,
    };
    const OH = windows(H, KH, stride, pad), OW = windows(W, KW, stride, pad);
    const params = { B, H, W, I, O, KH, KW, OH, OW, stride, pad, ...flags };
    return { params, absent: weight && !flags.hasBias ? ["db"] : [] };
  };
  return [
    of([1, 1, 1, 1, 1], 1),
    of([2, 5, 7, 3, 10], 3, { accumulate: 1 }),
    of([1, 8, 8, 32, 48], 3, { hasBias: 0 }),
    of([1, 9, 8, 20, 100], 3),
    of([2, 9, 11, 6, 5], 4, { stride: 2, pad: 1 }),
    of([1, 8, 8, 5, 16], 4, { stride: 2, pad: 1, accumulate: 1 }),
    of([1, 23, 23, 3, 9], 11, { stride: 4, pad: 2 }),
    of([1, 6, 7, 12, 16], 5),
    of([1, 5, 6, 7, 9], 2, { KW: 3, pad: 0 }),
    of([3, 16, 16, 4, 8], 3), // 768 pixels: more than one block of a long sum
    of([1, 15, 14, 60, 24], 3), // more pixels and channels than one task of dx has
    of([1, 4, 5, 24, 200], 3), // more rows and columns than one task of dw has
    of([1, 1, 1, 1, 1], 1, { half: 1 }),
    of([2, 5, 7, 3, 10], 3, { half: 1, accumulate: 1 }),
    of([1, 8, 8, 5, 16], 4, { half: 1, stride: 2, pad: 1 }),
    of([1, 15, 14, 60, 24], 3, { half: 1 }),
    of([3, 26, 31, 16, 20], 3, { accumulate: 1 }), // more tiles than one task has
    of([1, 8, 10, 204, 260], 3), // more columns than one task computes at a time
  ];
}

function depthwiseCase(
  ...[B, H, W, C, K, act, hasBias]: [number, number, number, number, number, number, number]
): Case {
  return { params: { B, H, W, C, K, act, hasBias }, absent: hasBias ? [] : ["bias"] };
}

function depthwiseGradCases(weight: boolean): Case[] {
  const sizes = [
    [2, 5, 6, 24, 3, 1],
    [1, 8, 8, 38, 5, 0],
    [2, 2, 1, 3, 5, 1], // taps that no pixel of the image meets
  ];
  return sizes.map(([B, H, W, C, K, hasBias]) => ({
    params: { B, H, W, C, K, hasBias },
    absent: weight && !hasBias ? ["db"] : [],
  }));
}
