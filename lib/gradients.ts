/**
 * The table of gradients: for each kernel, what its gradient reads and how it adds to the gradients of its inputs.
 *
 * Conventions: gradients are named `dX`; every rule adds to what is there, because a tensor may be used several times.
 *
 * @module
 */
import { attentionGradKey, attentionGradQuery, attentionStats } from "../kernels/attention.ts";
import { BINARY, gateMul, groupMean, unaryGrad } from "../kernels/elementwise.ts";
import { linearGradInput, linearGradWeight } from "../kernels/linear.ts";
import { normModulateGrad } from "../kernels/norm.ts";
import { columnSum, frameLossGrad, rowSum } from "../kernels/reduce.ts";
import { rotaryGrad } from "../kernels/rotary.ts";
import type { Params } from "../kernels/spec.ts";
import { copyStrided, full, launch, mul } from "./ops.ts";
import { Tensor } from "./tensor.ts";

/** What a rule works with: one recorded launch on its way back. */
export interface Backward {
  /** Sizes, scalars and flags of the launch. */
  readonly params: Params;
  /** A tensor that the rule's `saves` names. */
  saved(name: string): Tensor;
  /** The gradient of an output, in the output's shape. */
  grad(output: string): Tensor;
  /** Whether the gradient of an input is wanted. */
  wants(input: string): boolean;
  /** The gradient of an input so far, in the input's shape; zeros at first. Rules add to it in place. */
  sum(input: string): Tensor;
  /** The same, uninitialised, if there is none yet: for kernels that can assign. Null when there is one already. */
  fresh(input: string): Tensor | null;
  /** Adds alpha times a tensor to the gradient of an input, if that is wanted. */
  add(input: string, gradient: Tensor, alpha?: number): void;
  /** Adds a tensor that the rule has just made and does not use again: it may become the gradient itself. */
  give(input: string, gradient: Tensor): void;
}

/** One row of the table. */
export interface GradientRule {
  /** Inputs and outputs that the gradient reads. */
  readonly saves: readonly string[];
  /** Adds to the gradients of the inputs. */
  readonly backward: (b: Backward) => void;
}

const at = (p: Params) => ({ xRow: p.xRow, yRow: p.yRow, M: p.M });

/** One linear layer's gradients from columns of dz. */
function linearBackward(b: Backward, dz: Tensor, w: string, bias: string, zCol: number): void {
  const p = b.params, rows = at(p);
  if (b.wants("x")) {
    const fresh = p.M === p.X ? b.fresh("x") : null;
    const flags = { accumulate: fresh ? 0 : 1, half: p.half, zCol };
    launch(linearGradInput, { dz, w: b.saved(w) }, { ...rows, ...flags }, { dx: fresh ?? b.sum("x") });
  }
  if (b.wants(w)) {
    const outs = { dw: b.sum(w), ...(p.hasBias ? { db: b.sum(bias) } : { db: null }) };
    launch(linearGradWeight, { dz, x: b.saved("x") }, { ...rows, zCol, hasBias: p.hasBias }, outs);
  }
}

