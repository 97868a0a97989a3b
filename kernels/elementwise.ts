/**
 * Elementwise kernels: activations, sums, Euler and guidance updates, gated linear units, embedding rows.
 *
 * @module
 */
import wgsl from "./elementwise.wgsl" with { type: "text" };
import { activate, activateGrad, activations } from "./activation.ts";
import { copyParams, stridedCopy } from "./copy.ts";
import { activationInputs, indices } from "./inputs.ts";
import { rowSum } from "./reduce.ts";
import { type Case, defineKernel, type Kernel } from "./spec.ts";
import { sections } from "./webgpu/sections.ts";

const source = (part: string) => sections(wgsl, part, "main");
const tasks = (p: Readonly<Record<string, number>>) => Math.ceil(p.E / 16384);
const groups = (p: Readonly<Record<string, number>>) => Math.ceil(p.E / 64);

/** y = act(x), E elements. */
export const unary: Kernel = defineKernel({
  name: "unary",
  inputs: { x: "E" },
  outputs: { y: "E" },
  params: { E: "u32" },
  flags: ["act"],
  flops: (p) => 4 * p.E,
  reference: (io, p) => {
    for (let i = 0; i < p.E; i++) io.y![i] = activate(p.act, io.x![i]);
  },
  wgsl: {
    source: activations("exp", "silu", "activate") + source("unary"),
    entry: "forward",
    groups,
    loops: () => 1,
  },
  wasm: { tasks },
  cases: activationCases([0, 1, 2, 3, 4]),
  gradient: {
    saves: ["x"],
    backward: (b) =>
      b.give("x", b.launch(unaryGrad, { x: b.saved("x"), dy: b.grad("y") }, { act: b.params.act }).dx),
  },
});

/** Codes of the `op` flag of {@linkcode binary}. */
export const BINARY = { axpby: 0, lerp: 1, mul: 2 } as const;

/**
 * y from a and b, E elements: `axpby` alpha·a + beta·b (sums, differences, the Euler step x + Δσ·v), `lerp`
 * a + alpha·(b - a) (classifier-free guidance), `mul` alpha·a·b.
 */
export const binary: Kernel = defineKernel({
  name: "binary",
  inputs: { a: "E", b: "E" },
  outputs: { y: "E" },
  params: { E: "u32", alpha: "f32", beta: "f32" },
  flags: ["op"],
  flops: (p) => 3 * p.E,
  reference: (io, p) => {
    for (let i = 0; i < p.E; i++) {
      const a = io.a![i], b = io.b![i];
      io.y![i] = p.op === BINARY.axpby
        ? p.alpha * a + p.beta * b
        : p.op === BINARY.lerp
        ? a + p.alpha * (b - a)
        : p.alpha * a * b;
    }
  },
  wgsl: { source: source("binary"), entry: "forward", groups, loops: () => 1 },
  wasm: { tasks },
  cases: [0, 1, 2].map((op) => ({ params: { E: 517, op, alpha: 1.5, beta: -0.75 } })),
  gradient: {
    saves: ["a", "b"],
    backward: (b) => {
      const { op, alpha, beta } = b.params, dy = b.grad("y");
      if (op === BINARY.axpby) {
        b.add("a", dy, alpha);
        b.add("b", dy, beta);
      } else if (op === BINARY.lerp) {
        b.add("a", dy, 1 - alpha);
        b.add("b", dy, alpha);
      } else {
        const times = (other: string) =>
          b.launch(binary, { a: dy, b: b.saved(other) }, { op: BINARY.mul, alpha, beta: 0 }).y;
        if (b.wants("a")) b.give("a", times("b"));
        if (b.wants("b")) b.give("b", times("a"));
      }
    },
  },
});

