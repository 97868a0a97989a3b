/**
 * Timestep and condition embeddings, and the modulation of every block that follows from them.
 *
 * The modulation depends only on a frame's timestep and condition. The authors compute it for every token, a third of
 * their arithmetic; here each distinct pair is one row of a table, and tokens point to their row.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { activation, embed, linear } from "../ops.ts";
import { layerOf, param, type Params } from "../params.ts";
import { Tensor } from "../tensor.ts";
import type { FarConfig } from "./config.ts";
import type { Call, Layout } from "./layout.ts";
import { TIMESTEP_FREQUENCIES } from "./timestep_frequencies.ts";

/** Timestep of clean short-term frames (stochastic clean context; paper, section 3.2). */
export const CLEAN_TIMESTEP: number = -1;

/** Long-term frames have this many times their timestep, as trained: -2, because they are always clean. */
const LONG_TERM_FACTOR = 2;

/**
 * Features [cos(t f) | sin(t f)] of timesteps, `[R, 256]`. The product is rounded to f32 as in the authors' code.
 *
 * @param timesteps Raw values 0 … 1000, -1 for clean frames, -2 for long-term frames of FAR-Long.
 */
export function timestepFeatures(timesteps: ArrayLike<number>): Float32Array {
  const half = TIMESTEP_FREQUENCIES.length, features = new Float32Array(timesteps.length * 2 * half);
  for (let r = 0; r < timesteps.length; r++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(Math.fround(timesteps[r]) * TIMESTEP_FREQUENCIES[i]);
      features[r * 2 * half + i] = Math.cos(angle);
      features[r * 2 * half + half + i] = Math.sin(angle);
    }
  }
  return features;
}

/** Conditions of a clip. */
export interface Conditions {
  /** `[B, F]` actions, or the null index `classes`. */
  readonly actions?: ArrayLike<number>;
  /** `[B]` labels, or the null index. */
  readonly label?: ArrayLike<number>;
}

/** Index of the null condition. */
export const nullCondition = (config: FarConfig): number => config.condition?.classes ?? 0;

/**
 * The condition index of each frame, `[B, F]`.
 *
 * @throws {RangeError} If conditions are missing, too few, or out of range.
 */
export function frameConditions(config: FarConfig, B: number, F: number, given: Conditions): Int32Array {
  const out = new Int32Array(B * F);
  if (!config.condition) return out;
  const { type, classes } = config.condition, values = type === "action" ? given.actions : given.label;
  const expected = type === "action" ? B * F : B;
  if (!values || values.length !== expected) {
    throw new RangeError(
      `far: ${type} has ${values?.length ?? "no"} values, expected ${expected} (B=${B}, F=${F})`,
    );
  }
  for (let i = 0; i < B * F; i++) {
    const value = values[type === "action" ? i : Math.floor(i / F)];
    if (!Number.isInteger(value) || value < 0 || value > classes) {
      throw new RangeError(`far: ${type} is ${value}, expected 0 to ${classes - 1} (or ${classes} for none)`);
    }
    out[i] = value;
  }
  return out;
}

/** Timestep and condition of every frame. */
export interface FrameInputs {
  /** Frames F of a clip. */
  readonly frames: number;
  /** `[B, F]` timesteps 0 … 1000, -1 for clean frames. */
  readonly timesteps: ArrayLike<number>;
  /** `[B, F]` condition indices, from {@linkcode frameConditions}. */
  readonly conditions: ArrayLike<number>;
}

/** Distinct (timestep, condition) pairs, numbered in order of appearance. */
export class ConditionRows {
  readonly #rows = new Map<string, number>();
  /** Timestep of each row. */
  readonly timesteps: number[] = [];
  /** Condition index of each row. */
  readonly conditions: number[] = [];

