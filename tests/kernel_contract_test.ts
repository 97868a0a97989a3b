/**
 * Contracts, what is generated from them, and launch plans.
 *
 * @module
 */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { KERNELS } from "../kernels/all.ts";
import { argumentsOf, wordsOf } from "../kernels/cpu/declare.ts";
import { conv2d } from "../kernels/conv2d.ts";
import { openDryDevice } from "../kernels/dry.ts";
import { stridedCopy } from "../kernels/copy.ts";
import { binary } from "../kernels/elementwise.ts";
import { linear } from "../kernels/linear.ts";
import { planOf } from "../kernels/plan.ts";
import { maxPool2d } from "../kernels/pool.ts";
import { show } from "../kernels/show.ts";
import {
  defineKernel,
  type Kernel,
  type Pass,
  type Shader,
  type Shaped,
  type Target,
} from "../kernels/spec.ts";
import { constantsOf, declarations } from "../kernels/webgpu/declare.ts";
import { type Program, stepsOf } from "../kernels/webgpu/programs.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { launch } from "../lib/launch.ts";
import { Tensor } from "../lib/tensor.ts";

const floats = (...shape: number[]): Shaped => ({ shape, dtype: "f32" });

const HARDWARE: Target = { software: false, sharedBytes: 16_384 };

Deno.test("a shader's declarations follow the contract: bindings in order, types and views, scalars, flags, constants", () => {
  const p = conv2d.cases[3].params, { steps } = stepsOf(conv2d, p, { ...HARDWARE, software: true });
  assertEquals(steps.map(({ binds }) => binds), [[1, "packed"], [0, "packed", 2, 3]]);
  const [pack, product] = steps.map(({ program }) => program), lines = declarations(product).split("\n");
  const bindings = (lines: string[]) =>
    lines.filter((l) => l.startsWith("@group")).map((l) => l.replace(/;.*/, ""));
  assertEquals(bindings(lines), [
    "@group(0) @binding(0) var<storage, read> x: array<vec4f>",
    "@group(0) @binding(1) var<storage, read> packed: array<vec4f>",
    "@group(0) @binding(2) var<storage, read> bias: array<f32>",
    "@group(0) @binding(3) var<storage, read_write> y: array<f32>",
    "@group(0) @binding(4) var<uniform> p: Params",
  ]);
  assertEquals(bindings(declarations(pack).split("\n")), [
    "@group(0) @binding(0) var<storage, read> w: array<u32>",
    "@group(0) @binding(1) var<storage, read_write> packed: array<vec4f>",
    "@group(0) @binding(2) var<uniform> p: Params",
  ]);
  const fields = lines.slice(lines.indexOf("struct Params {") + 1, lines.indexOf("}"));
  assertEquals(fields, Object.entries(conv2d.params).map(([name, type]) => `  ${name}: ${type},`));
  const overrides = lines.filter((l) => l.startsWith("override")).map((l) =>
    l.match(/override (\w+): u32;/)![1]
  );
  const sizes = { KH: 3, KW: 2, I: 5, stride: 2 }, constants = constantsOf(pack, { half: 1, ...sizes });
  const filter = { taps: 6, tapsAcross: 2, stride: 2, steps: 2, together: 1 };
  assertEquals(constants, { half: 1, ...filter, turned: 0 });
  assertEquals(overrides.toSorted(), ["act", "even", "exact", "hasBias", ...Object.keys(filter)].toSorted());
});

