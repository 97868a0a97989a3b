/**
 * The table of gradients: for each kernel, what its gradient reads and how it adds to the gradients of its inputs.
 *
 * Conventions: gradients are named `dX`; every rule adds to what is there, because a tensor may be used several times.
 *
 * @module
 */
import { attentionGradKey, attentionGradQuery, attentionStats } from "../kernels/attention.ts";
import { stridedCopyGrad } from "../kernels/copy.ts";
import { BINARY, gateMul, unaryGrad } from "../kernels/elementwise.ts";
import { linearGradInput, linearGradWeight } from "../kernels/linear.ts";
import { normModulateGrad } from "../kernels/norm.ts";
import { columnSum, frameLossGrad, rowSum } from "../kernels/reduce.ts";
import { rotaryGrad } from "../kernels/rotary.ts";
import type { Params } from "../kernels/spec.ts";
import { copyStrided, full, launch, mul } from "./ops.ts";
import { type Backward, type GradientRule } from "./gradient_rule.ts";
import { IMAGE_GRADIENTS } from "./gradients_image.ts";
import { Tensor } from "./tensor.ts";

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
    saves: ["qkv", "wq", "wk", "angles", "dest"],
    backward: (b) => {
      const { row, M, hd, eps, T } = b.params, dqkv = b.sum("qkv");
      const [qkv, angles, dest] = ["qkv", "angles", "dest"].map((n) => b.saved(n));
      const back = (part: number, weight: string, grads: Record<string, Tensor>) => {
        const dw = Tensor.empty(qkv.device, [T, hd]); // of each token
        const inputs = { qkv, w: b.saved(weight), angles, ...grads };
        launch(rotaryGrad, inputs, { row, M, hd, eps, part }, { dqkv, dw });
        if (b.wants(weight)) launch(columnSum, { a: dw }, { row, M, col: 0 }, { y: b.sum(weight) });
      };
      back(0, "wq", { dy: b.grad("q") });
      back(1, "wk", { dest, dy: b.grad("k"), dv: b.grad("v") });
    },
  },
  attention: {
    saves: ["q", "k", "v", "visible", "y", "lse"],
    backward: (b) => {
      const { A, hd, keys, scale, slope, hasSlope } = b.params, dy = b.grad("y");
      const { stats } = launch(attentionStats, { y: b.saved("y"), dy, lse: b.saved("lse") }, {
        A,
        A2: 2 * A,
        hd,
      });
      const read = Object.fromEntries(["q", "k", "v", "visible"].map((n) => [n, b.saved(n)]));
      const inputs = { ...read, stats, dy };
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
      launch(stridedCopyGrad, { dy: b.grad("y") }, b.params, { dx: b.sum("x") });
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
  ...IMAGE_GRADIENTS,
};
