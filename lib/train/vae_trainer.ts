/**
 * The training loop of the autoencoder: L1 and LPIPS, from a given step a PatchGAN against the decoder (the authors' DC-AE
 * trainer). Its checkpoints, batches, warm-up and skipping are those of the transformer's loop.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import type { DcaeConfig } from "../dcae/config.ts";
import { dcaeShapes } from "../dcae/config.ts";
import { discriminatorShapes, initialDiscriminator } from "../dcae/discriminator.ts";
import { accumulate as addInto, concat } from "../ops.ts";
import { isBuffer, type Params, splitBuffers, type WeightStorage } from "../params.ts";
import { disposeAll, scope, type Shape, Tensor, unscoped } from "../tensor.ts";
import { AdamW, type AdamWOptions, clipFactor, Ema, normsOf, squareSums } from "./adamw.ts";
import { Ahead, tick } from "./ahead.ts";
import { storeWeights } from "./half.ts";
import {
  entriesOf,
  latestState,
  momentsOf,
  readTensors,
  type SavedRun,
  type SavedState,
  type SaveOptions,
  writeCheckpoint,
} from "./checkpoint.ts";
import {
  type BatchSource,
  notFinite,
  type SavedTensors,
  type StepReport,
  stopBeyondHalf,
  stopWhenDiverged,
  type TrainerState,
} from "./trainer.ts";
import { rateFactor, type RateSchedule } from "./rate.ts";
import type { TrainBatch } from "./objective.ts";
import {
  adversarialStep,
  reconstructionStep,
  type VaeLosses,
  type VaeObjective,
  type VaeStep,
} from "./vae_loss.ts";

/** Configuration of the autoencoder's training. */
export interface VaeTrainerConfig extends AdamWOptions, WeightStorage, RateSchedule {
  /** The autoencoder. */
  readonly model: DcaeConfig;
  /** Learning rate after the warm-up. */
  readonly lr: number;
  /** The discriminator's optimiser. */
  readonly critic: AdamWOptions & { readonly lr: number };
  /** Factor of LPIPS; null trains without it. */
  readonly perceptualWeight: number | null;
  /** Factor of the adversarial loss, before the adaptive weight. */
  readonly discriminatorWeight: number;
  /** First step with the discriminator; the encoder is frozen from then on. */
  readonly discriminatorStart: number;
  /** Gradients of the autoencoder and of the discriminator are each scaled down to this L2 norm; null leaves them alone. */
  readonly maxGradNorm: number | null;
  /** Decay of the averaged weights and batch-norm statistics; null keeps none. */
  readonly emaDecay: number | null;
  /** Batches per step: their mean loss is differentiated. Batch norm sees each one alone. */
  readonly accumulate: number;
  /** Recompute each block in the backward pass instead of keeping its activations. */
  readonly checkpoint: boolean;
  /** Seed of everything random. */
  readonly seed: number;
  /** The run stops after this many consecutive steps whose loss or gradient is not finite. */
  readonly nonFiniteLimit: number;
}

/** Report of a training step. */
export interface VaeStepReport extends StepReport {
  /** Loss terms, means over the step's batches. */
  readonly terms: VaeLosses;
}

/** A checkpoint: the autoencoder's weights, batch-norm statistics, moments and averages, and the discriminator. */
export interface SavedVae extends SavedRun {
  /** The discriminator: weights and statistics, moments. */
  readonly critic: {
    readonly params: Readonly<Record<string, Float32Array>>;
    readonly m: Record<string, Float32Array>;
    readonly v: Record<string, Float32Array>;
  };
}

const NO_LOSSES: VaeLosses = {
  reconstruction: 0,
  perceptual: 0,
  generator: 0,
  adaptiveWeight: 0,
  discriminator: 0,
};

/** A network with its optimiser. */
interface Network {
  readonly params: Params;
  readonly buffers: Params;
  readonly optimizer: AdamW;
}

/** Trains an autoencoder. */
export class VaeTrainer {
  /** Where it trains. */
  readonly device: Device;
  /** How. */
  readonly config: VaeTrainerConfig;
  /** The autoencoder's weights, as they are computed with, and batch-norm statistics, updated in place. */
  readonly params: Params;
  /** Averaged weights and statistics, if any. */
  readonly ema: Ema | null;
  readonly #autoencoder: Network;
  readonly #critic: Network;
  readonly #perceptual: Params | null;
  readonly #batches: Ahead<TrainBatch>;
  #step: number;
  #skippedInRow: number;

