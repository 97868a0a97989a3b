/**
 * Configurations of FAR and FAR-Long, and the parameters that each one has.
 *
 * @module
 */
import { didYouMean, named } from "../nearest.ts";
import { printable, show } from "../io/errors.ts";
import { isBuffer, MOST_PARAMETERS } from "../params.ts";
import { type Shape, sizeOf } from "../tensor.ts";

/** Configuration of the conditioning. */
export interface ConditionConfig {
  /** `label`: one class per clip. `action`: one class per frame. */
  readonly type: "label" | "action";
  /** Number of classes; the embedding table has one more row, the null condition of classifier-free guidance. */
  readonly classes: number;
}

/** A FAR (`long` false) or FAR-Long transformer (paper, sections 3.1 and 3.3). */
export interface FarConfig {
  /** FAR-Long: long-term frames are patchified with `longTermPatchSize` and have projections of their own. */
  readonly long: boolean;
  /** Latent positions of a token along one axis. */
  readonly patchSize: number;
  /** Patch size of long-term frames (FAR-Long only). */
  readonly longTermPatchSize: number;
  /** Latent channels read. */
  readonly inChannels: number;
  /** Latent channels predicted. */
  readonly outChannels: number;
  /** Blocks. */
  readonly layers: number;
  /** Attention heads. */
  readonly heads: number;
  /** Channels of a head. */
  readonly headDim: number;
  /** Rotary channels of the frame, row and column axis; they sum to `headDim`. */
  readonly ropeAxes: readonly [number, number, number];
  /** Temporal decay added to visible scores: slope · (key frame - query frame). The shipped models use 0. */
  readonly slopeScale: number;
  /** Frames of the short-term context (the noisy one included); earlier ones are long-term context. */
  readonly window: number;
  /** Labels, actions or nothing. */
  readonly condition: ConditionConfig | null;
  /**
   * Kind of the model's outputs: the `velocity`, as in the paper, or the clean `latents` (x-prediction, as in arXiv
   * 2511.13720): a token may then hold more numbers than the model has channels, because its noise need not pass through.
   */
  readonly prediction: "velocity" | "latents";
}

/** Channels of a token. */
export const widthOf = (config: FarConfig): number => config.heads * config.headDim;

const base: FarConfig = {
  long: false,
  patchSize: 1,
  longTermPatchSize: 4,
  inChannels: 32,
  outChannels: 32,
  layers: 12,
  heads: 12,
  headDim: 64,
  ropeAxes: [16, 24, 24],
  slopeScale: 0,
  window: 16,
  condition: null,
  prediction: "velocity",
};

/** The authors' models (paper, Table 1), without condition; see {@linkcode farConfig} to add one. */
export const FAR_MODELS: Readonly<Record<string, FarConfig>> = named({
  FAR_B: base,
  FAR_M: { ...base, heads: 16 },
  FAR_L: { ...base, layers: 24, heads: 16 },
  FAR_XL: { ...base, layers: 28, heads: 18 },
  FAR_B_Long: { ...base, long: true },
  FAR_M_Long: { ...base, long: true, heads: 16 },
});

type Json = Readonly<Record<string, unknown>>;

/** Smallest and largest value of every size; far beyond any model, far below what would keep a machine busy for nothing. */
const SIZES = {
  patch_size: ["patchSize", 1, 64],
  context_patch_size: ["longTermPatchSize", 1, 256],
  in_channels: ["inChannels", 1, 16384],
  out_channels: ["outChannels", 1, 16384],
  num_layers: ["layers", 1, 1024],
  num_attention_heads: ["heads", 1, 1024],
  attention_head_dim: ["headDim", 1, 1024],
  short_term_ctx_winsize: ["window", 1, 65536],
} as const;

const WIDEST = 65536;
const MOST_CLASSES = 1_000_000;
const STEEPEST = 1e6;

const whole = (who: string, key: string, value: unknown, least: number, most: number): number => {
  if (typeof value !== "number" || Number.isNaN(value)) {
    throw new TypeError(`${who}: ${key} is ${show(value)}, expected a number`);
  }
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`${who}: ${key} is ${value}, expected a whole number from ${least} to ${most}`);
};

