/**
 * Max-pooling of images, for the networks that judge them.
 *
 * @module
 */
import wgsl from "./pool.wgsl" with { type: "text" };
import { windows } from "./conv2d.ts";
import { type Case, defineKernel, type HostBuffers, type Kernel, type Params } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";

/**
 * y = the largest x under a window of K times K, stride `stride`, `pad` on all sides, channels last. Padding never wins;
 * every window holds at least one pixel (pad at most K / 2).
 */
export const maxPool2d: Kernel = defineKernel({
  name: "maxPool2d",
  inputs: { x: "B H W C" },
  outputs: { y: "B OH OW C" },
  params: {
    ...{ B: "u32", H: "u32", W: "u32", C: "u32", OH: "u32", OW: "u32" },
    ...{ K: "u32", stride: "u32", pad: "u32" },
  },
  flags: [],
  flops: (p) => p.B * p.OH * p.OW * p.C * p.K * p.K,
  reference: (io, p) => eachWindow(io.x!, p, (y, winner) => io.y![y] = io.x![winner]),
  wgsl: {
    source: sections(wgsl, "window", "maxPool2d"),
    entry: "forward",
    groups: (p) => Math.ceil(p.B * p.OH * p.OW * p.C / 64),
    loops: (p) => p.K * p.K + p.K,
  },
  wasm: { tasks: (p) => p.B * p.OH },
  cases: poolCases(),
  gradient: {
    saves: ["x"],
    backward: (b) => {
      const { K, stride, pad } = b.params;
      b.give("x", b.launch(maxPool2dGrad, { x: b.saved("x"), dy: b.grad("y") }, { K, stride, pad }).dx);
    },
  },
});

/**
 * Gradient of {@linkcode maxPool2d}: dx[i] = Σ dy over the windows that x[i] wins. Of equal pixels the first in row order
 * wins, as in PyTorch.
 */
export const maxPool2dGrad: Kernel = defineKernel({
  name: "maxPool2dGrad",
  inputs: { x: "B H W C", dy: "B OH OW C" },
  outputs: { dx: "B H W C" },
  params: maxPool2d.params,
  flags: [],
  flops: (p) => 2 * p.B * p.OH * p.OW * p.C * p.K * p.K,
  reference: (io, p) => {
    io.dx!.fill(0);
    eachWindow(io.x!, p, (y, winner) => io.dx![winner] += io.dy![y]);
  },
  wgsl: {
    source: sections(wgsl, "window", "maxPool2dGrad"),
    entry: "backward",
    groups: (p) => Math.ceil(p.B * p.H * p.W * p.C / 64),
    loops: (p) => (Math.ceil(p.K / p.stride) * (p.K + 1)) ** 2 + p.K,
  },
  wasm: { tasks: (p) => p.B * Math.ceil(p.C / 16) },
  cases: poolCases(),
});

/** Calls `visit` with the offset of every window's output and of the pixel that wins it. */
function eachWindow(
  x: NonNullable<HostBuffers[string]>,
  p: Params,
  visit: (y: number, winner: number) => void,
): void {
  for (let i = 0; i < p.B * p.OH * p.OW * p.C; i++) {
    const c = i % p.C, ox = Math.floor(i / p.C) % p.OW, oy = Math.floor(i / (p.C * p.OW)) % p.OH;
    const b = Math.floor(i / (p.C * p.OW * p.OH));
    let winner = -1;
    for (let ky = 0; ky < p.K; ky++) {
      for (let kx = 0; kx < p.K; kx++) {
        const iy = oy * p.stride + ky - p.pad, ix = ox * p.stride + kx - p.pad;
        if (iy < 0 || iy >= p.H || ix < 0 || ix >= p.W) continue;
        const at = ((b * p.H + iy) * p.W + ix) * p.C + c;
        if (winner < 0 || x[at] > x[winner]) winner = at;
      }
    }
    visit(i, winner);
  }
}

function poolCases(): Case[] {
  // Pixels of few values, so that windows have ties.
  const x = (p: Params, random: () => number) =>
    Array.from({ length: p.B * p.H * p.W * p.C }, () => Math.floor(random() * 5) - 2.5);
  return [[2, 8, 6, 20, 2, 2, 0], [1, 9, 11, 5, 3, 2, 0], [1, 7, 7, 16, 3, 2, 1]].map(
    ([B, H, W, C, K, stride, pad]) => {
      const OH = windows(H, K, stride, pad), OW = windows(W, K, stride, pad);
      return { params: { B, H, W, C, OH, OW, K, stride, pad }, inputs: { x } };
    },
  );
}
