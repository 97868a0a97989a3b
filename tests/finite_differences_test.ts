import { attention, attentionGradKey, attentionGradQuery, attentionStats } from "../kernels/attention.ts";
import { gateAdd, gateMul, unary, unaryGrad } from "../kernels/elementwise.ts";
import { linear, linearGradInput, linearGradWeight } from "../kernels/linear.ts";
import { normModulate, normModulateGrad } from "../kernels/norm.ts";
import { frameLoss, frameLossGrad, rowSum } from "../kernels/reduce.ts";
import { rotary, rotaryGrad } from "../kernels/rotary.ts";
import { softmax, softmaxGrad } from "../kernels/softmax.ts";
import type { HostBuffers } from "../kernels/spec.ts";
import { agree, run, values, zeros } from "./finite_differences.ts";

Deno.test("gradients of linear agree with finite differences", () => {
  const p = {
    M: 4,
    N: 3,
    K: 5,
    G: 0,
    X: 6,
    Y: 7,
    xRow: 1,
    yRow: 2,
    gateCol: 0,
    act: 0,
    hasBias: 1,
    hasGate: 0,
    hasResidual: 0,
    half: 0,
  };
  const io: HostBuffers = {
    x: values(30),
    w: values(15),
    bias: values(3),
    modulation: null,
    rows: null,
    residual: null,
    y: zeros(21),
  };
  const dz = values(21);
  const back = { ...p, Z: 3, zCol: 0, accumulate: 0 };
  const { dx } = run(linearGradInput, { dz, w: io.w, dx: zeros(30) }, back);
  const { dw, db } = run(linearGradWeight, { dz, x: io.x, dw: zeros(15), db: zeros(3) }, back);
  agree(linear, io, p, { y: dz.map((v, i) => i < 6 || i >= 18 ? 0 : v) }, "x", dx!);
  agree(linear, io, p, { y: dz.map((v, i) => i < 6 || i >= 18 ? 0 : v) }, "w", dw!);
  agree(linear, io, p, { y: dz.map((v, i) => i < 6 || i >= 18 ? 0 : v) }, "bias", db!);
});

Deno.test("gradients of adaLN agree with finite differences, shared modulation rows included", () => {
  const p = { T: 5, D: 6, R: 2, G: 12, shiftCol: 0, scaleCol: 6, eps: 1e-6 },
    rows = Int32Array.of(0, 1, 1, 0, 1);
  const io: HostBuffers = { x: values(30), modulation: values(24), rows, y: zeros(30) }, dy = values(30);
  const { dx, dscale } = run(normModulateGrad, { ...io, dy, dx: zeros(30), dscale: zeros(30) }, p);
  const sum = { M: 5, row: 0, D: 6, R: 2, G: 12, hasB: 0 };
  const shift = run(rowSum, { a: dy, b: null, rows, y: zeros(24) }, { ...sum, col: 0 }).y!;
  const both = run(rowSum, { a: dscale, b: null, rows, y: shift }, { ...sum, col: 6 }).y!;
  agree(normModulate, io, p, { y: dy }, "x", dx!);
  agree(normModulate, io, p, { y: dy }, "modulation", both);
});

Deno.test("gradients of the RMS norm and rotary embedding agree with finite differences", () => {
  const p = { T: 4, D: 8, D3: 24, hd: 4, S: 5, row: 1, M: 3, eps: 1e-6 };
  const io: HostBuffers = {
    qkv: values(96),
    wq: values(4),
    wk: values(4),
    angles: values(16),
    dest: Int32Array.of(4, 2, 0, 3),
    q: zeros(32),
    k: zeros(40),
    v: zeros(40),
  };
  const q = values(32).fill(0, 0, 8), k = values(40), v = values(40);
  for (const row of [1, 4]) [k, v].forEach((x) => x.fill(0, row * 8, row * 8 + 8)); // rows that no token writes
  const back = (part: number, dqkv: HostBuffers[string], grads: HostBuffers) =>
    run(rotaryGrad, { ...io, ...grads, dqkv, dw: zeros(16) }, { ...p, part });
  const queries = back(0, zeros(96), { w: io.wq, dy: q, dv: null });
  const { dqkv, dw } = back(1, queries.dqkv, { w: io.wk, dy: k, dv: v });
  agree(rotary, io, p, { q, k, v }, "qkv", dqkv!);
  const total = (rows: HostBuffers[string]) =>
    Float64Array.from({ length: 4 }, (_, d) => [0, 1, 2, 3].reduce((s, t) => s + rows![t * 4 + d], 0));
  agree(rotary, io, p, { q, k, v }, "wq", total(queries.dw));
  agree(rotary, io, p, { q, k, v }, "wk", total(dw));
});