const KEYS = named<(value: unknown, who: string) => Partial<FarConfig>>({
  ...Object.fromEntries(
    Object.entries(SIZES).map(([key, [name, least, most]]) => [
      key,
      (value: unknown, who: string) => ({ [name]: whole(who, key, value, least, most) }),
    ]),
  ),
  slope_scale: (v, w) => {
    if (typeof v === "number" && Math.abs(v) <= STEEPEST) return { slopeScale: v };
    throw new TypeError(`${w}: slope_scale is ${show(v)}, expected a number up to ${STEEPEST}`);
  },
  axes_dims_rope: (v, w) => {
    if (!Array.isArray(v) || v.length !== 3) {
      throw new TypeError(`${w}: axes_dims_rope is ${show(v)}, expected three numbers`);
    }
    const axes = v.map((n) => whole(w, "axes_dims_rope", n, 0, 1024));
    return { ropeAxes: axes as [number, number, number] };
  },
  prediction: (v, w) => {
    if (v === "velocity" || v === "latents") return { prediction: v };
    throw new TypeError(`${w}: prediction is ${show(v)}, expected "velocity" or "latents"`);
  },
  condition_cfg: (v, w) => ({ condition: v === null || v === undefined ? null : parseCondition(v, w) }),
});

function parseCondition(json: unknown, who: string): ConditionConfig {
  if (typeof json !== "object" || Array.isArray(json)) {
    throw new TypeError(`${who}: condition_cfg is ${show(json)}, expected a mapping`);
  }
  const { type, num_classes, num_action_classes, ...rest } = json as Json;
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) {
    throw new TypeError(
      unknownKey(`${who}: condition_cfg`, unknown, ["type", "num_classes", "num_action_classes"]),
    );
  }
  const classes = (key: string, value: unknown) => whole(who, `condition_cfg.${key}`, value, 1, MOST_CLASSES);
  const surplus = (key: string, value: unknown) => {
    if (value !== undefined) {
      throw new TypeError(`${who}: condition_cfg.${key} does not go with type ${show(type)}`);
    }
  };
  if (type === "label") {
    surplus("num_action_classes", num_action_classes);
    return { type, classes: classes("num_classes", num_classes) };
  }
  if (type === "action") {
    surplus("num_classes", num_classes);
    return { type, classes: classes("num_action_classes", num_action_classes) };
  }
  throw new TypeError(`${who}: condition_cfg.type is ${show(type)}, expected "label" or "action"`);
}

function unknownKey(who: string, key: string, known: readonly string[]): string {
  return `${who}: unknown key ${printable(key)}${didYouMean(key, known) || `; known: ${known.join(", ")}`}`;
}

/**
 * A configuration from the authors' option files: `init_cfg.type` and `init_cfg.config`.
 *
 * @param type `FAR_B`, `FAR_M`, `FAR_L`, `FAR_XL`, `FAR_B_Long`, `FAR_M_Long`, or `FAR` and `FAR_Long` for the classes
 * themselves with every key in `config`.
 * @param config The authors' keys (`num_layers`, `condition_cfg` …); missing ones keep the model's values.
 * @throws {TypeError} On an unknown model or key (with the nearest known one) or a value of the wrong type.
 * @throws {RangeError} If a size is out of its bounds, or the sizes do not fit each other.
 *
 * @example
 * ```ts
 * import { farConfig } from "../../mod.ts";
 * const config = farConfig("FAR_B_Long", { condition_cfg: { type: "action", num_action_classes: 4 } });
 * console.assert(config.condition?.classes === 4 && config.window === 16);
 * ```
 */
export function farConfig(type: string, config: Readonly<Record<string, unknown>> = {}): FarConfig {
  const start = type === "FAR" ? base : type === "FAR_Long" ? { ...base, long: true } : FAR_MODELS[type];
  if (!start) {
    throw new TypeError(unknownKey("farConfig", type, [...Object.keys(FAR_MODELS), "FAR", "FAR_Long"]));
  }
  let result: FarConfig = start;
  for (const [key, value] of Object.entries(config)) {
    const parse = KEYS[key];
    if (!parse) throw new TypeError(unknownKey(`farConfig: ${type}`, key, Object.keys(KEYS)));
    result = { ...result, ...parse(value, `farConfig: ${type}`) };
  }
  checkConfig(result, type);
  return result;
}