Deno.test("passes bind what they name, no more than WebGPU promises, and are the same objects at every launch", () => {
  const p = linear.cases[8].params, steps = () => stepsOf(linear, p, HARDWARE);
  assertEquals(steps().scratch, { sums: 4 * 8 * p.M * p.N });
  assertEquals(steps().steps.map(({ binds }) => binds), [[0, 1, "sums"], ["sums", 2, 3, 4, 5, 6]]);
  steps().steps.forEach(({ program }, i) => assertStrictEquals(program, steps().steps[i].program));
  const passes = (change: Partial<Pass>): Kernel => {
    const { scratch, passes: [partial] } = linear.wgsl.passes!(p, HARDWARE)!;
    return { ...linear, wgsl: { passes: () => ({ scratch, passes: [{ ...partial, ...change }] }) } };
  };
  const steps2 = (kernel: Kernel) => stepsOf(kernel, p, HARDWARE);
  assertThrows(() => steps2(passes({ reads: ["z"] })), Error, "linear: a pass binds z, expected a buffer");
  const nine = [...linear.buffers.map((b) => b.name), "x"];
  assertThrows(
    () => steps2(passes({ reads: nine })),
    Error,
    "linear: a pass has 9 buffers, expected at most 8",
  );
});

Deno.test("a kernel's arguments are read by name: a field per word, in the order in which the device writes them", () => {
  assertEquals(
    wordsOf(binary).map(({ name, type }) => `${name}: ${type}`),
    ["a: usize", "b: usize", "y: usize", "E: i32", "alpha: f32", "beta: f32", "op: i32"],
  );
  const fields = argumentsOf(binary).split("\n").slice(3, -2);
  assertEquals(fields, wordsOf(binary).map(({ name, type }) => `  readonly ${name}!: ${type};`));
});

Deno.test("no shader declares by hand what its contract says, and what is printed of a kernel is the whole shader", () => {
  for (const kernel of KERNELS) {
    const text = show(kernel, kernel.cases[0].params, false), source = text.slice(text.indexOf("// WGSL"));
    const programs = stepsOf(kernel, kernel.cases[0].params, HARDWARE).steps.map(({ program }) => program);
    const total = (of: (program: Program) => number) => programs.reduce((sum, each) => sum + of(each), 0);
    const found = (pattern: RegExp) => source.match(pattern)?.length ?? 0;
    assertEquals(found(/^struct Params\b/gm), programs.length, kernel.name);
    assertEquals(found(/^@group/gm), total(({ buffers }) => buffers.length + 1), kernel.name);
    const known = total(({ flags, wgsl }) => flags.length + Object.keys(wgsl.constants ?? {}).length);
    assertEquals(found(/^override /gm), known, kernel.name);
    assert(found(/@compute/g) >= programs.length, kernel.name);
  }
});

Deno.test("a contract that names two things alike, views nothing or has too many buffers is refused", () => {
  const twice = { ...maxPool2d, params: { ...maxPool2d.params, x: "u32" } } as const;
  assertThrows(() => defineKernel(twice), Error, "maxPool2d: x names two things");
  const many = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`x${i}`, "E"]));
  assertThrows(() => defineKernel({ ...maxPool2d, inputs: many }), Error, "expected at most 8");
  assertThrows(
    () => defineKernel({ ...maxPool2d, wgsl: {} }),
    Error,
    "maxPool2d: has neither a shader nor passes",
  );
  const views = (views: Record<string, string>): Program => ({
    ...stridedCopy,
    wgsl: { ...stridedCopy.wgsl as Shader, views },
  });
  assertThrows(() => declarations(views({ x: "u32", z: "u32" })), Error, "stridedCopy: wgsl.views has z");
  assertThrows(() => declarations(views({ x: "u32" })), Error, "stridedCopy: y may be f32 or i32");
});