Deno.test("gradients of attention agree with finite differences, two ranges and a temporal decay included", () => {
  const p = { T: 6, S: 7, D: 8, A: 2, A2: 4, hd: 4, keys: 4, scale: 0.5, slope: 0.3, hasSlope: 1, hasLse: 1 };
  const ranges = [0, 1, 5, 7, 0, 2, 0, 0, 0, 3, 6, 7, 1, 4, 0, 0, 2, 5, 5, 6, 0, 7, 0, 0];
  const io: HostBuffers = {
    q: values(48),
    k: values(56),
    v: values(56),
    visible: Int32Array.of(...ranges, 0, 1, 1, 2, 2, 3, 0, 0, 1, 1, 2, 2, 3),
    y: zeros(48),
    lse: zeros(12),
  };
  const dy = values(48), { y, lse } = run(attention, io, p);
  const { stats } = run(attentionStats, { y, dy, lse, stats: zeros(24) }, p);
  const { dq } = run(attentionGradQuery, { ...io, stats, dy, dq: zeros(48) }, p);
  const { dk, dv } = run(attentionGradKey, { ...io, stats, dy, dk: zeros(56), dv: zeros(56) }, p);
  agree(attention, io, p, { y: dy }, "q", dq!);
  agree(attention, io, p, { y: dy }, "k", dk!);
  agree(attention, io, p, { y: dy }, "v", dv!);
});

Deno.test("gradients of activations, gates and the loss agree with finite differences", () => {
  for (const act of [0, 1, 2, 3]) {
    const io: HostBuffers = { x: values(9, 3), y: zeros(9) }, dy = values(9);
    agree(
      unary,
      io,
      { E: 9, act },
      { y: dy },
      "x",
      run(unaryGrad, { x: io.x, dy, dx: zeros(9) }, { E: 9, act }).dx!,
    );
  }
  const g = { T: 4, D: 3, R: 2, G: 6, gateCol: 3, row: 0, M: 4 }, rows = Int32Array.of(1, 0, 1, 1);
  const io: HostBuffers = { x: values(12), modulation: values(12), rows, residual: values(12), y: zeros(12) },
    dy = values(12);
  agree(gateAdd, io, g, { y: dy }, "x", run(gateMul, { ...io, x: dy, y: zeros(12) }, g).y!);
  agree(
    gateAdd,
    io,
    g,
    { y: dy },
    "modulation",
    run(rowSum, { a: dy, b: io.x, rows, y: zeros(12) }, { ...g, col: 3, hasB: 1 }).y!,
  );
  const p = { F: 2, P: 5 }, dloss = values(2);
  const l: HostBuffers = { prediction: values(10), expected: values(10), weight: values(2), loss: zeros(2) };
  agree(
    frameLoss,
    l,
    p,
    { loss: dloss },
    "prediction",
    run(frameLossGrad, { ...l, dloss, dprediction: zeros(10) }, p).dprediction!,
  );
});

Deno.test("gradients of softmax agree with finite differences", () => {
  const p = { P: 3, C: 5 }, io: HostBuffers = { x: values(15, 3), y: zeros(15) }, dy = values(15);
  const { y } = run(softmax, io, p);
  agree(softmax, io, p, { y: dy }, "x", run(softmaxGrad, { y, dy, dx: zeros(15) }, p).dx!);
});