function checkConfig(c: FarConfig, who: string): void {
  const fail = (text: string) => {
    throw new RangeError(`farConfig: ${who}: ${text}`);
  };
  const width = widthOf(c);
  if (width > WIDEST) {
    fail(
      `num_attention_heads ${c.heads} times attention_head_dim ${c.headDim} is ${width}, expected at most ${WIDEST}`,
    );
  }
  if (c.outChannels !== c.inChannels) {
    fail(
      `out_channels is ${c.outChannels}, expected in_channels ${c.inChannels}: what is predicted is read again`,
    );
  }
  if (c.ropeAxes.some((d) => d % 2 !== 0)) fail(`axes_dims_rope is [${c.ropeAxes}], expected even numbers`);
  const rope = c.ropeAxes[0] + c.ropeAxes[1] + c.ropeAxes[2];
  if (rope !== c.headDim) fail(`axes_dims_rope sum to ${rope}, expected attention_head_dim ${c.headDim}`);
  if (c.long && c.longTermPatchSize % c.patchSize !== 0) {
    fail(`context_patch_size is ${c.longTermPatchSize}, expected a multiple of patch_size ${c.patchSize}`);
  }
  if (c.long && c.condition?.type === "label") {
    fail("FAR-Long is conditioned on actions or on nothing, found label");
  }
  const parameters = countParameters(farShapes(c));
  if (parameters > MOST_PARAMETERS) {
    fail(`all sizes together give ${parameters} parameters, expected at most ${MOST_PARAMETERS}`);
  }
}

/**
 * Every parameter of a model by the authors' state-dict name, with its shape, in their order.
 *
 * A FAR-Long without a condition has no counterpart in the authors' code, which always reads actions; here it is the
 * same model without the table.
 */
export function farShapes(config: FarConfig): Record<string, Shape> {
  const D = widthOf(config), hd = config.headDim, shapes: Record<string, Shape> = {};
  const layer = (name: string, out: number, inputs: number) => {
    shapes[`${name}.weight`] = [out, inputs];
    shapes[`${name}.bias`] = [out];
  };
  layer("x_embedder", D, config.inChannels * config.patchSize ** 2);
  if (config.long) layer("context_embedder", D, config.inChannels * config.longTermPatchSize ** 2);
  layer("timestep_embedder.linear_1", D, 256);
  layer("timestep_embedder.linear_2", D, D);
  if (config.condition) {
    shapes[`${config.condition.type}_embedder.embedding_table.weight`] = [config.condition.classes + 1, D];
  }
  for (let i = 0; i < config.layers; i++) {
    const block = `transformer_blocks.${i}`, last = i === config.layers - 1;
    layer(`${block}.norm1.linear`, 3 * D, D);
    shapes[`${block}.attn.norm_q.weight`] = [hd];
    shapes[`${block}.attn.norm_k.weight`] = [hd];
    for (const name of ["to_q", "to_k", "to_v"]) layer(`${block}.attn.${name}`, D, D);
    if (config.long) {
      for (const name of ["add_k_proj", "add_v_proj", "add_q_proj"]) layer(`${block}.attn.${name}`, D, D);
    }
    layer(`${block}.attn.to_out.0`, D, D);
    if (config.long) {
      if (!last) layer(`${block}.attn.to_add_out`, D, D);
      shapes[`${block}.attn.norm_added_q.weight`] = [hd];
      shapes[`${block}.attn.norm_added_k.weight`] = [hd];
    }
    layer(`${block}.norm2.linear`, 3 * D, D);
    layer(`${block}.mlp.net.0.proj`, 4 * D, D);
    layer(`${block}.mlp.net.2`, D, 4 * D);
  }
  layer("norm_out.linear", 2 * D, D);
  layer("proj_out", config.outChannels * config.patchSize ** 2, D);
  if (config.long) layer("context_proj_out", config.outChannels * config.longTermPatchSize ** 2, D);
  return shapes;
}

/** Number of parameters of a shape list, as PyTorch counts them: batch-norm statistics are none. */
export function countParameters(shapes: Readonly<Record<string, Shape>>): number {
  return Object.entries(shapes).reduce((n, [name, shape]) => n + (isBuffer(name) ? 0 : sizeOf(shape)), 0);
}