  private constructor(
    device: Device,
    config: VaeTrainerConfig,
    networks: { readonly autoencoder: Network; readonly critic: Network; readonly perceptual: Params | null },
    ema: Ema | null,
    source: BatchSource,
    state: TrainerState,
  ) {
    this.device = device;
    this.config = config;
    this.#autoencoder = networks.autoencoder;
    this.#critic = networks.critic;
    this.#perceptual = networks.perceptual;
    this.params = { ...networks.autoencoder.params, ...networks.autoencoder.buffers };
    this.ema = ema;
    this.#batches = new Ahead((position) => source.batch(position));
    this.#step = state.step;
    this.#skippedInRow = state.skippedInRow;
  }

  /**
   * Starts a run, or resumes a saved one.
   *
   * @param params The autoencoder's weights and statistics, f32; the trainer owns them from now on.
   * @param perceptual Weights of VGG16 and its heads, from `loadPerceptual`; the trainer owns them. Null where the
   * configuration has no perceptual weight.
   * @param source Frames in [-1, 1] as `latents` of its batches, `[B, F, 3, H, W]`.
   * @throws {Error} If the configuration has a perceptual weight and there are no weights of VGG16.
   * @throws {RangeError} If matrices are to be stored as f16, which holds at most 65504, and one of them holds more.
   */
  static async start(
    device: Device,
    params: Params,
    perceptual: Params | null,
    config: VaeTrainerConfig,
    source: BatchSource,
    saved?: Pick<SavedVae, "state" | "tensors" | "critic">,
  ): Promise<VaeTrainer> {
    if (config.perceptualWeight !== null && !perceptual) {
      throw new Error(
        "VaeTrainer: perceptualWeight is set and the weights of VGG16 are missing: give them, or set it to null",
      );
    }
    const state = saved?.state ?? { step: 0, updates: 0, skippedInRow: 0, criticUpdates: 0 };
    const network = async (
      all: Params,
      options: AdamWOptions,
      steps: number,
      moments?: Pick<SavedTensors, "m" | "v">,
    ): Promise<Network> => {
      const { params: weights, buffers } = splitBuffers(all);
      const { params, masters } = await storeWeights(weights, config);
      const optimizer = new AdamW(params, options, moments && { steps, ...moments }, masters);
      return { params, buffers, optimizer };
    };
    const critic = saved
      ? placed(device, discriminatorShapes(), saved.critic.params)
      : initialDiscriminator(device, config.seed);
    const networks = {
      autoencoder: await network(params, config, state.updates, saved?.tensors),
      critic: await network(critic, config.critic, state.criticUpdates ?? 0, saved?.critic),
      perceptual,
    };
    const { params: stored, buffers, optimizer } = networks.autoencoder;
    const ema = config.emaDecay === null ? null : await Ema.start(
      averaged({ ...stored, ...buffers }),
      config.emaDecay,
      saved?.tensors.ema,
      optimizer,
    );
    return new VaeTrainer(device, config, networks, ema, source, state);
  }

  /** State to save beside the tensors. */
  get state(): TrainerState {
    return {
      step: this.#step,
      updates: this.#autoencoder.optimizer.steps,
      skippedInRow: this.#skippedInRow,
      criticUpdates: this.#critic.optimizer.steps,
    };
  }

