/**
 * A whole training run of the transformer, in a folder (see loop.ts).
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { farShapes } from "../far/config.ts";
import type { FileTensor } from "../io/tensor_file.ts";
import type { Params } from "../params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../tensor.ts";
import { readCheckpoint, saveCheckpoint, type SavedState } from "./checkpoint.ts";
import { stepCost } from "./cost.ts";
import { initialParams, type InitMatch } from "./init.ts";
import { type LoopOptions, type Measured, type Picture, type RunEnd, runLoop } from "./loop.ts";
import { farLoss, prepareBatch, type TrainBatch } from "./objective.ts";
import { type BatchSource, type StepReport, Trainer, type TrainerConfig } from "./trainer.ts";

/** Validation on clips that are not trained on. */
export interface Validation {
  /** Steps between two validations; the end of the run is one too. */
  readonly every: number;
  /** Held-out batches. */
  readonly batches: readonly TrainBatch[];
  /** Makes samples with weights: averaged ones where the run has them. Pictures for TensorBoard come back by tag. */
  readonly sample?: (
    params: Params,
    step: number,
  ) => Promise<Readonly<Record<string, Picture>> | void>;
}

/** A run of the transformer. */
export interface RunOptions extends LoopOptions {
  /** Configuration of the training. */
  readonly config: TrainerConfig;
  /** Training data. */
  readonly source: BatchSource;
  /** Held-out clips. */
  readonly validation?: Validation;
  /** Tensors to start a new run from. */
  readonly init?: ReadonlyMap<string, FileTensor>;
}

/** Validation draws noise of its own, the same at every validation. */
const VALIDATION_SEED = 0x5eed;

/** Mean loss over held-out batches, each with the same noise at every call. */
export async function validationLoss(
  device: Device,
  params: Params,
  config: TrainerConfig,
  batches: readonly TrainBatch[],
): Promise<number> {
  let sum = 0;
  for (const [i, batch] of batches.entries()) {
    const input = prepareBatch({ ...config, seed: VALIDATION_SEED }, batch, i);
    const loss = unscoped(() => scope(() => farLoss(params, device, input)));
    sum += (await loss.read()).reduce((a, b) => a + b, 0);
    loss.dispose();
  }
  return sum / batches.length;
}

async function startTrainer(
  o: RunOptions,
  from: SavedState | null,
): Promise<{ trainer: Trainer; match?: InitMatch }> {
  const { device, config, source } = o, shapes = farShapes(config.model);
  if (!from) {
    const { params, match } = initialParams(device, shapes, config.seed, o.init);
    return { trainer: await Trainer.start(device, params, config, source), ...(o.init ? { match } : {}) };
  }
  const saved = readCheckpoint(from, shapes, config.emaDecay !== null);
  const params = unscoped(() =>
    Object.fromEntries(
      Object.entries(saved.params).map(([name, values]) => [name, Tensor.from(device, values, shapes[name])]),
    )
  );
  return { trainer: await Trainer.start(device, params, config, source, saved) };
}

/**
 * Trains the transformer as {@linkcode runLoop} says.
 *
 * @throws {DivergedError} If too many steps in a row were not finite; the last checkpoint is untouched then.
 * @throws {FileFormatError} If the last checkpoint is damaged, or belongs to another run.
 */
export async function trainRun(o: RunOptions): Promise<RunEnd> {
  const { validation } = o;
  return await runLoop(o, {
    config: o.config,
    open: (saved) => startTrainer(o, saved),
    save: saveCheckpoint,
    flopsOf: flopsOf(o.config),
    ...(validation
      ? {
        validation: {
          every: validation.every,
          measure: (trainer: Trainer, step: number) => measure(o, validation, trainer, step),
        },
      }
      : {}),
  });
}

async function measure(
  { device, config }: RunOptions,
  { batches, sample }: Validation,
  trainer: Trainer,
  step: number,
): Promise<Measured> {
  const losses: Record<string, number> = {};
  if (batches.length > 0) {
    losses.validation_loss = await validationLoss(device, trainer.params, config, batches);
  }
  const averaged = await trainer.ema?.params();
  try {
    if (averaged && batches.length > 0) {
      losses.validation_loss_ema = await validationLoss(device, averaged, config, batches);
    }
    return { losses, pictures: await sample?.(averaged ?? trainer.params, step) ?? {} };
  } finally {
    disposeAll(averaged);
  }
}

/** FLOP of a step by the shapes of its batches, each counted once. */
function flopsOf({ model, objective }: TrainerConfig): (report: StepReport) => number {
  const known = new Map<string, number>();
  const of = (shape: TrainBatch["shape"]): number => {
    const key = shape.join();
    let flops = known.get(key);
    if (flops === undefined) {
      known.set(key, flops = stepCost(model, shape, { full: objective.videoDiT }).flops);
    }
    return flops;
  };
  return ({ shapes }) => shapes.reduce((sum, shape) => sum + of(shape), 0);
}