/** Gradient rules by kernel name. */
export const GRADIENTS: Readonly<Record<string, GradientRule>> = {
  linear: {
    saves: ["x", "w"],
    backward: (b) => linearBackward(b, b.grad("y"), "w", "bias", 0),
  },
  linearQkv: {
    saves: ["x", "wq", "wk", "wv"],
    backward: (b) =>
      ["q", "k", "v"].forEach((part, i) =>
        linearBackward(b, b.grad("y"), `w${part}`, `b${part}`, i * b.params.N)
      ),
  },
  normModulate: {
    saves: ["x", "modulation", "rows"],
    backward: (b) => {
      const { scaleCol, shiftCol, eps, T } = b.params, dy = b.grad("y"), rows = b.saved("rows");
      const inputs = { x: b.saved("x"), modulation: b.saved("modulation"), rows, dy };
      const { dx, dscale } = launch(normModulateGrad, inputs, { scaleCol, eps });
      b.give("x", dx);
      if (!b.wants("modulation")) return;
      const y = b.sum("modulation"), range = { row: 0, M: T, hasB: 0 };
      launch(rowSum, { a: dy, rows }, { ...range, col: shiftCol }, { y });
      launch(rowSum, { a: dscale, rows }, { ...range, col: scaleCol }, { y });
    },
  },
  gateAdd: {
    saves: ["x", "modulation", "rows"],
    backward: (b) => {
      const { row, M, D, gateCol } = b.params, dy = b.grad("y"), rows = b.saved("rows");
      const part = { sizes: [M * D], from: [1], to: [1], fromAt: row * D, toAt: row * D };
      const own = M === b.params.T ? dy : full(dy.device, dy.shape, 0); // other rows belong to other launches
      if (own !== dy) copyStrided(dy, own, part);
      b.add("residual", own);
      if (b.wants("x")) {
        const dx = M === b.params.T ? Tensor.empty(dy.device, dy.shape) : full(dy.device, dy.shape, 0);
        launch(gateMul, { x: dy, modulation: b.saved("modulation"), rows }, { row, M, gateCol }, { y: dx });
        b.give("x", dx);
      }
      if (b.wants("modulation")) {
        const y = b.sum("modulation");
        launch(rowSum, { a: dy, b: b.saved("x"), rows }, { row, M, col: gateCol, hasB: 1 }, { y });
      }
    },
  },
  rotary: {
    saves: ["qkv", "wq", "wk", "cos", "sin", "dest"],
    backward: (b) => {
      const { row, M, hd, eps, T } = b.params;
      const inputs = Object.fromEntries(
        ["qkv", "wq", "wk", "cos", "sin", "dest"].map((n) => [n, b.saved(n)]),
      );
      const dw = Tensor.empty(inputs.qkv.device, [T, 2 * hd]); // [dwq | dwk] of each token
      const grads = { dq: b.grad("q"), dk: b.grad("k"), dv: b.grad("v") };
      launch(rotaryGrad, { ...inputs, ...grads }, { row, M, hd, eps }, { dqkv: b.sum("qkv"), dw });
      for (const [i, name] of ["wq", "wk"].entries()) {
        if (b.wants(name)) launch(columnSum, { a: dw }, { row, M, col: i * hd }, { y: b.sum(name) });
      }
    },
  },
  attention: {
    saves: ["q", "k", "v", "ranges", "queryFrames", "keyFrames", "y", "lse"],
    backward: (b) => {
      const { A, hd, keys, scale, slope, hasSlope } = b.params, dy = b.grad("y");
      const { stats } = launch(attentionStats, { y: b.saved("y"), dy, lse: b.saved("lse") }, {
        A,
        A2: 2 * A,
        hd,
      });
      const names = ["q", "k", "v", "ranges", ...(hasSlope ? ["queryFrames", "keyFrames"] : [])];
      const inputs = { ...Object.fromEntries(names.map((n) => [n, b.saved(n)])), stats, dy };
      const params = { A, hd, keys, scale, slope, hasSlope };
      if (b.wants("q")) b.give("q", launch(attentionGradQuery, inputs, params).dq);
      const { dk, dv } = launch(attentionGradKey, inputs, params);
      b.give("k", dk);
      b.give("v", dv);
    },
  },
  unary: {
    saves: ["x"],
    backward: (b) =>
      b.give("x", launch(unaryGrad, { x: b.saved("x"), dy: b.grad("y") }, { act: b.params.act }).dx),
  },
  binary: {
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
        if (b.wants("a")) b.give("a", mul(dy, b.saved("b"), alpha));
        if (b.wants("b")) b.give("b", mul(dy, b.saved("a"), alpha));
      }
    },
  },
  embed: {
    saves: ["index"],
    backward: (b) => {
      const { R, hasX } = b.params, dy = b.grad("y");
      if (hasX) b.add("x", dy);
      if (!b.wants("table")) return;
      launch(rowSum, { a: dy, rows: b.saved("index") }, { row: 0, M: R, col: 0, hasB: 0 }, {
        y: b.sum("table"),
      });
    },
  },
  stridedCopy: {
    saves: [],
    backward: (b) => {
      const p = b.params, dy = b.grad("y"), axes = [0, 1, 2, 3, 4, 5];
      const sizes = axes.map((a) => p[`n${a}`]),
        from = axes.map((a) => p[`xs${a}`]),
        to = axes.map((a) => p[`ys${a}`]);
      const repeats = sizes[5] > 1 && from[5] === 0;
      if (axes.some((a) => sizes[a] > 1 && from[a] === 0 && a < 5)) {
        throw new Error("stridedCopy: its gradient sums over a repeated last axis only");
      }
      let source = dy, strides = to, start = p.yAt, scale = 1;
      if (repeats) {
        const P = sizes.slice(0, 5).reduce((x, y) => x * y, 1), r = sizes[5];
        const dense = Tensor.empty(dy.device, [P, r]);
        const tight = axes.map((a) => sizes.slice(a + 1).reduce((x, y) => x * y, 1));
        copyStrided(dy, dense, { sizes, from: to, to: tight, fromAt: p.yAt });
        source = launch(groupMean, { x: dense }, { O: 1, hasResidual: 0 }).y; // [P, 1]
        strides = tight.map((t) => t / r);
        start = 0;
        scale = r;
      }
      const back = full(dy.device, b.sum("x").shape, 0);
      const moved = {
        sizes: repeats ? sizes.with(5, 1) : sizes,
        from: strides,
        to: from,
        fromAt: start,
        toAt: p.xAt,
      };
      copyStrided(source, back, moved);
      b.add("x", back, scale);
    },
  },
  frameLoss: {
    saves: ["prediction", "target", "weight"],
    backward: (b) => {
      const inputs = {
        prediction: b.saved("prediction"),
        target: b.saved("target"),
        weight: b.saved("weight"),
      };
      b.give("prediction", launch(frameLossGrad, { ...inputs, dloss: b.grad("loss") }, {}).dprediction);
    },
  },
};