/** Gated linear unit: y = a * silu(g), where `x` holds a in its first C columns and g in the next C. */
export const glu: Kernel = defineKernel({
  name: "glu",
  inputs: { x: "P C2" },
  outputs: { y: "P C" },
  params: { P: "u32", C: "u32" },
  flags: [],
  flops: (p) => 5 * p.P * p.C,
  reference: (io, p) => {
    for (let r = 0; r < p.P; r++) {
      for (let c = 0; c < p.C; c++) {
        io.y![r * p.C + c] = io.x![r * 2 * p.C + c] * activate(1, io.x![r * 2 * p.C + p.C + c]);
      }
    }
  },
  wgsl: {
    source: activations("exp", "silu") + source("glu"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P * p.C / 64),
    loops: () => 1,
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: [{ params: { P: 19, C: 24, C2: 48 } }, { params: { P: 2, C: 5, C2: 10 } }],
  gradient: {
    saves: ["x"],
    backward: (b) => b.give("x", b.launch(gluGrad, { x: b.saved("x"), dy: b.grad("y") }, {}).dx),
  },
});

/** y[r] = (x[r] or 0) + table[index[r]]: embedding rows, optionally added to another table's rows. */
export const embed: Kernel = defineKernel({
  name: "embed",
  inputs: { table: "N D", index: "R:i32", x: "R D?" },
  outputs: { y: "R D" },
  params: { R: "u32", D: "u32" },
  flags: ["hasX"],
  flops: (p) => p.R * p.D,
  reference: (io, p) => {
    for (let r = 0; r < p.R; r++) {
      for (let d = 0; d < p.D; d++) {
        io.y![r * p.D + d] = io.table![io.index![r] * p.D + d] + (p.hasX ? io.x![r * p.D + d] : 0);
      }
    }
  },
  wgsl: {
    source: source("embed"),
    entry: "forward",
    groups: (p) => Math.ceil(p.R * p.D / 64),
    loops: () => 1,
  },
  wasm: { tasks: (p) => Math.ceil(p.R / 16) },
  cases: [
    { params: { R: 9, N: 5, D: 40, hasX: 0 }, absent: ["x"], inputs: { index: indices("R", "N") } },
    { params: { R: 17, N: 4, D: 33, hasX: 1 }, inputs: { index: indices("R", "N") } },
  ],
  gradient: {
    saves: ["index"],
    backward: (b) => {
      const { R, hasX } = b.params, dy = b.grad("y");
      if (hasX) b.add("x", dy);
      if (!b.wants("table")) return;
      const params = { row: 0, M: R, col: 0, hasB: 0 };
      b.launch(rowSum, { a: dy, rows: b.saved("index") }, params, { y: b.sum("table") });
    },
  },
});

/** y[p, o] = mean over j of x[p, o·r + j], plus residual: the channel-averaging shortcut of DC-AE. r = C / O. */
export const groupMean: Kernel = defineKernel({
  name: "groupMean",
  inputs: { x: "P C", residual: "P O?" },
  outputs: { y: "P O" },
  params: { P: "u32", C: "u32", O: "u32" },
  flags: ["hasResidual"],
  flops: (p) => p.P * p.C,
  reference: (io, p) => {
    const r = p.C / p.O;
    for (let i = 0; i < p.P * p.O; i++) {
      let sum = 0;
      for (let j = 0; j < r; j++) sum += io.x![i * r + j];
      io.y![i] = sum / r + (p.hasResidual ? io.residual![i] : 0);
    }
  },
  wgsl: {
    source: source("groupMean"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P * p.O / 64),
    loops: (p) => p.C / p.O,
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: [
    { params: { P: 21, C: 32, O: 8, hasResidual: 1 } },
    { params: { P: 5, C: 12, O: 12, hasResidual: 0 }, absent: ["residual"] },
  ],
  gradient: {
    saves: [],
    backward: (b) => {
      const dy = b.grad("y");
      if (b.wants("x")) b.give("x", b.launch(groupMeanGrad, { dy }, { C: b.params.C }).dx);
      if (b.params.hasResidual) b.add("residual", dy);
    },
  },
});

/**
 * y[t] = residual[t] + modulation[rows[t], gateCol …] * x[t] on the rows `row … row+M-1`; other rows stay as they are.
 * The last block of FAR-Long has no output projection for long-term frames: their attention goes through this alone.
 */
export const gateAdd: Kernel = defineKernel({
  name: "gateAdd",
  inputs: { x: "T D", modulation: "R G", rows: "T:i32", residual: "T D" },
  outputs: { y: "T D" },
  params: { M: "u32", row: "u32", D: "u32", G: "u32", gateCol: "u32" },
  flags: [],
  flops: (p) => 2 * p.M * p.D,
  reference: (io, p) => {
    for (let t = p.row; t < p.row + p.M; t++) {
      for (let d = 0; d < p.D; d++) {
        const i = t * p.D + d;
        io.y![i] = io.residual![i] + io.modulation![io.rows![t] * p.G + p.gateCol + d] * io.x![i];
      }
    }
  },
  wgsl: {
    source: source("gateAdd"),
    entry: "forward",
    groups: (p) => Math.ceil(p.M * p.D / 64),
    loops: () => 1,
  },
  wasm: { tasks: (p) => Math.ceil(p.M / 16) },
  cases: gateCases(),
  gradient: {
    saves: ["x", "modulation", "rows"],
    backward: (b) => {
      const { row, M, T, D, gateCol } = b.params, dy = b.grad("y"), rows = b.saved("rows");
      let own = dy; // its other rows belong to other launches
      if (M !== T) {
        own = b.zeros(dy.shape);
        const part = copyParams({ sizes: [M * D], from: [1], to: [1], fromAt: row * D, toAt: row * D });
        b.launch(stridedCopy, { x: b.flat(dy) }, part, { y: b.flat(own) });
      }
      b.add("residual", own);
      if (b.wants("x")) {
        const dx = M === T ? b.empty(dy.shape) : b.zeros(dy.shape);
        const inputs = { x: dy, modulation: b.saved("modulation"), rows };
        b.launch(gateMul, inputs, { row, M, gateCol }, { y: dx });
        b.give("x", dx);
      }
      if (b.wants("modulation")) {
        const y = b.sum("modulation");
        b.launch(rowSum, { a: dy, b: b.saved("x"), rows }, { row, M, col: gateCol, hasB: 1 }, { y });
      }
    },
  },
});

/** dx = dy * act'(x), E elements. */
export const unaryGrad: Kernel = defineKernel({
  name: "unaryGrad",
  inputs: { x: "E", dy: "E" },
  outputs: { dx: "E" },
  params: { E: "u32" },
  flags: ["act"],
  flops: (p) => 8 * p.E,
  reference: (io, p) => {
    for (let i = 0; i < p.E; i++) io.dx![i] = io.dy![i] * activateGrad(p.act, io.x![i]);
  },
  wgsl: {
    source: activations("exp", "silu", "activateGrad") + source("unaryGrad"),
    entry: "forward",
    groups,
    loops: () => 1,
  },
  wasm: { tasks },
  cases: [...activationCases([1, 2, 3, 4]), { params: { E: 40001, act: 2 } }],
});

/** y[t] = modulation[rows[t], gateCol …] * x[t] on the rows `row … row+M-1`: the gradient of a gated branch. */
export const gateMul: Kernel = defineKernel({
  name: "gateMul",
  inputs: { x: "T D", modulation: "R G", rows: "T:i32" },
  outputs: { y: "T D" },
  params: { M: "u32", row: "u32", D: "u32", G: "u32", gateCol: "u32" },
  flags: [],
  flops: (p) => p.M * p.D,
  reference: (io, p) => {
    for (let i = p.row * p.D; i < (p.row + p.M) * p.D; i++) {
      const t = Math.floor(i / p.D);
      io.y![i] = io.modulation![io.rows![t] * p.G + p.gateCol + i % p.D] * io.x![i];
    }
  },
  wgsl: {
    source: source("gateMul"),
    entry: "forward",
    groups: (p) => Math.ceil(p.M * p.D / 64),
    loops: () => 1,
  },
  wasm: { tasks: (p) => Math.ceil(p.M / 16) },
  cases: gateCases(),
});

/** In place: y = beta * y + alpha * x, E elements. Sums gradients (1, 1), moves an EMA (decay, 1 - decay), scales. */
export const accumulate: Kernel = defineKernel({
  name: "accumulate",
  inputs: { x: "E" },
  outputs: { y: "E" },
  params: { E: "u32", alpha: "f32", beta: "f32" },
  flags: [],
  flops: (p) => 3 * p.E,
  reference: (io, p) => {
    for (let i = 0; i < p.E; i++) io.y![i] = p.beta * io.y![i] + p.alpha * io.x![i];
  },
  wgsl: { source: source("accumulate"), entry: "forward", groups, loops: () => 1 },
  wasm: { tasks },
  cases: [[1003, 0.25, 0.75], [5, 1, 1], [40001, 1, 0.5]].map(([E, alpha, beta]) => ({
    params: { E, alpha, beta },
  })),
});

/** y = value, E elements. */
export const fill: Kernel = defineKernel({
  name: "fill",
  inputs: {},
  outputs: { y: "E" },
  params: { E: "u32", value: "f32" },
  flags: [],
  flops: () => 0,
  reference: (io, p) => {
    for (let i = 0; i < p.E; i++) io.y![i] = p.value;
  },
  wgsl: { source: source("fill"), entry: "forward", groups, loops: () => 1 },
  wasm: { tasks },
  cases: [[1003, -0.5], [1, 0], [40001, 2]].map(([E, value]) => ({ params: { E, value } })),
});

/** Gradient of {@linkcode glu}: da = dy * silu(g), dg = dy * a * silu'(g), side by side as in x. */
export const gluGrad: Kernel = defineKernel({
  name: "gluGrad",
  inputs: { x: "P C2", dy: "P C" },
  outputs: { dx: "P C2" },
  params: { P: "u32", C: "u32" },
  flags: [],
  flops: (p) => 12 * p.P * p.C,
  reference: (io, p) => {
    for (let r = 0; r < p.P; r++) {
      for (let c = 0; c < p.C; c++) {
        const a = r * 2 * p.C + c, g = a + p.C, dy = io.dy![r * p.C + c];
        io.dx![a] = dy * activate(1, io.x![g]);
        io.dx![g] = dy * io.x![a] * activateGrad(1, io.x![g]);
      }
    }
  },
  wgsl: {
    source: activations("exp", "silu") + source("gluGrad"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P * p.C / 64),
    loops: () => 0,
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: [{ params: { P: 19, C: 24, C2: 48 } }, { params: { P: 2, C: 5, C2: 10 } }],
});

/** Gradient of {@linkcode groupMean}: dx[p, o·r + j] = dy[p, o] / r, r = C / O. That of its residual is dy. */
export const groupMeanGrad: Kernel = defineKernel({
  name: "groupMeanGrad",
  inputs: { dy: "P O" },
  outputs: { dx: "P C" },
  params: { P: "u32", C: "u32", O: "u32" },
  flags: [],
  flops: (p) => p.P * p.C,
  reference: (io, p) => {
    const r = p.C / p.O;
    for (let i = 0; i < p.P * p.C; i++) io.dx![i] = io.dy![Math.floor(i / r)] / r;
  },
  wgsl: {
    source: source("groupMeanGrad"),
    entry: "forward",
    groups: (p) => Math.ceil(p.P * p.C / 64),
    loops: () => 0,
  },
  wasm: { tasks: (p) => Math.ceil(p.P / 16) },
  cases: [{ params: { P: 21, C: 32, O: 8 } }, { params: { P: 5, C: 12, O: 12 } }],
});

function activationCases(codes: readonly number[]): Case[] {
  return codes.map((act) => ({ params: { E: 1003, act }, inputs: { x: activationInputs } }));
}

function gateCases(): Case[] {
  return [
    { T: 9, D: 40, R: 3, G: 120, gateCol: 80, row: 0, M: 9 },
    { T: 70, D: 33, R: 2, G: 33, gateCol: 0, row: 5, M: 30 },
  ].map((params) => ({ params, inputs: { rows: indices("T", "R") } }));
}
