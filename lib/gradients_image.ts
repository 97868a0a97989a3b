/**
 * Gradient rules of the kernels that work on images. Same conventions as the table they are part of.
 *
 * @module
 */
import {
  conv2dGradInput,
  conv2dGradWeight,
  depthwiseConv2dGradInput,
  depthwiseConv2dGradWeight,
} from "../kernels/conv2d.ts";
import { gluGrad, groupMeanGrad } from "../kernels/elementwise.ts";
import { groupedLinearGradInput, groupedLinearGradWeight } from "../kernels/linear.ts";
import { batchNormGrad, batchNormSums, rmsNormGrad } from "../kernels/norm.ts";
import { maxPool2dGrad } from "../kernels/pool.ts";
import { absLossGrad, columnSum } from "../kernels/reduce.ts";
import { reluAttentionGrad } from "../kernels/relu_attention.ts";
import type { Backward, GradientRule } from "./gradient_rule.ts";
import { launch } from "./launch.ts";
import { full } from "./ops_basic.ts";

/** Gradients of a bias go where the weight's go; a layer whose weight is fixed has a fixed bias. */
const weightSums = (b: Backward) => ({ dw: b.sum("w"), db: b.params.hasBias ? b.sum("bias") : null });

/** Adds the column sums of `[P, C]` to the gradient of an input `[C]`. */
function addColumns(b: Backward, a: ReturnType<Backward["grad"]>, input: string): void {
  if (b.wants(input)) launch(columnSum, { a }, { row: 0, M: a.shape[0], col: 0 }, { y: b.sum(input) });
}

/** Gradient rules by kernel name. */
export const IMAGE_GRADIENTS: Readonly<Record<string, GradientRule>> = {
  conv2d: {
    saves: ["x", "w"],
    backward: (b) => {
      const { stride, pad, hasBias, half } = b.params, dz = b.grad("y");
      if (b.wants("x")) {
        const fresh = b.fresh("x"), accumulate = fresh ? 0 : 1;
        launch(conv2dGradInput, { dz, w: b.saved("w") }, { stride, pad, accumulate, half }, {
          dx: fresh ?? b.sum("x"),
        });
      }
      if (b.wants("w")) {
        launch(conv2dGradWeight, { dz, x: b.saved("x") }, { stride, pad, hasBias }, weightSums(b));
      }
    },
  },
  depthwiseConv2d: {
    saves: ["x", "w"],
    backward: (b) => {
      const { hasBias, K } = b.params, dz = b.grad("y");
      if (b.wants("x")) b.give("x", launch(depthwiseConv2dGradInput, { dz, w: b.saved("w") }, {}).dx);
      if (b.wants("w")) {
        launch(depthwiseConv2dGradWeight, { dz, x: b.saved("x") }, { hasBias, K }, weightSums(b));
      }
    },
  },
  groupedLinear: {
    saves: ["x", "w"],
    backward: (b) => {
      const { hasBias, GI } = b.params, dz = b.grad("y");
      if (b.wants("x")) b.give("x", launch(groupedLinearGradInput, { dz, w: b.saved("w") }, { GI }).dx);
      if (b.wants("w")) {
        launch(groupedLinearGradWeight, { dz, x: b.saved("x") }, { hasBias }, weightSums(b));
      }
    },
  },
  rmsNorm: {
    saves: ["x", "weight"],
    backward: (b) => {
      const { eps, hasBias, hasResidual } = b.params, dy = b.grad("y");
      const { dx, dw } = launch(rmsNormGrad, { x: b.saved("x"), weight: b.saved("weight"), dy }, { eps });
      b.give("x", dx);
      addColumns(b, dw, "weight");
      if (hasBias) addColumns(b, dy, "bias");
      if (hasResidual) b.add("residual", dy);
    },
  },
  // The gradient through the statistics is part of batchNorm's rule below.
  batchStats: { saves: [], backward: () => {} },
  batchNorm: {
    saves: ["x", "mean", "variance", "weight"],
    backward: (b) => {
      const { eps, hasResidual, C } = b.params, dy = b.grad("y");
      const inputs = { x: b.saved("x"), mean: b.saved("mean"), variance: b.saved("variance"), dy };
      const { dweight, dbias } = launch(batchNormSums, inputs, { eps });
      b.add("weight", dweight);
      b.add("bias", dbias);
      if (b.wants("x")) {
        const zero = full(dy.device, [C], 0), ofBatch = b.wants("mean"); // statistics that depend on x
        const sums = ofBatch ? { dweight, dbias } : { dweight: zero, dbias: zero };
        b.give(
          "x",
          launch(batchNormGrad, { ...inputs, weight: b.saved("weight"), ...sums }, { eps }).dx,
        );
      }
      if (hasResidual) b.add("residual", dy);
    },
  },
  reluAttention: {
    saves: ["qkv"],
    backward: (b) => {
      const { G, hd, eps, C } = b.params;
      b.give(
        "qkv",
        launch(reluAttentionGrad, { qkv: b.saved("qkv"), dy: b.grad("y") }, { G, hd, eps, C }).dqkv,
      );
    },
  },
  glu: {
    saves: ["x"],
    backward: (b) => b.give("x", launch(gluGrad, { x: b.saved("x"), dy: b.grad("y") }, {}).dx),
  },
  groupMean: {
    saves: [],
    backward: (b) => {
      const dy = b.grad("y");
      if (b.wants("x")) b.give("x", launch(groupMeanGrad, { dy }, { C: b.params.C }).dx);
      if (b.params.hasResidual) b.add("residual", dy);
    },
  },
  maxPool2d: {
    saves: ["x"],
    backward: (b) => {
      const { K, stride, pad } = b.params;
      b.give("x", launch(maxPool2dGrad, { x: b.saved("x"), dy: b.grad("y") }, { K, stride, pad }).dx);
    },
  },
  absLoss: {
    saves: ["prediction", "target", "weight"],
    backward: (b) => {
      const prediction = b.saved("prediction"), target = b.saved("target"), weight = b.saved("weight");
      b.give(
        "prediction",
        launch(absLossGrad, { prediction, target, weight, dloss: b.grad("loss") }, {}).dprediction,
      );
    },
  },
};
