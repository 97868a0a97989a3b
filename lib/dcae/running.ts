/**
 * Running statistics of batch norm in train mode, as explicit outputs.
 *
 * @module
 */
import { add, batchStatistics, full } from "../ops.ts";
import { param, type Params } from "../params.ts";
import { scope, type Tensor, unscoped } from "../tensor.ts";

/** Running statistics and batch counts after a pass in train mode, under the authors' names. The caller owns them. */
export type Running = Record<string, Tensor>;

/**
 * Statistics of a batch `[P, C]` for batch norm, whose running ones go into `updated`: momentum 0.1, unbiased variance. What
 * is there already stays, so that a block that is computed again counts once.
 *
 * @param name The batch norm's name in `params`.
 */
export function runningStatistics(
  params: Params,
  name: string,
  x: Tensor,
  updated: Running,
): { readonly mean: Tensor; readonly variance: Tensor } {
  const [meanName, varianceName, countName] = ["running_mean", "running_var", "num_batches_tracked"].map((
    k,
  ) => `${name}.${k}`);
  const { mean, variance, runningMean, runningVariance } = batchStatistics(x, {
    mean: param(params, meanName),
    variance: param(params, varianceName),
  });
  if (!updated[meanName]) {
    unscoped(() => {
      updated[meanName] = runningMean.reshape(runningMean.shape);
      updated[varianceName] = runningVariance.reshape(runningVariance.shape);
      const count = param(params, countName);
      updated[countName] = scope(() => add(count, full(x.device, count.shape, 1)));
    });
  }
  return { mean, variance };
}
