import { assert } from "@std/assert";
import { KERNELS } from "../kernels/all.ts";

import { checkGradient, hasGradientAt } from "../kernels/check_gradient.ts";
import { batchNorm, batchStats } from "../kernels/norm.ts";
import { defineKernel } from "../kernels/spec.ts";

/** Operations of a reference that runs some hundred times per case. */
const MOST_FLOPS = 3e5;

for (const kernel of KERNELS.filter((k) => k.gradient)) {
  Deno.test(`gradients of ${kernel.name} agree with finite differences in double precision`, () => {
    const cases = kernel.cases.map((c) => ({ kernel, ...c })).filter(hasGradientAt);
    const small = cases.filter((c) => kernel.flops(c.params) <= MOST_FLOPS);
    assert(small.length > 0, `${kernel.name} has no case that is small enough, of ${cases.length}`);
    for (const test of small) checkGradient(test);
  });
}

Deno.test("gradients of batch norm agree with finite differences through the batch's statistics", () => {
  const trained = defineKernel({
    ...batchNorm,
    name: "batchStats and batchNorm",
    inputs: { x: "P C", weight: "C", bias: "C" },
    outputs: { y: "P C" },
    reference: (io, p) => {
      const all = { ...io, residual: null, ...statisticsOf(io.x as Float64Array, p.C) };
      batchNorm.reference(all, p);
    },
    gradient: {
      ...batchNorm.gradient!,
      constant: [],
      saves: ["x", "weight"],
      backward: (b) => {
        const { mean, variance } = b.launch(batchStats, { x: b.saved("x") }, { momentum: 0, hasRunning: 0 });
        const saved = (name: string) =>
          name === "mean" ? mean : name === "variance" ? variance : b.saved(name);
        batchNorm.gradient!.backward({ ...b, saved, wants: () => true });
      },
    },
  });
  checkGradient({ kernel: trained, params: { P: 6, C: 3, eps: 1e-2, act: 0, hasResidual: 0 } });
});

function statisticsOf(x: Float64Array, C: number) {
  const io = { x, mean: new Float64Array(C), variance: new Float64Array(C) };
  const absent = { runningMean: null, runningVariance: null };
  batchStats.reference({ ...io, ...absent }, { P: x.length / C, C, momentum: 0, hasRunning: 0 });
  return { mean: io.mean, variance: io.variance };
}
