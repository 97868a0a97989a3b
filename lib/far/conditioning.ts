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
import { TIMESTEP_FEATURES, timestepFeatures } from "./timestep.ts";

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
}

/** Modulation tables of a model: columns [shift | scale | gate] in the blocks, [scale | shift] at the output. */
export interface Modulation {
  /** Per block, `[R, 3D]` for the attention and for the MLP branch. */
  readonly blocks: readonly { readonly attention: Tensor; readonly mlp: Tensor }[];
  /** `[R, 2D]`. */
  readonly output: Tensor;
}

/** Embedding of each row's timestep and condition, `[R, D]` (before SiLU). */
export function conditionEmbedding(
  device: Device,
  params: Params,
  config: FarConfig,
  rows: ConditionRows,
): Tensor {
  const R = rows.timesteps.length;
  const features = Tensor.from(device, timestepFeatures(rows.timesteps), [R, TIMESTEP_FEATURES]);
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
