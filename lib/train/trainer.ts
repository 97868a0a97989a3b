/**
 * The trainer: parameters, optimizers, averages, schedule, clipping and the state of a run, whatever is trained. An
 * {@linkcode Objective} draws the batches and computes losses and gradients.
 *
 * All randomness is a function of the seed and the position of a batch, so a run that stops and resumes computes the same
 * bits as one that was never interrupted.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { LARGEST_HALF } from "../../kernels/half.ts";
import { concat } from "../ops.ts";
import type { Params, WeightStorage } from "../params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../tensor.ts";
import { type AdamW, type AdamWOptions, clipFactor, Ema } from "./adamw.ts";
import { Network, type NetworkWeights, type SavedNetwork } from "./network.ts";
import type { BatchShape, ByNetwork, Gradients, Objective, TrainInput } from "./objective.ts";
import { Prefetch, tick } from "./prefetch.ts";
import { rateFactor, type RateSchedule } from "./rate.ts";

/** Configuration of a trainer. */
export interface TrainerConfig extends AdamWOptions, WeightStorage, RateSchedule {
  /** Learning rate after the warm-up, before it falls. */
  readonly lr: number;
  /** The gradients of each network are scaled down to this L2 norm; null does not clip. */
  readonly maxGradNorm: number | null;
  /** Decay of the averaged weights and batch-norm statistics; null keeps no averages. */
  readonly emaDecay: number | null;
  /** Batches per step: their mean loss is differentiated. Batch norm sees each batch alone. */
  readonly accumulate: number;
  /** Seed of everything random. */
  readonly seed: number;
  /** The run ends after this many consecutive steps whose loss or gradient is not finite. */
  readonly nonFiniteLimit: number;
}

/** Report of a training step. */
export interface StepReport {
  /** Number of the step, 0 first. */
  readonly step: number;
  /** Mean loss of its batches. */
  readonly loss: number;
  /** Terms of the loss by name, means over its batches; empty where the loss has one term. */
  readonly terms: Readonly<Record<string, number>>;
  /** L2 norm of the model's gradients before clipping. */
  readonly gradientNorm: number;
  /** Learning rate of the model. */
  readonly lr: number;
  /** Clips of all its batches. */
  readonly clips: number;
  /** Frames of all its batches. */
  readonly frames: number;
  /** Shape of each batch. */
  readonly shapes: readonly BatchShape[];
  /** Names what was not finite, if the step was skipped. */
  readonly skipped?: string;
}

/** Too many consecutive losses or gradients were not finite, or a weight exceeded the range of its storage type. */
export class DivergedError extends Error {
  /** For `catch`. */
  override readonly name = "DivergedError";
}

/** Counters of a run between two steps. */
export interface TrainerState {
  /** Steps done, skipped ones included. */
  readonly step: number;
  /** Updates of the model. */
  readonly updates: number;
  /** Consecutive skipped steps. */
  readonly skippedInRow: number;
  /** Updates of further networks. */
  readonly networkUpdates?: Readonly<Record<string, number>>;
}

/** Counters and tensors to resume from. */
export interface SavedTrainer {
  /** Counters. */
  readonly state: TrainerState;
  /** Weights and moments. */
  readonly networks: ByNetwork<SavedNetwork>;
  /** Averages of the model; started from its weights where there are none. */
  readonly ema?: Record<string, Float32Array>;
}

/** Where a trainer starts. */
export interface TrainerStart {
  /** Weights by network, f32; the trainer owns them from now on. Networks without start from fresh or saved ones. */
  readonly weights?: Readonly<Record<string, Params>>;
  /** A checkpoint of the same run, from `latestCheckpoint`. */
  readonly saved?: SavedTrainer;
}

/**
 * Trains the networks of an objective.
 *
 * @example
 * ```ts
 * import { openDevice, ops, Tensor, train } from "../../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * // y = 2 x, learnt from eight numbers per batch.
 * const objective = train.lossObjective({
 *   shapes: { "layer.weight": [1, 1], "layer.bias": [1] },
 *   batch: (position) => Promise.resolve({ shape: [8, 1] as const, x: Float32Array.from({ length: 8 }, (_, i) => Math.sin(position + i)) }),
 *   loss(p, { x }) {
 *     const input = Tensor.from(device, x, [8, 1]), y = ops.linear(input, p["layer.weight"], { bias: p["layer.bias"] });
 *     const error = ops.sub(y, ops.mul(input, 2));
 *     return ops.mean(ops.mul(error, error));
 *   },
 * });
 * const trainer = await train.Trainer.start(device, objective, {
 *   lr: 0.1, warmup: 0, maxGradNorm: 1, emaDecay: null, accumulate: 1, seed: 0, nonFiniteLimit: 3,
 * });
 * let loss = 0;
 * for (let i = 0; i < 60; i++) ({ loss } = await trainer.step());
 * console.assert(loss < 0.01 && trainer.state.step === 60);
 * trainer.dispose();
 * device.close();
 * ```
 */
