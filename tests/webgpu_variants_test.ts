import { assert, assertEquals } from "@std/assert";
import { attention, attentionGradKey, attentionGradQuery } from "../kernels/attention.ts";
import { reluAttention, reluAttentionGrad } from "../kernels/relu_attention.ts";
import { conv2d, conv2dGradInput, conv2dGradWeight } from "../kernels/conv2d.ts";
import { linear, linearGradInput, linearGradWeight, linearQkv } from "../kernels/linear.ts";
import type { Kernel, Params, Target } from "../kernels/spec.ts";
import { entryOf } from "../kernels/webgpu/declare.ts";
import { stepsOf } from "../kernels/webgpu/programs.ts";
import { checkKernel } from "./helpers.ts";
import { CASES } from "../kernels/cases.ts";

import { webgpuTest as test } from "./webgpu_helpers.ts";

/** What WebGPU promises of every adapter. */
const LEAST: Target = { software: false, sharedBytes: 16_384 };

/** Bytes of the workgroup variables of a shader whose array sizes are sums and products of its constants. */
function sharedBytes(wgsl: string): number {
  const constants: Record<string, number> = {};
  const value = (text: string): number =>
    new Function(...Object.keys(constants), `return ${text.replace(/\b(\d+)u\b/g, "$1")}`)(
      ...Object.values(constants),
    );
  for (const [, name, text] of wgsl.matchAll(/^const (\w+) = ([^;]+u?);/gm)) {
    constants[name] = Math.floor(value(text));
  }
  const sizes: Record<string, number> = { f32: 4, u32: 4, "atomic<u32>": 4, vec2u: 8, vec4f: 16 };
  const bytes = (type: string): number => {
    const array = /^array<(.+), ([^,>]+)>$/.exec(type);
    return array ? bytes(array[1]) * value(array[2]) : sizes[type];
  };
  return [...wgsl.matchAll(/^var<workgroup> \w+: ([^;]+);/gm)].reduce(
    (sum, [, type]) => sum + bytes(type),
    0,
  );
}

/** Kernels that choose a shader by the adapter. */
const VARIED = [
  ...[linear, linearQkv, linearGradInput, linearGradWeight],
  ...[conv2d, conv2dGradInput, conv2dGradWeight, attention, reluAttention, reluAttentionGrad],
];

for (const variant of ["hardware", "software"] as const) {
  test(`the ${variant} variants agree with the reference`, async (device) => {
    for (const c of CASES.filter((c) => VARIED.includes(c.kernel))) {
      await checkKernel(device, c);
    }
  }, { variant });
}

Deno.test("attention and its gradients fit into the least shared memory that WebGPU promises", () => {
  const least: Target = { software: false, sharedBytes: 16_384 };
  for (const kernel of [attention, attentionGradQuery, attentionGradKey]) {
    const { source } = kernel.wgsl;
    if (typeof source !== "function") throw new Error(`${kernel.name} has one text for all sizes`);
    for (const hd of [4, 8, 32, 64, 68, 128, 1024]) {
      const bytes = sharedBytes(source({ hd }, least));
      assert(bytes > 0 && bytes <= least.sharedBytes, `${kernel.name} hd ${hd}: ${bytes} bytes`);
    }
  }
});

test("gradients of attention agree with the reference with their loops written out", async (device) => {
  for (const kernel of [attentionGradQuery, attentionGradKey]) {
    const test = kernel.cases.find((c) => c.params.hd === 64 && c.params.hasSlope === 1)!;
    await checkKernel(device, { kernel, ...test });
  }
}, { variant: "hardware" });

/** The entry points of a launch. */
const entries = (kernel: Kernel, p: Params) =>
  stepsOf(kernel, p, LEAST).steps.map(({ program }) => entryOf(program, p, LEAST));

test("large products take the large tile and agree with the reference", async (device) => {
  // 17 x 16 tiles of 128 x 64, edges on both sides, K a few stages and a rest.
  const sizes = { M: 2091, N: 1021, K: 37, X: 2091, Y: 2091, G: 0, xRow: 0, yRow: 0, gateCol: 0 };
  const flags = { act: 0, hasBias: 1, hasGate: 0, hasResidual: 0, half: 0 };
  const check = async (kernel: Kernel, params: Params, absent: string[] = []) => {
    assertEquals(entries(kernel, params).at(-1), "large", kernel.name);
    await checkKernel(device, { kernel, params, absent });
  };
  const absent = ["modulation", "rows", "residual"];
  await check(linear, { ...sizes, ...flags }, absent);
  await check(linear, { ...sizes, ...flags, half: 1, K: 32 }, absent);
  const back = { ...sizes, Z: 1021, zCol: 0, accumulate: 0, half: 0, hasBias: 1 };
  await check(linearGradInput, { ...back, N: 37, K: 1021, Z: 37 });
  await check(linearGradWeight, { ...back, M: 37, N: 2021, Z: 2021, K: 1091, X: 37, Y: 37 });
  const image = { B: 2, H: 66, W: 67, I: 9, O: 200, KH: 3, KW: 3, OH: 66, OW: 67, stride: 1, pad: 1 };
  await check(conv2d, { ...image, act: 1, hasBias: 1, half: 0 });
  await check(conv2dGradInput, { ...image, I: 200, O: 9, accumulate: 0, half: 0 });
  const wide = { ...image, B: 1, H: 5, W: 6, I: 120, O: 2090, OH: 5, OW: 6, hasBias: 1 };
  await check(conv2dGradWeight, wide);
}, { variant: "hardware" });

test("sums that several workgroups share are split evenly, and agree with the reference", async (device) => {
  const sizes = { G: 0, xRow: 0, yRow: 0, gateCol: 0, zCol: 0 };
  const check = async (kernel: Kernel, params: Params, absent: string[] = []) => {
    assertEquals(entries(kernel, params).slice(-2), ["small", "combine"], kernel.name);
    await checkKernel(device, { kernel, params: { ...sizes, ...params }, absent });
  };
  const p = { M: 33, N: 40, K: 660, X: 33, Y: 33, half: 0, hasBias: 1, accumulate: 1 }; // 11 stages, 5 parts, edges
  assertEquals(stepsOf(linear, p, LEAST).scratch, { sums: 4 * 4 * 33 * 40 });
  await check(linear, { ...p, act: 2, hasGate: 0, hasResidual: 1 }, ["modulation", "rows"]);
  await check(linearQkv, { ...p, N3: 120 });
  await check(linearGradInput, { ...p, N: 660, K: 40, Z: 660 });
  await check(linearGradWeight, { ...p, M: 660, K: 40, Z: 40, X: 660, Y: 660 });
  const image = { B: 1, H: 5, W: 6, I: 64, O: 40, KH: 3, KW: 3, OH: 5, OW: 6, stride: 1, pad: 1 };
  await check(conv2d, { ...image, act: 1, hasBias: 1, half: 0 });
  await check(conv2dGradInput, { ...image, I: 40, O: 64, accumulate: 1, half: 0 });
  await check(conv2dGradWeight, { ...image, B: 8, I: 4, hasBias: 1 });
}, { variant: "hardware" });