  /** Constants of its losses. */
  get objective(): VaeObjective {
    const { model, perceptualWeight, discriminatorWeight, checkpoint } = this.config;
    const perceptual = this.#perceptual && perceptualWeight !== null
      ? { weights: this.#perceptual, weight: perceptualWeight }
      : null;
    return { config: model, perceptual, discriminatorWeight, checkpoint };
  }

  /** Learning rate of the autoencoder in the next step. */
  get lr(): number {
    return this.config.lr * rateFactor(this.#step, this.config);
  }

  /**
   * One step. When a loss or a gradient is not finite, nothing is changed and the report says what it was.
   *
   * @throws {DivergedError} After `nonFiniteLimit` such steps in a row: what was not finite. When a weight that is stored as
   * f16 has outgrown it: which.
   */
  async step(): Promise<VaeStepReport> {
    const { config, device } = this, { accumulate } = config, lr = this.lr;
    const adversarial = this.#step >= config.discriminatorStart, shapes: TrainBatch["shape"][] = [];
    let terms = NO_LOSSES, last: VaeStep | undefined;
    for (let i = 0; i < accumulate; i++) {
      const batch = await this.#batches.take(this.#step * accumulate + i, i < accumulate - 1);
      const next = await this.#batchStep(batch, adversarial, last);
      if (i === accumulate - 1) this.#batches.start((this.#step + 1) * accumulate);
      disposeAll([last?.running, last?.discriminator?.running]);
      last = next;
      terms = Object.fromEntries(
        Object.entries(terms).map(([k, v]) => [k, v + next.losses[k as keyof VaeLosses] / accumulate]),
      ) as unknown as VaeLosses;
      shapes.push(batch.shape);
      if (device.info.name === "cpu") await tick();
    }
    const loss = terms.reconstruction + (config.perceptualWeight ?? 0) * terms.perceptual +
      terms.generator;
    const { norms, beyond } = await measured(this.#autoencoder, last!.grads);
    const gradientNorm = Math.hypot(...norms.values());
    const { norms: criticNorms, beyond: criticBeyond } = last!.discriminator
      ? await measured(this.#critic, last!.discriminator.grads, "discriminator.")
      : { norms: null };
    const outgrown = beyond ?? criticBeyond;
    if (outgrown) disposeAll([last!.grads, last!.running, last!.discriminator]);
    stopBeyondHalf(this.#step, outgrown);
    const skipped = notFinite(loss + terms.discriminator, new Map([...norms, ...(criticNorms ?? [])]));
    if (skipped === undefined) {
      const clip = (norm: number) => config.maxGradNorm === null ? 1 : clipFactor(norm, config.maxGradNorm);
      const { params, buffers, optimizer } = this.#autoencoder, critic = this.#critic;
      const trained = Object.fromEntries(Object.keys(last!.grads).map((n) => [n, params[n]]));
      await optimizer.step(trained, last!.grads, lr, clip(gradientNorm));
      assign(buffers, last!.running);
      if (last!.discriminator) {
        const { grads, running } = last!.discriminator, norm = Math.hypot(...criticNorms!.values());
        const rate = config.critic.lr * rateFactor(this.#step, config);
        await critic.optimizer.step(critic.params, grads, rate, clip(norm));
        assign(critic.buffers, running);
      }
      await this.ema?.update(averaged(this.params), optimizer);
    }
    disposeAll([last!.grads, last!.running, last!.discriminator]);
    if (device.info.name === "cpu") await tick();
    this.#skippedInRow = skipped === undefined ? 0 : this.#skippedInRow + 1;
    const step = this.#step++;
    stopWhenDiverged(step, skipped, this.#skippedInRow, config.nonFiniteLimit);
    const clips = shapes.reduce((n, [B]) => n + B, 0), frames = shapes.reduce((n, [B, F]) => n + B * F, 0);
    return { step, loss, terms, gradientNorm, lr, clips, frames, shapes, ...(skipped ? { skipped } : {}) };
  }

  /** Gradients of one batch, added to those of the step's earlier batches. */
  async #batchStep(batch: TrainBatch, adversarial: boolean, before: VaeStep | undefined): Promise<VaeStep> {
    const { config, objective } = this,
      { params, buffers } = this.#autoencoder,
      [B, F, C, H, W] = batch.shape;
    using x = unscoped(() => Tensor.from(this.device, batch.latents, [B * F, C, H, W]));
    const sums = {
      scale: 1 / config.accumulate,
      into: before && { grads: before.grads, discriminator: before.discriminator?.grads },
    };
    const statistics = { ...buffers, ...before?.running };
    if (!adversarial) return await reconstructionStep(objective, params, statistics, x, sums);
    const critic = {
      params: this.#critic.params,
      buffers: { ...this.#critic.buffers, ...before?.discriminator?.running },
    };
    return await adversarialStep(objective, { params, buffers: statistics }, critic, x, sums);
  }

  /**
   * Saves the run between two steps, in the layout of the transformer's checkpoints, with `critic.safetensors` and
   * `critic_optimizer.safetensors` beside it. `model` and `ema` hold the batch-norm statistics too, so either one is a
   * whole autoencoder.
   *
   * @param folder Where the run's checkpoints are.
   * @returns The folder of the new one.
   */
  async save(folder: string, options: SaveOptions = {}): Promise<string> {
    const { params, ema } = this, critic = { ...this.#critic.params, ...this.#critic.buffers };
    const { optimizer } = this.#autoencoder, averages = averaged(params);
    const weight = (name: string) => optimizer.weight(params, name);
    const files = {
      model: entriesOf(params, weight),
      ...(ema
        ? { ema: entriesOf(params, (name) => averages[name] ? ema.shadow.read(name) : weight(name)) }
        : {}),
      optimizer: momentsOf(this.#autoencoder.params, optimizer),
      critic: entriesOf(critic, (name) => this.#critic.optimizer.weight(critic, name)),
      critic_optimizer: momentsOf(this.#critic.params, this.#critic.optimizer),
    };
    return await writeCheckpoint(folder, files, this.state, this.config, options);
  }

  /** Gives all tensors back, the weights too. */
  dispose(): void {
    for (const { optimizer, params, buffers } of [this.#autoencoder, this.#critic]) {
      optimizer.dispose();
      disposeAll([params, buffers]);
    }
    this.ema?.dispose();
    disposeAll(this.#perceptual);
  }
}

/** What the moving average follows: everything but the number of batches, which `save` copies. */
const averaged = (params: Params): Params =>
  Object.fromEntries(Object.entries(params).filter(([name]) => !name.endsWith(".num_batches_tracked")));

/** Puts new statistics in the place of old ones. */
function assign(buffers: Params, running: Params): void {
  scope(() => Object.entries(running).forEach(([name, t]) => addInto(buffers[name], t, 1, 0)));
}

/** Norms of a network's gradients by name, and a weight that has outgrown f16: one wait. */
async function measured(
  { optimizer }: Network,
  grads: Params,
  prefix = "",
): Promise<{ readonly norms: Map<string, number>; readonly beyond?: string }> {
  const sums = unscoped(() => squareSums(grads)), sizes = optimizer.sizes ? [optimizer.sizes] : [];
  using all = unscoped(() => scope(() => concat([sums.partial, ...sizes], 0)));
  const values = await all.read(), beyond = optimizer.beyondHalf(values.subarray(sums.partial.size));
  sums.partial.dispose();
  const norms = new Map([...normsOf(sums, values)].map(([name, norm]) => [prefix + name, norm]));
  return { norms, ...(beyond ? { beyond: prefix + beyond } : {}) };
}

/** Values on a device, under their names. */
export function placed(
  device: Device,
  shapes: Readonly<Record<string, Shape>>,
  values: Readonly<Record<string, Float32Array>>,
): Params {
  return unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, Tensor.from(device, values[name], shape)]),
    )
  );
}

/** Reads the tensors of a checkpoint of an autoencoder's run. */
export function readVae(saved: SavedState, model: DcaeConfig, ema: boolean): SavedVae {
  const shapes = dcaeShapes(model), critic = discriminatorShapes();
  const trained = (all: Readonly<Record<string, Shape>>) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => !isBuffer(name)));
  const read = (file: string, of: Readonly<Record<string, Shape>>, prefix = "") =>
    readTensors(`${saved.path}/${file}.safetensors`, of, prefix);
  return {
    ...saved,
    params: read("model", shapes),
    tensors: {
      m: read("optimizer", trained(shapes), "m."),
      v: read("optimizer", trained(shapes), "v."),
      ...(ema && "ema.safetensors" in saved.files ? { ema: read("ema", shapes) } : {}),
    },
    critic: {
      params: read("critic", critic),
      m: read("critic_optimizer", trained(critic), "m."),
      v: read("critic_optimizer", trained(critic), "v."),
    },
  };
}

/**
 * Reads the newest checkpoint of an autoencoder's run, or null where there is none.
 *
 * @param ema Whether averaged weights are wanted; a run that had none starts them from its weights.
 * @throws {FileFormatError} If it is damaged or belongs to another model: who, expected, found.
 */
export function latestVae(folder: string, model: DcaeConfig, ema: boolean): SavedVae | null {
  const saved = latestState(folder);
  return saved && readVae(saved, model, ema);
}