export class Trainer<Input extends TrainInput = TrainInput> {
  /** Device that it trains on. */
  readonly device: Device;
  /** Its configuration. */
  readonly config: TrainerConfig;
  /** Its objective. */
  readonly objective: Objective<Input>;
  /** Networks with their optimizers. */
  readonly networks: ByNetwork<Network>;
  /** Averages of the model, if any. */
  readonly ema: Ema | null;
  readonly #batches: Prefetch<Input>;
  #step: number;
  #skippedInRow: number;

  private constructor(
    device: Device,
    objective: Objective<Input>,
    config: TrainerConfig,
    networks: ByNetwork<Network>,
    ema: Ema | null,
    state: TrainerState,
  ) {
    this.device = device;
    this.objective = objective;
    this.config = config;
    this.networks = networks;
    this.ema = ema;
    this.#batches = new Prefetch((position) => objective.batch(position));
    this.#step = state.step;
    this.#skippedInRow = state.skippedInRow;
  }

  /**
   * Starts a run, or resumes a saved one.
   *
   * @param objective Networks, batches and loss; the trainer disposes of it.
   * @param from Weights or a checkpoint to start from. Default: fresh weights from the seed.
   * @throws {RangeError} If given weights have other names or shapes; if a matrix to be stored as f16 exceeds 65504.
   */
  static async start<Input extends TrainInput>(
    device: Device,
    objective: Objective<Input>,
    config: TrainerConfig,
    { weights, saved }: TrainerStart = {},
  ): Promise<Trainer<Input>> {
    const state = saved?.state ?? { step: 0, updates: 0, skippedInRow: 0 };
    const networks: Record<string, Network> = {};
    for (const [name, spec] of Object.entries(objective.networks)) {
      networks[name] = await Network.start(device, name, spec, config, {
        weights: weights?.[name],
        saved: saved?.networks[name],
        updates: name === "model" ? state.updates : state.networkUpdates?.[name],
      });
    }
    const all = networks as Record<string, Network> & { model: Network }, { model } = all;
    const ema = config.emaDecay === null
      ? null
      : await Ema.start(averaged(model.all), config.emaDecay, saved?.ema, model.optimizer);
    return new Trainer(device, objective, config, all, ema, state);
  }

  /** The model's weights, as they are computed with, and its batch-norm statistics; updated in place. */
  get params(): Params {
    return this.networks.model.all;
  }

  /** The model's optimizer. */
  get optimizer(): AdamW {
    return this.networks.model.optimizer;
  }

  /** Counters to save beside the tensors. */
  get state(): TrainerState {
    const { model, ...others } = this.networks;
    const more = Object.entries(others).map(([name, { optimizer }]) => [name, optimizer.steps]);
    return {
      step: this.#step,
      updates: model.optimizer.steps,
      skippedInRow: this.#skippedInRow,
      ...(more.length > 0 ? { networkUpdates: Object.fromEntries(more) } : {}),
    };
  }