  /** The row of a pair; a new one if it has not been seen. */
  row(timestep: number, condition: number): number {
    const key = `${timestep} ${condition}`;
    let row = this.#rows.get(key);
    if (row === undefined) {
      this.#rows.set(key, row = this.timesteps.length);
      this.timesteps.push(timestep);
      this.conditions.push(condition);
    }
    return row;
  }

  /** The row of each token of a call, `[T]`. */
  ofTokens(layout: Layout, { timesteps, conditions, frames }: FrameInputs): Int32Array {
    const out = new Int32Array(layout.tokens);
    for (const { kind, row, count } of layout.parts) {
      const factor = kind === "longTerm" ? LONG_TERM_FACTOR : 1;
      for (let t = row; t < row + count; t++) {
        const i = layout.clip[t] * frames + layout.frame[t];
        out[t] = this.row(factor * timesteps[i], conditions[i]);
      }
    }
    return out;
  }
}

/** Modulation tables of a model: columns [shift | scale | gate] in the blocks, [scale | shift] at the output. */
export interface Modulation {
  /** Per block, `[R, 3D]` for the attention and for the MLP branch. */
  readonly blocks: readonly { readonly attention: Tensor; readonly mlp: Tensor }[];
  /** `[R, 2D]`. */
  readonly output: Tensor;
}

/** Conditions of a call, on a device. */
export interface Conditioning {
  /** The tables. */
  readonly modulation: Modulation;
  /** `[T]` i32: modulation row of each token. */
  readonly rows: Tensor;
  /** `[B·N]` i32: that of the last frame's tokens, where the last block computes no others. */
  readonly lastRows?: Tensor;
}

/** Conditions calls, all on the same tables: those of every Euler step of a frame, say. */
export function conditionCalls(
  device: Device,
  params: Params,
  config: FarConfig,
  calls: readonly { readonly call: Call; readonly inputs: FrameInputs }[],
): Conditioning[] {
  const table = new ConditionRows();
  const rows = calls.map(({ call, inputs }) => table.ofTokens(call.layout, inputs));
  const modulation = modulationOf(device, params, config, table);
  return calls.map(({ call: { last } }, i) => ({
    modulation,
    rows: Tensor.from(device, rows[i]),
    ...(last ? { lastRows: Tensor.from(device, last.tokens.map((t) => rows[i][t])) } : {}),
  }));
}

/** Embedding of each row's timestep and condition, `[R, D]` (before SiLU). */
export function conditionEmbedding(
  device: Device,
  params: Params,
  config: FarConfig,
  rows: ConditionRows,
): Tensor {
  const R = rows.timesteps.length;
  const features = Tensor.from(device, timestepFeatures(rows.timesteps), [
    R,
    2 * TIMESTEP_FREQUENCIES.length,
  ]);
  const first = layerOf(params, "timestep_embedder.linear_1"),
    second = layerOf(params, "timestep_embedder.linear_2");
  const hidden = linear(features, first.w, { bias: first.bias, act: "silu" }); // [R, D]
  const time = linear(hidden, second.w, { bias: second.bias }); // [R, D]
  if (!config.condition) return time;
  const table = param(params, `${config.condition.type}_embedder.embedding_table.weight`); // [classes + 1, D]
  return embed(table, Tensor.from(device, Int32Array.from(rows.conditions)), time);
}

/** Modulation tables for all rows. */
export function modulationOf(
  device: Device,
  params: Params,
  config: FarConfig,
  rows: ConditionRows,
): Modulation {
  const embedding = activation(conditionEmbedding(device, params, config, rows), "silu"); // [R, D]
  const table = (name: string) => {
    const { w, bias } = layerOf(params, name);
    return linear(embedding, w, { bias });
  };
  const blocks = Array.from({ length: config.layers }, (_, i) => ({
    attention: table(`transformer_blocks.${i}.norm1.linear`), // [R, 3D]
    mlp: table(`transformer_blocks.${i}.norm2.linear`), // [R, 3D]
  }));
  return { blocks, output: table("norm_out.linear") };
}