Deno.test("the same launch has the same plan; another size, type, scalar or absence has another", () => {
  const x = floats(1, 6, 4, 3), windows = { OH: 3, OW: 2, K: 2, stride: 2, pad: 0 };
  const plan = planOf(maxPool2d, [x, undefined], windows);
  assertEquals(plan.shapes, [[1, 6, 4, 3], [1, 3, 2, 3]]);
  assertEquals(plan.params, { ...windows, B: 1, H: 6, W: 4, C: 3 });
  assertStrictEquals(planOf(maxPool2d, [floats(1, 6, 4, 3), undefined], { ...windows }), plan);
  assert(planOf(maxPool2d, [floats(2, 6, 4, 3), undefined], windows).params !== plan.params);
  assert(planOf(maxPool2d, [x, undefined], { ...windows, pad: 1 }).params.pad === 1);
  const halves: Shaped = { shape: [8, 8], dtype: "f16" },
    more = { M: 4, xRow: 0, yRow: 0, Y: 4, G: 0, act: 0 };
  const given = [floats(4, 8), floats(8, 8), null, null, null, null, undefined];
  const full = planOf(linear, given, more);
  assert(planOf(linear, given.with(1, halves), more) !== full);
  assert(planOf(linear, given.with(2, floats(8)), more) !== full);
  // Scalars that hardly differ (the hash of a plan does not see it), or in sign alone, and swapped ones.
  const E = floats(5),
    alphas = (alpha: number, beta: number) =>
      planOf(binary, [E, E, undefined], { op: 0, alpha, beta }).params;
  for (const [alpha, beta] of [[0.1, 0.2], [0.2, 0.1], [0, 1], [1e-6, 1], [-0, 1], [NaN, 1], [0.1, 0.2]]) {
    assertEquals([alphas(alpha, beta).alpha, alphas(alpha, beta).beta], [alpha, beta]);
  }
  // More than a kernel keeps.
  for (let i = 0; i < 2000; i++) assertEquals(alphas(i / 7, -i).alpha, i / 7);
});

Deno.test("plans that collide are told apart", () => {
  const found = new Set<unknown>();
  for (let n = 1; n < 60; n++) {
    for (let m = 1; m < 60; m++) {
      const { params, shapes } = planOf(stridedCopy, [floats(n), floats(m)], { xAt: m, yAt: n });
      assertEquals([params.X, params.Y, params.xAt, params.yAt, shapes], [n, m, m, n, [[n], [m]]]);
      found.add(params);
    }
  }
  assertEquals(found.size, 59 * 59);
});

Deno.test("a launch that breaks its contract says who, what, expected and found", () => {
  const windows = { OH: 3, OW: 2, K: 2, stride: 2, pad: 0 };
  assertThrows(
    () => planOf(maxPool2d, [floats(6, 4, 3), undefined], windows),
    RangeError,
    "maxPool2d: x has shape [6, 4, 3], expected [B, H, W, C]",
  );
  assertThrows(
    () => planOf(maxPool2d, [undefined, undefined], windows),
    RangeError,
    "maxPool2d: x is missing",
  );
  const whole: Shaped = { shape: [1, 6, 4, 3], dtype: "i32" };
  assertThrows(
    () => planOf(maxPool2d, [whole, undefined], windows),
    RangeError,
    "x has dtype i32, expected f32",
  );
  assertThrows(
    () => planOf(maxPool2d, [floats(1, 6, 4, 3), undefined], { K: 2 }),
    RangeError,
    "the size of y is not known",
  );
  assertThrows(
    () => planOf(maxPool2d, [floats(1, 6, 4, 3), floats(1, 3, 2, 4)], windows),
    RangeError,
    "maxPool2d: y has shape [1, 3, 2, 4], expected [B=1 (from x), OH=3, OW=2, C=3 (from x)]",
  );
});

Deno.test("a fused launch under a gradient is refused, and so is a kernel without a gradient", () => {
  const device = openDryDevice(), x = Tensor.empty(device, [4, 8]), w = Tensor.empty(device, [8, 8]);
  const flags = {
    M: 4,
    xRow: 0,
    yRow: 0,
    gateCol: 0,
    Y: 4,
    G: 0,
    hasBias: 0,
    hasGate: 0,
    hasResidual: 0,
    half: 0,
  };
  const layer = (act: number) =>
    valueAndGrad(({ w }) => launch(linear, { x, w }, { ...flags, act }).y)({ w });
  layer(0);
  assertThrows(() => layer(2), Error, "linear: has no gradient with");
  const silent = defineKernel({ ...linear, gradient: undefined });
  const without = valueAndGrad(({ w }) => launch(silent, { x, w }, { ...flags, act: 0 }).y);
  assertThrows(() => without({ w }), Error, "linear: has no gradient; give the kernel a gradient rule");
});