  /** Learning rate of the model in the next step. */
  get lr(): number {
    return this.networks.model.lr * rateFactor(this.#step, this.config);
  }

  /**
   * Trains one step. If a loss or a gradient is not finite, nothing changes and the report says what it was.
   *
   * @throws {DivergedError} After `nonFiniteLimit` such steps in a row, naming what was not finite; if a weight stored as f16
   * has outgrown it, naming the weight.
   */
  async step(): Promise<StepReport> {
    const { config, device, networks } = this, step = this.#step, lr = this.lr;
    const { sum, losses, terms, shapes } = await this.#gradients();
    const { loss, norms } = await this.#measure(sum, losses);
    const skipped = notFinite(loss, terms, new Map([...norms.values()].flatMap((named) => [...named])));
    const normOf = (network: string) => Math.hypot(...norms.get(network)?.values() ?? []);
    if (skipped === undefined) {
      for (const [name, grads] of Object.entries(sum.grads)) {
        const clip = config.maxGradNorm === null ? 1 : clipFactor(normOf(name), config.maxGradNorm);
        await networks[name].update(grads, networks[name].lr * rateFactor(step, config), clip);
      }
      for (const [name, running] of Object.entries(sum.buffers ?? {})) networks[name].assign(running);
      await this.ema?.update(averaged(networks.model.all), networks.model.optimizer);
    }
    disposeAll([sum.grads, sum.buffers]);
    if (device.info.name === "cpu") await tick();
    this.#skippedInRow = skipped === undefined ? 0 : this.#skippedInRow + 1;
    this.#step++;
    stopWhenDiverged(step, skipped, this.#skippedInRow, config.nonFiniteLimit);
    const clips = shapes.reduce((n, [B]) => n + B, 0), frames = shapes.reduce((n, [B, F]) => n + B * F, 0);
    const report = { step, loss, terms, gradientNorm: normOf("model"), lr, clips, frames, shapes };
    return skipped === undefined ? report : { ...report, skipped };
  }

  /** Mean loss and norms of all gradients by network, read in one wait, during which the next batch is prepared. */
  async #measure(
    { grads, buffers }: Gradients,
    losses: readonly (Tensor | number)[],
  ): Promise<{ readonly loss: number; readonly norms: ReadonlyMap<string, ReadonlyMap<string, number>> }> {
    const { config: { accumulate }, device, networks } = this, step = this.#step;
    const measured = Object.entries(grads).map(([name, own]) => ({
      name,
      network: networks[name],
      measurement: networks[name].measure(own),
    }));
    const tensors = losses.filter((loss) => loss instanceof Tensor);
    const parts = [...tensors, ...measured.flatMap(({ measurement }) => measurement.tensors)];
    const all = unscoped(() => scope(() => concat(parts.map((t) => t.reshape([t.size])), 0)));
    device.flush();
    this.#batches.start((step + 1) * accumulate);
    const values = await all.read();
    let read = tensors.reduce((n, t) => n + t.size, 0);
    const shares = losses.filter((loss) => typeof loss === "number");
    const loss = [...values.subarray(0, read), ...shares].reduce((a, b) => a + b, 0) / accumulate;
    const found = measured.map(({ name, network, measurement }) => {
      const count = measurement.tensors.reduce((n, t) => n + t.size, 0);
      return [name, network.norms(measurement, values.subarray(read, read += count))] as const;
    });
    disposeAll([tensors, measured.map(({ measurement }) => measurement.sums.partial), all]);
    const beyond = found.find(([, { beyond }]) => beyond)?.[1].beyond;
    if (beyond) disposeAll([grads, buffers]);
    stopBeyondHalf(step, beyond);
    return { loss, norms: new Map(found.map(([name, { norms }]) => [name, norms])) };
  }

  /** Gradients of the mean loss of a step's batches. */
  async #gradients() {
    const { config: { accumulate }, objective, networks, device } = this, step = this.#step;
    const losses: (Tensor | number)[] = [], shapes: BatchShape[] = [], terms: Record<string, number> = {};
    let sum: Gradients | undefined;
    for (let i = 0; i < accumulate; i++) {
      const input = await this.#batches.take(step * accumulate + i, i < accumulate - 1);
      const weights = Object.fromEntries(
        Object.entries(networks).map(([name, { params, buffers }]) => [name, {
          params,
          buffers: { ...buffers, ...sum?.buffers?.[name] },
        }]),
      ) as Record<string, NetworkWeights> & { model: NetworkWeights };
      const next = await objective.gradients(weights, input, {
        step,
        scale: 1 / accumulate,
        into: sum?.grads,
      });
      disposeAll(sum?.buffers);
      sum = next;
      checkNames(next, networks);
      losses.push(next.loss);
      shapes.push(input.shape);
      for (const [name, value] of Object.entries(next.terms ?? {})) {
        terms[name] = (terms[name] ?? 0) + value / accumulate;
      }
      if (device.info.name === "cpu") await tick(); // lets timers, signals and other work run
    }
    return { sum: sum!, losses, shapes, terms };
  }

  /** Frees all tensors, the weights and the objective's included. */
  dispose(): void {
    Object.values(this.networks).forEach((network) => network.dispose());
    this.ema?.dispose();
    this.objective.dispose?.();
  }
}

/** Everything that is averaged: all but the number of batches that batch norm has seen. */
export const averaged = (params: Params): Params =>
  Object.fromEntries(Object.entries(params).filter(([name]) => !name.endsWith(".num_batches_tracked")));

/** Refuses gradients and statistics of networks that an objective does not declare. */
function checkNames({ grads, buffers }: Gradients, networks: Readonly<Record<string, unknown>>): void {
  const name = Object.keys({ ...grads, ...buffers }).find((name) => !Object.hasOwn(networks, name));
  if (name === undefined) return;
  throw new RangeError(`Trainer: the objective has gradients of ${name}, a network that it does not declare`);
}

/** Stops a run after too many consecutive skipped steps. */
function stopWhenDiverged(step: number, skipped: string | undefined, inRow: number, limit: number): void {
  if (inRow < limit) return;
  throw new DivergedError(
    `training: ${skipped} at step ${step}, the last of ${inRow} such steps in a row: ` +
      "lower the learning rate, or go back to a checkpoint",
  );
}

/** Stops a run before a step when a weight has outgrown f16, in which it is stored. */
function stopBeyondHalf(step: number, beyond: string | undefined): void {
  if (beyond === undefined) return;
  throw new DivergedError(
    `training: ${beyond} before step ${step}, expected at most ${LARGEST_HALF} for weights stored as f16: lower the ` +
      "learning rate, or continue with mixed_precision no",
  );
}

/** Names of what is not finite. */
function notFinite(
  loss: number,
  terms: Readonly<Record<string, number>>,
  norms: ReadonlyMap<string, number>,
): string | undefined {
  const bad = [...norms].filter(([, norm]) => !Number.isFinite(norm)).map(([name]) => name);
  const names = bad.slice(0, 3).join(", ") + (bad.length > 3 ? ` and ${bad.length - 3} more` : "");
  const term = Object.entries(terms).find(([, value]) => !Number.isFinite(value));
  const value = Number.isFinite(loss)
    ? term && `the loss term ${term[0]} is ${term[1]}`
    : `the loss is ${loss}`;
  if (value) return value + (bad.length > 0 ? ` (gradients of ${names} too)` : "");
  return bad.length > 0 ? `the gradient of ${names} is not finite` : undefined;
}
